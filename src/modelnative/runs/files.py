"""Atomic files: each is written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from modelnative.errors import UserError, require, require_path
from modelnative.runs.upgrade import FORMATS, upgraded_fields

FORMAT = "modelnative/2"  # of every file that this version writes
DEPTH = 100  # levels of JSON that are read; what is deeper would exhaust the stack of whoever works with it


class InFolder:
    """An attribute that is the path of a file in the folder `path` of its object.

    Args:
        name: of the file.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type) -> Path:
        """The path; whether or not there is such a file."""
        return Path(owner.path / self.name)


def write(path: Path, content: bytes) -> None:
    """Replace a file atomically. After a crash the path holds the old content or the new content, never a part.

    Raises:
        UserError: the disk is full or read-only. The old content is unchanged.
    """
    partial = path.with_name(path.name + ".partial")
    with _writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            _flush(partial)
            os.replace(partial, path)
            _flush(path.parent)
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to report
                partial.unlink(missing_ok=True)
            raise


def flush(path: Path) -> None:
    """Wait until the content of a file would survive a power failure.

    Raises:
        UserError: the disk is full or damaged.
    """
    with _writing(path):
        _flush(path)


def _flush(path: Path) -> None:
    try:
        file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:
        if path.is_dir():  # Windows cannot open a folder; it makes renames durable by itself
            return
        raise
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Within the block, an error of the disk is a `UserError`."""
    try:
        yield
    except OSError as error:
        message = f"{path}: cannot be written ({error.strerror}); free the disk or choose another place"
        raise UserError(message) from error


class Held:
    """A lock file that this process holds until it releases the lock or dies.

    Args:
        lock: that was acquired.
        folder: that it keeps others out of.
        what: the folder is called in messages.
    """

    def __init__(self, lock: BaseFileLock, folder: Path, what: str = "run") -> None:
        self.release, self._folder, self._what = lock.release, folder, what
        self._path = lock.lock_file
        self._file = os.stat(self._path)

    def require_in_place(self) -> None:
        """Raise a `UserError` if the file is not where it was: then the folder is somebody else's, or gone."""
        try:
            in_place = os.path.samestat(self._file, os.stat(self._path))
        except (FileNotFoundError, NotADirectoryError):
            in_place = False
        if not in_place:
            raise UserError(
                f"{self._what}: the folder {str(self._folder)!r} was deleted, moved or replaced while it was "
                "trained in; nothing more is written there; start again, in another folder"
            )


def hold(path: Path) -> Held:
    """A lock file that this process holds until it releases the lock or dies.

    Raises:
        UserError: another process holds it, or the file cannot be made.
    """
    lock = FileLock(path, timeout=0, thread_local=False)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"run: another process trains in {str(path.parent)!r}; wait until it ends, or choose another folder"
            ) from None
    return Held(lock, path.parent)


def _json(path: Path, value: Any, indent: int | None = None) -> bytes:
    """A value as JSON that every reader understands: without NaN, and lone surrogates (from a path) as escapes."""
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be written ({error})") from error
    return text.encode(errors="backslashreplace")


def _parsed(content: bytes, what: str) -> Any:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what}: not JSON ({error})") from error
    if _deeper(value, DEPTH):
        raise UserError(f"{what}: nested deeper than {DEPTH} levels")
    return value


def _deeper(value: Any, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(part, levels - 1) for part in parts)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON.

    Raises:
        UserError: a number is not finite, or the disk is full or read-only.
    """
    write(path, _json(path, value, indent=2) + b"\n")


def require_new_folder(field: str, path: Path) -> None:
    """Raise a `UserError` unless nothing or an empty folder is at a path."""
    require_path(field, path)
    is_new = not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir()))
    require(is_new, field, str(path), "a folder that does not exist")


def require_replaceable(field: str, path: Path, keys: set[str]) -> None:
    """Raise a `UserError` unless JSON can be written to a file: before the work whose result it holds.

    Args:
        field: for the message.
        path: where nothing is, or an earlier result; no device, no configuration of a run.
        keys: by which a result is known.
    """
    require_path(field, path)
    if os.path.lexists(path):
        try:
            found = read_json(path) if path.is_file() else None
        except UserError:
            found = None
        is_result = isinstance(found, dict) and keys <= found.keys()
        require(is_result, field, str(path), "a new file, or an earlier result; this one holds something else")
    folder = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    with _writing(path):
        tempfile.TemporaryFile(dir=folder).close()


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing, not readable or not JSON.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return _parsed(content, str(path))


def begin_lines(path: Path) -> None:
    """Create an empty file for the episodes of an evaluation.

    An existing file is truncated in place, because it may be a pipe or a device.

    Raises:
        UserError: the file cannot be written, or holds something else than episodes, such as a run's configuration.
    """
    require_path("episodes", path)
    with _writing(path):
        if path.is_file():
            with open(path, "rb") as file:
                first = file.readline(100_000).strip()
            if first and not (first.startswith(b"{") and b'"actions": [' in first):
                raise UserError(f"{path}: holds something else than episodes; choose another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        open(path, "wb").close()


def append_lines(path: Path, lines: Iterable[Any]) -> None:
    """Append values to a file of JSON lines.

    Raises:
        UserError: a number is not finite, or the disk is full or read-only.
    """
    content = b"".join(_json(path, line) + b"\n" for line in lines)
    with _writing(path), open(path, "ab") as file:
        file.write(content)


def write_lines(path: Path, lines: Iterable[Any]) -> None:
    """Replace a file of JSON lines."""
    write(path, b"".join(_json(path, line) + b"\n" for line in lines))


def read_lines(path: Path) -> list[Any]:
    """Read JSON lines. An incomplete last line, which a crash can leave behind, is skipped.

    Raises:
        UserError: another line is not JSON, or the file cannot be read.
    """
    try:
        *lines, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return [_parsed(line, f"{path}: line {number}") for number, line in enumerate(lines, 1) if line]


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
        content = path.read_bytes()  # safetensors itself opens only paths that are UTF-8
        tensors = load(content)
        metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
        header = json.loads(metadata.get("modelnative", "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error})") from error
    found, about = (header.get("format"), header.get("about")) if isinstance(header, dict) else (None, None)
    if found not in FORMATS or not isinstance(about, dict):
        raise UserError(f"{path}: not a modelnative file of format {FORMAT!r} (it says {found!r})")
    return tensors, about if found == FORMAT else upgraded_fields(about)
