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
FLAGS = ("-O3", "-fno-math-errno", "-std=c++17", "-shared", "-fPIC", "-pthread")
TUNING = ("-march=native", "-mcpu=native", None)  # tried in this order; not every compiler knows every flag
TIME_LIMIT = 300.0  # seconds for one run of a compiler
SIZE = 2**20  # bytes that the library takes at most
UNNAMED = 65534  # who owns what is the machine's, such as /, as a user namespace (a sandbox) shows it


class Compiler(NamedTuple):
    """How to call a compiler, and what identifies it: its path, the time of its last change and its version."""

    command: tuple[str, ...]
    identity: str


class _CompilerError(Exception):
    """A compiler that is missing, fails or takes too long."""


class Kernels(NamedTuple):
    """Which kernels are in use, and why no others are.

    Attributes:
        library: the compiled kernels; None where the plain torch definitions are used.
        path: of the library's file.
        reasons: why there are none, or why earlier folders and compilers did not serve, one line for each that was
            tried, in that order.
    """

    library: ctypes.CDLL | None
    path: Path | None
    reasons: tuple[str, ...]


def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where the plain torch definitions are used; see `kernels`."""
    return kernels().library


def backend() -> str:
    """What computes here: `native` or `torch`."""
    return "torch" if kernels().library is None else "native"


def describe() -> str:
    """The kernels in use: `native`, or `torch` with the reasons in parentheses."""
    found = kernels()
    return f"torch ({'; '.join(found.reasons)})" if found.library is None else "native"


@functools.cache
def kernels() -> Kernels:
    """The kernels of this process, compiled if need be.

    The environment variable MODELNATIVE_KERNELS selects them: `auto` (the default), `native` or `torch`.

    Raises:
        UserError: MODELNATIVE_KERNELS is `native` and the kernels are not available, or it has an unknown value.
    """
    wanted = os.environ.get(CHOICE, "auto")
    choose(CHOICE, wanted, ("auto", "native", "torch"))
    found = Kernels(None, None, (f"{CHOICE}=torch",)) if wanted == "torch" else _compiled()
    if wanted == "native" and found.library is None:
        reasons = "; ".join(found.reasons)
        raise UserError(f"{CHOICE}: 'native' is not possible here: {reasons}; expected auto or torch")
    return found


def _compiled() -> Kernels:
    """The library for this source, compiler and processor, from the first folder and compiler that work."""
    files = sorted([*FOLDER.glob("*.h"), *FOLDER.glob("*.cpp")])
    source = b"".join(file.name.encode() + b"\0" + file.read_bytes() for file in files)
    reasons: dict[str, None] = {}  # in order, each once
    for program in compilers():
        try:
            compiler = _identified(program)
            for folder in cache_folders():
                try:
                    _make_private(folder)
                    path = folder / _file_name(source, compiler)
                    return Kernels(_loaded(path) or _built(path, compiler), path, tuple(reasons))
                except (OSError, NotImplementedError) as error:  # the latter where files cannot be locked
                    reasons[f"{folder}: {getattr(error, 'strerror', None) or error}"] = None
        except _CompilerError as error:  # another folder would not help
            reasons[str(error)] = None
    if not reasons:
        names = ", ".join(COMPILERS)
        reasons[f"no C++ compiler is installed ({names}); with one, training is about twice as fast"] = None
    return Kernels(None, None, tuple(reasons))


def _built(path: Path, compiler: Compiler) -> ctypes.CDLL:
    """Compile the library to `path` and load it. Processes that need the same library wait for the first of them."""
    with FileLock(f"{path}.lock", timeout=2 * TIME_LIMIT):
        loaded = _loaded(path)
        if loaded is None:
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                target = Path(folder) / path.name
                _compile(compiler, target)
                _sum_of(target).write_text(_checksum(target))
                os.replace(target, path)
                os.replace(_sum_of(target), _sum_of(path))
            loaded = ctypes.CDLL(str(path))
        return loaded


def _loaded(path: Path) -> ctypes.CDLL | None:
    """The library at `path`; None if there is none or the file is damaged, which loading could not survive.

    Raises:
        OSError: the file is intact and cannot be loaded: in a folder mounted `noexec`, say.
    """
    try:
        intact = _checksum(path) == _sum_of(path).read_text(errors="replace")
    except OSError:
        return None
    return ctypes.CDLL(str(path)) if intact else None


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sum_of(path: Path) -> Path:
    """The file with the checksum of a library."""
    return path.with_suffix(".sha256")


def _compile(compiler: Compiler, target: Path) -> None:
    sources = [str(file) for file in sorted(FOLDER.glob("*.cpp"))]
    reason = ""
    for tuning in TUNING:
        flags = [*FLAGS, tuning] if tuning else list(FLAGS)
        done = _run([*compiler.command, *flags, *sources, "-o", str(target)], TIME_LIMIT, target.parent)
        if done.returncode == 0 and target.exists():
            return
        reason = reason or _first_line(done.stderr) or f"exit status {done.returncode}"
    target.write_bytes(bytes(SIZE))  # raises what is the matter where the disk is full
    raise _CompilerError(f"{compiler.command[0]} failed: {reason}")


def compilers() -> list[tuple[str, ...]]:
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


def _run(command: list[str], limit: float, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a compiler, with its temporary files in a folder."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=limit,
            stdin=subprocess.DEVNULL,
            env=None if folder is None else {**os.environ, "TMPDIR": str(folder)},
        )
    except subprocess.TimeoutExpired as error:
        raise _CompilerError(f"{command[0]} did not finish within {limit:g} s") from error
    except OSError as error:
        raise _CompilerError(f"{command[0]} cannot be run: {error.strerror or error}") from error


def _file_name(source: bytes, compiler: Compiler) -> str:
    key = "\n".join([compiler.identity, _processor(), *FLAGS, *(tuning or "" for tuning in TUNING)])
    return f"kernels-{hashlib.sha256(source + key.encode()).hexdigest()[:16]}.so"


def cache_folders() -> list[Path]:
    """Where the library may be kept: the user's cache, else a folder of the user's in the temporary directory."""
    cache, temporary = Path(user_cache_dir("modelnative", appauthor=False)), Path(tempfile.gettempdir())
    # Without a home the cache would be a folder "~" of the working directory.
    return [folder for folder in (cache, temporary / f"modelnative-{_user()}") if folder.is_absolute()]


def _make_private(folder: Path) -> None:
    """Create `folder` with mode 0700 if it is missing, and its parents, too.

    Raises:
        PermissionError: somebody else could have written to the folder: another user owns it, its mode gives rights to
            others, or it is a symbolic link. Or they could replace it or one of its parents; see `_replaceable`.
    """
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)  # `parents=True` would give the parents rights for others
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(0, "not a folder, or a symbolic link")
    if os.name == "posix" and (found.st_uid != _user() or stat.S_IMODE(found.st_mode) & 0o077):
        raise PermissionError(0, "not private; expected a folder that you own with mode 0700")
    for parent in dict.fromkeys((*folder.absolute().parents, *folder.resolve().parents)):
        if os.name == "posix" and (why := _replaceable(parent)):
            raise PermissionError(0, f"other users can replace it, because {why}")


def _replaceable(folder: Path) -> str:
    """Why other users can rename the folders in `folder`; empty if they cannot."""
    found = folder.stat()
    if found.st_uid not in (0, _user(), UNNAMED):
        return f"another user owns {folder}"
    if stat.S_IMODE(found.st_mode) & 0o022 and not found.st_mode & stat.S_ISVTX:
        return f"group or others can write to {folder}; expected: chmod go-w {shlex.quote(str(folder))}"
    return ""


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
