"""Every command on a run of which something is damaged, whoever did it: it works, or is refused in one line."""

from __future__ import annotations

import json
import random
import shutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import modelnative as mn
from modelnative import cli
from modelnative.runs.training import Training
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

TINY = {"task": "worlds:Small", "updates": 2, "episodes": 16, "policy": {"width": 8}, "threads": 1}
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 3, 0.5, 1e308, 10**19, 10**400, float("inf"), float("nan"), 2**63),
    *("", "x", "[/INST]", "<img src=x>", "../../x", "\0", "\ud800", "a|b\nc", "9" * 5000, "os:system", "T0"),
    *([], [1], [[]], [None], {}, {"a": 1}, {"": None}, {"x": {"y": [1]}}),
)
COMMANDS = (
    ("evaluate", "run"),
    ("explain", "run", "--stage", "T0", "--problem", "1 2 3"),
    ("inspect", "run", "--pairs", "20", "--stage", "T0", "--no-probes"),
    ("compare", "run"),
    ("compare", "run", "--metric", "updates", "--stage", "T0"),
    ("report", "run"),
    ("export", "run", "--format", "safetensors", "--out", "agent"),
    ("plot", "run", "--curve", "Entropy"),
    ("plot", "run", "--curve", "Success"),
    ("resume", "run"),
    ("resume", "run", "--updates", "3"),
    ("train", "--config", "run/config.json", "--out", "agent"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "run"
    list(Training.start(path, with_fields(recipe(), TINY)).events())
    mn.inspect(path, pairs=20, stages=["T0"], probes=False, file=path / "inspect.json")
    return path


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the parts of a value are."""
    yield place
    parts = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*place, key))


def changed(value: Any, place: tuple[Any, ...], other: Any) -> Any:
    """A copy with another part; without it where `other` is the function itself."""
    if not place:
        return other
    first, *rest = place
    copy = value.copy()
    if not rest and other is changed:
        del copy[first]
    else:
        copy[first] = changed(copy[first], tuple(rest), other)
    return copy


def damage(run: Path, chance: random.Random) -> str:
    """Change a file of a run; returns what was done."""
    file = chance.choice(
        [path for path in sorted(run.rglob("*")) if path.suffix in (".json", ".jsonl", ".safetensors")]
    )
    content = file.read_bytes()
    if file.suffix != ".safetensors" and chance.random() < 0.8:
        lines = [json.loads(line) for line in (content.splitlines() if file.suffix == ".jsonl" else [content])]
        number = chance.randrange(len(lines))
        place = chance.choice(list(places(lines[number])))
        other = changed if place and chance.random() < 0.2 else chance.choice(VALUES)
        lines[number] = changed(lines[number], place, other)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return f"{file.name}: {place} is {'gone' if other is changed else repr(other)[:60]}"
    start = chance.randrange(len(content))
    spoilt = (
        *(b"", content[:start], chance.randbytes(100), b'{"a":' * 3000),
        content[: start % 400] + bytes([chance.randrange(256)]) + content[start % 400 + 1 :],
    )
    way = chance.randrange(len(spoilt) + 2)
    if way < len(spoilt):
        file.write_bytes(spoilt[way])
    else:
        file.unlink()
        if way > len(spoilt):
            file.mkdir()
    return f"{file.relative_to(run)}: way {way}"


def fault_of(words: tuple[str, ...], patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> str:
    """What is wrong with how a command ends; empty if nothing is."""
    patch.setattr(sys, "argv", ["modelnative", *words])
    capture.readouterr()
    try:
        cli.main()
    except SystemExit as end:
        written = capture.readouterr().err
        if end.code == 2:
            said = [line for line in written.splitlines() if line.startswith("modelnative: error: ")]
            return "" if len(said) == 1 and len(written) < 2000 else f"it says {written!r}"
        return "" if end.code in (None, 0) else f"exit code {end.code}"
    except BaseException as error:  # noqa: BLE001
        return "".join(traceback.format_exception(error)[-3:])
    return "it returned"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("seed", "count"), [(0, 24), *(pytest.param(seed, 200, marks=pytest.mark.slow) for seed in range(1, 6))]
)
def test_a_damaged_run(
    seed: int,
    count: int,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chance, faults = random.Random(seed), []
    monkeypatch.chdir(tmp_path)
    for number in range(count):
        for name in ("run", "agent"):
            shutil.rmtree(name, ignore_errors=True)
        shutil.copytree(trained, "run")
        what, words = damage(Path("run"), chance), COMMANDS[number % len(COMMANDS)]
        if fault := fault_of(words, monkeypatch, capsys):
            faults.append(f"{' '.join(words)} after {what}: {fault}")
    assert not faults, f"{len(faults)} of {count}:\n" + "\n".join(faults)
