"""Check the bridges against the packages that are installed here, and write the table of what was run.

    make conformance                          a virtual environment for each group of packages, one after the other
    python benchmarks/conformance.py          what is installed here
    python benchmarks/conformance.py --only trl --slow

A check is a function below with the decorator `check`: it returns what was found, or raises. Results are kept in
`conformance.jsonl`, a line for each check; the table in `docs/results/conformance.md` is made of them. A check that
fails is a line of the table, too, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import modelnative as mn
from modelnative.tasks import TASKS
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.calls import Call
from modelnative.tasks.contract.episode import Episode
from modelnative.tasks.contract.task import AnyTask

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "conformance.jsonl", HERE.parent / "docs" / "results" / "conformance.md"
EPISODES = 1000  # of each kind and family
FAMILIES: dict[str, dict[str, Any]] = {
    **{name: {} for name in TASKS},
    "recall": {"longest": 10},  # an episode of 102 keys takes ten times as long and shows no more
    "dictionary": {"store": True},
}


@dataclass(frozen=True)
class Check:
    """A check of one package."""

    package: str
    module: str
    what: str
    run: Callable[[], str]
    slow: bool


CHECKS: list[Check] = []


def check(package: str, module: str, what: str, slow: bool = False) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Add a check: it runs where `module` can be imported; slow ones only with `--slow`."""

    def add(run: Callable[[], str]) -> Callable[[], str]:
        CHECKS.append(Check(package, module, what, run, slow))
        return run

    return add


# What the checks share


def family(name: str) -> AnyTask:
    return mn.make(name, **FAMILIES[name])


def random_arguments(call: Call, chance: random.Random, values: Sequence[Any]) -> dict[str, Any]:
    """Arguments that may fit the call: choices where there are any, or values of the oracle's calls."""
    given = {}
    for name, argument in call.arguments.items():
        choices = [choice for kind in argument.kinds for choice in kind.choices]
        given[name] = chance.choice(choices or [*values, 1])
    return given


def calls_of(episode: Episode, chance: random.Random | None) -> list[tuple[str, dict[str, Any]]]:
    """The oracle's calls; or, with `chance`, these with random ones among them."""
    plan = episode.plan()
    if chance is None:
        return plan
    values = [value for _, arguments in plan for value in arguments.values()]
    if episode.calls[0].name == "press":  # a call is a whole program: its keys are replaced
        keys = [chance.choice(episode.task.spec.vocabulary) if chance.random() < 0.3 else k for k in values[0].split()]
        return [("press", {"keys": key}) for key in keys]
    mixed = []
    for planned in plan:
        other = chance.choice(episode.calls)
        mixed.append((other.name, random_arguments(other, chance, values)) if chance.random() < 0.3 else planned)
    return mixed


def natively(task: AnyTask, episodes: Sequence[Episode]) -> list[tuple[float, bool, bool, list[str]]]:
    """Rewards, success, end and feedback of the episodes' keys, all of them in one batch of the task."""
    state = task.begin(Batch.cat([episode._begun() for episode in episodes]))
    found: list[tuple[float, bool, bool, list[str]]] = [(0.0, False, False, []) for _ in episodes]
    for t in range(max(len(episode.keys) for episode in episodes)):
        keys = [e.keys[t] if t < len(e.keys) else task.spec.vocabulary[task.spec.end] for e in episodes]
        step = task.step(state, torch.tensor(task.spec.token_ids(keys)))
        state = step.state
        columns = (step.reward.tolist(), step.success.tolist(), step.done.tolist(), step.feedback.tolist())
        for i, (reward, success, done, row) in enumerate(zip(*columns, strict=True)):
            if t < len(episodes[i].keys):
                score, won, _, shown = found[i]
                found[i] = (score + reward, won or success, done, [*shown, task.show(row) if row else ""])
    return found


def compare(task: AnyTask, episodes: Sequence[Episode], texts: Sequence[list[str]]) -> None:
    """Raise an `AssertionError` unless every episode went as it does natively and showed what is shown there."""
    for episode, native, shown in zip(episodes, natively(task, episodes), texts, strict=True):
        score, success, done, feedback = native
        at = f"{task.spec.name} {episode.to_json()}"
        assert abs(episode.score - score) < 1e-5, f"rewards {episode.score} and {score}: {at}"
        assert (episode.success, episode.done) == (success, done), f"ends {episode.success, success}: {at}"
        lines = {line.removesuffix(" (no effect)") for text in shown for line in text.splitlines()}
        if feedback and feedback[-1] and not episode.over:
            assert any(line.endswith(feedback[-1]) for line in lines), f"shown {lines} without {feedback[-1]}: {at}"


def play(call: Callable[[str, dict[str, Any]], str], episode: Episode, chance: random.Random | None) -> list[str]:
    """Make an episode's calls; return what was read."""
    return [call(name, arguments) for name, arguments in calls_of(episode, chance)]


def summary(counts: dict[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} {won} of {count}" for name, (won, count) in counts.items())


# The checks


@check("torch", "torch", f"{EPISODES} oracle and {EPISODES} spoiled episodes of every family by calls, beside the task")
def portable_episodes() -> str:
    counts = {}
    for name in FAMILIES:
        task, chance = family(name), random.Random(0)
        for kind in (None, chance):
            episodes, texts = [], []
            for index in range(EPISODES):
                episode = Episode(task)
                episode.begin(task.spec.stages[index % len(task.spec.stages)], seed=1, index=index)
                texts.append(play(lambda n, a, e=episode: e.call(n, a).text, episode, kind))
                episodes.append(episode)
            compare(task, episodes, texts)
            if kind is None:
                counts[name] = (sum(episode.success for episode in episodes), EPISODES)
    return f"rewards, ends and feedback equal; oracle: {summary(counts)}"


@check("trl", "trl", "the same, 200 each, through the environments of `TRLTask`; schemas by `get_json_schema`")
def trl_environments() -> str:
    from transformers.utils import get_json_schema

    from modelnative.bridges.trl import TRLTask

    for name in FAMILIES:
        bridge, chance = TRLTask(family(name), count=200, seed=2), random.Random(1)
        for kind in (None, chance):
            environments = [bridge.environment_factory() for _ in bridge.rows]
            texts = []
            for row, environment in zip(bridge.train_dataset, environments, strict=True):
                environment.reset(**row)
                call = lambda n, a, e=environment: getattr(e, n)(**a)  # noqa: E731
                texts.append(play(call, environment._episode, kind))
            compare(bridge.task, [environment._episode for environment in environments], texts)
        for call in bridge.task.calls():
            schema = get_json_schema(getattr(environments[0], call.name))["function"]["parameters"]
            ours = call.schema()["function"]["parameters"]
            kinds = [{k: v for k, v in p.items() if k != "description"} for p in schema["properties"].values()]
            assert list(schema["properties"]) == list(ours["properties"]), schema
            for theirs, own in zip(kinds, ours["properties"].values(), strict=True):
                assert {*own} >= {*theirs}, (theirs, own)
                assert theirs.get("enum") == own.get("enum"), (theirs, own)
    return "equal"


@check("trl", "trl", "`tiny_llm.py`: 98,000 random parameters learn T0 through `GRPOTrainer`, audited", slow=True)
def trl_learns() -> str:
    sys.path.insert(0, str(HERE))
    import tiny_llm

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    found, _ = tiny_llm.run(steps=500, seed=0, until=0.2, target=0.99)
    assert found["held out after"] >= 0.9, found
    assert not found["alarms"], found
    return (
        f"held-out success {found['held out before']:.3f} after the warm start, {found['held out after']:.3f} after "
        f"{found['GRPO steps']} steps of GRPO; {found['audits']} audits, no alarm; {found['seconds']:.0f} s"
    )


@check("reasoning-gym", "reasoning_gym", "our verdicts beside its scorers on 1,000 problems each, half of them spoiled")
def reasoning_gym_scorers() -> str:
    from reasoning_gym import create_dataset

    from modelnative.bridges.reasoning_gym import questions

    chance, words = random.Random(0), []
    for name, stage, theirs in (
        ("countdown", "C4", "countdown"),
        ("arithmetic", "T2", "basic_arithmetic"),
        ("expressions", "E3", "basic_arithmetic"),
    ):
        ours, scorer = questions(name, stage=stage, size=1000, seed=3), create_dataset(theirs, size=1, seed=0)
        right = different = 0
        for index in range(1000):
            item = ours[index]
            answer = item["answer"]
            if index % 2:  # spoiled
                answer = answer.replace("+", "*", 1) if "+" in answer and name == "countdown" else f"{answer}+1"
                answer = answer if name == "countdown" else str(item["metadata"]["target"] + chance.choice([-1, 1, 10]))
            mine, other = ours.score_answer(answer, item) == 1.0, scorer.score_answer(answer, item) >= 0.99
            right, different = right + mine, different + (mine != other)
        assert different == 0, f"{name}: {different} verdicts differ"
        words.append(f"{name} {right} right, 0 verdicts differ")
    return "; ".join(words)


@check("reasoning-gym", "reasoning_gym", "questions that seeds 0 and 1 share, of 100; six of its datasets as tasks")
def reasoning_gym_tasks() -> str:
    from reasoning_gym import create_dataset

    from modelnative.bridges.reasoning_gym import questions
    from modelnative.bridges.reasoning_gym_task import ReasoningGym

    shared = []
    for make in (lambda s: questions("countdown", stage="C4", size=100, seed=s), lambda s: _theirs(create_dataset, s)):
        first, second = ({item["question"] for item in make(seed)} for seed in (0, 1))
        shared.append(len(first & second))
    names = ["chain_sum", "basic_arithmetic", "gcd", "base_conversion", "spell_backward", "count_bits"]
    for name in names:
        mn.check_task(ReasoningGym(name, size=300), samples=64)
    return f"shared: ours {shared[0]}, its own countdown {shared[1]}; check_task passes for {', '.join(names)}"


def _theirs(create_dataset: Any, seed: int) -> list[Any]:
    dataset = create_dataset("countdown", size=100, seed=seed)
    return [dataset[index] for index in range(100)]


@check(
    "mcp", "mcp.server", "a client over standard input and output: 20 oracle and 20 spoiled episodes of two families"
)
def mcp_episodes() -> str:
    import anyio
    from mcp import StdioServerParameters
    from mcp.client.client import Client

    async def run(name: str) -> int:
        task, chance, won = mn.make(name), random.Random(2), 0
        server = [sys.executable, "-m", "modelnative.bridges.mcp", name]
        async with Client(StdioServerParameters(command=server[0], args=server[1:], env=dict(os.environ))) as client:
            tools = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
            assert list(tools) == ["begin", *(call.name for call in task.calls())], tools
            for index in range(40):
                stage, episode = task.spec.stages[index % len(task.spec.stages)], Episode(task)
                opening = episode.begin(stage, seed=4, index=index)
                begun = await client.call_tool("begin", {"stage": stage, "seed": 4, "index": index})
                assert begun.content[0].text == opening, (begun, opening)
                for call, arguments in calls_of(episode, None if index % 2 else chance):
                    answer, shown = await client.call_tool(call, arguments), episode.call(call, arguments)
                    assert (answer.content[0].text, bool(answer.is_error)) == (shown.text, shown.refused), answer
                won += episode.success
        return won

    return "every text equal; " + summary({name: (anyio.run(run, name), 40) for name in ("countdown", "hops")})


@check(
    "inspect_ai", "inspect_ai", "`eval` with a scripted model: 30 problems of two families, two epochs, half spoiled"
)
def inspect_evaluations() -> str:
    import tempfile

    from inspect_ai import eval as evaluate
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from modelnative.bridges.inspect import STORED, inspect_task

    def scripted(messages: Any, tools: Any, choice: Any, config: Any) -> Any:
        opening = next(message.text for message in messages if message.role == "user")
        made, plan = sum(message.role == "assistant" for message in messages), plans[opening]
        text = ModelOutput.from_content("mockllm", "Done.")
        output = ModelOutput.for_tool_call("mockllm", *plan[made]) if made < len(plan) else text
        output.usage = ModelUsage()  # without it, the mock model downloads a tokenizer
        return output

    words = []
    for name in ("countdown", "dictionary"):
        task, chance, plans = family(name), random.Random(5), {}
        evaluation = inspect_task(task, count=30, seed=6)
        expected = {}
        for index, sample in enumerate(evaluation.dataset):
            row, episode = sample.metadata, Episode(task)
            opening = episode.begin(row["stage"], seed=row["seed"], index=row["index"], split=row["split"])
            plans[opening] = calls_of(episode, chance if index % 2 else None)
            for call, arguments in plans[opening]:
                if not episode.over:
                    episode.call(call, arguments)
            expected[sample.id] = (episode.keys, episode.success, episode.score)
        with tempfile.TemporaryDirectory() as folder:
            model = get_model("mockllm/model", custom_outputs=scripted)
            log = evaluate(evaluation, model=model, epochs=2, display="none", log_dir=folder)[0]
        assert log.status == "success", log.error
        for sample in log.samples:
            again = Episode.of(sample.store[STORED], task)
            assert (again.keys, again.success, again.score) == expected[sample.id], sample.id
        means = {s.name: s.metrics["mean"].value for s in log.results.scores}
        share = sum(success for _, success, _ in expected.values()) / len(expected)
        assert abs(means["success"] - share) < 1e-6, (means, share)
        words.append(f"{name} success {share:.3f} as scripted")
    return "; ".join(words)


# The table


def run(chosen: Sequence[Check]) -> list[dict[str, Any]]:
    """Run checks; return a line for each."""
    lines = []
    for one in chosen:
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result, passed = one.run(), True
        except Exception as error:  # noqa: BLE001  # any failure is a result
            traceback.print_exc()
            result, passed = f"FAILED: {type(error).__name__}: {str(error)[:200]}", False
        line = {
            "package": one.package,
            "version": version(one.package),
            "what": one.what,
            "result": result,
            "passed": passed,
            "seconds": round(time.perf_counter() - started, 1),
            "python": platform.python_version(),
            "torch": version("torch"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        print(f"{one.package} {line['version']}: {one.what}\n  {result} ({line['seconds']} s)", flush=True)
        lines.append(line)
    return lines


def kept(new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put new lines in the place of older ones of the same check; drop those of checks that are gone."""
    old = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    merged = {(line["package"], line["what"]): line for line in [*old, *new]}
    order = [(one.package, one.what) for one in CHECKS]
    return [merged[key] for key in order if key in merged]


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The page of the documentation."""
    rows = [
        f"| {line['package']} {line['version']} | {line['what']} | {line['result']} | {line['seconds']:g} |"
        for line in lines
    ]
    machines = sorted({f"{line['machine']}, Python {line['python']}, torch {line['torch']}" for line in lines})
    return "\n".join(
        [
            "# Conformance",
            "",
            "What the bridges were run against. `make conformance` makes a virtual environment for each group of",
            "packages that can be installed together, runs `benchmarks/conformance.py` in each, and writes this page.",
            "A check that fails is shown as `FAILED`.",
            "",
            "| package | what was run | result | seconds |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Machine: {'; '.join(machines)}. Seconds are of a machine that other work shared.",
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="packages")
    parser.add_argument("--slow", action="store_true", help="also what takes minutes")
    parser.add_argument("--list", action="store_true", help="list the checks and run none")
    given = parser.parse_args()
    chosen = [
        one
        for one in CHECKS
        if (not given.only or one.package in given.only)
        and (given.slow or not one.slow)
        and importlib.util.find_spec(one.module.partition(".")[0])
    ]
    if given.list:
        print("\n".join(f"{one.package}: {one.what}" for one in chosen))
        return 0
    torch.set_num_threads(1)  # more are slower for batches of one
    new = run(chosen)
    lines = kept(new)
    RESULTS.write_text("".join(json.dumps(line) + "\n" for line in lines))
    PAGE.write_text(page(lines))
    return 0 if all(line["passed"] for line in new) else 1


if __name__ == "__main__":
    sys.exit(main())
