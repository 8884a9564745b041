"""Atomic files: each is written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from modelnative.errors import UserError
from modelnative.runs.upgrade import FORMATS, upgraded_fields

FORMAT = "modelnative/2"  # of every file that this version writes


def write(path: Path, content: bytes) -> None:
    """Replace a file atomically. After a crash the path holds the old content or the new content, never a part.

    Raises:
        UserError: the disk is full or read-only. The old content is unchanged.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error is the one to report
            partial.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _flush_folder(path: Path) -> None:
    """Flush a folder, so that a rename inside it survives a power failure."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows cannot open a folder; it makes renames durable by itself
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written ({error.strerror}); free the disk or choose another place")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    write(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing, not readable or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def begin_lines(path: Path) -> None:
    """Create an empty file for the episodes of an evaluation.

    An existing file is truncated in place, because it may be a pipe or a device.

    Raises:
        UserError: the file cannot be written, or holds something else than episodes, such as a run's configuration.
    """
    try:
        if path.is_file():
            with open(path, "rb") as file:
                first = file.readline(100_000).strip()
            if first and not (first.startswith(b"{") and b'"actions": [' in first):
                raise UserError(f"{path}: holds something else than episodes; choose another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        open(path, "wb").close()
    except OSError as error:
        raise _unwritable(path, error) from error


def append_lines(path: Path, lines: Iterable[Any]) -> None:
    """Append values to a file of JSON lines.

    Raises:
        UserError: the disk is full or read-only.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise _unwritable(path, error) from error


def read_lines(path: Path) -> list[Any]:
    """Read JSON lines. An incomplete last line, which a crash can leave behind, is skipped."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    values = []
    for number, line in enumerate(lines):
        try:
            if line:
                values.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) - 1:
                raise UserError(f"{path}: line {number + 1} is not JSON ({error})") from error
    return values


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors and JSON metadata `about` to one safetensors file."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # One metadata entry, because safetensors writes several in a random order: equal content gives equal bytes.
    write(path, save(plain, {"modelnative": json.dumps({"format": FORMAT, "about": about})}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        UserError: the file is missing, truncated, or not a modelnative file.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("modelnative", "{}"))
            if header.get("format") not in FORMATS:
                raise UserError(
                    f"{path}: not a modelnative file of format {FORMAT!r} (it says {header.get('format')!r})"
                )
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = header["about"]
        return tensors, about if header["format"] == FORMAT else upgraded_fields(about)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error})") from error
