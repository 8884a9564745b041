"""The studio, and pictures of curves."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

import modelnative as mn
from modelnative.cli.parser import Once, Parser
from modelnative.cli.parser import report as print_progress

STUDIO = """\
Serves a page on this machine alone: all runs below FOLDER, their curves live, and the agent at work on a problem
that you type, token by token, also beside another checkpoint or run. Ctrl-C ends it.

    pip install 'modelnative[studio]'
    modelnative studio runs

A run that names a task of your own is listed; its agent plays only with --trust MODULE, because importing runs code.
"""


PLOT = """\
Draws a figure of a run, which may be unfinished, or of a sweep. The picture depends on no setting of matplotlib.

    of a run    curves       the learning curves (the default)
                inside       what is carried where, after: modelnative inspect RUN
                certificate  what agents without abilities reach, after: modelnative certify RUN
    of a sweep  comparison   solved, success and seconds of every group, over seeds (the default)
                seeds        success of every seed over the updates, with the median and the quartiles

Groups of runs are compared, and drawn, by: modelnative compare RUN RUN --out FOLDER
"""


def studio(arguments: Sequence[str]) -> int:
    """`modelnative studio`."""
    parser = Parser("studio", STUDIO)
    add = parser.add_argument
    add("folder", nargs="?", type=Path, default=Path("runs"), metavar="FOLDER", help="with runs (default: runs)")
    add("--port", type=int, default=8420, help="0 takes a free one (default: 8420)")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; others than a loopback address let others read the runs",
    )
    add("--open", action="store_true", help="open the page in a browser")
    found = parser.read(arguments)
    from modelnative.studio.server.serve import is_loopback

    def started(address: str) -> None:
        print(f"{found.folder} is shown at {address} (Ctrl-C ends it)", flush=True)
        if not is_loopback(found.host):
            print_progress(f"whoever can reach {found.host} can read these runs and let their agents play")
        if found.open:
            webbrowser.open(address)

    mn.serve(found.folder, host=found.host, port=found.port, started=started)
    return 0


def plot(arguments: Sequence[str]) -> int:
    """`modelnative plot`."""
    parser = Parser("plot", PLOT)
    add = parser.add_argument
    add("folder", type=Path, metavar="RUN", help="a run folder, or that of a sweep or of train --seeds")
    add("--out", type=Path, metavar="FILE", help=".png, .svg or .pdf (default: RUN/FIGURE.svg)")
    add("--figure", action=Once, metavar="FIGURE", help="one of the above (default: curves, or comparison of a sweep)")
    add("--curve", metavar="TITLE", help="draw only this one, such as Success (default: all)")
    found = parser.read(arguments)
    print(mn.plot(found.folder, found.out, figure=found.figure, curve=found.curve))
    return 0
