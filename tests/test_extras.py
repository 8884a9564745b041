"""Optional packages: a missing one is one line that names the extra; an untested version is a warning."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest

from modelnative import extras
from modelnative.bridges import hub, inspect, mcp, reasoning_gym, reasoning_gym_task, trl, trl_audit, verl
from modelnative.errors import UserError
from modelnative.runs.loggers import make_loggers
from modelnative.studio.notebook_view import NotebookView
from modelnative.training.registry import LOGGERS


def imported(bridge: str) -> object:
    """Import a bridge anew: the collection of doctests may have left an unfinished module behind."""
    sys.modules.pop(f"modelnative.bridges.{bridge}", None)
    return importlib.import_module(f"modelnative.bridges.{bridge}")


USES: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "trl": ("datasets", "trl", lambda: trl.TRLTask("hops", count=1).train_dataset),
    "trl audit": ("trl", "trl", lambda: trl_audit.audit_trainer(None)),
    "reasoning-gym out": ("reasoning_gym", "reasoning-gym", lambda: reasoning_gym.questions("countdown")),
    "reasoning-gym in": ("reasoning_gym", "reasoning-gym", lambda: reasoning_gym_task.ReasoningGym("gcd")),
    "mcp": ("mcp", "mcp", lambda: mcp.TaskServer("hops")),
    "verifiers": ("verifiers", "verifiers", lambda: imported("verifiers")),
    "openenv": ("openenv", "openenv", lambda: imported("openenv")),
    "verl": ("verl", "verl", lambda: verl._tool_class()),
    "inspect": ("inspect_ai", "inspect", lambda: inspect.inspect_task("hops")),
    "sb3": ("stable_baselines3", "sb3", lambda: imported("sb3")),
    "notebook": ("IPython", "notebook", lambda: NotebookView()),
    "hub": ("huggingface_hub", "hub", lambda: hub._hub()),
    **{name: (name, name, lambda name=name: make_loggers(name)) for name in LOGGERS},
}


@pytest.mark.parametrize("name", USES)
def test_a_missing_package_is_one_line_that_names_the_extra(name: str) -> None:
    module, extra, use = USES[name]
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed here")
    with pytest.raises(
        UserError, match=rf"it is not installed; install it with: pip install 'modelnative\[{extra}\]'$"
    ):
        use()


@pytest.mark.parametrize("name", USES)
def test_another_version_than_those_tested_is_a_warning_that_names_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, use = USES[name]
    if not importlib.util.find_spec(module):
        pytest.skip(f"{module} is not installed here; benchmarks/conformance.py runs this where it is")
    monkeypatch.setattr(extras, "version", lambda package: "999")
    # What fails after the warning may be the package's: one that is installed for another may be too old (mcp 1).
    with warnings.catch_warnings(record=True) as caught, contextlib.suppress(Exception):
        warnings.simplefilter("always")
        use()
    texts = [str(warning.message) for warning in caught]
    pattern = r"\S+ 999 was not tested with modelnative; tested: from [\d.]+, below [\d.]+"
    assert any(re.fullmatch(pattern, text) for text in texts), texts


def test_a_version_outside_the_tested_range_is_a_warning() -> None:
    assert extras.optional("pydantic", "x", "2", "99").__name__ == "pydantic"
    with pytest.warns(
        UserWarning, match=r"^pydantic [\d.]+ was not tested with modelnative; tested: from 97, below 99$"
    ):
        extras.optional("pydantic", "x", "97", "99")


def test_the_numbers_of_a_version() -> None:
    assert extras._release("1.16.0rc1") == (1, 16, 0)
    assert extras._release("0.3.285") < extras._release("0.4")
    assert extras._release("2.13.0+cpu") == (2, 13, 0)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "pydantic.elsewhere",
            r"^pydantic [\d.]+ has no module pydantic.elsewhere; tested: from 2, below 99; install it",
        ),
        ("pydantic.broken", r"^pydantic [\d.]+ needs nowhere, which is not installed; install it with: pip install"),
    ],
)
def test_a_package_that_is_installed_is_not_called_missing(
    module: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("import nowhere\n")
    monkeypatch.setattr("pydantic.__path__", [*pydantic.__path__, str(tmp_path)])
    with pytest.raises(extras.MissingExtraError, match=message):
        extras.optional(module, "x", "2", "99")
