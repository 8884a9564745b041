"""Files that are whole or not there: written beside their place, flushed to disk, then renamed."""

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

FORMAT = "modelnative/1"  # of every file that this version writes


def write(path: Path, content: bytes) -> None:
    """Replace a file as one step: after a crash there is the old one or the new one, never a part.

    Raises:
        UserError: the disk is full or read-only; what stood there before still stands.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):  # the first error is the one to report
            partial.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written ({error.strerror}); free the disk or choose another place")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    write(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is not there, not readable or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def begin_lines(path: Path) -> None:
    """Make an empty file of JSON lines, in place: it may be a pipe or a terminal.

    Raises:
        UserError: it cannot be written.
    """
    try:
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
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        raise _unwritable(path, error) from error


def read_lines(path: Path) -> list[Any]:
    """Read JSON lines; a last line that a crash cut short is left out."""
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
    """Write tensors as safetensors; `about` goes into the same file, so that the two cannot part."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # One entry, because safetensors writes several in a random order: the same content is the same file.
    write(path, save(plain, {"modelnative": json.dumps({"format": FORMAT, "about": about})}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        UserError: the file is not there, cut short, or not one of ours.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("modelnative", "{}"))
            if header.get("format") != FORMAT:
                raise UserError(
                    f"{path}: not a modelnative file of format {FORMAT!r} (it says {header.get('format')!r})"
                )
            tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, header["about"]
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error})") from error
