"""Checks of the bridge to verifiers."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from conformance_registry import EPISODES, FAMILIES, KINDS, check, family, reference, summary

from modelnative.tasks.contract.episode import Episode

TASKSET = 'from modelnative.bridges.verifiers import EpisodeTaskset\n\n__all__ = ["EpisodeTaskset"]\n'
COUNT = 4  # problems of an evaluation, two rollouts each


def command(folder: str, program: str, *arguments: str) -> None:
    """Run a program of verifiers in a folder with a taskset `my_tasks`."""
    Path(folder, "my_tasks.py").write_text(TASKSET)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([folder, *(str(Path(part).resolve()) for part in given if part)])
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PYTHONPATH": path, "PATH": beside, "MODELNATIVE_KEY": "none"}
    line = [str(Path(sys.executable).parent / program), "my_tasks", *arguments, "--no-rich", "-o", f"{folder}/out"]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


def lines(folder: str, name: str) -> list[dict[str, Any]]:
    """The lines of the only result of a kind."""
    (file,) = Path(folder, "out").glob(f"*/{name}")
    return [json.loads(line) for line in file.read_text().splitlines()]


@check(
    "verifiers",
    "verifiers",
    "`vf-validate`: 20 problems each are solved by the oracle, none by doing nothing",
)
def verifiers_validate() -> str:
    words = []
    for name in ("arithmetic", "countdown", "hops"):
        with tempfile.TemporaryDirectory() as folder:
            taskset = ["--taskset.family", name, "--taskset.count", "20", "--runtime.type", "subprocess"]
            command(folder, "vf-validate", *taskset)
            rows = lines(folder, "results.jsonl")
        assert len(rows) == 20, rows
        assert all(row["reason"] == "valid" for row in rows), rows[:2]
        words.append(name)
    return f"valid: {', '.join(words)}"


@check("verifiers", "verifiers", "`vf-eval`, null harness (by uv), scripted endpoint: 4 problems, 2 rollouts")
def verifiers_evaluation() -> str:
    with tempfile.TemporaryDirectory() as folder, scripted_endpoint("countdown") as port:
        taskset = ["--env.taskset.family", "countdown", "--env.taskset.count", str(COUNT)]
        agent = ["--env.agent.harness.id", "null", "--env.agent.runtime.type", "subprocess"]
        client = ["--env.agent.client.type", "eval", "--env.agent.client.base-url", f"http://127.0.0.1:{port}/v1"]
        key = ["--env.agent.client.api-key-var", "MODELNATIVE_KEY"]
        command(folder, "vf-eval", *taskset, *agent, *client, *key, "--model", "m", "-r", "2", "--no-push")
        traces = lines(folder, "traces.jsonl")
    traces = [trace["traces"][0] if "rewards" not in trace else trace for trace in traces]
    assert len(traces) == 2 * COUNT, len(traces)
    for trace in traces:
        assert trace["rewards"]["task_reward"]["score"] == 1.0, trace["rewards"]
        assert trace["stop_condition"] == "over", trace["stop_condition"]
    return f"{len(traces)} of {2 * COUNT} rollouts rewarded, all stopped by the end of the episode"


class scripted_endpoint:  # a context manager
    """A chat endpoint on this machine that answers with the oracle's calls; gives its port."""

    def __init__(self, name: str) -> None:
        task, plans = family(name), {}
        for index in range(COUNT):
            episode = Episode(task)
            opening = episode.begin(task.spec.stages[index % len(task.spec.stages)], seed=0, index=index)
            plans[opening] = episode.plan()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = answer(request, plans).encode()
                self.send_response(200)
                kind = "text/event-stream" if request.get("stream") else "application/json"
                for header, value in (("Content-Type", kind), ("Content-Length", str(len(body)))):
                    self.send_header(header, value)
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> int:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.server.server_address[1]

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def answer(request: dict[str, Any], plans: dict[str, list[tuple[str, dict[str, Any]]]]) -> str:
    """The next call of the episode, as a chat completion, streamed if that is asked for."""
    messages = request["messages"]
    plan = plans[next(_text(message["content"]) for message in messages if message["role"] == "user")]
    made = sum(message["role"] == "assistant" for message in messages)
    message: dict[str, Any] = {"role": "assistant", "content": "Done."}
    if made < len(plan):
        name, arguments = plan[made]
        assert name in [tool["function"]["name"] for tool in request["tools"]], request["tools"]
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"index": 0, "id": f"call{made}", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    finish = "tool_calls" if made < len(plan) else "stop"
    base = {"id": "scripted", "created": 0, "model": request["model"]}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    if not request.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return json.dumps({**base, "object": "chat.completion", "choices": [choice], "usage": usage})
    chunks = [
        {"choices": [{"index": 0, "delta": message, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": usage},
    ]
    written = [json.dumps({**base, "object": "chat.completion.chunk", **chunk}) for chunk in chunks]
    return "".join(f"data: {text}\n\n" for text in [*written, "[DONE]"])


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@check(
    "verifiers",
    "verifiers",
    "1,000 oracle and 1,000 spoiled episodes of every family through the functions and rewards of its taskset",
    slow=True,
)
def verifiers_functions() -> str:
    import asyncio
    from types import SimpleNamespace

    from modelnative.bridges import verifiers as bridge

    async def play(task: Any, functions: dict[str, Any], place: Any, played: Any) -> bool:
        trace = SimpleNamespace(state=None)
        await task.setup(trace, None)
        place.state, overs = trace.state, []  # the server gives its functions the state of the rollout
        texts = []
        for call, arguments in played.calls:
            texts.append(functions[call](**arguments))
            overs.append(await task.over(trace))
        assert (texts, overs) == (played.texts, played.overs), (texts, played)
        metrics = await task.episode(trace)
        assert abs(await task.task_reward(trace) - played.score) < 1e-9, played
        assert metrics["success"] == played.success, (metrics, played)
        assert metrics["refused"] == sum(played.refused), (metrics, played)
        return played.success

    async def all_of(name: str) -> int:
        config = {"family": name, "options": FAMILIES[name]}
        taskset = bridge.EpisodeTaskset(bridge.EpisodeTasksetConfig(count=EPISODES, seed=1, **config))
        tasks, won = list(taskset.load()), 0
        place = SimpleNamespace(config=bridge.EpisodeToolsConfig(**config), state=None)
        functions = {call.name: bridge.EpisodeTools._function(place, call) for call in family(name).calls()}
        for kind in KINDS:
            for task, played in zip(tasks, reference(name, kind), strict=True):
                assert task.data.prompt == played.opening, played
                won += await play(task, functions, place, played)
        return won

    won = {name: (asyncio.run(all_of(name)), 2 * EPISODES) for name in FAMILIES}
    return f"texts, ends, rewards and verdicts equal; {summary(won)}"
