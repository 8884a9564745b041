from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelnative.studio.server import curves as module
from modelnative.studio.server.curves import Curves, numbers


def line(update: int, **changes: Any) -> bytes:
    metrics = {"update": update, "success": [None, update % 2], "entropy": float(update), **changes}
    return json.dumps(metrics).encode() + b"\n"


@given(st.lists(st.integers(10, 200), min_size=1, max_size=4))
def test_a_file_that_grows_gives_what_the_whole_file_gives(sizes: list[int]) -> None:
    """Whatever the pieces are in which it is written: not before a line is finished."""
    content = b"".join(line(update) for update in range(1, 12))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(module, "BLOCK", 37)
        path = Path(folder) / "metrics.jsonl"
        grown, position = Curves(path), 0
        grown.refresh()
        assert grown.points() == {}
        while position < len(content):
            position += sizes[position % len(sizes)]
            path.write_bytes(content[:position])
            grown.refresh()
            done = content[:position].count(b"\n")
            assert grown.points().get("update", []) == [float(u) for u in range(1, done + 1)]
        whole = Curves(path)
        whole.refresh()
        assert whole.points() == grown.points()
        assert whole.points()["success 1"][:2] == [1.0, 0.0]
        assert "success 0" not in whole.points(), "never measured"
        assert grown.damaged == 0


def test_memory_is_bounded_and_means_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POINTS", 10)
    path = tmp_path / "metrics.jsonl"
    read = Curves(path)
    for start in range(1, 1001, 100):
        with open(path, "ab") as file:
            file.writelines(line(update) for update in range(start, start + 100))
        read.refresh()
        assert len(read.groups) <= 20
    groups = read.groups
    assert sum(group.count for group in groups) == 1000
    assert len({group.count for group in groups[:-1]}) == 1
    total = sum(value * group.count for value, group in zip(read.points()["entropy"], groups, strict=True) if value)
    assert math.isclose(total / 1000, 500.5, rel_tol=1e-4)
    assert read.last["update"] == 1000


@pytest.mark.parametrize(
    "damage",
    [
        b"{\n",
        b"{}\n",
        b"\xff\n",
        b"[]\n",
        b"3\n",
        b'{"update": "x"}\n',
        b'{"update": 1, "timing": 3}\n',
        b"[" * 20_000 + b"\n",
    ],
)
def test_damaged_lines_are_skipped_and_counted(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1) + damage + line(3))
    read = Curves(path)
    read.refresh()
    assert read.points()["update"] == [1.0, 3.0]
    assert read.damaged == 1


def test_a_line_without_an_end_is_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 1000)
    monkeypatch.setattr(module, "BLOCK", 100)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1) + b"x" * 5000 + b"\n" + line(2))
    read = Curves(path)
    read.refresh()
    assert (read.points()["update"], read.damaged) == ([1.0, 2.0], 1)


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1) + line(2) + line(3))
    read = Curves(path)
    read.refresh()
    epoch = read.epoch
    other = tmp_path / "other"
    other.write_bytes(line(1, entropy=9.0))
    other.replace(path)
    read.refresh()
    assert read.points()["entropy"] == [9.0]
    assert read.epoch > epoch
    path.unlink()
    read.refresh()
    assert read.points() == {}


def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"update": 1, "entropy": NaN, "invalid": 1e999, "success": [true, 0.5, "x"]}\n')
    read = Curves(path)
    read.refresh()
    assert read.points() == {"update": [1.0], "success 0": [1.0], "success 1": [0.5]}


def long_file(path: Path, updates: int = 2000) -> None:
    path.write_bytes(b"".join(line(update) for update in range(1, updates + 1)))


def test_a_long_file_is_shown_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines from all over it at first, as they are; then what a file that grew would show."""
    monkeypatch.setattr(module, "STRIDE", 10_000)
    monkeypatch.setattr(module, "PREVIEW", 50)
    path = tmp_path / "metrics.jsonl"
    long_file(path)
    size = path.stat().st_size
    with open(path, "ab") as file:
        file.write(line(2001)[:20])  # half a line
    parsed: list[Any] = []
    monkeypatch.setattr(module, "numbers", lambda metrics: (parsed.append(metrics), numbers(metrics))[1])
    read = Curves(path)
    assert read.refresh()
    assert len(parsed) <= 51, "no more lines than the preview has"
    seen = read.points()
    assert 45 <= len(seen["update"]) <= 51
    assert (seen["update"][0], seen["update"][-1]) == (1, 2000)
    assert seen["entropy"] == seen["update"], "single updates, not means"
    steps = [b - a for a, b in zip(seen["update"], seen["update"][1:], strict=False) if a is not None and b is not None]
    assert max(steps) <= 2 * 2000 / 50
    before, strides = read.epoch, 0
    while read.refresh():
        strides += 1
        assert read.points() == seen, "nothing that is read by halves"
    assert strides == size // 10_000
    assert read.epoch > before, "readers get all points anew"
    whole = Curves(path)
    monkeypatch.setattr(module, "STRIDE", 1 << 30)
    assert not whole.refresh()
    assert whole.points() == read.points()
    assert read.damaged == 0
    with open(path, "ab") as file:
        file.write(line(2001)[20:])
    assert not read.refresh()
    assert read.last["update"] == 2001


def test_a_preview_of_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRIDE", 1000)
    monkeypatch.setattr(module, "AROUND", 500)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"x" * 5000 + b"\n{}\n[]\n" + b"\xff" * 2000)
    read = Curves(path)
    for _ in range(20):
        if not read.refresh():
            break
        assert read.points() == {}
    else:
        pytest.fail("it is never read to its end")
    assert (read.points(), read.damaged) == ({}, 3)


def test_events_send_what_a_long_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("starlette", reason="needs the extra `studio`")
    from asgi import request

    from modelnative.studio.server.app import make_app

    monkeypatch.setattr(module, "STRIDE", 10_000)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    long_file(run / "metrics.jsonl")
    app = make_app(tmp_path)
    first = request(app, "/api/run", {"id": "run"}).json()
    assert first["preview"]
    query = {"id": "run", "seen": ",".join(map(str, first["seen"]))}
    answer = request(app, "/api/events", query, until=b"data:")
    (news,) = [json.loads(text[6:]) for text in answer.text.splitlines() if text.startswith("data: ")]
    assert not news["preview"]
    assert news["from"] == 0
    assert news["points"]["update"][-1] > 1990
