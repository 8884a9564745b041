"""An exported policy acts as the policy does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import modelnative as mn
from modelnative import cli
from modelnative.bridges.export import Begin, History, Step, export
from modelnative.bridges.hub import model_card
from modelnative.errors import UserError
from modelnative.policies.config import PolicyConfig
from modelnative.policies.registry import make_policy
from modelnative.runs.training import Training
from modelnative.tasks.contract.task import AnyTask
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

STATEFUL = [("gru", {}), ("gru", {"reader": "gru"}), ("gru", {"layers": 2}), ("mingru", {}), ("memoryless", {})]


def make(core: str, fields: dict[str, Any], task: AnyTask) -> nn.Module:
    policy = make_policy(task.spec, core, PolicyConfig(**{"width": 16, **fields}))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return policy


def act(task: AnyTask, n: int, begin: Any, step: Any) -> tuple[list[list[int]], list[Tensor]]:
    """The greedy tokens of n episodes, and the log-probabilities before each."""
    stage = torch.arange(n) % len(task.spec.stages)
    problems = task.sample(stage, torch.Generator().manual_seed(0))
    memory, state = begin(problems.context, problems.stage), task.begin(problems)
    token, tokens, seen = torch.full((n,), task.spec.start), [], []
    for _ in range(task.spec.horizon):
        log_probs, _, *memory = step(token, task.feedback(state), *memory)
        token = log_probs.argmax(1)
        tokens.append(token)
        seen.append(log_probs)
        state = task.step(state, token).state
    return torch.stack(tokens, 1).tolist(), seen


def reference(task: AnyTask, policy: nn.Module, n: int) -> tuple[list[list[int]], list[Tensor]]:
    """The same by the policy itself."""
    problems = task.sample(torch.arange(n) % len(task.spec.stages), torch.Generator().manual_seed(0))
    memory, state = policy.initial_state(problems), task.begin(problems)  # type: ignore[operator]
    token, tokens, seen = torch.full((n,), task.spec.start), [], []
    for _ in range(task.spec.horizon):
        output = policy(token[None], task.feedback(state)[None], memory)
        memory, token = output.state, output.log_probs[0].argmax(1)
        tokens.append(token)
        seen.append(output.log_probs[0])
        state = task.step(state, token).state
    return torch.stack(tokens, 1).tolist(), seen


def assert_equal(found: tuple[list[list[int]], list[Tensor]], expected: tuple[list[list[int]], list[Tensor]]) -> None:
    assert found[0] == expected[0]
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one.exp(), other.exp(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("core", "fields"), STATEFUL)
@pytest.mark.parametrize("task", ["arithmetic", "recall"])
@torch.no_grad()
def test_steps_with_an_open_state_are_those_of_the_policy(core: str, fields: dict[str, Any], task: str) -> None:
    made = mn.make(task)
    policy = make(core, fields, made)
    begin = Begin(policy, made.spec)
    for n in (1, 7):
        assert_equal(act(made, n, begin, Step(begin, made.spec)), reference(made, policy, n))


@torch.no_grad()
def test_a_state_that_grows_is_read_anew_at_every_step() -> None:
    task = mn.make("arithmetic")
    policy = make("transformer", {}, task)
    begin = Begin(policy, task.spec)
    with pytest.raises(UserError, match="changes its shape with every token"):
        Step(begin, task.spec)
    assert_equal(act(task, 5, lambda *read: read, whole(History(begin))), reference(task, policy, 5))


def whole(history: Any) -> Any:
    """A program of all tokens so far as one of a token and a state, which is what was read so far."""

    def step(token: Tensor, feedback: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        context, stage, *past = state
        tokens = torch.cat([*past[:1], token[:, None]], 1)
        shown = torch.cat([*past[1:], feedback[:, None]], 1)
        return (*history(context, stage, tokens, shown), context, stage, tokens, shown)

    return step


@pytest.mark.slow  # tracing takes seconds
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["torch", "onnx"])
@pytest.mark.parametrize(("core", "fields"), [*STATEFUL, ("transformer", {})])
@torch.no_grad()
def test_a_thousand_episodes_of_a_written_program(core: str, fields: dict[str, Any], kind: str, tmp_path: Path) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxscript")
    task = mn.make("arithmetic")
    policy = make(core, fields, task)
    files = export(policy, task, tmp_path / "agent", kind)
    programs = {file.stem: load(file) for file in files[1:]}
    if core == "transformer":
        found = act(task, 1000, lambda *read: read, whole(programs["history"]))
    else:
        found = act(task, 1000, programs["begin"], programs["step"])
    assert_equal(found, reference(task, policy, 1000))


@pytest.mark.slow  # trains the default agent
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("operands", ["3 4 5", "9 9 9 1", "3 7 2 4 5", "0 8 1 9 9"])
def test_the_example_acts_without_torch(operands: str, default_agent: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "onnx_agent.py"
    command = [sys.executable, str(example), str(default_agent), *operands.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    a, b, c, d, e = (int(x) for x in [*operands.split(), "0", "0"][:5])
    assert done.stdout.endswith(f"ANS -> {a * b + c - d * (e if operands.count(' ') == 4 else 1)}\n")


@pytest.fixture(scope="module")
def default_agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("default")
    mn.train(out=folder / "run")
    mn.export(folder / "run", folder / "agent")
    return folder / "agent"


def load(file: Path) -> Any:
    if file.suffix == ".pt2":
        return torch.export.load(file).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    state = json.loads((file.parent / "agent.json").read_text())["state"] if file.stem == "step" else ()

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        given = {name: x.numpy() for name, x in zip([*ORDER[file.stem], *state], inputs, strict=True)}
        read = {one.name: given[one.name] for one in session.get_inputs()}  # what a program does not use is not there
        return tuple(map(torch.from_numpy, session.run(None, read)))

    return run


ORDER = {
    "begin": ("context", "stage"),
    "step": ("token", "feedback"),
    "history": ("context", "stage", "tokens", "feedback"),
}


def test_bad_input_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = mn.make("arithmetic")
    policy = make("gru", {}, task)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(UserError, match="format: unknown value 'onx'; did you mean 'onnx'"):
        export(policy, task, tmp_path / "new", "onx")
    with pytest.raises(UserError, match=r"out: .*used' is not allowed; expected a folder that does not exist"):
        export(policy, task, tmp_path / "used", "torch")
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(UserError, match=r"onnx: it is not installed.*pip install 'modelnative\[onnx\]'"):
        export(policy, task, tmp_path / "new", "onnx")
    assert not (tmp_path / "new").exists()


def test_weights_with_a_model_card_are_an_agent_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fields = {"updates": 2, "episodes": 32, "threads": 1, "policy": {"width": 16}, "task": "worlds:Small"}
    for _ in Training.start(tmp_path / "run", with_fields(recipe(), {**fields, "loss": {"minibatches": 4}})).events():
        pass
    arguments = ["export", str(tmp_path / "run"), "--format", "safetensors", "--out", str(tmp_path / "agent")]
    assert cli.run(arguments) == 0
    assert {"README.md", "config.json", "weights.safetensors"} <= {
        Path(p).name for p in capsys.readouterr().out.split()
    }
    one, other = mn.load(tmp_path / "run"), mn.load(tmp_path / "agent")
    assert all(map(torch.equal, one.policy.state_dict().values(), other.policy.state_dict().values()))
    assert mn.evaluate(one) == mn.evaluate(other)
    card = (tmp_path / "agent" / "README.md").read_text()
    assert mn.evaluate(one).line() in card
    assert "heldout" not in card


def test_a_model_card_shows_words_as_they_are(tmp_path: Path) -> None:
    fields = {"updates": 1, "episodes": 16, "threads": 1, "policy": {"width": 8}, "task": "worlds:Small"}
    training = Training.start(tmp_path / "run", with_fields(recipe(), fields))
    list(training.events())
    before = training.run.result_path.read_text()
    training.run.result_path.write_text(before.replace('"T0"', '"a|b`[x](y)"'))
    table = [line for line in model_card(training.run).splitlines() if line.startswith("| ")]
    assert table[2].startswith(r"| a\|b\`\[x\](y) | 0")
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1


def test_the_hub_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'modelnative\[hub\]'"):
        mn.load("hf:user/name")
