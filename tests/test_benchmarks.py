"""What the benchmarks say of curricula: who got there, who did not, and where to go on."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def curricula(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with results of its own and a family that is trained in a moment."""
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("curricula")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "curricula.jsonl")
    monkeypatch.setattr(module, "FAMILIES", {"hops": module.Family("hops", {"hops": 2, "size": 4}, 4_000)})
    return module


def run(reached: bool, updates: int, rate: float = 1.0) -> dict[str, Any]:
    return {"reached": reached, "updates": updates, "episodes": 1, "steps": 1, "heldout": {"H1": rate}}


def test_a_seed_that_did_not_get_there_counts_as_longer_than_its_budget(curricula: ModuleType) -> None:
    runs = [run(True, 10), run(True, 30), run(False, 70), run(True, 20), run(False, 80)]
    assert curricula.median_range(runs, "updates", 1) == "30 (10 – > 80)"
    assert curricula.median_range(runs[2:], "updates", 1) == "> 70 (20 – > 80)"
    assert curricula.median_range(runs[:2], "updates", 10) == "2 (1 – 3)"
    assert curricula.median_range([run(False, 70)], "updates", 1) == "–"


def test_a_row_tells_how_many_got_there_and_the_worst_success(curricula: ModuleType) -> None:
    row = curricula.row("uniform", [run(True, 10), run(False, 70, 0.25), run(True, 30, 0.995)])
    assert row.startswith("| uniform | 2 of 3 | 30 (10 – > 70) |")
    assert row.endswith("| H1 2 | H1 0.995 (0.250) |")


def test_it_goes_on_where_it_was_stopped(curricula: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["curricula.py", "--curricula", "uniform", "tutorial", "--seeds", "2"])
    curricula.main()
    lines = curricula.RESULTS.read_text().splitlines()
    first = [json.loads(line) for line in lines]
    assert {(line["curriculum"], line["seed"]) for line in first} == {
        *(("uniform", 0), ("uniform", 1)),
        *(("tutorial", 0), ("tutorial", 1)),
    }
    for line in first:
        assert not line["reached"]
        assert line["steps"] >= 4_000
        assert line["episodes"] == 512 * line["updates"]
        assert set(line["heldout"]) == {"H1", "H2"}
    curricula.RESULTS.write_text("\n".join(lines[:3]) + "\n")
    curricula.main()
    again = curricula.RESULTS.read_text().splitlines()
    assert again[:3] == lines[:3]
    assert len(again) == 4
    assert json.loads(again[3])["seed"] == first[3]["seed"]


def test_results_with_another_budget_are_neither_shown_nor_taken_for_these(
    curricula: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"family": "hops", "budget": 5, "curriculum": "uniform", "seed": 0, **run(True, 10)}
    curricula.RESULTS.write_text(json.dumps(other) + "\n")
    monkeypatch.setattr("sys.argv", ["curricula.py", "--curricula", "uniform", "--seeds", "1"])
    curricula.main()
    assert len(curricula.RESULTS.read_text().splitlines()) == 2
    assert "| uniform | 0 of 1 | – |" in capsys.readouterr().out


# Recipes


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script, with results of its own and runs that take no time."""
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("learning")

    def measure(recipe: str, flags: list[str], seed: int) -> dict[str, Any]:
        rates = {kind: dict.fromkeys(("T0", "T1", "T2"), 1.0) for kind in ("evaluation train", "sampled train")}
        numbers = dict.fromkeys(("seconds", "updates", "episodes", "steps"), 1 + seed)
        return {"recipe": recipe, "seed": seed, "solved": True, "line": "", **numbers, "rates": rates}

    monkeypatch.setattr(module, "RESULTS", tmp_path / "learning.jsonl")
    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(module, "commit", lambda: "1a")
    monkeypatch.setattr("sys.argv", ["learning.py", "recipes", "--seeds", "2"])
    return module


def test_recipes_are_every_algorithm_and_every_core(learning: ModuleType) -> None:
    learning.main()
    lines = learning.results()
    assert [(line["recipe"], line["seed"]) for line in lines] == [(name, k) for name in learning.GROUP for k in (0, 1)]
    flags = {" ".join(learning.RECIPES[name]) for name in learning.GROUP}
    assert len(flags) == 11
    assert "--core transformer --algorithm grpo" in flags


def test_runs_of_the_same_commit_are_not_repeated(learning: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    learning.main()
    whole = learning.RESULTS.read_text().splitlines()
    learning.RESULTS.write_text("\n".join(whole[:5]) + "\n")
    learning.main()
    assert learning.RESULTS.read_text().splitlines() == whole
    for version, added in (("2b", 22), ("", 22), ("", 22)):  # without a commit nothing is known to be the same
        monkeypatch.setattr(learning, "commit", lambda version=version: version)
        before = len(learning.results())
        learning.main()
        assert len(learning.results()) == before + added


def test_the_table_has_the_newest_commit_of_each_recipe(learning: ModuleType) -> None:
    old, new = ({**learning.measure("a2c", [], seed), "commit": kind} for seed, kind in ((8, "1a"), (2, "2b")))
    rows = learning.table([old, {**old, "seed": 9}, new]).splitlines()
    assert len(rows) == 3
    assert rows[2].startswith("| a2c | 1 | 1 of 1 | 3.0 (3.0–3.0) |")


@pytest.mark.parametrize(
    ("script", "page"),
    [
        ("inspection", "concepts/inside.md"),
        ("gymnasium_in", "howto/gymnasium.md"),
        ("reasoning_gym_in", "howto/reasoning-gym.md"),
    ],
)
def test_the_page_shows_what_was_measured(script: str, page: str) -> None:
    spec = importlib.util.spec_from_file_location(f"shown_{script}", FOLDER / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = [json.loads(line) for line in module.RESULTS.read_text().splitlines()]
    table = module.table(lines)
    assert len(table.splitlines()) > 3
    assert table in (FOLDER.parent / "docs" / page).read_text()


def test_a_table_has_the_results_of_these_settings_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("reasoning_gym_in")
    run = {"dataset": "spell_backward", "library": "modelnative", "constant": 0.25, "steps": 9, "processor_seconds": 1}
    lines = [
        {**run, "seed": seed, "command": module.described("spell_backward", "modelnative", other), "heldout": rate}
        for seed, other, rate in ((1, 1, 0.5), (2, 2, 1.0), (3, 4, 0.75))
    ]
    assert module.table(lines).splitlines()[2:] == [
        "| spell_backward | 0.250 | modelnative | 1 2 | 0.500 1.000 | 9 | 1 |"
    ]


def test_a_failing_check_is_a_line_of_the_conformance_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("conformance")
    registry = importlib.import_module("conformance_registry")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "conformance.jsonl")
    monkeypatch.setattr(module, "PAGE", tmp_path / "conformance.md")
    monkeypatch.setattr(module, "load", lambda: None)
    registry.CHECKS.clear()
    outcomes = {"first": "equal", "second": ""}

    def checked(name: str) -> str:
        if not outcomes[name]:
            raise ValueError(f"{name} differs")
        return outcomes[name]

    for name in outcomes:
        registry.check("torch", "torch", name)(lambda name=name: checked(name))
    registry.check("torch", "no_such_module", "elsewhere")(lambda: "never run here")
    registry.check("torch", "torch", "long", slow=True)(lambda: "never run without --slow")
    monkeypatch.setattr("sys.argv", ["conformance.py"])
    assert module.main() == 1
    assert "| first | equal |" in module.PAGE.read_text()
    assert "| second | FAILED: ValueError: second differs |" in module.PAGE.read_text()
    assert "never" not in module.PAGE.read_text()
    outcomes["second"] = "equal, too"
    assert module.main() == 0
    lines = [json.loads(line) for line in module.RESULTS.read_text().splitlines()]
    assert [(line["what"], line["result"]) for line in lines] == [("first", "equal"), ("second", "equal, too")]
    monkeypatch.setattr("sys.argv", ["conformance.py", "--only", "no_such_package"])
    assert module.main() == 1


def test_a_result_is_kept_when_its_check_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("conformance")
    registry = importlib.import_module("conformance_registry")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "conformance.jsonl")
    monkeypatch.setattr(module, "PAGE", tmp_path / "conformance.md")
    monkeypatch.setattr(module, "load", lambda: None)
    monkeypatch.setattr("sys.argv", ["conformance.py"])
    registry.CHECKS.clear()
    registry.check("torch", "torch", "first")(lambda: "equal")

    def cut_off() -> str:
        assert "| first | equal |" in module.PAGE.read_text()
        raise KeyboardInterrupt

    registry.check("torch", "torch", "second")(cut_off)
    with pytest.raises(KeyboardInterrupt):
        module.main()
    assert [line["what"] for line in module.kept()] == ["first"]


def test_a_group_that_cannot_be_installed_is_a_line_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("conformance")
    environments = importlib.import_module("conformance_environments")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "conformance.jsonl")
    monkeypatch.setattr(module, "PAGE", tmp_path / "conformance.md")
    (tmp_path / "file").touch()
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "file")  # in which no environment can be made
    assert not module.run_groups(["verl", "core"], ["--list"])
    (line,) = module.kept()
    assert (line["package"], line["passed"]) == ("verl", False)
    assert "python -m venv … failed: " in line["result"]
    assert f"| verl | {module.INSTALLED} | FAILED: " in module.PAGE.read_text()
    assert "gymnasium: 1,000 oracle" in capfd.readouterr().out  # the other group's checks, listed by their process
    assert module.run_groups(["core"], ["--list"])
    assert module.kept() == [line]  # it is still so


# Size


def test_only_code_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("size")
    text = '"""What it is.\n\nMore."""\n\n# why\ndef f() -> str:\n    """What it does."""\n'
    text += '    return """one\ntwo"""  # how\n'
    assert module.code_lines(text) == ["def f() -> str:", '    return """one', 'two"""  # how']
    for name in ("before", "now"):
        folder = tmp_path / name / "src" / "modelnative"
        for file in ("api.py", "bridges/sb3.py")[: 1 + (name == "now")]:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
    monkeypatch.setattr("sys.argv", ["size.py", str(tmp_path / "before"), str(tmp_path / "now")])
    module.main()
    rows = {line[:26].strip(): line[26:].split() for line in capsys.readouterr().out.splitlines()}
    assert rows["api"] == ["3", "3", "0", "3"]
    assert rows["bridges"] == ["0", "3", "3", "0"]
    assert rows["all"] == ["3", "6", "3", "3"]
    assert rows["other libraries"] == ["3"]


def test_minutes_replace_those_of_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    families, seen = importlib.import_module("families"), list[list[str]]()

    def measure(name: str, flags: list[str], seed: int, changed: tuple[str, ...]) -> dict[str, Any]:
        seen.append(flags)
        rates = {"evaluation heldout": {"K8": 1.0}}
        return {"recipe": name, "seed": seed, "line": "", "seconds": 1.0, "updates": 1, "rates": rates}

    monkeypatch.setattr(families, "measure", measure)
    monkeypatch.setattr(families, "RESULTS", tmp_path / "families.jsonl")
    for more in ([], ["--minutes", "30"]):
        monkeypatch.setattr("sys.argv", ["families.py", "dictionary, store, discover", "--seeds", "1", *more])
        families.main()
    minutes = [[flags[i + 1] for i, flag in enumerate(flags) if flag == "--minutes"][-1] for flags in seen]
    assert minutes == ["10", "30.0"], "the last one counts"


def test_the_families_table_has_the_newest_result_of_each_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    families = importlib.import_module("families")

    def line(seed: int, rate: float) -> dict[str, Any]:
        return {"recipe": "hops", "seed": seed, "seconds": 1.0, "rates": {"evaluation heldout": {"H6": rate}}}

    assert "| hops | 2 | H6 | 0.250 0.750 |" in families.table([line(1, 0.5), line(0, 0.25), line(1, 0.75)])


def test_processor_seconds_are_those_of_processes_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    learning = importlib.import_module("learning")
    before = learning.processor_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    spent = learning.processor_seconds() - before
    assert spent > 0.01 or sys.platform == "win32"
