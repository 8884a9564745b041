"""The code blocks of a Markdown page, and a process that runs them in order; see `tests/test_docs.py`.

A comment on the line before a block says how it is tested; without one, the block is executed:

    <!-- test: parse -->         commands: only parsed, by the parser of the real command; Python: only compiled
    <!-- test: skip REASON -->   not tested
    <!-- test: exit N -->        commands: executed, and must end with this exit code
    <!-- test: file NAME -->     any language: written to this file in the page's folder

All blocks of a page share one folder, which has copies of `examples/` and `benchmarks/`. From block to block, commands
keep their working directory, and Python blocks their variables.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

FENCE = re.compile(
    r"^(?P<indent>[ ]*)```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```[ ]*$", re.MULTILINE | re.DOTALL
)
MARKER = re.compile(r"<!--\s*test:\s*(?P<how>parse|skip|exit|file)\b\s*(?P<argument>[^>]*?)\s*-->\s*\Z")
SNIPPET = re.compile(r'^--8<-- "(?P<path>[^"]+)"\n', re.MULTILINE)
COMMANDS, PYTHON = ("bash", "console"), ("python",)


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


class _Api(ModuleType):
    """Stands in for `modelnative.api` while a command is parsed: whatever is called raises `Reached`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "recipe":  # which the parser itself needs, for the defaults
            from modelnative.training.recipes import recipe

            return recipe

        def reached(*_: Any, **__: Any) -> None:
            raise Reached

        return reached


def parse_modelnative(arguments: list[str]) -> None:
    """Parse a `modelnative` command with its real parser; raises `AssertionError` if it refuses."""
    import modelnative
    from modelnative.cli import main

    sys.argv = ["modelnative", *arguments]
    real = sys.modules.get("modelnative.api")
    sys.modules["modelnative.api"] = vars(modelnative)["api"] = _Api("modelnative.api")
    try:
        main()
    except Reached:
        return
    except SystemExit as stop:
        if stop.code:
            raise AssertionError(f"exit code {stop.code}") from stop
    finally:
        del sys.modules["modelnative.api"], vars(modelnative)["api"]
        if real is not None:
            sys.modules["modelnative.api"] = vars(modelnative)["api"] = real


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
        raise AssertionError(f"no parser is known for {name!r}; mark the block with skip, or teach doc_blocks.py")


def flat(text: str) -> str:
    """Text without line breaks and runs of spaces."""
    return " ".join(text.split())


class Page:
    """Runs the blocks of one page in the current folder, in order."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, Path.cwd()
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
        """Run a command in a shell; what the page shows of its output must occur in it, … standing for anything."""
        marked = f"{command}\ncode=$?\npwd > {shlex.quote(str(self.folder / '.pwd'))}\nexit $code"
        done = subprocess.run(["bash", "-c", marked], capture_output=True, text=True, timeout=300)
        said = done.stdout + done.stderr
        assert done.returncode == expected, f"{command}: exit code {done.returncode}, expected {expected}\n{said}"
        pattern = ".*".join(re.escape(flat(part)) for part in output.split("…"))
        assert re.search(pattern, flat(said)), f"{command}: the page shows\n{output}\nbut it prints\n{said}"
        os.chdir((self.folder / ".pwd").read_text().strip())
        sys.path[:] = [str(Path.cwd()), *(path for path in sys.path if path != str(Path.cwd()))]


def main() -> None:
    """Run the blocks given as JSON on standard input: {"root": ..., "blocks": [...]}; the first that fails ends it."""
    given = json.load(sys.stdin)
    page = Page(Path(given["root"]))
    sys.path.insert(0, str(Path.cwd()))
    for values in given["blocks"]:
        block = Block(**values)
        try:
            page.run(block)
        except BaseException:
            print(
                f"the {block.language} block at line {block.line} fails ({block.how}):\n{block.code}", file=sys.stderr
            )
            raise


def as_json(root: Path, chosen: list[Block]) -> str:
    """What `main` reads."""
    return json.dumps({"root": str(root), "blocks": [asdict(block) for block in chosen]})


if __name__ == "__main__":
    main()
