from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from modelnative.errors import UserError
from modelnative.runs.files import (
    FORMAT,
    append_lines,
    begin_lines,
    read_json,
    read_lines,
    read_tensors,
    write,
    write_json,
    write_tensors,
)
from modelnative.runs.run import Run
from modelnative.training.config import TrainConfig


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_what_stood_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); free the disk"):
            write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "no partial file is left"
    write(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_crash_while_writing_leaves_what_stood_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write(path, b"old")

    def crash(_: int) -> None:
        raise SystemExit

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(SystemExit):
        write(path, b"new")
    assert path.read_bytes() == b"old"


def test_where_a_folder_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def windows(path: Any, flags: int, *rest: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", windows)
    with pytest.raises(PermissionError):
        os.open(tmp_path, os.O_RDONLY)
    write(tmp_path / "file", b"old")
    write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here first")
    for action in (lambda p: write(p, b""), begin_lines, lambda p: append_lines(p, [1])):
        with pytest.raises(UserError, match=r"cannot be written \(Not a directory|File exists"):
            action(tmp_path / "file" / "inside")
    assert (tmp_path / "file").read_text() == "here first"


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Is a directory"):
        write(tmp_path, b"")
    with pytest.raises(UserError, match="Is a directory"):
        begin_lines(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_appending_to_a_full_disk() -> None:
    with pytest.raises(UserError, match="No space left on device"):
        append_lines(Path("/dev/full"), [{"update": 1}])


def test_beginning_lines_never_replaces_a_device_or_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text('{"stage": "T0", "actions": [1]}\n')
    (tmp_path / "link").symlink_to(tmp_path / "target")
    begin_lines(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == ""
    begin_lines(Path(os.devnull))
    assert not Path(os.devnull).is_file()


# JSON

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.just(FORMAT),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["format", "about", "update"]), inner),
    max_leaves=10,
)


@given(JSON | st.text(st.characters(categories=["Cs", "L"])))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), pytest.param(10**5000, id="long")])
def test_numbers_that_no_reader_knows_are_not_written(tmp_path: Path, number: float) -> None:
    for action in (write_json, lambda path, value: append_lines(path, [value])):
        with pytest.raises(UserError, match=r"value: cannot be written \("):
            action(tmp_path / "value", {"number": number})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("depth", [101, 2000, 100_000])
def test_deeply_nested_json_is_refused(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * depth + "]" * depth)
    for read in (read_json, read_lines):
        if read is read_lines:
            path.write_text(path.read_text() + "\n")
        with pytest.raises(UserError, match=r"deep\.json.*: (not JSON|nested deeper than 100 levels)"):
            read(path)


@given(JSON)
def test_odd_metadata_of_tensors(tmp_path_factory: pytest.TempPathFactory, header: Any) -> None:
    path = tmp_path_factory.mktemp("odd") / "a.safetensors"
    save_file({"x": torch.zeros(2)}, path, {"modelnative": json.dumps(header)})
    with pytest.raises(UserError, match=r"not a modelnative file"):
        read_tensors(path)


@given(st.lists(JSON, min_size=1))
def test_odd_lines_of_metrics(tmp_path_factory: pytest.TempPathFactory, lines: list[Any]) -> None:
    run = Run(tmp_path_factory.mktemp("odd"), TrainConfig())
    run.append(lines)
    if all(isinstance(line, dict) and isinstance(line.get("update"), int) for line in lines):
        assert run.metrics() == lines
    else:
        with pytest.raises(UserError, match=r"line \d+ is not the metrics of an update"):
            run.forget_after(0)


@given(st.dictionaries(st.sampled_from(["evaluation", "sampled", "updates", "seconds"]), JSON) | JSON)
def test_odd_verdicts(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    run = Run(tmp_path_factory.mktemp("odd"), TrainConfig())
    write_json(run.result_path, value)
    with pytest.raises(UserError, match=r"result\.json: damaged"):
        run.result()


@given(st.binary(max_size=60))
def test_files_of_anything(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(content)
    for read in (read_json, read_lines, read_tensors):
        with contextlib.suppress(UserError):
            read(path)


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none())))
def test_lines_round_trip(tmp_path_factory: pytest.TempPathFactory, lines: list[Any]) -> None:
    path = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    append_lines(path, lines[:1])
    append_lines(path, lines[1:])
    assert read_lines(path) == lines


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"update": 1}\n{"update": 2}\n{"upda')
    assert read_lines(path) == [{"update": 1}, {"update": 2}]
    path.write_text('{"update": 1}\n{"upda\n{"update": 3}\n')
    with pytest.raises(UserError, match="line 2: not JSON"):
        read_lines(path)
    assert read_lines(tmp_path / "none.jsonl") == []


def test_reading_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"γ": 1})
    assert read_json(tmp_path / "a.json") == {"γ": 1}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UserError, match=r"b.json: not JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(UserError, match=r"c.json: cannot be read \(No such file"):
        read_json(tmp_path / "c.json")


# Tensors


def test_tensors_round_trip_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"x": torch.randn(3, 2).T, "n": torch.tensor(7), "b": torch.tensor([True, False])}
    write_tensors(path, tensors, {"kind": "test", "numbers": [1, None]})
    read, about = read_tensors(path)
    assert about == {"kind": "test", "numbers": [1, None]}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    write_tensors(tmp_path / "b.safetensors", tensors, about)
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes(), "the same content is the same file"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.999])
def test_truncated_tensors(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"x": torch.randn(100)}, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        read_tensors(path)


def test_foreign_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="not a modelnative file"):
        read_tensors(path)
    save_file({"x": torch.zeros(2)}, path, {"modelnative": json.dumps({"format": "modelnative/9"})})
    with pytest.raises(UserError, match=f"not a modelnative file of format '{FORMAT}' .it says 'modelnative/9'"):
        read_tensors(path)
    save_file({"x": torch.zeros(2)}, path, {"modelnative": "{"})
    with pytest.raises(UserError, match="damaged"):
        read_tensors(path)
    path.write_text(json.dumps({"x": 1}))
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        read_tensors(path)
    with pytest.raises(UserError, match="there is no such file"):
        read_tensors(tmp_path / "none")
