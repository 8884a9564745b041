"""Questions about what is inside an agent, sweeps and certificates, answered about real runs and about hostile ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from asgi import Answer, request

import modelnative as mn
from modelnative.runs.run import Run
from modelnative.runs.training import Training
from modelnative.studio.report import write_report
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.spec import parse_spec
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe

pytest.importorskip("starlette", reason="needs the extra `studio`")
from modelnative.studio.server.app import make_app
from modelnative.studio.server.guard import BODY

POSTS = ("episode", "choices", "switch", "inspect", "through", "find")
EVIL = "<img src=x onerror=alert(1)>\"'&"
FIELDS = {"task": "worlds:Small", "updates": 4, "episodes": 16, "policy": {"width": 8}, "threads": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inside") / "runs"
    training = Training.start(
        path / "a", with_fields(recipe(), {**FIELDS, "checkpoint_every": 1, "keep_checkpoints": 3})
    )
    list(training.events())
    return path


@pytest.fixture(scope="module")
def app(root: Path) -> Any:
    return make_app(root)


def ask(app: Any, name: str, **asked: Any) -> Answer:
    body = {"run": "a", "weights": "best", "stage": "T1", "problem": "3 7 2 4", **asked}
    return request(app, f"/api/{name}", body=json.dumps(body).encode())


def test_a_switch_is_what_the_evidence_says(app: Any, root: Path) -> None:
    from modelnative.evidence.switches import Switch, switched

    offered = ask(app, "choices").json()["carriers"]
    assert {"name": "hidden state", "sources": ["donor", "zero", "mean"]} in offered
    asked = {"carrier": "hidden state", "source": "donor", "key": 1, "donor": "1 2 3 4"}
    told = ask(app, "switch", **asked).json()
    run = Run.open(root / "a")
    task = run.task()
    found = switched(
        run.policy(task),
        task,
        task.parse(1, "3 7 2 4"),
        Switch("hidden state", "donor", 1),
        task.parse(1, "1 2 3 4"),
    )
    assert told["words"] == found.words()
    assert told["changed"]["tokens"] == json.loads(json.dumps(found.changed.as_dict()))["tokens"]
    assert told["changed"]["verdict"]
    assert ask(app, "switch", carrier="hidden state", source="zero", key=0).json()["donor"] is None


def test_inspections(app: Any, root: Path) -> None:
    assert request(app, "/api/inspection", {"id": "a"}).json() == {"stages": [], "pairs": 0}
    made = ask(app, "inspect").json()
    assert made["pairs"] == 100
    (stage,) = made["stages"]
    assert (stage["stage"], stage["keys"][0]) == ("T1", 1)
    assert {row[0] for row in stage["rows"]} >= {"hidden state", "context", "last token"}
    assert not (root / "a" / "inspect.json").exists(), "looking writes nothing"
    assert ask(app, "inspect").json() == made
    mn.inspect(root / "a", stages=["T0"], pairs=30, probes=False, file=root / "a" / "inspect.json")
    kept = request(app, "/api/inspection", {"id": "a"}).json()
    assert [stage["stage"] for stage in kept["stages"]] == ["T0"]
    (root / "a" / "inspect.json").unlink()


def test_one_problem_through_the_training(app: Any, root: Path) -> None:
    from modelnative.evidence.explain import explain

    told = ask(app, "through").json()
    assert [each["update"] for each in told["checkpoints"]] == [2, 3, 4]
    run = Run.open(root / "a")
    task = run.task()
    for each in told["checkpoints"]:
        policy = run.policy(task, checkpoint=each["update"])
        expected = explain(policy, task, task.parse(1, "3 7 2 4")).as_dict()
        assert each["episode"]["tokens"] == json.loads(json.dumps(expected))["tokens"]
    path = root / "broken"
    shutil.copytree(root / "a", path)
    (path / "checkpoints" / "000003.safetensors").write_bytes(b"x" * 100)
    told = ask(make_app(root), "through", run="broken").json()
    assert [each["update"] for each in told["checkpoints"]] == [2, 4]
    assert told["notes"][0].startswith("checkpoint 3: ")
    shutil.rmtree(path / "checkpoints")
    assert "expected one with checkpoints" in ask(make_app(root), "through", run="broken").json()["error"]
    shutil.rmtree(path)


def test_more_checkpoints_than_are_shown(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelnative.studio.server import inside

    monkeypatch.setattr(inside, "MOST", 2)
    assert [each["update"] for each in ask(app, "through").json()["checkpoints"]] == [2, 4]


@pytest.mark.parametrize("kind", ["wrong", "right", "longest", "invalid", "departs"])
def test_found_episodes_can_be_played(app: Any, kind: str) -> None:
    told = ask(app, "find", kind=kind).json()
    assert told["played"] == 80
    for episode in told["episodes"][:3]:
        played = ask(app, "episode", problem=episode["problem"], seed=0).json()
        assert (played["success"], len(played["tokens"])) == (episode["success"], episode["length"])
        if kind in ("wrong", "right"):
            assert played["success"] == (kind == "right")


@pytest.mark.parametrize(
    ("name", "asked", "reason"),
    [
        ("find", {"kind": "x"}, "kind: unknown value 'x'"),
        ("find", {"kind": None}, "kind: None is not allowed; expected a text"),
        ("find", {"stage": "T9", "kind": "wrong"}, "stage: unknown value 'T9'"),
        ("switch", {"carrier": EVIL, "source": "zero", "key": 1}, "carrier: unknown value"),
        ("switch", {"carrier": "hidden state", "source": EVIL, "key": 1}, "source: unknown value"),
        ("switch", {"carrier": "hidden state", "source": "zero", "key": 99}, "key: 99 is not allowed"),
        ("switch", {"carrier": "hidden state", "source": "zero", "key": 1.5}, "key: 1.5 is not allowed"),
        ("switch", {"carrier": "hidden state", "source": "zero", "key": True}, "key: True is not allowed"),
        ("switch", {"carrier": "hidden state", "source": "donor", "key": 1}, "donor: None is not allowed"),
        ("switch", {"carrier": "hidden state", "source": "donor", "key": 1, "donor": "1 2"}, "problem: "),
        ("through", {"problem": "1"}, "problem: "),
        ("through", {"problem": "1 " * 2000}, "problem: '4,000 characters' is not allowed"),
        ("inspect", {"stage": ""}, "stage: unknown value ''"),
        ("inspect", {"weights": "7"}, "weights: unknown value '7'"),
        ("choices", {"problem": EVIL}, "problem: "),
    ],
)
def test_what_is_wrong_is_said(app: Any, name: str, asked: dict[str, Any], reason: str) -> None:
    answer = ask(app, name, **asked)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
    assert reason in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize("name", POSTS)
def test_no_question_gets_around_the_guard(app: Any, root: Path, name: str) -> None:
    path = f"/api/{name}"
    body = b"{}"
    assert request(app, path, body=body, headers={"host": "evil.example"}).status == 421
    assert request(app, path, body=body, headers={"origin": "http://evil.example"}).status == 403
    assert request(app, path, body=body, headers={"sec-fetch-site": "cross-site"}).status == 403
    assert request(app, path, body=body, headers={"content-type": "text/plain"}).status == 415
    assert request(app, path, body=b"x" * (BODY + 1)).status == 413
    assert request(app, path).status == 405
    for wrong in (b"{", b"[]", b"null", b"[" * 5000, b"{}", b'{"run": 3}'):
        answer = request(app, path, body=wrong)
        assert answer.status == 400
        assert answer.json()["error"]
    for outside in ("..", "../a", "/etc", str(root / "a"), "nothing", "a\0"):
        asked = {"kind": "wrong", "carrier": "context", "source": "donor", "key": 1, "donor": "1 2 3 4", "seed": 0}
        assert ask(app, name, run=outside, **asked).status == 404


@pytest.mark.parametrize("name", ["inspection", "certificate", "sweep"])
def test_no_folder_outside_is_read(app: Any, root: Path, tmp_path: Path, name: str) -> None:
    for outside in ("", "..", "../a", "/etc", str(root / "a"), "nothing", "a/../a", "a\0", "a/checkpoints"):
        answer = request(app, f"/api/{name}", {"id": outside})
        assert (answer.status, list(answer.json())) == (404, ["error"]), outside
    assert request(app, f"/api/{name}", {"id": "a"}, headers={"host": "evil.example"}).status == 421
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"stages": [], "secret": 1}))
    path = root / "linked"
    shutil.copytree(root / "a", path)
    file = {"inspection": "inspect", "certificate": "certificate", "sweep": "sweep"}[name]
    (path / f"{file}.json").symlink_to(secret)
    answer = request(make_app(root), f"/api/{name}", {"id": "linked"})
    assert answer.status == 404
    assert "a link that leads out of the folder" in answer.json()["error"]
    shutil.rmtree(path)


@pytest.mark.parametrize("content", ["{", "[]", "3", "{}", '{"stages": 3}', '{"stages": [{}]}', "[" * 5000])
def test_damaged_files_are_named(root: Path, content: str) -> None:
    path = root / "damaged"
    shutil.copytree(root / "a", path)
    for name, file in (("inspection", "inspect.json"), ("certificate", "certificate.json"), ("sweep", "sweep.json")):
        (path / file).write_text(content)
        answer = request(make_app(root), f"/api/{name}", {"id": "damaged"})
        assert answer.status == 400, name
        assert answer.json()["error"]
    assert request(make_app(root), "/api/run", {"id": "damaged"}).status == 200
    shutil.rmtree(path)


# Certificates


def test_a_certificate_is_shown_or_its_command(app: Any, root: Path) -> None:
    told = request(app, "/api/certificate", {"id": "a"}).json()
    assert told == {"command": f"modelnative certify {root / 'a'}"}
    measured = mn.certify(root / "a", "T0", problems=100, train=False)
    assert measured.task == "worlds:Small"
    told = request(app, "/api/certificate", {"id": "a"}).json()
    assert told["head"][:3] == ["stage", "problems", "oracle"]
    assert told["rows"][0][:3] == ["T0", "80", "1.000"]
    assert told["conclusion"].startswith(("Certified", "Not certified", "Inconclusive"))
    text = write_report(Run.open(root / "a")).read_text()
    assert "Without the abilities that the task asks for" in text
    assert told["conclusion"] in text
    found = json.loads((root / "a" / "certificate.json").read_text())
    found["findings"] = [{"level": "note", "stage": None, "words": EVIL, "remedy": ""}]
    (root / "a" / "certificate.json").write_text(json.dumps(found))
    assert EVIL not in write_report(Run.open(root / "a")).read_text()
    (root / "a" / "certificate.json").unlink()
    assert f"modelnative certify {root / 'a'}" in write_report(Run.open(root / "a")).read_text()


# Sweeps


@pytest.fixture(scope="module")
def swept(root: Path) -> Path:
    spec = parse_spec({"name": "swept", "base": FIELDS, "seeds": [0, 1], "grid": {"policy.width": [4, 8]}})
    sweep = Sweep.planned(root / "swept", spec)
    sweep.write()
    for trial in sweep.trials:
        list(Training.start(sweep.run(trial).path, trial.config).events())
    return root / "swept"


def test_a_sweep_and_its_intervals(root: Path, swept: Path) -> None:
    app = make_app(root)
    listed = request(app, "/api/runs").json()
    assert [(sweep["id"], sweep["begun"], sweep["finished"]) for sweep in listed["sweeps"]] == [("swept", 4, 4)]
    told = request(app, "/api/sweep", {"id": "swept"}).json()
    assert [group["label"] for group in told["groups"]] == ["policy.width=4", "policy.width=8"]
    compared = mn.compare(swept)
    for group, score in zip(told["groups"], compared.scores, strict=True):
        values = group["metrics"]["success"]["values"]
        assert len(values) == 2
        assert group["metrics"]["success"]["median"] == pytest.approx(sum(values) / 2)
        assert set(group["metrics"]) == {"success", "updates", "seconds"}
        assert group["metrics"]["success"]["iqm"]["low"] <= score.value + 1
    (pair,) = told["against"]["success"]
    assert "no difference" in pair["verdict"]
    assert any("2 seeds in the smallest group: too few for a claim" in note for note in told["notes"])
    for trial in told["trials"]:
        assert request(app, "/api/run", {"id": trial["run"]}).status == 200


def test_a_hostile_sweep_names_trials_outside(root: Path, swept: Path) -> None:
    path = root / "evil"
    shutil.copytree(swept, path)
    found = json.loads((path / "sweep.json").read_text())
    names = ["../../a", "/etc", "..", EVIL]
    for trial, name in zip(found["trials"], names, strict=True):
        trial["name"] = name
    (path / "sweep.json").write_text(json.dumps(found))
    told = request(make_app(root), "/api/sweep", {"id": "evil"}).json()
    assert [trial["trial"] for trial in told["trials"]] == [EVIL]
    assert told["trials"][0]["status"] == "unfinished"
    assert sum("is not in this folder" in note for note in told["notes"]) == 3
    found["trials"][0]["config"]["task"] = "antigravity_of_evil:Task"
    (path / "sweep.json").write_text(json.dumps(found))
    answer = request(make_app(root), "/api/sweep", {"id": "evil"})
    assert "would run the code of the module 'antigravity_of_evil'" in answer.json()["error"]
    shutil.rmtree(path / "trials")
    (path / "trials").symlink_to(root.parent)
    assert [s["begun"] for s in request(make_app(root), "/api/runs").json()["sweeps"] if s["id"] == "evil"] == [0]
    shutil.rmtree(path)
