"""Checks of the bridge to reasoning-gym."""

from __future__ import annotations

import random
from typing import Any

from conformance_registry import check

import modelnative as mn


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
