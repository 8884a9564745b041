"""Parsers of commands: argparse, with its errors as `UserError`."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from modelnative.cli import COMMANDS, PROGRAM
from modelnative.errors import UserError
from modelnative.evidence.record import as_json
from modelnative.tasks.importing import trust

# What other libraries call our flags.
OTHER_NAMES = {
    "--optimizer.learning-rate": "lr step-size",
    "--optimizer.max-grad-norm": "grad-clip clip-grad max-gradient-norm",
    "--loss.clip-high": "clip clip-range clip-coef clip-eps clip-epsilon cliprange epsilon epsilon-high",
    "--loss.clip-low": "epsilon-low",
    "--loss.value-weight": "vf-coef value-coef value-loss-coef",
    "--loss.entropy-weight": "ent-coef entropy entropy-coef entropy-bonus",
    "--loss.gamma": "discount discount-factor",
    "--loss.gae-lambda": "lam lambda gae",
    "--loss.epochs": "n-epochs num-epochs update-epochs ppo-epochs num-train-epochs num-iterations",
    "--loss.minibatches": "n-minibatches num-minibatches minibatch-size mini-batch-size",
    "--loss.num-generations": "group group-size k n-samples rollouts-per-prompt",
    "--episodes": "batch batch-size bs n-envs num-envs train-batch-size rollouts",
    "--updates": "steps max-steps num-steps iterations total-timesteps train-steps",
    "--policy.width": "hidden hidden-size hidden-dim d-model dim embed-dim",
    "--policy.layers": "n-layers num-layers depth",
    "--policy.heads": "n-heads num-heads",
    "--core": "arch architecture model network",
    "--algorithm": "algo method",
    "--task": "env env-id environment env-name",
    "--out": "output output-dir out-dir logdir log-dir save-dir run-dir",
    "--checkpoint-every": "save-every save-steps save-freq",
    "--evaluate-every": "eval-every eval-steps eval-freq",
    "--minutes": "time time-limit max-minutes",
    "--threads": "workers num-workers n-jobs cpus",
    "--device": "gpu cuda",
    "--seed": "random-seed rng",
    "--json": "as-json format",
}
# What people ask for and training does not have.
MISSING = {
    "there is no KL penalty; see --loss.clip-high": "kl kl-coef kl-beta kl-penalty beta target-kl",
    "the optimizer is Adam, without weight decay": "optimizer weight-decay wd momentum",
    "there is no schedule; see --optimizer.anneal-below-failure": "lr-schedule lr-scheduler warmup scheduler",
}


class Parser(argparse.ArgumentParser):
    """The parser of one command. Underscores in flags count as dashes.

    Args:
        command: its name in `COMMANDS`.
        description: its help, below the summary.
    """

    def __init__(self, command: str, description: str = "", **options: Any) -> None:
        text = f"{COMMANDS[command][1]}\n\n{description}".strip()
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(
            prog=f"{PROGRAM} {command}", description=text, formatter_class=formatter, allow_abbrev=False, **options
        )
        self.add_argument(
            "--trust",
            action=Trust,
            default=argparse.SUPPRESS,
            metavar="MODULE",
            help="a module of your own that the names in a run, sweep or configuration may refer to; may be repeated",
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found as a `UserError`."""
        raise UserError(f"{message}; see: {self.prog} --help")

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all arguments.

        Raises:
            UserError: a flag is unknown (the message has the nearest one), or a value is missing or of another type.
        """
        for argument in arguments:
            if argument.startswith("--") and argument.endswith("=--"):  # which argparse takes for no value
                self.error(f"{argument.removesuffix('=--')}: '--' is not allowed; expected a value")
        found, unknown = self.parse_known_args(normalized(arguments))
        if unknown:
            raise UserError(self._unknown(unknown[0]))
        return found

    def given(self, arguments: Sequence[str]) -> dict[str, Any]:
        """As `read`, by name: as arguments of the public function that the command calls."""
        found = vars(self.read(arguments))
        return {**found, "options": dict(found["options"])} if "options" in found else found

    def _unknown(self, argument: str) -> str:
        name = argument.split("=")[0]
        if not name.startswith("-"):
            return f"{argument!r} is one argument too many; see: {self.prog} --help"
        flags = [flag for action in self._actions for flag in action.option_strings]
        for reason, names in MISSING.items():
            if name.lstrip("-") in names.split() and "--task" in flags:
                return f"{name}: unknown flag; {reason}"
        near = _nearest(name.lstrip("-"), flags)
        return f"{name}: unknown flag{f'; did you mean {near}?' if near else ';'} see: {self.prog} --help"


def _nearest(name: str, flags: Sequence[str]) -> str | None:
    """The flag that a name without its dashes most likely means: by another name for it, its last part, or spelling."""
    from modelnative.runs.upgrade import earlier_names

    others = {flag(other).lstrip("-"): flag(field) for other, field in earlier_names().items()}
    others |= {other: known for known, names in OTHER_NAMES.items() for other in names.split()}
    whole = {known.lstrip("-"): known for known in flags}
    last = {known.rpartition(".")[2]: whole[known] for known in reversed(whole)}
    for names, cutoff in ((others, 1.0), (last, 1.0), (whole, 0.6), (last, 0.6)):
        for found in difflib.get_close_matches(name, names, n=1, cutoff=cutoff):
            if names[found] in flags:
                return names[found]
    return None


class Trust(argparse.Action):
    """Trusts a module: the names in files may refer to it. See `modelnative.tasks.importing.require_trusted`."""

    def __call__(
        self, _: argparse.ArgumentParser, __: argparse.Namespace, value: Any, option: str | None = None
    ) -> None:
        trust(value)


class Once(argparse.Action):
    """Store a value, and refuse a second one instead of dropping the first."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Called for each time that the flag is given."""
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option}: is given twice, {getattr(namespace, self.dest)} and {values}; expected one")
        setattr(namespace, self.dest, values)


def normalized(arguments: Sequence[str]) -> list[str]:
    """Arguments with dashes for the underscores in the names of flags."""
    result = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        result.append(name.replace("_", "-") + equals + value if name.startswith("--") else argument)
    return result


def flag(name: str) -> str:
    """The flag of a field.

    Example:
        >>> flag("optimizer.learning_rate")
        '--optimizer.learning-rate'
    """
    return f"--{name.replace('_', '-')}"


def add_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup, description: str) -> None:
    """The flag `--options KEY=VALUE …`, which may be repeated."""
    parser.add_argument(
        "--options", type=key_value, nargs="+", action="extend", metavar="KEY=VALUE", help=description, default=[]
    )


def key_value(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as JSON if it is JSON, else as text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected KEY=VALUE, such as feedback=none")
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value


def true_or_false(text: str) -> bool:
    """The value of a flag that is on or off, such as `--policy.copy-head=false`."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected true or false")
    return text == "true"


def report(line: str) -> None:
    """Show progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def show(found: Any, page: Callable[[Any], Iterable[Any]], in_json: bool) -> None:
    """Print a result: as JSON, or as the parts of its page."""
    if in_json:
        print_json(as_json(found))
    else:
        from modelnative.studio import tables

        tables.show(page(found))


def print_json(value: object) -> None:
    """Print JSON on standard output."""
    print(json.dumps(value, indent=2, allow_nan=False))
