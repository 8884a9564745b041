"""Commands that take an agent elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import modelnative as mn
from modelnative.cli.parser import Parser

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
