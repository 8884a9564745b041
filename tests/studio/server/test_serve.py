from __future__ import annotations

import builtins
import importlib
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from modelnative.errors import UserError
from modelnative.studio.server import serve as module
from modelnative.studio.server.serve import is_loopback, require_extra, serve


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folder: .* is not a folder; expected one with runs"):
        serve(tmp_path / "nothing")
    for port in (-1, 65_536):
        with pytest.raises(UserError, match=f"port: {port} is not allowed"):
            serve(tmp_path, port=port)


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"studio: starlette is not installed; .* pip install 'modelnative\[studio\]'"):
        serve(tmp_path)


def test_a_version_that_is_not_tested_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: builtins)
    monkeypatch.setattr(module, "version", lambda name: "0.40.1")
    with pytest.warns(UserWarning, match=r"starlette 0\.40\.1 is not tested; tested are 0\.46 to below 2"):
        require_extra()
    monkeypatch.setattr(module, "version", lambda name: "0.46.0")
    require_extra()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra `studio`")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"port: {port} on 127.0.0.1 cannot be used \(Address already in use\)"):
            serve(tmp_path, port=port)
    with pytest.raises(UserError, match="host: 'no such host' is not an address of this machine"):
        serve(tmp_path, host="no such host")


def test_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One real request over a real socket, from a thread; the server is stopped as by Ctrl-C."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs the extra `studio`")
    import urllib.request

    servers: list[Any] = []
    made = uvicorn.Server.__init__

    def noted(self: Any, config: Any) -> None:
        servers.append(self)
        made(self, config)

    monkeypatch.setattr(uvicorn.Server, "__init__", noted)
    address: list[str] = []
    thread = threading.Thread(target=serve, args=(tmp_path,), kwargs={"port": 0, "started": address.append})
    thread.start()
    try:
        while not address:
            thread.join(0.01)
        with urllib.request.urlopen(f"{address[0]}api/runs", timeout=20) as answer:
            assert answer.read() == f'{{"folder":"{tmp_path}","runs":[],"sweeps":[]}}'.encode()
    finally:
        while not servers:
            thread.join(0.01)
        servers[0].should_exit = True
        thread.join(20)
    assert not thread.is_alive()
    assert address[0].startswith("http://127.0.0.1:")
    assert is_loopback("127.0.0.1")
