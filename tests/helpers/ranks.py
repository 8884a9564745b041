"""Runs a function in several processes that are joined as `torchrun` would join them, forked from this one.

So torch is imported once. Usage: ranks.py MODULE:FUNCTION SIZES [ARGUMENT …]; the function gets the arguments and
returns something for JSON; printed is, a line for each of the SIZES (such as 1,2,4), what its ranks returned.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELPERS = Path(__file__).parent
SOURCE = HELPERS.parents[1] / "src"


def run(function: str, sizes: list[int], *arguments: str, timeout: float = 120) -> list[list[Any]]:
    """What every rank returned, for each of the sizes; in a process of its own, as pytest's must not be forked."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(HELPERS)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, function, ",".join(map(str, sizes)), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return [json.loads(line) for line in done.stdout.splitlines()]


def serve(channel: int) -> None:
    """Be the store where the ranks find each other, as torchrun's agent is."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.write(channel, str(store.port).encode())
    signal.pause()


def forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def joined(function: Callable[..., Any], size: int, arguments: list[str]) -> list[Any]:
    """Fork `size` ranks, wait for all, collect."""
    reader, writer = os.pipe()
    server = forked(lambda: serve(writer))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": os.read(reader, 16).decode(), "WORLD_SIZE": str(size)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "test"}
    with tempfile.TemporaryDirectory() as folder:

        def rank(number: int) -> None:
            os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number)}
            (Path(folder) / str(number)).write_text(json.dumps(function(*arguments)))

        children = [forked(lambda number=number: rank(number)) for number in range(size)]
        codes = [os.waitpid(child, 0)[1] for child in children]
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        assert not any(codes), f"{size} ranks ended with {codes}"
        return [json.loads((Path(folder) / str(number)).read_text()) for number in range(size)]


def main() -> None:
    import torch

    torch.set_num_threads(1)
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    for size in map(int, sys.argv[2].split(",")):
        print(json.dumps(joined(function, size, sys.argv[3:])), flush=True)


if __name__ == "__main__":
    main()
