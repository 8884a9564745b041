"""Serving the studio. Needs the extra `studio`."""

from __future__ import annotations

import importlib
import ipaddress
import re
import socket
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from modelnative.errors import UserError, require_number, require_path

HOST, PORT = "127.0.0.1", 8420
# The versions that are tested: from the first, below the second.
TESTED = {"starlette": ("0.46", "2"), "uvicorn": ("0.34", "1")}


def require_extra() -> None:
    """Raise a `UserError` unless the packages of the extra are there; warn of versions that are not tested."""
    for name, (low, high) in TESTED.items():
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"studio: {name} is not installed; install it with: pip install 'modelnative[studio]'"
            ) from error
        found = version(name)
        if not _numbers(low) <= _numbers(found) < _numbers(high):
            warnings.warn(f"studio: {name} {found} is not tested; tested are {low} to below {high}", stacklevel=2)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def serve(
    folder: str | Path = "runs",
    *,
    host: str = HOST,
    port: int = PORT,
    started: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve the studio: the runs of a folder in the browser, until Ctrl-C. Needs the extra `studio`.

    Args:
        folder: with the runs; may be empty.
        host: the address to listen on; every other than a loopback address lets others read the runs.
        port: 0 takes a free one.
        started: is called with the address of the page, once requests are answered.

    Raises:
        UserError: the folder is missing, the port is in use, or a package is missing.
    """
    path = Path(folder)
    require_path("folder", path)
    if not path.is_dir():
        raise UserError(
            f"folder: {str(folder)!r} is not a folder; expected one with runs, such as: modelnative studio runs"
        )
    require_number("port", port, 0, (1 << 16) - 1, "0 to 65,535")
    require_extra()
    import uvicorn

    from modelnative.studio.server.app import make_app
    from modelnative.studio.server.guard import LOOPBACK

    listening = _listen(host, port)
    local = is_loopback(host)
    names = LOOPBACK if local else (*LOOPBACK, host, socket.gethostname())
    app = make_app(path, names, addresses=not local)
    with listening:
        port = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{port}/")
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
            limit_concurrency=256,
        )
        uvicorn.Server(config).run(sockets=[listening])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host.

    Example:
        >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")]
        [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UserError: the port is in use, or the host is not of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"host: {host!r} is not an address of this machine; expected {HOST}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise UserError(
            f"port: {port} on {host} cannot be used ({error.strerror}); choose another with --port, or a free one with "
            "--port 0"
        ) from error
    return listening
