"""Compiling the kernels at first use, and finding them again."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from modelnative.errors import UserError, choose

FOLDER = Path(__file__).with_name("kernels")
CHOICE = "MODELNATIVE_KERNELS"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
TUNED = ("-march=native", "-mcpu=native")  # the second where a compiler does not know the first


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where there is no compiler, or where torch was asked for.

    The environment variable MODELNATIVE_KERNELS says which to use: `auto` (the default), `native` or `torch`.

    Raises:
        UserError: native kernels were demanded and cannot be had, or the variable says something else.
    """
    wanted = os.environ.get(CHOICE, "auto")
    choose(CHOICE, wanted, ("auto", "native", "torch"))
    if wanted == "torch":
        return None
    try:
        return ctypes.CDLL(str(_compiled()))
    except OSError as error:
        if wanted == "native":
            raise UserError(f"{CHOICE}: native is not possible here: {error}; expected auto or torch") from error
        return None


def describe() -> str:
    """Which kernels compute here, for people: `native`, or `torch` and why."""
    if library() is not None:
        return "native"
    if os.environ.get(CHOICE) == "torch":
        return f"torch ({CHOICE}=torch)"
    return "torch (no C++ compiler works here; with one, such as g++, training is about twice as fast)"


def _compiled() -> Path:
    """Where the library is, compiled for this processor; compiled now if it is not there yet."""
    compiler = _compiler()
    source = b"".join(file.read_bytes() for file in sorted(FOLDER.iterdir()))
    identity = "\n".join([str(compiler), str(compiler.stat().st_mtime_ns), _processor(), *FLAGS, *TUNED])
    user = getattr(os, "getuid", lambda: 0)()  # not everywhere
    name = f"kernels-{hashlib.sha256(source + identity.encode()).hexdigest()[:16]}.so"
    for folder in (_cache(), Path(tempfile.gettempdir()) / f"modelnative-{user}"):
        path = folder / name
        if path.exists() and path.stat().st_uid == user:
            return path
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryDirectory(dir=folder) as work:
                os.replace(_compile(compiler, Path(work) / name), path)
        except (PermissionError, FileExistsError, NotADirectoryError):
            continue
        return path
    raise OSError("no folder can be written to")


def _compile(compiler: Path, target: Path) -> Path:
    said = ""
    for tuned in (*TUNED, None):
        command = [
            str(compiler),
            *FLAGS,
            *([tuned] if tuned else []),
            *map(str, sorted(FOLDER.glob("*.cpp"))),
            "-o",
            str(target),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return target
        said = said or done.stderr
    raise OSError(f"{compiler} fails: {said.strip().splitlines()[0] if said.strip() else 'without a word'}")


def _compiler() -> Path:
    for name in (os.environ.get("CXX"), *COMPILERS):
        found = shutil.which(name) if name else None
        if found:
            return Path(found)
    raise OSError(f"none of the compilers {', '.join(COMPILERS)} is installed")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelnative"


def _processor() -> str:
    """What distinguishes processors that run different instructions; a cache may be shared by several machines."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine() + platform.processor()
    return "\n".join(sorted(set(re.findall(r"^(?:model name|flags|Features|CPU part)\s*:.*$", told, re.MULTILINE))))
