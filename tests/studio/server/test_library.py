from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelnative.studio.server import library as module
from modelnative.studio.server.library import GoneError, Library

CONFIG = {
    "format": "modelnative/2",
    "task": "arithmetic",
    "core": "gru",
    "algorithm": "ppo",
    "curriculum": "hints",
    "seed": 3,
}
RESULT = {"evaluation": {"counts": [{"successes": 3, "problems": 4}]}}


def make(path: Path, updates: int = 2, result: object = None, config: object = CONFIG) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    lines = [json.dumps({"update": u, "success": [0.25, None, 2]}) for u in range(1, updates + 1)]
    (path / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    if result is not None:
        (path / "result.json").write_text(json.dumps(result))
    return path


def test_runs_are_found_and_summarized(tmp_path: Path) -> None:
    make(tmp_path / "a", result=RESULT)
    make(tmp_path / "sweep" / "trials" / "seed-1", updates=5)
    make(tmp_path / ".hidden")
    make(tmp_path / "a" / "inner")
    os.utime(tmp_path / "a" / "metrics.jsonl", (1, 1))
    found = {run["id"]: run for run in Library(tmp_path).summaries()}
    assert set(found) == {"a", "sweep/trials/seed-1"}
    assert (found["a"]["state"], found["a"]["rate"], found["a"]["seed"]) == ("finished", 0.75, "3")
    trial = found["sweep/trials/seed-1"]
    assert (trial["state"], trial["update"], trial["success"], trial["rate"]) == (
        "training",
        5,
        [0.25, None, None],
        None,
    )


def test_a_run_that_was_left_alone_is_stopped(tmp_path: Path) -> None:
    path, past = make(tmp_path / "a", result=RESULT), time.time() - 1000
    for name in ("config.json", "metrics.jsonl"):
        os.utime(path / name, (past, past))
    os.utime(path / "result.json", (past - 1000, past - 1000))
    library = Library(tmp_path)
    assert library.one("a")["state"] == "stopped", "it was resumed after its result"
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"update": 3, "success": []}\n{"update": 4, "succ')
    assert (library.one("a")["state"], library.one("a")["update"]) == ("training", 3)


def test_the_folder_itself_may_be_a_run(tmp_path: Path) -> None:
    make(tmp_path / "a")
    library = Library(tmp_path / "a")
    assert [run["id"] for run in library.summaries()] == ["."]
    assert library.folder(".") == (tmp_path / "a").resolve()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '"x"', "\ud800", "[" * 5000])
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_damaged_run_says_so_and_the_rest_goes_on(tmp_path: Path, name: str, content: str) -> None:
    make(tmp_path / "good", result=RESULT)
    bad = make(tmp_path / "bad", result=RESULT)
    (bad / name).write_bytes(content.encode(errors="surrogatepass"))
    found = {run["id"]: run for run in Library(tmp_path).summaries()}
    assert found["good"]["problem"] == ""
    if name == "config.json" or not content or content[0] in "{\ud800" or len(content) > 100:
        assert name in found["bad"]["problem"]
        assert found["bad"]["state"] == "damaged"
        assert str(tmp_path) not in found["bad"]["problem"]


def test_absurdly_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 50)
    make(tmp_path / "a")
    assert "larger than" in Library(tmp_path).one("a")["problem"]


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    path = make(tmp_path / "a")
    (path / "metrics.jsonl").unlink()
    os.mkfifo(path / "metrics.jsonl")
    assert "not a plain file" in Library(tmp_path).one("a")["problem"]


PARTS = st.sampled_from(
    ["..", ".", "", "a", "b", "config.json", "/", "~", "\0", "\\", "...", "runs", "%2e%2e", "\ud800"]
)


@given(st.lists(PARTS, max_size=6).map("/".join))
def test_no_name_leaves_the_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.getbasetemp() / "library"
    if not root.exists():
        make(root / "runs" / "a")
        make(root / "b")  # a run that is not below the studio's folder
    library = Library(root / "runs")
    try:
        found = library.folder(name)
    except GoneError:
        return
    assert found.resolve() == (root / "runs" / "a").resolve()


def test_links_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "runs", make(tmp_path / "outside", result=RESULT)
    (outside / "secret.txt").write_text("secret")
    make(root / "a", result=RESULT)
    (root / "linked").symlink_to(outside)
    library = Library(root)
    assert [run["id"] for run in library.summaries()] == ["a"]
    with pytest.raises(GoneError):
        library.folder("linked")
    for name in ("report.html", "metrics.jsonl", "weights.safetensors", "checkpoints/1.safetensors"):
        made = make(root / "b")
        (made / "checkpoints").mkdir()
        (made / name).unlink(missing_ok=True)
        (made / name).symlink_to(outside / "secret.txt")
        with pytest.raises(GoneError, match="leads out of the folder"):
            library.folder("b")
        assert "leads out" in library.one("b")["problem"]
        shutil.rmtree(made)
        library = Library(root)


def test_a_run_that_was_deleted(tmp_path: Path) -> None:
    path = make(tmp_path / "a")
    library = Library(tmp_path)
    assert library.folder("a") == path.resolve()
    shutil.rmtree(path)
    with pytest.raises(GoneError, match="'a' is gone: its folder was deleted or moved"):
        library.folder("a")
    assert library.summaries() == []
