"""Take a trained policy away: as ONNX or as a torch program, with its state in the open.

An export is a folder:

    agent.json     vocabulary, stages, sizes, and the names and shapes of the state
    begin.onnx     (context, stage) -> state
    step.onnx      (token, feedback, state) -> log_probs, value, state

or the same with `.pt2`, for `torch.export.load`. The state of some policies grows with every token, such as the keys
and values of a Transformer. They are exported as one program, `history`: (context, stage, tokens, feedback) ->
log_probs, value, which reads all tokens so far at every step.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelnative.errors import UserError, choose
from modelnative.extras import optional
from modelnative.policies.contract import forward_rollout
from modelnative.runs.files import require_new_folder, write_json
from modelnative.tasks.contract.task import AnyTask, TaskSpec

FORMATS = ("onnx", "torch")
OPSET = 20


@dataclass
class Read:
    """What a policy may read of n problems: context, int64 [n, C], and stage, int64 [n]."""

    context: Tensor
    stage: Tensor

    def __len__(self) -> int:
        return len(self.context)


class Begin(nn.Module):
    """The state before the first token: int64 [n, C] and [n] -> tensors, each with n rows.

    Args:
        policy: any policy.
        spec: of its task.

    Attributes:
        names: of the tensors.
    """

    def __init__(self, policy: nn.Module, spec: TaskSpec) -> None:
        super().__init__()
        self.policy = policy
        shapes = [{name: x.shape for name, x in tensors(self._state(_blank(spec, n))).items()} for n in (2, 3)]
        self.names = [name for name in shapes[0] if shapes[0][name] != shapes[1][name] and 0 not in shapes[0][name]]

    def forward(self, context: Tensor, stage: Tensor) -> tuple[Tensor, ...]:
        found = tensors(self._state(Read(context, stage)))
        return tuple(found[name].clone() for name in self.names)

    def _state(self, problems: Read) -> Any:
        initial: Callable[[Read], Any] = self.policy.initial_state  # type: ignore[assignment]
        return initial(problems)


class Step(nn.Module):
    """One token: int64 [n] and [n, F], and the state -> log-probabilities [n, V] and value [n] of what follows, state.

    Args:
        begin: of the same policy.
        spec: of its task.

    Raises:
        UserError: the state grows, or holds numbers that change.
    """

    def __init__(self, begin: Begin, spec: TaskSpec) -> None:
        super().__init__()
        self.policy, self.names = begin.policy, begin.names
        problems = _blank(spec, 2)
        self.template = begin._state(problems)
        after = self.policy(*_first(spec, 2), self.template).state
        if layout(after) != layout(self.template):
            raise UserError("export: the state of this policy changes its shape with every token")

    def forward(self, token: Tensor, feedback: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        before = with_tensors(self.template, dict(zip(self.names, state, strict=True)), token.shape[0])
        output = self.policy(token[None], feedback[None], before)
        after = tensors(output.state)
        return output.log_probs[0], output.value[0], *(after[name].clone() for name in self.names)


class History(nn.Module):
    """All tokens so far: int64 [n, C], [n], [n, T] and [n, T, F] -> log-probabilities [n, V] and value [n] of the next.

    Args:
        begin: of the policy.
    """

    def __init__(self, begin: Begin) -> None:
        super().__init__()
        self.begin = begin

    def forward(self, context: Tensor, stage: Tensor, tokens: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor]:
        n, steps = tokens.shape
        lengths, last = tokens.new_full((n,), steps), (steps - 1) * n + torch.arange(n)
        seen = (tokens.t(), feedback.transpose(0, 1))
        output = forward_rollout(self.begin.policy, Read(context, stage), *seen, lengths, last)
        return output.log_probs, output.value


def export(policy: nn.Module, task: AnyTask, folder: Path, kind: str = "onnx") -> list[Path]:
    """Write a policy into a folder; see above.

    Args:
        policy: any policy.
        task: that it was trained on.
        folder: must not exist, or be empty.
        kind: `onnx`, which needs the extra `onnx`, or `torch`.

    Returns:
        The files, `agent.json` first.

    Raises:
        UserError: the folder is in use, a package is missing, or the policy cannot be traced.
    """
    choose("format", kind, FORMATS)
    require_new_folder("out", folder)
    if kind == "onnx":
        optional("onnx", "onnx", "1.17", "2")
        optional("onnxscript", "onnx", "0.5", "1")
    spec, policy = task.spec, policy.eval()
    begin = Begin(policy, spec)
    problems, (token, feedback) = _blank(spec, 3), _first(spec, 3)
    read = {"context": problems.context, "stage": problems.stage}
    programs: dict[str, tuple[nn.Module, dict[str, Tensor], list[str]]]
    with torch.no_grad():
        try:
            step = Step(begin, spec)
            state = dict(zip(begin.names, begin(**read), strict=True))
            seen = {"token": token[0], "feedback": feedback[0]}
            results = ["log_probs", "value", *(f"{name}.after" for name in begin.names)]
            programs = {"begin": (begin, read, begin.names), "step": (step, {**seen, **state}, results)}
        except UserError:
            tokens = {"tokens": token.t().repeat(1, 2), "feedback": feedback.transpose(0, 1).repeat(1, 2, 1)}
            state, programs = {}, {"history": (History(begin), {**read, **tokens}, ["log_probs", "value"])}
        description = {
            "format": "modelnative-agent/1",
            "task": spec.name,
            "vocabulary": spec.vocabulary,
            "stages": spec.stages,
            "context_length": spec.context_length,
            "feedback_width": spec.feedback_width,
            "horizon": spec.horizon,
            "start": spec.start,
            "end": spec.end,
            "programs": list(programs),
            "state": {name: list(x.shape[1:]) for name, x in state.items()},
        }
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / "agent.json"]
        for name, (module, inputs, outputs) in programs.items():
            files.append(folder / f"{name}.{'onnx' if kind == 'onnx' else 'pt2'}")
            _write(module, inputs, outputs, files[-1], spec.horizon)
    write_json(files[0], description)
    return files


def tensors(state: Any, path: str = "state") -> dict[str, Tensor]:
    """Every tensor of a state by name."""
    if isinstance(state, Tensor):
        return {path: state}
    return {name: x for key, part in _parts(state) for name, x in tensors(part, f"{path}.{key}").items()}


def with_tensors(state: Any, values: dict[str, Tensor], rows: int, path: str = "state") -> Any:
    """The same state with other tensors; an empty one that is not given gets so many rows."""
    if isinstance(state, Tensor):
        return (
            values[path] if path in values else state.new_empty(rows, *state.shape[1:]) if not state.numel() else state
        )
    parts = {key: with_tensors(part, values, rows, f"{path}.{key}") for key, part in _parts(state)}
    if isinstance(state, dict):
        return parts
    if isinstance(state, (tuple, list)):
        made = list(parts.values())
        return type(state)(*made) if hasattr(state, "_fields") else type(state)(made)
    return dataclasses.replace(state, **parts) if parts else state


def layout(state: Any) -> Any:
    """What must stay as it is from token to token: the shapes of tensors, and all else by its value."""
    if isinstance(state, Tensor):
        return tuple(state.shape)
    return [(key, layout(part)) for key, part in _parts(state)] or repr(state)


def _parts(state: Any) -> list[tuple[Any, Any]]:
    if isinstance(state, dict):
        return list(state.items())
    if isinstance(state, (tuple, list)):
        return list(enumerate(state))
    if dataclasses.is_dataclass(state):
        return [(field.name, getattr(state, field.name)) for field in dataclasses.fields(state)]
    return []


def _blank(spec: TaskSpec, n: int) -> Read:
    """Contexts of padding."""
    return Read(torch.full((n, spec.context_length), spec.end), torch.zeros(n, dtype=torch.int64))


def _first(spec: TaskSpec, n: int) -> tuple[Tensor, Tensor]:
    """The first tokens of n episodes, int64 [1, n], and blank feedback."""
    return torch.full((1, n), spec.start), torch.full((1, n, spec.feedback_width), spec.end)


def _write(module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], file: Path, horizon: int) -> None:
    """Trace a module for any number of rows, and write it."""
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps", max=horizon)
    timed = ("tokens", "feedback") if "tokens" in inputs else ()
    shapes = tuple({0: batch, 1: steps} if name in timed else {0: batch} for name in inputs)
    signature: Any = shapes if not isinstance(module, Step) else (*shapes[:2], shapes[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracers warn of their own deprecations
        program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=signature)
        if file.suffix == ".pt2":
            torch.export.save(program, file)
            return
        made = torch.onnx.export(
            program, opset_version=OPSET, input_names=list(inputs), output_names=list(outputs), verbose=False
        )
        assert made is not None
        made.save(str(file))
