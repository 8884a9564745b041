"""The pages and answers of the studio."""

from __future__ import annotations

import json
import shlex
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from modelnative.errors import UserError, in_words, require
from modelnative.evidence.certificate import Certificate
from modelnative.runs.files import read_lines
from modelnative.studio import certificate as pictures
from modelnative.studio.player import WEB
from modelnative.studio.server.agents import Agents
from modelnative.studio.server.curves import Curves
from modelnative.studio.server.guard import LOOPBACK, App, Guard
from modelnative.studio.server.inside import Asked, Inside
from modelnative.studio.server.library import GoneError, Library, bounded_json
from modelnative.studio.server.sweeps import Sweeps

STYLES = ("page.css", "player.css", "studio.css", "uPlot.min.css")
PARTS = ("player", "curves", "common", "inside", "through", "find", "solve", "sweep", "studio")
SCRIPTS = ("uPlot.iife.min.js", *(f"{name}.js" for name in PARTS))
ASSETS = {**dict.fromkeys(STYLES, "text/css"), **dict.fromkeys(SCRIPTS, "text/javascript")}
KEPT = 32  # curves in memory
STREAMS = 64  # curves that are followed at the same time
PERIOD, SILENCE = 0.5, 15.0  # seconds between looks at a file, and between signs of life
PAUSE = 0.02  # seconds between strides through a long file
LARGEST = 1 << 25  # bytes of a report
# A report may be somebody else's. It gets no origin: its scripts can ask nothing of the studio or of the network.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
# What the code of a user's task, or a file that changes meanwhile, may raise.
ERRORS = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def make_app(root: Path, hosts: tuple[str, ...] = LOOPBACK, addresses: bool = False) -> App:
    """The studio of a folder, as an ASGI application.

    Args:
        root: the folder with the runs.
        hosts, addresses: by which it may be reached; see `Guard`.
    """
    studio = Studio(Library(root))
    routes = [
        Route("/", studio.page),
        Route("/web/{name}", studio.asset),
        Route("/favicon.ico", lambda request: Response(status_code=204)),
        Route("/report", studio.report),
        *(Route(f"/api/{name}", _json(answer)) for name, answer in studio.answers.items()),
        Route("/api/events", studio.events),
        *(Route(f"/api/{name}", _post(answer), methods=["POST"]) for name, answer in studio.posts.items()),
    ]
    return Guard(Starlette(routes=routes), hosts, addresses)


class Studio:
    """Answers requests about the runs of a library."""

    def __init__(self, library: Library) -> None:
        self.library, self.agents = library, Agents(library)
        self.curves: OrderedDict[str, Curves] = OrderedDict()
        inside, sweeps = Inside(self.agents), Sweeps(library)
        self.streams = 0
        self.answers: dict[str, Callable[[Request], Any]] = {
            "runs": lambda request: {
                "folder": str(library.root),
                "runs": library.summaries(),
                "sweeps": library.sweeps(),
            },
            "sweep": lambda request: sweeps.one(_run(request)),
            "certificate": lambda request: self.certificate(_run(request)),
            "run": lambda request: self.run(_run(request)),
            "agent": lambda request: self.agents.about(_run(request)),
            "problem": lambda request: {
                "problem": self.agents.problem(_run(request), _text(request, "stage"), _seed(_text(request, "seed")))
            },
            "inspection": lambda request: inside.inspection(_run(request)),
        }
        self.posts: dict[str, Callable[[Asked], Any]] = {
            "episode": self.episode,
            "choices": inside.choices,
            "switch": inside.switched,
            "inspect": inside.inspect,
            "through": inside.through,
            "find": inside.find,
        }

    def page(self, request: Request) -> Response:
        """The one page."""
        return Response((WEB / "studio.html").read_bytes(), media_type="text/html")

    def asset(self, request: Request) -> Response:
        """A script or a style sheet; no other file."""
        name = request.path_params["name"]
        if name not in ASSETS:
            return _error(404, f"There is no {name[:100]!r}.")
        return Response((WEB / name).read_bytes(), media_type=ASSETS[name], headers={"cache-control": "no-cache"})

    def report(self, request: Request) -> Response:
        """The report of a run, which gets no origin."""
        try:
            path = self.library.folder(_run(request)) / "report.html"
            if not path.is_file():
                return _error(404, "report: the run has none yet; it is written when the training ends")
            if path.stat().st_size > LARGEST:
                return _error(413, f"report: larger than {LARGEST >> 20} MiB; open the file itself")
            content = path.read_bytes()
        except (UserError, OSError) as error:
            return _error(404, str(error))
        return Response(content, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})

    def run(self, name: str) -> dict[str, Any]:
        """A run without its agent: summary, stages, alarms, curves."""
        path = self.library.folder(name)
        alarms, notes = [], []
        try:
            alarms = [str(line.get("text", ""))[:500] for line in read_lines(path / "alarms.jsonl")[:200]]
        except (UserError, AttributeError) as error:
            notes.append(str(error))
        curves = self._curves(name)
        curves.refresh()
        return {
            **self.library.one(name),
            "stages": self.library.stages(path),
            "alarms": list(dict.fromkeys(alarms))[:20],
            "notes": notes,
            "report": (path / "report.html").is_file(),
            **self._points(curves, (0, 0)),
        }

    def certificate(self, name: str) -> dict[str, Any]:
        """What `modelnative certify` measured of a run's task, and the command that measures it."""
        path = self.library.folder(name)
        command = f"modelnative certify {shlex.quote(str(path))}"
        if not (path / "certificate.json").exists():
            return {"command": command}
        found = Certificate.of(bounded_json(path / "certificate.json"))
        head, rows = pictures.grid(found)
        return {
            "command": command,
            "title": pictures.title(found),
            "head": head,
            "rows": rows,
            "details": [*pictures.details(found)],
            "findings": [finding.line() for finding in found.findings],
            "conclusion": pictures.conclusion(found),
        }

    def _curves(self, name: str) -> Curves:
        curves = self.curves.setdefault(name, Curves(self.library.folder(name) / "metrics.jsonl"))
        self.curves.move_to_end(name)
        while len(self.curves) > KEPT:
            self.curves.popitem(last=False)
        return curves

    @staticmethod
    def _points(curves: Curves, seen: tuple[int, int]) -> dict[str, Any]:
        """The points from the last one that was seen on: of an epoch, and as many as there were."""
        with curves.lock:
            epoch, count = seen
            start = max(0, count - 1) if epoch == curves.epoch else 0
            seen = (curves.epoch, len(curves.shown))
            damaged, preview = curves.damaged, bool(curves.preview)
            return {"from": start, "points": curves.points(start), "seen": seen, "damaged": damaged, "preview": preview}

    async def events(self, request: Request) -> Response:
        """The curves of a run as they grow, as server-sent events."""
        try:
            name = _run(request)
            epoch, count = (int(x) for x in _text(request, "seen").split(","))
            curves = await anyio.to_thread.run_sync(lambda: self._curves(name))
        except GoneError as error:
            return _error(404, str(error))
        except ValueError as error:
            return _error(400, str(error))
        if self.streams >= STREAMS:
            return _error(503, f"{STREAMS} curves are followed already; close another page of the studio")
        return StreamingResponse(self._follow(name, curves, (epoch, count)), media_type="text/event-stream")

    async def _follow(self, name: str, curves: Curves, seen: tuple[int, int]) -> AsyncIterator[str]:
        self.streams += 1
        waited = 0.0
        last: dict[str, Any] = {}
        try:
            yield "retry: 2000\n\n"
            while True:
                try:
                    await anyio.to_thread.run_sync(lambda: self.library.folder(name))
                except GoneError as error:
                    yield f"event: gone\ndata: {json.dumps(str(error))}\n\n"
                    return
                if await anyio.to_thread.run_sync(curves.refresh):  # others may ask in between
                    await anyio.sleep(PAUSE)
                    continue
                if curves.last is not last:
                    last, waited = curves.last, 0.0
                    news = self._points(curves, seen)
                    seen = news["seen"]
                    yield f"data: {json.dumps(news, allow_nan=False)}\n\n"
                elif waited >= SILENCE:
                    waited = 0.0
                    yield ": waiting\n\n"
                await anyio.sleep(PERIOD)
                waited += PERIOD
        finally:
            self.streams -= 1

    def episode(self, asked: Asked) -> dict[str, Any]:
        """Play a problem that was typed."""
        run, weights, stage, problem = map(asked.text, ("run", "weights", "stage", "problem"))
        temperature, seed = asked.number("temperature", 0.0), asked.whole("seed")
        return self.agents.episode(run, weights, stage, problem, temperature, seed)


def _post(answer: Callable[[Asked], Any]) -> Callable[[Request], Any]:
    """An endpoint that answers a JSON object in JSON, in a thread."""

    async def answered(request: Request) -> Response:
        body = await request.body()
        return await anyio.to_thread.run_sync(lambda: _answered(lambda: answer(Asked.of(json.loads(body)))))

    return answered


def _json(answer: Callable[[Request], Any]) -> Callable[[Request], Response]:
    """An endpoint that answers in JSON; Starlette calls it in a thread."""
    return lambda request: _answered(lambda: answer(request))


def _answered(answer: Callable[[], Any]) -> Response:
    try:
        # Lone surrogates, from a path that is no text, stay escapes.
        content = json.dumps(answer(), allow_nan=False, separators=(",", ":"))
    except GoneError as error:
        return _error(404, str(error))
    except UserError as error:
        return _error(400, str(error))
    except (*ERRORS, RecursionError) as error:
        return _error(400, in_words(error))
    return Response(content, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return Response(json.dumps({"error": message}), status_code=status, media_type="application/json")


def _text(request: Request, name: str) -> str:
    return request.query_params.get(name, "")


def _run(request: Request) -> str:
    return _text(request, "id")


def _seed(value: Any) -> int:
    try:
        seed = int(value)
    except (TypeError, ValueError):
        seed = -1
    require(0 <= seed < 1 << 32, "seed", value, "a whole number from 0 to 4,294,967,295")
    return seed
