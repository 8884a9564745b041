"""The documentation: every command and Python block works, links lead somewhere, the site builds without a warning.

`tests/helpers/doc_blocks.py` describes the markers that say how a block is tested.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doc_blocks import SNIPPET, Block, as_json, blocks, commands, words

import modelnative

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "benchmarks").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
EXEMPT = {"docs/migration.md", "CHANGELOG.md"}  # where the names of older versions are explained


def old_names() -> list[str]:
    """Fields and options of older versions: the first columns of two tables of the migration page."""
    text = (ROOT / "docs/migration.md").read_text().partition("## Configuration fields")[2].partition("## Files")[0]
    firsts = re.findall(r"^\| ([^|]*) \|", text, re.MULTILINE)
    return [code for first in firsts for code in re.findall(r"`([\w.-]+)`", first)]


Runner = Callable[[list[Block], Path], tuple[int, str]]


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Runs blocks in a folder that gets copies of examples/ and benchmarks/; returns the exit code and the output."""
    programs = tmp_path_factory.mktemp("programs")
    for name, arguments in (("modelnative", "-m modelnative"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (programs / name).chmod(0o755)
    paths = {
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "helpers")]),
    }
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "doc_blocks.py")]
    environment = {**os.environ, **paths, "COLUMNS": "200"}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def run(chosen: list[Block], folder: Path) -> tuple[int, str]:
            for name in ("examples", "benchmarks"):
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.jsonl"))
            print(as_json(ROOT, folder, chosen), file=server.stdin, flush=True)
            code, printed = json.loads(server.stdout.readline())
            return code, printed

        yield run
        server.stdin.close()


def names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text())], ids=names)
def test_blocks_work(page: Path, tmp_path: Path, run_page: Runner) -> None:
    chosen = [block for block in blocks(page.read_text()) if block.how != "skip" and not SNIPPET.search(block.code)]
    if not chosen:
        pytest.skip("all blocks of this page are marked with skip")
    code, printed = run_page(chosen, tmp_path)
    assert code == 0, f"{names(page)}: {printed[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_page_is_sound(page: Path) -> None:
    text = page.read_text()
    for block in blocks(text):
        assert block.how != "skip" or block.argument, f"line {block.line}: skip needs a reason"
    for path in SNIPPET.findall(text):
        assert (ROOT / path).is_file(), f"{path} is included, but does not exist"
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"\w+://|mailto:", link) and not SNIPPET.search(text):
            assert (page.parent / link).exists(), f"the link {link} leads nowhere"
    if names(page) not in EXEMPT:
        used = [name for name in old_names() if re.search(rf"(`|\s){re.escape(name)}(`|\s*=\s|=)", text)]
        assert not used, f"names of older versions: {used}"


def test_old_names_are_known() -> None:
    assert {"policy.copy", "--confidence", "loss.trace"} <= set(old_names())


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


def test_every_public_name_is_in_the_reference_once() -> None:
    pages = [ROOT / "docs/reference/api.md", ROOT / "docs/reference/task.md"]
    listed = [
        name for page in pages for line in re.findall(r"^@api (.+)$", page.read_text(), re.M) for name in line.split()
    ]
    assert sorted(listed) == sorted(modelnative.__all__)


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs, which `make test` installs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").rglob("*.md")))
    outside = re.compile(r'<(?:script|link|img)\b[^>]*(?:src|href)="https?://')
    assert not [page for page in pages if outside.search(page.read_text())], "the site loads nothing from elsewhere"


# The tests above must fail when a page is wrong.


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Block(1, "bash", "modelnative train --wdith 3\n", "parse"), "--wdith"),
        (Block(1, "bash", "modelnative tasks arithmetc\n"), "exit code 2"),
        (Block(1, "bash", "python benchmarks/steps.py --secnods 3\n", "parse"), "exit code 2"),
        (Block(1, "bash", "make trian\n", "parse"), "trian"),
        (Block(1, "bash", "torchrun --nproc-per-node 2 -m modelnative train --sed 3\n", "parse"), "--sed"),
        (Block(1, "python", "import modelnative as mn\nmn.no_such_name\n"), "no_such_name"),
        (Block(1, "python", "def broken(:\n", "parse"), "SyntaxError"),
        (Block(1, "console", "$ modelnative --version\nmodelnative 99\n"), "but it prints"),
    ],
    ids=["option", "command", "script", "make", "torchrun", "python", "syntax", "output"],
)
def test_a_broken_block_fails(block: Block, message: str, tmp_path: Path, run_page: Runner) -> None:
    code, printed = run_page([block], tmp_path)
    assert code != 0
    assert message in printed


def test_blocks_are_found_with_their_markers() -> None:
    page = """<!-- test: skip no network -->
```bash
a
```

1. x

    <!-- test: file a.toml -->
    ```toml
    b = 1
    ```

```
c
```
"""
    assert blocks(page) == [
        Block(2, "bash", "a\n", "skip", "no network"),
        Block(9, "toml", "b = 1\n", "file", "a.toml"),
    ]


def test_commands_of_a_block() -> None:
    assert commands(Block(1, "bash", "# why\na \\\n  --b 1  # c\n\nd\n")) == [("a    --b 1  # c", ""), ("d", "")]
    assert commands(Block(1, "console", "$ a\nx\ny\n$ b\n")) == [("a", "x\ny"), ("b", "")]
    assert words("A=1 B=2 make train > out  # why") == ["make", "train"]
