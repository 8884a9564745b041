"""A process that calls one tool for another process; what runs in it may hang or die, and is then killed.

It is started as `python -m modelnative.tasks.tools.worker MODULE:NAME`, and then reads a JSON list of arguments a
line and writes a JSON object a line: first `{"error": ...}`, empty when the tool was found, then the outcome of each
call.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import Any

from modelnative.errors import UserError
from modelnative.tasks.importing import imported
from modelnative.tasks.tools.tool import Tool


class Skipped:
    """Stands for `ToolTask` here: the module that has the tool may make a task of it, which would only cost time."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...


def main() -> None:
    """Answer until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a tool prints must not stand among the answers
    questions: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            questions.put(line)
        os._exit(0)  # whoever asked is gone, and a call that hangs must not outlive it

    threading.Thread(target=listen, daemon=True).start()

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    sys.modules["modelnative"].__dict__["ToolTask"] = Skipped
    try:
        found = imported(sys.argv[1])
    except (UserError, SystemExit) as error:
        say({"error": str(error)})
        return
    tool = found if isinstance(found, Tool) else Tool(found)
    say({"error": ""})
    while True:
        say(tool.attempt(json.loads(questions.get()))._asdict())


if __name__ == "__main__":
    main()
