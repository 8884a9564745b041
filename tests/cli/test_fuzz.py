"""Thousands of command lines and files that nobody would write on purpose: each works, or is refused in a few lines."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelnative import cli
from modelnative.bridges import transcripts
from modelnative.cli.parser import flag
from modelnative.evidence import certify as certification
from modelnative.evidence import inspect as inspection
from modelnative.policies.config_model import leaf_fields, value_type
from modelnative.runs.training import Training
from modelnative.speed import measure
from modelnative.studio.server import serve as studio_server
from modelnative.sweeps import options as sweep_options
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.recipes import recipe
from modelnative.training.trainer import Trainer

TINY = {"task": "worlds:Small", "updates": 2, "episodes": 16, "policy": {"width": 8}, "threads": 1}
LONGEST, SLOWEST = 600, 60  # characters of a message, seconds of a refusal
NUMBERS = (
    *("0", "1", "2", "3", "-1", "16", "512", "0.5", "-0.5", "1e-9", "1e3", "1e308", "1e999", "inf", "-inf", "nan"),
    *(str(10**n) for n in (5, 7, 9, 10, 19, 30)),
    *("9" * 400, "9" * 5000, "1" + "0" * 400 + ".5", "2147483647", "2147483648", str(2**63), str(2**64)),
    *("1_0", "0x10", "٣", "1,5", "+1", "--1", "1.", "1e", "NaN", "Infinity", "-Infinity"),
)
TEXTS = (
    *("", " ", "x", "true", "null", "[]", "{}", "[/INST]", "[red]", "é", "a b", "'", '"', "\\", "\n", "\udcff"),
    *("..", ".", "/", "/dev/null", "/dev/null/x", "none.toml", "~", "-", "--", "-h", "x" * 300, "%s", "{0}", "$HOME"),
    *("os:system", "math:pi", "json:loads", "abc:", ":abc", "a:b:c", "a.py:b", ".:x", "..x:y", "builtins:dict", "1:1"),
    *("worlds:Small", "worlds:Nothing", "modelnative.runs.training:Training", "torch.nn:LSTM", "torch.nn:Linear"),
    *("arithmetic", "countdown", "hops", "dictionary", "expressions", "recall", "tutorial", "arithmetik"),
    *("gru", "transformer", "mingru", "memoryless", "ppo", "grpo", "hints", "uniform", "train", "all", "heldout"),
    *("cpu", "cuda", "cuda:99", "cuda:-1", "mps", "hpu", "meta", "xla", "cpu:7", "CPU", "T0", "T2", "run", "seeds"),
)
OPTIONS = ("horizon", "feedback", "reward", "digits", "operands", "shapes", "size", "count", "stages", "words", "name")
JSON_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 16, 0.5, -0.5, 1e308, float("inf"), float("-inf"), float("nan"), 10**19, 10**400),
    *("", "x", "gru", "3", "arithmetic", [], [1], [[]], {}, {"a": 1}, {"": None}, {"width": 8}, [{"seed": 1}]),
)


class Reached(BaseException):
    """The command line was accepted, and the work begins."""


def work(*_: Any, **__: Any) -> Any:
    raise Reached


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "run"
    list(Training.start(path, with_fields(recipe(), TINY)).events())
    return path


class Lines:
    """Command lines and files, all from one generator of random numbers."""

    def __init__(self, seed: int, folder: Path, trained: Path) -> None:
        self.random, self.folder, self.trained = random.Random(seed), folder, trained
        self.fields = dict(leaf_fields(TrainConfig))

    def line(self) -> list[str]:
        """A command line, and the files that it names."""
        one = self.random.choice
        command = one(("train", "train", "train", *cli.COMMANDS))
        words = list(getattr(self, command)())
        for _ in range(self.random.choice((0, 0, 0, 1))):
            words.insert(self.random.randint(0, len(words)), one((*TEXTS, *NUMBERS, "--x", "--x=1", "-x", "--json")))
        return [command, *words]

    def train(self) -> Iterator[str]:
        yield from self.configured()
        if self.random.random() < 0.2:
            yield from self.valued("--seeds", NUMBERS)
        if self.random.random() < 0.5:
            yield from self.valued("--out", (*TEXTS, "new", "new/er", str(self.trained)))

    def bench(self) -> Iterator[str]:
        yield from self.configured()
        for name in ("--seconds", "--processes", "--solve"):
            if self.random.random() < 0.3:
                yield from self.valued(name, NUMBERS)
        yield from self.some("--profile", "--compile", "--json")

    def resume(self) -> Iterator[str]:
        yield self.run()
        for name in ("--updates", "--minutes"):
            if self.random.random() < 0.2:
                yield from self.valued(name, NUMBERS)

    def report(self) -> Iterator[str]:
        yield self.run()

    def inspect(self) -> Iterator[str]:
        yield self.run()
        for name, values in (("--stage", ("T0", *TEXTS)), ("--pairs", NUMBERS), ("--out", TEXTS)):
            if self.random.random() < 0.3:
                yield from self.valued(name, values)
        yield from self.some("--no-probes", "--units", "--json")

    def compare(self) -> Iterator[str]:
        yield from (self.run() for _ in range(self.random.choice((1, 1, 2, 3))))
        for name, values in (
            ("--metric", ("heldout", "updates", *TEXTS)),
            ("--stage", ("T0", *TEXTS)),
            ("--out", TEXTS),
        ):
            if self.random.random() < 0.3:
                yield from self.valued(name, values)
        yield from self.some("--json")

    def export(self) -> Iterator[str]:
        yield self.run()
        yield from self.valued("--format", ("safetensors", *TEXTS))
        yield from self.valued("--out", (*TEXTS, "new", str(self.trained)))

    def push(self) -> Iterator[str]:
        yield self.text()  # never a run, which would be uploaded
        yield from self.some(self.text(), "--private")

    def transcripts(self) -> Iterator[str]:
        yield from self.some(self.text())
        if self.random.random() < 0.5:
            yield from self.valued("--from", (self.run(),))
        for name, values in (("--count", NUMBERS), ("--seed", NUMBERS), ("--split", TEXTS), ("--stage", TEXTS)):
            if self.random.random() < 0.3:
                yield from self.valued(name, values)
        if self.random.random() < 0.2:
            yield from self.valued("--options", tuple(self.assignments()))
        yield from self.valued("--out", (*TEXTS, "new", "new/er", str(self.trained)))
        yield from self.some("--sampled", "--only-successes")

    def doctor(self) -> Iterator[str]:
        yield from self.some("--json", self.text())

    def sweep(self) -> Iterator[str]:
        yield self.random.choice((self.file("spec", self.spec()), self.text()))
        for name, values in (("--jobs", NUMBERS), ("--retries", NUMBERS), ("--on", ("local", "ray", *TEXTS))):
            if self.random.random() < 0.2:
                yield from self.valued(name, values)
        yield from self.some("--dry-run", "--dry-run", "--dry-run")

    def evaluate(self) -> Iterator[str]:
        yield self.run()
        for name in ("--stage", "--split", "--options", "--episodes"):
            if self.random.random() < 0.3:
                yield from self.valued(name, (*TEXTS, *self.assignments()))
        yield from self.some("--sampled", "--floors", "--json")

    def explain(self) -> Iterator[str]:
        yield self.run()
        yield from self.valued("--stage", ("T0", *TEXTS))
        yield from self.valued("--problem", (*TEXTS, *NUMBERS, "1 2 3", "1 2 99999999999999999999", "1 2 3 4 5"))

    def tasks(self) -> Iterator[str]:
        yield from self.some(self.text())

    def certify(self) -> Iterator[str]:
        yield self.text()
        for name, values in (("--problems", NUMBERS), ("--seconds", NUMBERS), ("--stage", TEXTS)):
            if self.random.random() < 0.2:
                yield from self.valued(name, values)
        if self.random.random() < 0.3:
            yield from self.valued("--options", tuple(self.assignments()))
        if self.random.random() < 0.2:
            yield from self.valued("--out", (*TEXTS, "x.json", "/nowhere/x.json"))
        yield from self.some("--no-train", "--json", "--markdown")

    def clinic(self) -> Iterator[str]:
        yield from self.some("temperature", "length bias", self.text())
        if self.random.random() < 0.5:
            yield from self.valued("--seeds", NUMBERS)
        yield from self.some("--curves", "--json")

    def studio(self) -> Iterator[str]:
        yield self.random.choice((self.run(), self.text()))
        for name, values in (("--port", NUMBERS), ("--host", TEXTS)):
            if self.random.random() < 0.3:
                yield from self.valued(name, values)

    def plot(self) -> Iterator[str]:
        yield self.run()
        files, figures = (*TEXTS, "x.png", "x.svg", "/nowhere/x.pdf"), ("curves", "inside", "seeds", *TEXTS)
        for name, values in (("--out", files), ("--figure", figures), ("--curve", ("Success", *TEXTS))):
            if self.random.random() < 0.4:
                yield from self.valued(name, values)

    def tutorial(self) -> Iterator[str]:
        yield from self.valued("--seed", NUMBERS)
        yield from self.valued("--updates", NUMBERS)

    def schema(self) -> Iterator[str]:
        yield from self.some("train", "sweep", self.text())

    def configured(self) -> Iterator[str]:
        """Flags of a training, mostly few, so that one bad value does not hide another; and sometimes a file."""
        if self.random.random() < 0.4:
            name = self.random.choice((self.file("config", self.config()), self.text()))
            yield from self.valued("--config", (name,))
        for name in self.random.sample(list(self.fields), self.random.choice((0, 1, 1, 1, 2, 3))):
            kind = value_type(self.fields[name])
            if name == "options":
                yield from self.valued("--options", tuple(self.assignments()))
            elif kind is bool:
                yield flag(name) + self.random.choice(("", "", "=false", "=true", "=maybe", "=", " no"))
            else:
                likely = NUMBERS if kind in (int, float, int | None) else TEXTS
                yield from self.valued(flag(name), likely if self.random.random() < 0.9 else (*TEXTS, *NUMBERS))

    def valued(self, name: str, values: tuple[str, ...]) -> list[str]:
        value = self.random.choice(values)
        if self.random.random() < 0.03:
            name = name.replace("-", "_") if self.random.random() < 0.5 else name[: self.random.randint(3, len(name))]
        return [f"{name}={value}"] if self.random.random() < 0.5 else [name, value]

    def assignments(self) -> Iterator[str]:
        for _ in range(4):
            value = self.random.choice((*NUMBERS, *TEXTS, "[" * 2000, "Infinity", '{"a": 1}', "display", "milestone"))
            yield f"{self.random.choice((*OPTIONS, 'x', '', 'self', 'é'))}={value}"

    def some(self, *words: str) -> list[str]:
        return [word for word in words if self.random.random() < 0.3]

    def text(self) -> str:
        return self.random.choice(TEXTS)

    def run(self) -> str:
        return self.text() if self.random.random() < 0.3 else str(self.trained)

    def table(self) -> dict[str, Any]:
        """Fields of a training with values of any kind."""
        table: dict[str, Any] = {}
        for name in self.random.sample(list(self.fields), self.random.choice((0, 1, 2, 5))):
            value = self.random.choice(JSON_VALUES)
            group, _, leaf = name.rpartition(".")
            if group and isinstance(table.get(group, {}), dict) and self.random.random() < 0.9:
                table.setdefault(group, {})[leaf] = value
            else:
                table[self.random.choice((name, leaf, group or name))] = value
        if self.random.random() < 0.2:
            table["options"] = {self.random.choice(OPTIONS): self.random.choice(JSON_VALUES)}
        if self.random.random() < 0.1:
            table[self.text()] = self.random.choice(JSON_VALUES)
        if self.random.random() < 0.1:
            table["format"] = self.random.choice(("modelnative/1", "modelnative/2", *JSON_VALUES))
        return table

    def config(self) -> bytes:
        return self.spoilt(json.dumps(self.table()))

    def spec(self) -> bytes:
        one, table = self.random.choice, self.table
        entries = {
            "name": one(JSON_VALUES),
            "seeds": one((*JSON_VALUES, 10**9, [0, 1])),
            "base": one((table(), one(JSON_VALUES))),
            "grid": one(({name: [value] for name, value in table().items()}, one(JSON_VALUES))),
            "trials": one(([table(), table()], one(JSON_VALUES))),
        }
        chosen = self.random.sample(list(entries), one((1, 2, 3)))
        return self.spoilt(json.dumps({name: entries[name] for name in chosen}))

    def spoilt(self, text: str) -> bytes:
        content = text.encode()
        ways: tuple[Callable[[], bytes], ...] = (
            *[lambda: content] * 8,
            lambda: b"\xef\xbb\xbf" + content,
            lambda: content[: self.random.randint(0, len(content))],
            lambda: self.random.randbytes(40),
            lambda: text.encode("utf-16"),
            lambda: b"{" + b'"a":[' * 3000,
            lambda: b"[[[" * 700,
            lambda: b"seed = " + b"9" * 5000,
            lambda: b'{"seed": ' + b"9" * 5000 + b"}",
            lambda: b"minutes = inf\n[options]\nx = nan\n",
            lambda: b"seed = 1979-05-27\n[options]\nx = 1979-05-27T07:32:00Z\n",
            lambda: b"",
        )
        return self.random.choice(ways)()

    def file(self, name: str, content: bytes) -> str:
        path = self.folder / f"{name}{self.random.choice(('.toml', '.json'))}"
        path.write_bytes(content)
        return path.name


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {str(path): path.read_bytes() for path in files}


def play(
    count: int, seed: int, folder: Path, trained: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> None:
    """Run so many command lines; raises `AssertionError` with those that end in another way than they may."""
    for owner, name in (
        (Trainer, "update"),
        (sweep_options, "run_trials"),
        (certification, "check_task"),
        (inspection, "_stage"),
        (measure, "measure_in_processes"),
        (studio_server, "require_extra"),
        (transcripts, "_played"),
    ):
        patch.setattr(owner, name, work)
    patch.chdir(folder)
    patch.delenv("COLUMNS", raising=False)
    lines, run, faults = Lines(seed, folder, trained), contents(trained), []
    kept = trained.with_name(f"kept-{seed}")
    shutil.copytree(trained, kept)
    for _ in range(count):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        line = lines.line()
        before = contents(folder)
        start = time.perf_counter()
        code, fault = outcome(line, patch)
        written = capture.readouterr().err
        seconds = time.perf_counter() - start
        if code == 2 and contents(folder) != before:
            fault += f"; it wrote {set(contents(folder)) - set(before)}"
        if code == 2 and not re.fullmatch(r"modelnative: error: [^\n]+\n", written):
            fault += f"; it says {written!r}"
        if len(written.splitlines()) > 3 or len(written) > LONGEST:
            fault += f"; {len(written)} characters in {len(written.splitlines())} lines: {written[:300]!r}"
        if contents(trained) != run:  # as an accepted report or resume does
            fault += "; the run has changed" if code == 2 else ""
            shutil.rmtree(trained)
            shutil.copytree(kept, trained)
        if seconds > SLOWEST:
            fault += f"; it took {seconds:.0f} s"
        if fault:
            faults.append(f"{[word[:99] for word in line]!r}: {fault}")
            print(faults[-1], [content[:200] for content in before.values()], file=sys.__stderr__, flush=True)
    assert not faults, f"{len(faults)} of {count}:\n" + "\n".join(faults)


def outcome(line: list[str], patch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The exit code of a command line, and what is wrong with how it ended."""
    patch.setattr(sys, "argv", ["modelnative", *line])
    try:
        cli.main()
    except Reached:
        return 0, ""
    except SystemExit as stop:
        code = int(stop.code or 0)
        return code, "" if code in (0, 2) else f"exit code {code}"
    except BaseException as error:  # noqa: BLE001
        return 1, "".join(traceback.format_exception(error)[-3:])
    return 0, "it returned"


def test_a_hundred_command_lines(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play(100, 0, tmp_path, trained, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_thousands_of_command_lines(
    seed: int, tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play(1000, seed, tmp_path, trained, monkeypatch, capsys)
