"""The checks of `conformance.py`, and what they share."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import modelnative as mn
from modelnative.tasks import TASKS
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.calls import Call
from modelnative.tasks.contract.episode import Episode
from modelnative.tasks.contract.task import AnyTask

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


EPISODES = 1000  # of each kind and family
KINDS = ("oracle", "spoiled")
KEPT = Path(__file__).resolve().parents[1] / "build" / "conformance"  # for the environments of the other packages


@dataclass(frozen=True)
class Played:
    """An episode as calls play it, which `portable_episodes` compares with the task.

    Attributes:
        stage, seed, index: its problem, of the train split.
        opening: what is shown before the first call.
        calls: the calls.
        texts, rewards, overs: what each call led to.
        refused: whether each call was refused.
        keys: those pressed.
        score, success: of the episode.
    """

    stage: str
    seed: int
    index: int
    opening: str
    calls: list[tuple[str, dict[str, Any]]]
    texts: list[str]
    rewards: list[float]
    overs: list[bool]
    refused: list[bool]
    keys: list[str]
    score: float
    success: bool


def reference(name: str, kind: str) -> Iterator[Played]:
    """The oracle's or spoiled episodes of a family: the same 1,000 in every environment. They are kept in a file."""
    source, digest = Path(mn.__file__).parent, hashlib.blake2b(digest_size=8)
    for file in [*sorted((source / "tasks").rglob("*.py")), Path(__file__)]:
        digest.update(file.read_bytes())
    kept = KEPT / f"{name}-{kind}-{EPISODES}-{digest.hexdigest()}.jsonl"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(dataclasses.asdict(played)) for played in _play_all(name, kind)]
        partial = kept.with_suffix(".partial")
        partial.write_text("\n".join(lines) + "\n")
        partial.replace(kept)
    with kept.open() as file:
        for line in file:
            yield Played(**json.loads(line))


def _play_all(name: str, kind: str) -> Iterator[Played]:
    task, chance, episodes, texts = family(name), random.Random(0), list[Episode](), list[list[str]]()
    for index in range(EPISODES):
        episode, stage = Episode(task), task.spec.stages[index % len(task.spec.stages)]
        opening = episode.begin(stage, seed=1, index=index)
        calls = calls_of(episode, chance if kind == "spoiled" else None)
        shown = [episode.call(call, arguments) for call, arguments in calls]
        texts.append([each.text for each in shown])
        episodes.append(episode)
        rewards, overs, refused = ([getattr(s, field) for s in shown] for field in ("reward", "over", "refused"))
        rest = (texts[-1], rewards, overs, refused, episode.keys, episode.score, episode.success)
        yield Played(stage, 1, index, opening, calls, *rest)
    compare(task, episodes, texts)  # with the task itself, in one batch


def summary(counts: dict[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} {won} of {count}" for name, (won, count) in counts.items())
