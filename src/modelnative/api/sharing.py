"""Agents for other programs and other people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modelnative.api.training import Agent, load
from modelnative.bridges import export as programs
from modelnative.bridges import hub
from modelnative.bridges.transcripts import transcripts as written_episodes
from modelnative.errors import choose, require, require_path
from modelnative.policies.contract import Policy
from modelnative.runs.files import write_lines
from modelnative.runs.run import Run
from modelnative.tasks import make_task, require_task
from modelnative.tasks.contract.task import AnyTask, Split

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


def transcripts(
    source: AnyTask | Agent | str | Path,
    *,
    stages: Sequence[str] = (),
    count: int = 1000,
    seed: int = 0,
    split: Split = "train",
    sampled: bool = False,
    only_successes: bool = False,
    file: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Play problems, and return the episodes as chats with tool calls, for supervised training of a language model.

    Args:
        source: a task or the name of one, whose oracle plays; or an agent or a run folder, whose policy plays.
        stages: the names of the stages that problems are drawn from, in turn; empty means all.
        count: number of problems.
        seed: of the problems, and of the actions if they are sampled.
        split: which problems are drawn; those of `train` are never held out.
        sampled: the agent draws its actions at temperature 1, instead of taking the most probable ones.
        only_successes: leave out episodes that fail.
        file: write the rows there, as JSON lines; nothing may exist there.

    Returns:
        A row for each episode, with `messages` and `tools` in the format of TRL's `SFTTrainer`, its problem (`stage`,
        `seed`, `index`, `split`) and `success`. Episodes of an agent whose keys no calls press are left out.

    Raises:
        UserError: an argument is not allowed, the task has no oracle, or the file cannot be written.

    Example:
        >>> import modelnative as mn
        >>> row, *_ = mn.transcripts("countdown", stages=["C3"], count=10)
        >>> [message["role"] for message in row["messages"]]
        ['system', 'user', 'assistant', 'tool', 'assistant', 'tool', 'assistant', 'tool', 'assistant']
    """
    path = None if file is None else Path(file)
    if path is not None:
        require_path("out", path)
        require(not path.exists(), "out", str(path), "a file that does not exist")
    if isinstance(source, Path) or (isinstance(source, str) and _is_run(source)):
        source = load(source)
    policy: Policy | None = None
    if isinstance(source, Agent):
        policy, task = source.policy, source.task
    else:
        task = make_task(source) if isinstance(source, str) else require_task(source)
    rows = written_episodes(task, policy, stages=stages, count=count, seed=seed, split=split, sampled=sampled)
    kept = [row for row in rows if row["success"] or not only_successes]
    if path is not None:
        write_lines(path, kept)
    return kept


def _is_run(name: str) -> bool:
    """Whether a text names a run rather than a task."""
    return name.startswith(hub.PREFIX) or Run.exists(Path(name))
