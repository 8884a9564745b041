"""The code blocks of Markdown pages, and a process that runs them in order; see `tests/test_docs.py`.

A comment on the line before a block says how it is tested; without one, the block is executed:

    <!-- test: parse -->         commands: only parsed, by the parser of the real command; Python: only compiled
    <!-- test: skip REASON -->   not tested
    <!-- test: exit N -->        commands: executed, and must end with this exit code
    <!-- test: file NAME -->     any language: written to this file in the page's folder

All blocks of a page share one folder, which has copies of `examples/` and `benchmarks/`. From block to block, commands
keep their working directory, and Python blocks their variables.

So that pages are tested quickly, every page and every `modelnative` command is a fork of one process that has torch
imported, trainings end after `UPDATES` updates at most, and of stages with more than `LISTED` problems a sample is
evaluated.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

FENCE = re.compile(
    r"^(?P<indent>[ ]*)```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL
)
MARKER = re.compile(r"<!--\s*test:\s*(?P<how>parse|skip|exit|file)\b\s*(?P<argument>[^>]*?)\s*-->\s*\Z")
SNIPPET = re.compile(r'^--8<-- "(?P<path>[^"]+)"\n', re.MULTILINE)
COMMANDS, PYTHON = ("bash", "console"), ("python",)
UPDATES, LISTED = 10, 300


@dataclass(frozen=True)
class Block:
    """One fenced block: where it is, its language, its code, and how it is tested."""

    line: int
    language: str
    code: str
    how: str = "run"
    argument: str = ""


def blocks(text: str) -> list[Block]:
    """The blocks of a page that a reader would type, and those that are written to files."""
    found = []
    for match in FENCE.finditer(text):
        marker = MARKER.search(text[: match.start()])
        how, argument = (marker["how"], marker["argument"]) if marker else ("run", "")
        if match["language"] in (*COMMANDS, *PYTHON) or how == "file":
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(line, match["language"], textwrap.dedent(match["code"]), how, argument))
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """Each command of a block, continued lines joined, and the output that the page shows for it (console only)."""
    if block.language == "bash":
        lines = block.code.replace("\\\n", " ").splitlines()
        return [(line.strip(), "") for line in lines if line.strip() and not line.lstrip().startswith("#")]
    parts = re.split(r"^\$ ", block.code, flags=re.MULTILINE)[1:]
    split = [part.partition("\n") for part in parts]
    return [(command.strip(), output.strip()) for command, _, output in split]


def words(command: str) -> list[str]:
    """The words of one command, without comments, redirections and leading VAR=VALUE."""
    found = shlex.split(command, comments=True)
    while found and re.fullmatch(r"\w+=\S*", found[0]):
        found = found[1:]
    return found[: found.index(">")] if ">" in found else found


class Reached(BaseException):
    """A command was parsed, and has called what does the work."""


def parse_modelnative(arguments: list[str]) -> None:
    """Parse a `modelnative` command with its real parser; raises `AssertionError` if it refuses."""
    import modelnative
    from modelnative.cli import main

    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    sys.argv = ["modelnative", *arguments]
    called = {name: reached for name in modelnative.__all__ if name.islower() and name != "recipe"}
    vars(modelnative).update(called)
    try:
        main()
    except Reached:
        return
    except SystemExit as stop:
        if stop.code:
            raise AssertionError(f"exit code {stop.code}") from stop
    finally:
        for name in called:
            del vars(modelnative)[name]


def parse_script(path: Path, arguments: list[str]) -> None:
    """Parse the arguments of a script that uses argparse, up to the end of its `parse_args`."""
    import argparse
    import runpy

    original = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        raise Reached

    argparse.ArgumentParser.parse_args = parse_args  # type: ignore[assignment,method-assign]
    sys.argv, before = [str(path), *arguments], list(sys.path)
    sys.path.insert(0, str(path.parent))
    try:
        runpy.run_path(str(path), run_name="__main__")
    except Reached:
        return
    except SystemExit as stop:
        raise AssertionError(f"exit code {stop.code}") from stop
    finally:
        argparse.ArgumentParser.parse_args = original  # type: ignore[method-assign]
        sys.path[:] = before
    raise AssertionError("the script parses no arguments")


def parse(command: str, root: Path) -> None:
    """Parse one command with the parser of the program that it names; raises `AssertionError` if it refuses."""
    name, *rest = words(command) or [""]
    if name == "cd":
        os.chdir(rest[0])
    elif name == "modelnative":
        parse_modelnative(rest)
    elif name == "torchrun":
        from torch.distributed.run import get_args_parser

        parsed = get_args_parser().parse_args(rest)
        assert (parsed.module, parsed.training_script) == (True, "modelnative"), "expected torchrun ... -m modelnative"
        parse_modelnative(parsed.training_script_args)
    elif name == "python":
        parse_script(root / rest[0], rest[1:])
    elif name == "pytest":
        paths = [word for word in rest if "/" in word]
        assert all((root / path).exists() for path in paths), f"one of {paths} does not exist"
    elif name == "make":
        done = subprocess.run(["make", "--dry-run", *rest], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            if "/modelnative train" in line:
                parse_modelnative(["train", *shlex.split(line.partition("/modelnative train")[2])])
    else:
        raise AssertionError(
            f"no parser is known for {name!r}; mark the block with skip, or add a parser to doc_blocks.py"
        )


def flat(text: str) -> str:
    """Text without line breaks and runs of spaces."""
    return " ".join(text.split())


class Page:
    """Runs the blocks of one page in the current folder, in order.

    Args:
        root: of the repository.
        modelnative: runs the command with some arguments in the current folder; returns its exit code and output.
    """

    def __init__(self, root: Path, modelnative: Callable[[list[str]], tuple[int, str]]) -> None:
        self.root, self.folder, self.modelnative = root, Path.cwd(), modelnative
        self.names = sys.modules["__main__"].__dict__

    def run(self, block: Block) -> None:
        """Run, parse or write one block."""
        if block.how == "file":
            path = Path.cwd() / block.argument
            path.write_text(block.code, encoding="utf-8")
        elif block.language in PYTHON:
            self.python(block)
        else:
            for command, output in commands(block):
                if block.how == "parse":
                    parse(command, self.root)
                else:
                    self.command(command, output, int(block.argument or 0) if block.how == "exit" else 0)

    def python(self, block: Block) -> None:
        """Run a Python block as part of the page's program; it has a file, so that its tasks and tools can be named."""
        path = Path.cwd() / f"page_{block.line}.py"
        path.write_text(block.code, encoding="utf-8")
        code = compile(block.code, str(path), "exec")
        if block.how == "run":
            self.names["__file__"] = str(path)
            exec(code, self.names)  # noqa: S102  # the page's own code

    def command(self, command: str, output: str, expected: int) -> None:
        """Run a command; what the page shows of its output must occur in it, … standing for anything."""
        name, *arguments = shlex.split(command, comments=True)
        if name == "modelnative" and not set("|<>&;$*") & set("".join(arguments)):
            code, printed = self.modelnative(arguments)
        else:
            code, printed = self.shell(command)
        assert code == expected, f"{command}: exit code {code}, expected {expected}\n{printed}"
        pattern = ".*".join(re.escape(flat(part)) for part in output.split("…"))
        assert re.search(pattern, flat(printed)), f"{command}: the page shows\n{output}\nbut it prints\n{printed}"
        sys.path[:] = [str(Path.cwd()), *(path for path in sys.path if path != str(Path.cwd()))]

    def shell(self, command: str) -> tuple[int, str]:
        """Run a command in a shell, and go to the folder in which it ends."""
        marked = f"{command}\ncode=$?\npwd > {shlex.quote(str(self.folder / '.pwd'))}\nexit $code"
        done = subprocess.run(["bash", "-c", marked], capture_output=True, text=True, timeout=300)
        os.chdir((self.folder / ".pwd").read_text().strip())
        return done.returncode, done.stdout + done.stderr


def fork(output: Path, work: Callable[[], object]) -> int:
    """Run something in a fork of this process whose output goes to a file; returns the id of the process."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with output.open("wb") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:  # noqa: BLE001  # it is printed, and the process ends
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_page(root: Path, folder: Path, chosen: list[Block], requests: TextIO, replies: TextIO) -> None:
    """Run the blocks of a page; the first that fails ends it. Commands are requests to the process that forks."""

    def modelnative(arguments: list[str]) -> tuple[int, str]:
        print(json.dumps({"arguments": arguments, "folder": os.getcwd()}), file=requests, flush=True)
        code, printed = json.loads(replies.readline())
        return code, printed

    os.chdir(folder)
    sys.path.insert(0, str(folder))
    page = Page(root, modelnative)
    for block in chosen:
        try:
            page.run(block)
        except BaseException:
            print(f"the {block.language} block at line {block.line} fails ({block.how}):\n{block.code}")
            raise


def run_modelnative(folder: str, arguments: list[str]) -> None:
    """The command `modelnative` in a folder."""
    from modelnative.cli import main

    os.chdir(folder)
    sys.argv = ["modelnative", *arguments]
    main()


def serve_page(given: dict[str, Any]) -> tuple[int, str]:
    """Run a page and its commands, each in a fork; returns the page's exit code and output."""
    folder = Path(given["folder"])
    (from_page, to_server), (from_server, to_page) = os.pipe(), os.pipe()

    def work() -> None:
        os.close(from_page)
        os.close(to_page)
        with open(to_server, "w") as requests, open(from_server) as replies:
            run_page(Path(given["root"]), folder, [Block(**block) for block in given["blocks"]], requests, replies)

    page = fork(folder / ".page", work)
    os.close(to_server)
    os.close(from_server)
    with open(from_page) as requests, open(to_page, "w") as replies:
        for request in requests:
            command = json.loads(request)
            child = fork(folder / ".command", functools.partial(run_modelnative, **command))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(json.dumps([code, (folder / ".command").read_text(errors="replace")]), file=replies, flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(page, 0)[1])
    return code, (folder / ".page").read_text(errors="replace")


def limit_work() -> None:
    """Limit the trainings and evaluations of this process and its forks."""
    from modelnative.evidence import evaluate
    from modelnative.runs.training import Training
    from modelnative.training.config import with_fields

    start = Training.start

    def limited(path: Path, config: Any, **parts: Any) -> Training:
        return start(path, with_fields(config, {"updates": min(config.updates, UPDATES)}), **parts)

    Training.start = limited  # type: ignore[method-assign,assignment]
    evaluate.LISTED = evaluate.DRAWN = LISTED


def main() -> None:
    """For every line of standard input, {"root": ..., "folder": ..., "blocks": [...]}, print the result of a page."""
    for module in ("evidence", "speed", "training"):
        importlib.import_module(f"modelnative.api.{module}")
        importlib.import_module(f"modelnative.cli.{module}")
    importlib.import_module("modelnative.bridges.gymnasium")
    limit_work()
    for line in sys.stdin:
        print(json.dumps(serve_page(json.loads(line))), flush=True)


def as_json(root: Path, folder: Path, chosen: list[Block]) -> str:
    """A line that `main` reads."""
    return json.dumps({"root": str(root), "folder": str(folder), "blocks": [asdict(block) for block in chosen]})


if __name__ == "__main__":
    main()
