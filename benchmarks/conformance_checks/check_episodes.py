"""Checks of an episode by calls."""

from __future__ import annotations

import random

from conformance_registry import FAMILIES, check, compare, family, play, summary

from modelnative.tasks.contract.episode import Episode

EPISODES = 1000  # of each kind and family


@check("torch", "torch", "1,000 oracle and 1,000 spoiled episodes of every family by calls, beside the task")
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
