"""Compiles the C++ kernels at first use and keeps the library in a cache that only the user can write to."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from platformdirs import user_cache_dir

from modelnative.errors import UserError, choose

FOLDER = Path(__file__).with_name("kernels")
CHOICE = "MODELNATIVE_KERNELS"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
TUNING = ("-march=native", "-mcpu=native", None)  # tried in this order; not every compiler knows every flag
TIME_LIMIT = 300.0  # seconds for one run of a compiler


class Compiler(NamedTuple):
    """How to call a compiler, and what identifies it: its path, the time of its last change and its version."""

    command: tuple[str, ...]
    identity: str


class _CompilerError(OSError):
    """A compiler that is missing, fails or takes too long."""


def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where the plain torch definitions are used.

    The environment variable MODELNATIVE_KERNELS selects one: `auto` (the default), `native` or `torch`.

    Raises:
        UserError: MODELNATIVE_KERNELS is `native` and the kernels are not available, or it has an unknown value.
    """
    return _library_or_reason()[0]


def describe() -> str:
    """The kernels in use: `native`, or `torch` with the reason in parentheses."""
    loaded, reason = _library_or_reason()
    return f"torch ({reason})" if loaded is None else "native"


@functools.cache
def _library_or_reason() -> tuple[ctypes.CDLL | None, str]:
    """The library, or None and the reason why there is none."""
    wanted = os.environ.get(CHOICE, "auto")
    choose(CHOICE, wanted, ("auto", "native", "torch"))
    if wanted == "torch":
        return None, f"{CHOICE}=torch"
    try:
        return _compiled(), ""
    except OSError as error:
        if wanted == "native":
            raise UserError(f"{CHOICE}: 'native' is not possible here: {error}; expected auto or torch") from error
        return None, str(error)


def _compiled() -> ctypes.CDLL:
    """The library for this source, compiler and processor, from the first folder and compiler that work."""
    files = sorted([*FOLDER.glob("*.h"), *FOLDER.glob("*.cpp")])
    source = b"".join(file.name.encode() + b"\0" + file.read_bytes() for file in files)
    reasons = []
    for program in _programs():
        try:
            compiler = _identified(program)
        except _CompilerError as error:
            reasons.append(str(error))
            continue
        name = _file_name(source, compiler)
        for folder in _folders():
            try:
                _make_private(folder)
                return _loaded(folder / name) or _built(folder / name, compiler)
            except _CompilerError as error:
                reasons.append(str(error))
                break  # another folder would not help
            except OSError as error:
                reasons.append(f"{folder}: {error.strerror or error}")
    if not reasons:
        names = ", ".join(COMPILERS)
        reasons.append(f"no C++ compiler is installed ({names}); with one, training is about twice as fast")
    raise OSError("; ".join(dict.fromkeys(reasons)))


def _built(path: Path, compiler: Compiler) -> ctypes.CDLL:
    """Compile the library to `path` and load it. Processes that need the same library wait for the first of them."""
    with FileLock(f"{path}.lock", timeout=2 * TIME_LIMIT):
        loaded = _loaded(path)
        if loaded is None:
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                target = Path(folder) / path.name
                _compile(compiler, target)
                os.replace(target, path)
            loaded = ctypes.CDLL(str(path))
        return loaded


def _loaded(path: Path) -> ctypes.CDLL | None:
    """The library at `path`; None if there is none or the file is damaged."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def _compile(compiler: Compiler, target: Path) -> None:
    sources = [str(file) for file in sorted(FOLDER.glob("*.cpp"))]
    reason = ""
    for tuning in TUNING:
        flags = [*FLAGS, tuning] if tuning else list(FLAGS)
        done = _run([*compiler.command, *flags, *sources, "-o", str(target)], TIME_LIMIT)
        if done.returncode == 0 and target.exists():
            return
        reason = reason or _first_line(done.stderr) or f"exit status {done.returncode}"
    raise _CompilerError(f"{compiler.command[0]} failed: {reason}")


def _programs() -> list[tuple[str, ...]]:
    """The compilers that are installed, as commands; $CXX first, no program twice."""
    found: dict[Path, tuple[str, ...]] = {}
    for words in (shlex.split(os.environ.get("CXX", "")), *([name] for name in COMPILERS)):
        path = shutil.which(words[0]) if words else None
        if path:
            found.setdefault(Path(path).resolve(), (path, *words[1:]))
    return list(found.values())


def _identified(program: tuple[str, ...]) -> Compiler:
    done = _run([*program, "--version"], 30)
    if done.returncode != 0:
        raise _CompilerError(f"{program[0]} failed: {_first_line(done.stderr) or f'exit status {done.returncode}'}")
    changed = Path(program[0]).stat().st_mtime_ns
    return Compiler(program, "\n".join([*program, str(changed), done.stdout]))


def _run(command: list[str], limit: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=limit,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise _CompilerError(f"{command[0]} did not finish within {limit:g} s") from error
    except OSError as error:
        raise _CompilerError(f"{command[0]} cannot be run: {error.strerror or error}") from error


def _file_name(source: bytes, compiler: Compiler) -> str:
    key = "\n".join([compiler.identity, _processor(), *FLAGS, *(tuning or "" for tuning in TUNING)])
    return f"kernels-{hashlib.sha256(source + key.encode()).hexdigest()[:16]}.so"


def _folders() -> list[Path]:
    """Where the library may be kept: the user's cache, else a folder of the user's in the temporary directory."""
    temporary = Path(tempfile.gettempdir()) / f"modelnative-{_user()}"
    return [Path(user_cache_dir("modelnative", appauthor=False)), temporary]


def _make_private(folder: Path) -> None:
    """Create `folder` with mode 0700 if it is missing.

    Raises:
        PermissionError: somebody else could have written to the folder: another user owns it, its mode gives rights to
            others, or it is a symbolic link.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(0, "not a folder, or a symbolic link")
    if os.name == "posix" and (found.st_uid != _user() or stat.S_IMODE(found.st_mode) & 0o077):
        raise PermissionError(0, "not private; expected a folder that you own with mode 0700")


def _user() -> int:
    return os.getuid() if os.name == "posix" else 0


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0] if lines else ""


def _processor() -> str:
    """What distinguishes processors with different instruction sets; several machines may share one cache."""
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine() + platform.processor()
    pattern = r"^(?:model name|flags|Features|CPU part)\s*:.*$"
    return "\n".join(sorted(set(re.findall(pattern, described, re.MULTILINE))))
