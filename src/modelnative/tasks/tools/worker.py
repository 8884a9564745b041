"""A worker process that calls one tool. If a call hangs, the parent process kills it.

It is started as `python -m modelnative.tasks.tools.worker MODULE:NAME`. It reads one JSON list of arguments per line
and writes one `CallOutcome` per line: first that of the import, then that of each call.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading

from modelnative.errors import UserError
from modelnative.tasks.importing import imported
from modelnative.tasks.tools.tool import CallOutcome, Tool


class TaskStub:
    """Replaces `ToolTask` in a worker: the module of the tool may make a task, which the worker does not need."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...


def main() -> None:
    """Process calls until the standard input ends."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of the tool must not mix with the messages
    lines: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)  # the parent has ended, and a call that hangs must not outlive it

    threading.Thread(target=listen, daemon=True).start()

    def send(outcome: CallOutcome) -> None:
        output.write(json.dumps(outcome._asdict()) + "\n")
        output.flush()

    sys.modules["modelnative"].__dict__["ToolTask"] = TaskStub
    try:
        found = imported(sys.argv[1])
    except (UserError, SystemExit) as error:
        send(CallOutcome(None, str(error)))
        return
    tool = found if isinstance(found, Tool) else Tool(found)
    send(CallOutcome(None))
    while True:
        send(tool.attempt(json.loads(lines.get())))


if __name__ == "__main__":
    main()
