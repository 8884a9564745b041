"""Act with an exported agent, without torch: `modelnative export RUN --out agent`, then `onnx_agent.py agent 3 4 5`."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

OPERATORS = {"MUL": int.__mul__, "ADD": int.__add__, "SUB": int.__sub__}


def calculate(keys: list[str]) -> str:
    """What a pocket calculator with one memory shows after these keys: the value so far, or nothing."""
    entry, total, operator, memory = "", "", "", ""
    for key in keys:
        value = shown(entry, total, operator)
        if key.isdigit() or (key == "RCL" and memory):
            entry = key if key.isdigit() else memory
        elif value and (key in OPERATORS or key == "STO"):
            entry, total, operator = "", value, key if key in OPERATORS else ""
            memory = value if key == "STO" else memory
    return shown(entry, total, operator)


def shown(entry: str, total: str, operator: str) -> str:
    """The result of the pending operator, if there is one."""
    return str(OPERATORS[operator](int(total), int(entry))) if operator and entry else entry or total


def play(folder: Path, operands: list[str]) -> list[str]:
    """The keys that the agent presses for a problem of stage T0, T1 or T2."""
    agent = json.loads((folder / "agent.json").read_text())
    begin, step = (onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("begin", "step"))
    words, end = agent["vocabulary"], agent["end"]
    context = [words.index(word) for word in [*operands, "CTX"]]
    context += [end] * (agent["context_length"] - len(context))
    inputs = {"context": np.array([context]), "stage": np.array([len(operands) - 3])}
    state = begin.run(None, {given.name: inputs[given.name] for given in begin.get_inputs()})
    token, keys = agent["start"], list[str]()
    while len(keys) < agent["horizon"] and (not keys or keys[-1] not in ("ANS", "EOS")):
        display = calculate(keys)
        sign, digits = display.startswith("-"), [words.index(digit) for digit in display.lstrip("-")]
        blank = [end] * (agent["feedback_width"] - 1 - len(digits))
        feedback = [words.index("SUB") if sign else end, *blank, *digits]
        seen = {"token": np.array([token]), "feedback": np.array([feedback])}
        seen.update(zip(agent["state"], state, strict=True))
        log_probs, _, *state = step.run(None, {given.name: seen[given.name] for given in step.get_inputs()})
        token = int(log_probs[0].argmax())
        keys.append(words[token])
    return keys


if __name__ == "__main__":
    pressed = play(Path(sys.argv[1]), sys.argv[2:])
    print(*pressed, "->", calculate(pressed))
