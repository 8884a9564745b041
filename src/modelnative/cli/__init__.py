"""The command line. Bad input is one line on standard error and exit code 2."""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

import modelnative
from modelnative.errors import SHOWN, UserError, choose

PROGRAM = "modelnative"
LONGEST = 300  # characters of a word in a message: a path may have more than SHOWN
# Each command: the module with its function of the same name, and what it does.
COMMANDS = {
    "train": ("training", "Train a policy until every training problem is verified, and write a run folder."),
    "resume": ("training", "Continue an interrupted run or sweep, bit for bit as if it had never stopped."),
    "sweep": ("training", "Train many trials from one file: tasks, algorithms, seeds, any field."),
    "evaluate": ("evidence", "Play the problems of a run's task, and count."),
    "explain": ("evidence", "Show one problem token by token, beside the oracle's program."),
    "inspect": ("evidence", "Look inside a run's agent: who carries what from one action to the next?"),
    "compare": ("evidence", "Compare groups of trainings, with intervals over seeds."),
    "report": ("evidence", "Write the report of a finished run again, or that of a sweep."),
    "export": ("sharing", "Write a run's policy as ONNX, as a torch program, or as weights with a model card."),
    "push": ("sharing", "Upload a run with a model card to the Hugging Face Hub."),
    "transcripts": ("sharing", "Write episodes as chats with tool calls, for supervised training of a language model."),
    "studio": ("studio", "Show the runs of a folder in the browser: live curves, and agents at work on your problems."),
    "plot": ("studio", "Draw the learning curves of a run as PNG, SVG or PDF."),
    "tasks": ("evidence", "List the tasks, or describe one."),
    "certify": ("evidence", "Check a task: its oracle succeeds, its splits are apart, and agents that should fail do."),
    "clinic": ("evidence", "Plant known faults in trainings, and check that audits see each of them."),
    "doctor": ("doctor", "Show what this machine has, and what to do about each gap."),
    "bench": ("speed", "Measure how fast this machine trains."),
    "tutorial": ("evidence", "Train the published tutorial's recipe, and show what its score measures."),
    "schema": ("training", "Print the JSON schema of a configuration or sweep file, for editors."),
}


def main() -> None:
    """The command `modelnative`; reads `sys.argv`, leaves by `SystemExit`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as by >&-; a file opened later would take its descriptor
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show γ shows ?
    warnings.formatwarning = lambda message, *_: f"{PROGRAM}: warning: {message}\n"
    if "" not in sys.path:
        sys.path.append("")  # so that a task of the current folder is found, as `python -m modelnative` does
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        code = _complain(str(error))
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader of the output is gone, as in `modelnative tasks | head -1`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        code = _complain(f"{error.filename or 'output'}: {error.strerror}")
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        code = _complain("not enough memory; choose fewer --episodes or a smaller --policy.width")
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command by its name and arguments; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"{PROGRAM} {modelnative.__version__}")
        return 0
    name = choose("command", arguments[0], COMMANDS)
    module = importlib.import_module(f"modelnative.cli.{COMMANDS[name][0]}")
    code: int = getattr(module, name)(arguments[1:])
    return code


def overview() -> str:
    """The help of `modelnative` itself."""
    lines = [
        f"usage: {PROGRAM} COMMAND [-h] [OPTIONS]",
        "",
        "Train, verify and inspect agents that are one network, learned end to end by reinforcement learning.",
        "",
        "commands:",
        *(f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "Start with:",
        f"  {PROGRAM} train --out runs/first           train the default agent",
        f"  {PROGRAM} evaluate runs/first              play every problem",
        f'  {PROGRAM} explain runs/first --stage T2 --problem "3 7 2 4 5"',
        "",
        f"See {PROGRAM} COMMAND --help.",
        "Exit codes: 0 done, 1 a trial failed, a task has a defect or a fault was missed, 2 bad input,",
        "130 and 143 interrupted.",
    ]
    return "\n".join(lines)


def _complain(message: str) -> int:
    if os.environ.get("WORLD_SIZE", "1") != "1":  # one of several processes
        from modelnative.training.parallel import reports_errors

        if not reports_errors():
            return 2
    words = (word if len(word) <= LONGEST else f"{word[:SHOWN]}..." for word in message.split())
    print(f"{PROGRAM}: error: {' '.join(words)}", file=sys.stderr)
    return 2
