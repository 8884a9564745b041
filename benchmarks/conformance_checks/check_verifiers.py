"""Checks of the bridge to verifiers."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from conformance_registry import EPISODES, FAMILIES, KINDS, Played, check, family, reference, summary

from modelnative.tasks.contract.episode import Episode

TASKSET = 'from modelnative.bridges.verifiers import EpisodeTaskset\n\n__all__ = ["EpisodeTaskset"]\n'
COUNT = 4  # problems of an evaluation, two rollouts each
TOGETHER = 32  # rollouts at a time

Calls = list[tuple[str, dict[str, Any]]]


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
    task, plans = family("countdown"), dict[str, Calls]()
    for index in range(COUNT):
        episode = Episode(task)
        opening = episode.begin(task.spec.stages[index % len(task.spec.stages)], seed=0, index=index)
        plans[opening] = episode.plan()

    def next_call(request: dict[str, Any]) -> Calls:
        made = sum(message["role"] == "assistant" for message in request["messages"])
        opening = next(_text(message["content"]) for message in request["messages"] if message["role"] == "user")
        return plans[opening][made : made + 1]

    with tempfile.TemporaryDirectory() as folder, scripted_endpoint(next_call) as port:
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


@check(
    "verifiers",
    "verifiers",
    "1,000 oracle and 1,000 spoiled episodes of every family, each a rollout of its `SingleAgentEnv`",
    slow=True,
)
def verifiers_rollouts() -> str:
    """The environment, rollouts, interception server, tool server and chat loop are those of verifiers.

    All rollouts of a family are in one event loop and one environment, which has one tool server. The oracle makes a
    call in each message, the other model all of them in its first.
    """

    async def all_families() -> dict[str, tuple[int, int]]:  # in one loop, because the connections are shared
        return {name: (await _rollouts(name), 2 * EPISODES) for name in FAMILIES}

    os.environ["MODELNATIVE_KEY"] = "none"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "my_tasks.py").write_text(TASKSET)
        sys.path.insert(0, folder)
        won = asyncio.run(all_families())
        sys.path.remove(folder)
    return f"texts, ends, rewards and verdicts equal; {summary(won)}"


async def _rollouts(name: str) -> int:
    from verifiers.v1.clients import EvalClientConfig, ModelContext
    from verifiers.v1.envs.single_agent import SingleAgentEnv, SingleAgentEnvConfig

    played = {kind: list(reference(name, kind)) for kind in KINDS}

    def next_calls(request: dict[str, Any]) -> Calls:
        kind, _, index = request["model"].partition(" ")  # the name of the model says which episode it plays
        calls, made = played[kind][int(index)].calls, sum(m["role"] == "tool" for m in request["messages"])
        return calls[made : made + 1] if kind == "oracle" else calls[made:]

    taskset = {"id": "my_tasks", "family": name, "options": FAMILIES[name], "count": EPISODES, "seed": 1}
    agent = {"harness": {"id": "in_process_harness"}, "runtime": {"type": "subprocess"}}
    env, gate, won = SingleAgentEnv(SingleAgentEnvConfig(taskset=taskset, agent=agent)), asyncio.Semaphore(TOGETHER), 0
    tasks = list(env.taskset.load())
    with scripted_endpoint(next_calls) as port:
        client = EvalClientConfig(base_url=f"http://127.0.0.1:{port}/v1", api_key_var="MODELNATIVE_KEY")
        async with env.serving():
            for kind in KINDS:
                slots = [env.slots(task)[0] for task in tasks]
                contexts = [ModelContext(model=f"{kind} {index}", client=client) for index in range(len(slots))]
                runs = (env.run_slot(slot, context, gate) for slot, context in zip(slots, contexts, strict=True))
                episodes = await asyncio.gather(*runs)
                for task, episode, expected in zip(tasks, episodes, played[kind], strict=True):
                    assert episode.ok, [*episode.errors, *(trace.errors for trace in episode.traces)]
                    _compare(task, episode.traces[0], expected)
                _compare_schemas(name, episodes[0].traces[0])
                won += sum(expected.success for expected in played[kind])
                print(f"    {name}, {kind}: {len(episodes)} rollouts are equal", flush=True)
    return won


def _compare_schemas(name: str, trace: Any) -> None:
    offered = {tool.name: tool.parameters for tool in trace.tools}
    for call in family(name).calls():
        ours, theirs = call.schema()["function"]["parameters"], offered.pop(call.name)
        found = {key: {k: v for k, v in p.items() if k != "title"} for key, p in theirs["properties"].items()}
        assert found == ours["properties"], (theirs, ours)
        assert theirs.get("required", []) == ours["required"], (theirs, ours)
    assert not offered, offered


def _compare(task: Any, trace: Any, expected: Played) -> None:
    from in_process_harness import TEXTS

    assert task.data.prompt == expected.opening, expected
    assert trace.info[TEXTS] == expected.texts, (trace.info, expected)
    assert (trace.stop_condition == "over") == expected.overs[-1], (trace.stop_condition, expected)
    assert abs(trace.rewards["task_reward"].score - expected.score) < 1e-9, (trace.rewards, expected)
    found = {name: trace.metrics[name] for name in ("success", "refused", "keys")}
    right = {"success": expected.success, "refused": sum(expected.refused), "keys": len(expected.keys)}
    assert found == right, (trace.metrics, expected)


@contextlib.contextmanager
def scripted_endpoint(next_calls: Callable[[dict[str, Any]], Calls]) -> Iterator[int]:
    """A chat endpoint on this machine; gives its port. `next_calls` returns the calls that answer a request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = answer(request, next_calls(request)).encode()
            self.send_response(200)
            kind = "text/event-stream" if request.get("stream") else "application/json"
            for header, value in (("Content-Type", kind), ("Content-Length", str(len(body)))):
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def answer(request: dict[str, Any], calls: Calls) -> str:
    """A chat completion with some calls, streamed if that is asked for."""
    message: dict[str, Any] = {"role": "assistant", "content": "Done."}
    if calls:
        made, offered = len(request["messages"]), [tool["function"]["name"] for tool in request["tools"]]
        functions = [{"name": name, "arguments": json.dumps(arguments)} for name, arguments in calls]
        assert all(function["name"] in offered for function in functions), (functions, offered)
        numbered = enumerate(functions)
        named = [{"index": i, "id": f"call{made}.{i}", "type": "function", "function": each} for i, each in numbered]
        message = {"role": "assistant", "content": None, "tool_calls": named}
    finish = "tool_calls" if calls else "stop"
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
