"""Makes this process as poor as Python is on Windows, so far as that can be done elsewhere.

What Windows does not have is taken away: modules, functions of `os`, signals. A folder cannot be opened, a name cannot
contain `:` or `?`, a file that is open or mapped cannot be replaced or removed. The other libraries are imported first:
they ask for the platform and have code for it.
"""

from __future__ import annotations

import builtins
import importlib
import io
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

MODULES = ("fcntl", "grp", "pwd", "resource", "termios")
FUNCTIONS = (
    *("chown", "chroot", "confstr", "confstr_names", "ctermid", "fchdir", "fchown", "fork", "forkpty", "fpathconf"),
    *("getegid", "geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority", "getsid"),
    *("getuid", "killpg", "lchown", "mkfifo", "mknod", "nice", "openpty", "pathconf", "posix_fallocate", "posix_spawn"),
    *("pread", "pwrite", "sched_getaffinity", "sched_yield", "setgid", "setpgid", "setsid", "setuid"),
    *("statvfs", "sync", "sysconf", "sysconf_names", "ttyname", "uname", "wait", "wait3", "wait4"),
)
LIBRARIES = (
    *("ctypes.util", "multiprocessing.connection", "subprocess", "tempfile", "webbrowser"),
    *("filelock", "gymnasium", "platformdirs", "rich.console", "rich.live", "safetensors.torch"),
)
SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}


def become() -> None:
    """Change this process; there is no way back."""
    _import_libraries()
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in FUNCTIONS:
        if hasattr(os, name):
            delattr(os, name)
    for name in [name for name in dir(signal) if name.startswith("SIG") and name.isalpha()]:
        if name not in (*SIGNALS, "SIGKILL"):  # `Popen.kill` uses the last; ours may not
            delattr(signal, name)
    for owner, name, allowed in (
        (os, "open", _opens),
        (io, "open", _opens),
        (os, "mkdir", _names),
        (os, "replace", _moves),
        (os, "rename", _moves),
        (os, "unlink", _removes),
        (os, "remove", _removes),
    ):
        _guard(owner, name, allowed)
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
    sys.platform = "win32"


def _import_libraries() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    torch.zeros(1).exp()  # what is loaded late
    Figure().savefig(io.BytesIO(), format="svg")


def _guard(owner: Any, name: str, allowed: Callable[..., None]) -> None:
    real = getattr(owner, name)

    def call(*values: Any, **named: Any) -> Any:
        allowed(*values)
        return real(*values, **named)

    setattr(owner, name, call)
    if owner is io:
        builtins.open = call


def _opens(path: Any, *_: Any) -> None:
    if isinstance(path, int):
        return
    _names(path)
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))


def _names(path: Any, *_: Any) -> None:
    if set(os.fspath(path)) & set('<>:"|?*'):
        raise OSError(22, "Invalid argument", str(path))


def _moves(source: Any, target: Any, *_: Any) -> None:
    _names(target)
    _removes(source)
    _removes(target)


def _removes(path: Any, *_: Any) -> None:
    real = os.path.realpath(path)
    for place in Path("/proc/self/fd").iterdir() if os.path.isdir("/proc/self/fd") else ():
        try:
            is_open = os.readlink(place) == real
        except OSError:
            continue
        if is_open:
            raise PermissionError(13, "The process cannot access the file because it is being used", str(path))
    if os.path.exists("/proc/self/maps"):
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
            if any(line.rstrip("\n").endswith(f" {real}") for line in lines):
                raise PermissionError(13, "The requested operation cannot be performed on a mapped file", str(path))
