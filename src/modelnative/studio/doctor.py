"""What this machine has, and what to do about each gap: `modelnative doctor`. Works without torch, too."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelnative.errors import in_words

REQUIRED = ("numpy", "safetensors", "pydantic", "rich", "jinja2", "matplotlib", "filelock", "gymnasium", "platformdirs")
OPTIONAL = {"ray": "sweeps on several machines"}
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "TORCHELASTIC_RUN_ID")
SETTINGS = ("MODELNATIVE_KERNELS", "CXX", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "COLUMNS", "FORCE_COLOR")
CPU_TORCH = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
MIN_FREE = 1e9  # bytes; a run needs a few megabytes
MIN_WIDTH = 80  # columns


@dataclass(frozen=True)
class Check:
    """One fact about the machine.

    Attributes:
        name: what it is about.
        value: the fact.
        advice: what to do about a gap; empty if there is none.
    """

    name: str
    value: str
    advice: str = ""


def examine() -> list[Check]:
    """Everything about this machine. A fact that cannot be found out is reported as such."""
    checks: list[Check] = []
    for part in (_software, _torch, _kernels, _packages, _environment, _terminal, _disk):
        try:
            checks += list(part())
        except Exception as error:  # noqa: BLE001 (a broken installation is what this command is for)
            fault, advice = f"cannot be found out: {in_words(error)}", "Report this, if it is no fault of the machine."
            checks.append(Check(part.__name__.lstrip("_"), fault, advice))
    return checks


def lines(checks: list[Check], width: int) -> Iterator[str]:
    """One screen of text, wrapped to a number of columns."""
    indent = max(len(check.name) for check in checks) + 2
    for check in checks:
        for text, mark in ((check.value, ""), (check.advice, "→ ")):
            first = f"{'' if mark else check.name:<{indent}}{mark}"
            if text or not mark:
                yield textwrap.fill(text, max(width, 40), initial_indent=first, subsequent_indent=" " * len(first))
    gaps = sum(bool(check.advice) for check in checks)
    yield ""
    yield f"{gaps} {'gap' if gaps == 1 else 'gaps'}: see the arrows." if gaps else "Nothing is missing."


def _software() -> Iterator[Check]:
    yield Check("modelnative", f"{_version('modelnative') or 'not installed'}, in {Path(__file__).parents[1]}")
    yield Check("python", f"{platform.python_version()} at {sys.executable}")
    yield Check(
        "system", f"{platform.platform()}, {os.cpu_count()} cores ({platform.processor() or platform.machine()})"
    )


def _torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("torch", f"cannot be imported: {in_words(error)}", f"Install it again: {CPU_TORCH}")
        return
    has_cuda = torch.cuda.is_available()
    advice = ""
    if torch.version.cuda is not None and not has_cuda:
        advice = f"This build brings gigabytes for GPUs, and none is usable here. The build for CPUs: {CPU_TORCH}"
    yield Check("torch", torch.__version__, advice)
    names = (
        [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())] if has_cuda else []
    )
    yield Check("devices", ", ".join(["cpu", *names]))
    from modelnative.training.parallel import cores

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = ""
    if cores(usable) < usable:
        setting = f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}"
        advice = f"{setting} leaves cores unused; unset it, unless other work needs them."
    yield Check("threads", f"{cores(usable)} of {usable} usable cores", advice)


def _kernels() -> Iterator[Check]:
    from modelnative import native

    compilers = [" ".join(command) for command in native.compilers()]
    install = "Install one: apt install g++ (Debian, Ubuntu), xcode-select --install (macOS)."
    yield Check("compilers", ", ".join(compilers) or "none", "" if compilers else install)
    yield Check("cache folders", ", ".join(map(str, native.cache_folders())))
    try:
        found, used = native.kernels(), native.describe()
    except ValueError as error:  # MODELNATIVE_KERNELS asks for what is impossible
        found, used = None, f"none ({error})"
    slow = "Training takes about twice as long. Mend what the reason in parentheses names."
    if found is None or found.library is None:
        yield Check("kernels", used, slow)
        return
    others = "".join(f"; not {reason}" for reason in found.reasons)
    yield Check("kernels", f"{used}, from {found.path}{others}")


def _packages() -> Iterator[Check]:
    found = {name: _version(name) for name in REQUIRED}
    missing = [name for name, version in found.items() if not version]
    value = ", ".join(f"{name} {version or 'missing'}" for name, version in found.items())
    yield Check("packages", value, f"pip install {' '.join(missing)}" if missing else "")
    for name, use in OPTIONAL.items():
        version = _version(name)
        yield Check(name, version or f"not installed; only {use} need it")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _environment() -> Iterator[Check]:
    found = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    yield Check("environment", " ".join(found) or "no variable that matters is set")
    launcher = [f"{name}={os.environ[name]}" for name in LAUNCHER if name in os.environ]
    if launcher:
        advice = "These are torchrun's. Where one process trains alone, unset them."
        yield Check("launcher", " ".join(launcher), advice)


def _terminal() -> Iterator[Check]:
    width, height = shutil.get_terminal_size()
    encoding = getattr(sys.stdout, "encoding", None) or "unknown"
    place = f"{width} × {height}, {encoding}, TERM={os.environ.get('TERM', '')}"
    advice = []
    if encoding.lower().replace("-", "") != "utf8":
        advice.append("Some characters are shown as ?; set PYTHONUTF8=1 or a UTF-8 locale.")
    if width < MIN_WIDTH:
        advice.append(f"Tables need {MIN_WIDTH} columns to look their best.")
    yield Check("terminal", place if sys.stdout.isatty() else f"none; {place}", " ".join(advice))


def _disk() -> Iterator[Check]:
    free, here = shutil.disk_usage(".").free, Path.cwd()
    advice = ""
    if not os.access(here, os.W_OK):
        advice = "This folder cannot be written; give --out a folder that can."
    elif free < MIN_FREE:
        advice = "The disk is nearly full; a training that cannot write its checkpoints ends."
    yield Check("disk", f"{free / 1e9:.1f} GB free in {here}", advice)
