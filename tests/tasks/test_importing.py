"""Importing by name, and the errors of one line if that fails."""

from __future__ import annotations

import importlib.machinery
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import toolbox

import modelnative as mn
from modelnative.errors import UserError
from modelnative.tasks import make_task, task_name
from modelnative.tasks.importing import imported, module_name


def test_a_module_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("from toolbox import make as mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as of a command
    assert make_task("only_here:mine").count(0) == 40


def test_the_name_of_a_module_is_one_that_another_process_can_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert module_name("toolbox") == "toolbox"
    assert module_name("never_imported") is None
    assert module_name("__main__") is None, "a notebook"
    (tmp_path / "a_script.py").write_text("")
    main.__file__ = str(tmp_path / "a_script.py")
    assert module_name("__main__") is None, "nobody would find it"
    monkeypatch.syspath_prepend(tmp_path)
    assert module_name("__main__") == "a_script"
    main.__file__ = str(tmp_path / "other" / "toolbox.py")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "toolbox.py").write_text("")
    assert module_name("__main__") is None, "another one has the name"
    main.__spec__ = importlib.machinery.ModuleSpec("package.module", None)
    assert module_name("__main__") == "package.module", "python -m"


SOURCE = Path(mn.__file__).parents[1]
FILES = {
    "stray.py": "from math import pi\nclass Mine: ...\nclass Other: ...\n_hidden = 3\n",
    "folder/__init__.py": "",
    "folder/inner.py": "value = 3\n",
    "broken.py": "def f(:\n",
    "dying.py": "def f():\n    return 1 / 0\nf()\n",
    "lacking.py": "import no_such_library\n",
    "leaving.py": "raise SystemExit('usage')\n",
    "refusing.py": "from modelnative.errors import UserError\nraise UserError('size: 3 is too small')\n",
    "crowded.py": "".join(f"a{i} = {i}\n" for i in range(99)),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("", "expected module:name, such as mytasks:MyTask for MyTask in mytasks.py"),
        ("stray:", "expected module:name, such as"),
        (":Mine", "expected module:name, such as"),
        ("stray:Mine:x", "a name of letters, digits and _ is expected on either side of one colon"),
        ("my-tasks:Mine", "a name of letters, digits and _ is expected"),
        ("stray.py:Mine", "expected the name of a module with dots and without .py: stray:Mine"),
        ("./stray.py:Mine", "expected the name of a module with dots and without .py: stray:Mine"),
        ("folder/inner.py:value", "expected the name of a module with dots and without .py: folder.inner:value"),
        ("folder/inner:value", "folder.inner:value"),
        ("folder\\inner.py:value", "folder.inner:value"),
        ("/home/me/stray.py:Mine", "a module name is not a path; go to its folder and name it stray:Mine"),
        ("../stray.py:", "a module name is not a path; go to its folder and name it stray:NAME"),
        (
            "nothing_like_it:Mine",
            "no module named 'nothing_like_it' in this folder (FOLDER) or among what is installed",
        ),
        ("straay:Mine", "no module named 'straay'; did you mean 'stray'?"),
        ("foldr.inner:value", "no module named 'foldr'; did you mean 'folder'?"),
        ("folder.outer:value", "'folder' has no module 'folder.outer'"),
        ("stray:mine", "there is no 'mine' in FOLDER/stray.py; did you mean 'Mine'?"),
        ("stray:zzz", "there is no 'zzz' in FOLDER/stray.py; it has Mine, Other"),
        ("crowded:zzz", "it has a0, a1, a2, a3, a4, a5, a6, a7, a8, a9 …"),
        ("folder:zzz", "there is no 'zzz' in FOLDER/folder/__init__.py; it has no names"),
        ("broken:f", "SyntaxError: invalid syntax (broken.py, line 1); fix that first: python -c 'import broken'"),
        ("dying:f", "ZeroDivisionError: division by zero (dying.py, line 2, in f); fix that first"),
        ("lacking:f", "No module named 'no_such_library' (lacking.py, line 1, in <module>); install it, or fix"),
        (
            "leaving:f",
            "SystemExit: usage (leaving.py, line 1, in <module>); put the code of the script under: if",
        ),
        ("refusing:f", "cannot import refusing:f: size: 3 is too small"),
    ],
)
def test_why_a_name_imports_nothing(folder: Path, target: str, why: str) -> None:
    with pytest.raises(UserError) as caught:
        imported(target)
    message = str(caught.value)
    assert message.startswith(f"cannot import {target}: ")
    assert why.replace("FOLDER", str(folder)) in message
    assert "\n" not in message


def test_what_a_name_imports(folder: Path) -> None:
    assert imported("folder.inner:value") == 3
    assert imported("stray:Mine.__name__") == "Mine"


PATH = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))}
SCRIPT = """
import warnings
from modelnative.tasks import task_name
from modelnative.tasks.tutorial.task import Tutorial
task = Tutorial()
print(task_name(task))
"""


@pytest.mark.parametrize("name", ["abc", "time", "os"])
def test_a_script_with_the_name_of_another_module_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, f"{name}.py"], cwd=tmp_path, env=PATH, capture_output=True, text=True)
    assert "with a name that no other module has" in done.stderr.splitlines()[-1]


def test_a_script_has_the_name_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "fine.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "fine.py"], cwd=tmp_path, env=PATH, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("fine:task\n", "")


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
def test_a_task_of_a_session_without_a_file_is_known_to_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    main = types.ModuleType("__main__")
    main.task = toolbox.make()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setitem(sys.modules, module, main)
    assert task_name(main.task) == "__main__:task"
    assert make_task("__main__:task") is main.task
    with pytest.raises(UserError, match="it was made in a notebook or an interactive session; put it in a file"):
        make_task("__main__:other")
    fields = {"updates": 1, "episodes": 64}
    with pytest.warns(UserWarning, match="'__main__:task' is known to this session only; to resume it, put it in a"):
        finished = mn.train(main.task, out=tmp_path / "run", **fields)
    assert mn.load(finished.run.path).task is main.task
    with pytest.raises(UserError, match="task: '__main__:task' is not allowed; expected a task that other processes"):
        mn.train(main.task, out=tmp_path / "seeds", seeds=2, **fields)
    assert not (tmp_path / "seeds").exists()
