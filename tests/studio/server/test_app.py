"""The studio's answers, in this process, about real runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from asgi import Answer, request

from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio.report import write_report
from modelnative.tasks import importing
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

pytest.importorskip("starlette", reason="needs the extra `studio`")
from modelnative.studio.server.app import ASSETS, REPORT_POLICY, make_app

HOSTILE = "<img src=x onerror=alert(1)>\"'&amp;{{7*7}}</script>"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studio") / "runs"
    fields = {"task": "worlds:Small", "updates": 6, "episodes": 16, "policy": {"width": 8}, "checkpoint_every": 2}
    training = Training.start(path / "a", with_fields(recipe(), {**fields, "threads": 1}))
    list(training.events())
    write_report(training.run)
    shutil.copytree(path / "a", path / "nested" / HOSTILE.replace("/", "∕"))
    return path


@pytest.fixture(scope="module")
def app(root: Path) -> Any:
    return make_app(root)


def ask(app: Any, **asked: Any) -> Answer:
    body = {"run": "a", "weights": "best", "stage": "T0", "problem": "3 7 2", "temperature": 0, "seed": 0, **asked}
    return request(app, "/api/episode", body=json.dumps(body).encode())


def test_the_page_and_its_parts(app: Any) -> None:
    page = request(app, "/")
    assert page.status == 200
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    parts = re.findall(r'(?:src|href)="/web/([^"]+)"', page.text)
    assert set(parts) == set(ASSETS)
    assert not re.search(r"<script>|<style| on\w+=| style=", page.text), "the policy allows nothing inline"
    for part in parts:
        assert request(app, f"/web/{part}").status == 200
    for name in ("studio.html", "uPlot.LICENSE", "../app.py", "%2e%2e/app.py", "nothing"):
        assert request(app, f"/web/{name}").status == 404


def test_scripts_set_no_html() -> None:
    from modelnative.studio.player import WEB

    for name in sorted(name for name in ASSETS if name.endswith(".js") and not name.startswith("uPlot")):
        text = (WEB / name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)


def test_runs_and_one_run(app: Any) -> None:
    runs = request(app, "/api/runs").json()["runs"]
    assert {run["id"] for run in runs} == {"a", f"nested/{HOSTILE.replace('/', '∕')}"}
    run = request(app, "/api/run", {"id": "a"}).json()
    assert (run["state"], run["update"], run["stages"], run["report"]) == ("finished", 6, ["T0", "T1", "T2"], True)
    assert run["points"]["update"] == [1, 2, 3, 4, 5, 6]
    agent = request(app, "/api/agent", {"id": "a"}).json()
    assert agent["weights"][0] == "best"
    assert len(agent["weights"]) == 4, "three checkpoints are kept"
    drawn = {
        request(app, "/api/problem", {"id": "a", "stage": "T2", "seed": str(s)}).json()["problem"] for s in range(4)
    }
    assert len(drawn) > 1
    assert all(ask(app, stage="T2", problem=text).status == 200 for text in drawn)


def test_an_episode_is_what_explain_says(app: Any, root: Path) -> None:
    from modelnative.evidence.explain import explain

    run = Run.open(root / "a")
    task = run.task()
    told = ask(app).json()
    expected = explain(run.policy(task), task, task.parse(0, "3 7 2")).as_dict()
    assert {name: told[name] for name in expected} == json.loads(json.dumps(expected))
    checkpoint = request(app, "/api/agent", {"id": "a"}).json()["weights"][-1]
    assert ask(app, weights=checkpoint).json()["tokens"] != told["tokens"]
    assert ask(app, temperature=5).json() == ask(app, temperature=5).json()
    assert len({ask(app, temperature=5, seed=seed).body for seed in range(4)}) > 1


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"problem": "3 7"}, "problem: "),
        ({"problem": "x" * 2001}, "problem: "),
        ({"problem": 3}, "problem: 3 is not allowed; expected a text"),
        ({"stage": "T9"}, "stage: unknown value 'T9'. Allowed: T0, T1, T2"),
        ({"weights": "999"}, "weights: unknown value '999'"),
        ({"weights": "../a"}, "weights: unknown value"),
        ({"temperature": -1}, "temperature: -1.0 is not allowed"),
        ({"temperature": "hot"}, "temperature: 'hot' is not allowed"),
        ({"temperature": True}, "temperature: True"),
        ({"seed": -1}, "seed: -1 is not allowed"),
        ({"seed": 1e400}, "seed"),
        ({"seed": None}, "seed"),
    ],
)
def test_what_is_wrong_is_said(app: Any, asked: dict[str, Any], reason: str) -> None:
    answer = ask(app, **asked)
    assert answer.status == 400
    assert reason in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_bodies_that_are_no_request(app: Any) -> None:
    for body in (b"{", b"[]", b"3", b"\xff", b"[" * 5000, b"null"):
        answer = request(app, "/api/episode", body=body)
        assert answer.status == 400
        assert answer.json()["error"]
    assert request(app, "/api/episode").status == 405


def test_a_run_that_is_gone_or_outside(app: Any, root: Path) -> None:
    for name in ("", "..", "../a", "/etc", str(root / "a"), "nothing", "a/../a", "a\0", "a/checkpoints"):
        for path in ("/api/run", "/api/agent", "/report", "/api/events"):
            answer = request(app, path, {"id": name, "seen": "0,0"})
            assert (answer.status, list(answer.json())) == (404, ["error"]), (path, name)
        assert ask(app, run=name).status == 404
    copy = root / "copy"
    shutil.copytree(root / "a", copy)
    assert ask(app, run="copy").status == 200
    shutil.rmtree(copy)
    assert "is gone" in ask(app, run="copy").json()["error"]
    assert request(app, "/api/runs").status == 200


def test_a_report_gets_no_origin(app: Any, root: Path) -> None:
    (root / "a" / "report.html").write_text("<script>fetch('/api/runs')</script>")
    answer = request(app, "/report", {"id": "a"})
    assert (answer.status, answer.headers["content-security-policy"]) == (200, REPORT_POLICY)
    assert REPORT_POLICY.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in REPORT_POLICY


def test_a_module_that_is_not_trusted_is_not_imported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELNATIVE_TRUST", "")
    evil = root / "evil"
    shutil.copytree(root / "a", evil)
    config = json.loads((evil / "config.json").read_text())
    (evil / "config.json").write_text(json.dumps({**config, "task": "antigravity_of_evil:Task"}))
    monkeypatch.setattr(importing, "imported", lambda target: pytest.fail(f"{target} was imported"))
    app = make_app(root)
    assert "evil" in {run["id"] for run in request(app, "/api/runs").json()["runs"]}
    assert request(app, "/api/run", {"id": "evil"}).status == 200
    for answer in (request(app, "/api/agent", {"id": "evil"}), ask(app, run="evil")):
        assert answer.status == 400
        assert "would run the code of the module 'antigravity_of_evil'" in answer.json()["error"]
        assert "--trust antigravity_of_evil" in answer.json()["error"]
    shutil.rmtree(evil)


def test_events_follow_a_file_that_grows(root: Path) -> None:
    path = root / "growing"
    shutil.copytree(root / "a", path)
    app = make_app(root)
    seen = request(app, "/api/run", {"id": "growing"}).json()["seen"]
    lines = (path / "metrics.jsonl").read_text().splitlines()
    with open(path / "metrics.jsonl", "a") as file:
        file.write(json.dumps({**json.loads(lines[-1]), "update": 7}) + "\n" + lines[-1][:20])
    query = {"id": "growing", "seen": ",".join(map(str, seen))}
    answer = request(app, "/api/events", query, until=b"data:")
    assert answer.headers["content-type"].startswith("text/event-stream")
    (news,) = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert (news["from"], news["points"]["update"]) == (5, [6, 7]), "the last point that was seen, and the new one"
    for wrong in ("", "1", "a,b"):
        assert request(app, "/api/events", {**query, "seen": wrong}).status == 400
    shutil.rmtree(path)


def test_damaged_lines_are_told(root: Path) -> None:
    path = root / "damaged"
    shutil.copytree(root / "a", path)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join([*lines[:2], "{broken\n", *lines[3:]]))
    (path / "alarms.jsonl").write_text("{broken\n")
    run = request(make_app(root), "/api/run", {"id": "damaged"}).json()
    assert run["points"]["update"] == [1, 2, 4, 5, 6]
    assert run["damaged"] == 1
    assert any("alarms.jsonl" in note for note in run["notes"])
    shutil.rmtree(path)
