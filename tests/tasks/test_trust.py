"""A run, a sweep or a configuration from someone else runs no code."""

from __future__ import annotations

import json
import shlex
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from modelnative.cli.fields import read_configured
from modelnative.cli.parser import Parser
from modelnative.errors import UserError
from modelnative.runs.run import Run
from modelnative.sweeps.folder import Sweep
from modelnative.sweeps.spec import read_spec
from modelnative.tasks import importing
from modelnative.tasks.importing import require_trusted, trust
from modelnative.training.config import TrainConfig

FIELDS = ("task", "core", "algorithm", "curriculum")


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the working directory that must not be imported."""
    (tmp_path / "stranger.py").write_text("open('PWNED', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(importing, "_trusted", set())
    monkeypatch.delenv("MODELNATIVE_TRUST", raising=False)
    return "stranger"


def open_run(fields: dict[str, object]) -> None:
    Path("run").mkdir()
    config = {"format": "modelnative/2", **TrainConfig().model_dump(), **fields}
    Path("run/config.json").write_text(json.dumps(config))
    Run.open(Path("run"))


def open_sweep(fields: dict[str, object]) -> None:
    Path("sweep").mkdir()
    trial = {"name": "a", "fields": {}, "config": {**TrainConfig().model_dump(), **fields}}
    saved = {"format": "modelnative/2", "spec": {"name": "a"}, "trials": [trial]}
    Path("sweep/sweep.json").write_text(json.dumps(saved))
    Sweep.open(Path("sweep"))


def read_base(fields: dict[str, object]) -> None:
    Path("spec.json").write_text(json.dumps({"base": fields}))
    read_spec(Path("spec.json"))


def read_grid(fields: dict[str, object]) -> None:
    Path("spec.json").write_text(json.dumps({"grid": {name: ["arithmetic", value] for name, value in fields.items()}}))
    read_spec(Path("spec.json"))


def read_trials(fields: dict[str, object]) -> None:
    Path("spec.json").write_text(json.dumps({"trials": [{}, fields]}))
    read_spec(Path("spec.json"))


def read_config(fields: dict[str, object], flags: str = "") -> None:
    Path("config.json").write_text(json.dumps(fields))
    read_configured(Parser("train"), shlex.split(f"--config config.json {flags}"), {})


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("read", [open_run, open_sweep, read_base, read_grid, read_trials, read_config])
def test_a_name_in_a_file_imports_nothing(stranger: str, read: Callable[[dict[str, object]], None], field: str) -> None:
    with pytest.raises(UserError, match=rf"{field}: 'stranger:Thing' in .* add --trust stranger") as caught:
        read({field: "stranger:Thing"})
    assert "\n" not in str(caught.value)
    assert stranger not in sys.modules
    assert not Path("PWNED").exists()


@pytest.mark.parametrize("read", [open_run, open_sweep, read_base])
@pytest.mark.parametrize("way", ["trust", "environment", "imported"])
def test_what_the_user_trusts_is_allowed(
    stranger: str, monkeypatch: pytest.MonkeyPatch, read: Callable[[dict[str, object]], None], way: str
) -> None:
    if way == "trust":
        trust(stranger)
    elif way == "environment":
        monkeypatch.setenv("MODELNATIVE_TRUST", f"other,{stranger}")
    else:
        monkeypatch.setitem(sys.modules, stranger, sys)
    read({"core": "stranger:Thing"})


def test_the_script_that_runs_is_trusted(stranger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__main__")
    main.__file__ = str(tmp_path / "stranger.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    open_run({"task": "stranger:task"})
    assert stranger not in sys.modules


@pytest.mark.parametrize("flags", ["--task stranger:task", "--trust stranger", "--trust=stranger --trust other"])
def test_the_command_line_trusts_what_was_typed(stranger: str, flags: str) -> None:
    with pytest.raises(UserError, match="cannot import stranger:") as caught:  # it is imported, and has no such name
        read_config({"core": "stranger:Thing"}, flags)
    assert "--trust" not in str(caught.value)


def test_other_modules_of_the_same_package_are_not_trusted(stranger: str) -> None:
    trust("package.inner:Thing")
    require_trusted("config.json", {"task": "package.inner:Other"})
    for name in ("package:Other", "package.outer:Other", "modelnative.__main__:main"):
        with pytest.raises(UserError, match="--trust"):
            require_trusted("config.json", {"task": name})
