"""The command `schema`."""

from __future__ import annotations

from collections.abc import Sequence

from modelnative.cli.parser import Parser, print_json
from modelnative.training.config import TrainConfig


def schema(arguments: Sequence[str]) -> int:
    """`modelnative schema`."""
    parser = Parser("schema", "Name it in the editor's settings to complete and check the fields of --config files.")
    parser.add_argument("kind", nargs="?", default="train", choices=("train", "sweep"), help="default: train")
    kind = parser.read(arguments).kind
    if kind == "train":
        print_json(TrainConfig.model_json_schema())
    else:
        from modelnative.sweeps.spec import sweep_schema

        print_json(sweep_schema())
    return 0
