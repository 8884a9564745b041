"""Agents for other programs and other people."""

from __future__ import annotations

from pathlib import Path

from modelnative.api.training import load
from modelnative.bridges import export as programs
from modelnative.bridges import hub
from modelnative.errors import choose
from modelnative.runs.run import Run

FORMATS = (*programs.FORMATS, "safetensors")


def export(run: str | Path, out: str | Path, format: str = "onnx") -> list[Path]:
    """Write the best policy of a run into a folder, for programs that do not have modelnative.

    Args:
        run: the run folder.
        out: a folder that does not exist.
        format: `onnx` or `torch`: the policy as two programs with an explicit state; or `safetensors`: the weights, the
            configuration and a model card, which `load` reads.

    Returns:
        The files.

    Raises:
        UserError: the folder is in use, a package is missing, or the policy cannot be traced.
    """
    choose("format", format, FORMATS)
    if format == "safetensors":
        return sorted(hub.pack(Run.open(Path(run)), Path(out)).iterdir())
    agent = load(run)
    return programs.export(agent.policy, agent.task, Path(out), format)


def push(run: str | Path, to: str, *, private: bool = False) -> str:
    """Upload a finished run with a model card to the Hugging Face Hub; `load("hf:user/name")` loads it.

    Args:
        run: the run folder.
        to: `user/name`.
        private: whether only its owner sees it.

    Returns:
        The address.

    Raises:
        UserError: the run has no verdict, the package is missing, or the Hub refuses.
    """
    return hub.push(Run.open(Path(run)), to, private)
