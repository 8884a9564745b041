"""Commands that take an agent elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import modelnative as mn
from modelnative.cli.parser import Once, Parser, add_options
from modelnative.errors import UserError

EXPORT = """\
Formats:
    onnx         begin.onnx and step.onnx, with the state in the open, for onnxruntime; needs the extra onnx
    torch        the same programs for torch.export.load
    safetensors  weights, configuration and a model card: a run folder without its history

    modelnative export runs/first --format onnx --out agent

agent.json says what goes in and comes out. examples/onnx_agent.py acts with it, without torch.
"""

PUSH = """\
The weights, the configuration, the verdict and a model card become a repository. `mn.load("hf:user/name")` loads it
again. Log in first, with: hf auth login
"""

TRANSCRIPTS = """\
A line of the file is an episode: `messages` (rules, prompt, calls, what the tools answer) and `tools`, as TRL's
`SFTTrainer` takes them, with its problem and the verdict. The oracle plays, or with --from the agent of a run.

    modelnative transcripts arithmetic --stage T0 --count 1000 --out t0.jsonl
    modelnative transcripts --from runs/first --sampled --only-successes --out first.jsonl

Problems are of the train split unless --split says otherwise.
"""


def export(arguments: Sequence[str]) -> int:
    """`modelnative export`."""
    parser = Parser("export", EXPORT)
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("--format", default="onnx", help="onnx, torch or safetensors (default: onnx)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a folder that does not exist")
    found = parser.read(arguments)
    for path in mn.export(found.folder, found.out, found.format):
        print(path)
    return 0


def push(arguments: Sequence[str]) -> int:
    """`modelnative push`."""
    parser = Parser("push", PUSH)
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument("to", metavar="USER/NAME", help="the repository on the Hugging Face Hub")
    parser.add_argument("--private", action="store_true", help="only you can see it")
    found = parser.read(arguments)
    print(mn.push(found.folder, found.to, private=found.private))
    return 0


def transcripts(arguments: Sequence[str]) -> int:
    """`modelnative transcripts`."""
    parser = Parser("transcripts", TRANSCRIPTS)
    add = parser.add_argument
    add("task", nargs="?", metavar="TASK", help="a task's name, or package.module:Class")
    add("--from", dest="run", type=Path, action=Once, metavar="RUN", help="the run folder of the agent that plays")
    stages = "stages to play in turn, such as T2 (default: all)"
    add("--stage", dest="stages", nargs="+", action="extend", metavar="STAGE", default=[], help=stages)
    add("--count", type=int, default=1000, metavar="N", help="problems (default: 1000)")
    add("--seed", type=int, default=0, help="of the problems, and of sampled actions (default: 0)")
    add("--split", default="train", help="train, heldout (never trained on), or all (default: train)")
    add("--sampled", action="store_true", help="the agent samples its actions at temperature 1")
    add("--only-successes", action="store_true", help="leave out episodes that fail")
    add_options(parser, "options of the task")
    add("--out", dest="file", type=Path, required=True, metavar="FILE", help="a file that does not exist")
    given = parser.given(arguments)
    task, run, options = given.pop("task"), given.pop("run"), given.pop("options")
    if (task is None) == (run is None):
        raise UserError("TASK, --from: expected one of the two, a task or the run folder of an agent")
    if run is not None and options:
        raise UserError("--options: is not allowed with --from, whose run has its own; leave it out")
    rows = mn.transcripts(mn.make(task, **options) if run is None else run, **given)
    left = given["count"] - len(rows)
    reason = "they failed, or no calls press their keys" if given["only_successes"] else "no calls press their keys"
    print(f"{given['file']}: {len(rows):,} episodes{f'; {left:,} left out, because {reason}' if left else ''}")
    return 0
