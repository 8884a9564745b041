"""Runs a function in several processes that find each other as `torchrun`'s do, forked from one that is warm already.

Importing and first calls take seconds, and pytest's own process must not be forked; so `Ranks` starts this file once.
It reads a line of JSON for each call, MODULE:FUNCTION, the number of processes and the arguments, and answers with a
line: what each rank returned.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

HELPERS = Path(__file__).parent
SOURCE = HELPERS.parents[1] / "src"


class Ranks:
    """Call it; use it as a context, so that its process ends."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(HELPERS)]), "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.server = subprocess.Popen([sys.executable, __file__], env=environment, **pipes)  # type: ignore[call-overload]

    def __call__(self, function: str, size: int, *arguments: str) -> list[Any]:
        """What every rank returned; what the ranks of one that failed had to say is on standard error."""
        print(json.dumps([function, size, arguments]), file=self.server.stdin, flush=True)
        line = self.server.stdout.readline()
        assert line, "the server of ranks is gone"
        answer = json.loads(line)
        assert isinstance(answer, list), answer
        return answer

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.communicate(timeout=60)  # closes its input


def serve(channel: int) -> None:
    """Be the store where the ranks find each other, as torchrun's agent is."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.write(channel, str(store.port).encode())
    signal.pause()


def forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.alarm(120)  # a test that hangs must not outlive the suite
            work()
            code = 0
        except BaseException:  # noqa: BLE001  # nothing may pass the fork
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def joined(function: Callable[..., Any], size: int, arguments: list[str]) -> list[Any]:
    """Fork `size` ranks, wait for all, collect."""
    reader, writer = os.pipe()
    server = forked(lambda: serve(writer))
    os.close(writer)  # or a server that died would be waited for
    port = os.read(reader, 16).decode()
    os.close(reader)
    with tempfile.TemporaryDirectory() as folder:

        def rank(number: int) -> None:
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
            os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "test"}
            os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number)}
            (Path(folder) / str(number)).write_text(json.dumps(function(*arguments)))

        children = [forked(lambda number=number: rank(number)) for number in range(size)]  # type: ignore[misc]
        codes = [os.waitpid(child, 0)[1] for child in children]
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        if any(codes):
            raise ChildProcessError(f"{size} ranks ended with {codes}")
        return [json.loads((Path(folder) / str(number)).read_text()) for number in range(size)]


def main() -> None:
    ranked = importlib.import_module("ranked")
    ranked.warm()
    for line in sys.stdin:
        name, size, arguments = json.loads(line)
        module, _, function = name.partition(":")
        try:
            answer: Any = joined(getattr(importlib.import_module(module), function), size, arguments)
        except ChildProcessError as error:
            answer = str(error)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
