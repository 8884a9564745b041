"""Checks of an episode by calls."""

from __future__ import annotations

import torch
from conformance_registry import EPISODES, FAMILIES, KINDS, check, family, reference, summary

import modelnative as mn


@check("torch", "torch", "1,000 oracle and 1,000 spoiled episodes of every family by calls, beside the task")
def portable_episodes() -> str:
    counts = {}
    for name in FAMILIES:
        verdicts = {kind: [played.success for played in reference(name, kind)] for kind in KINDS}
        assert all(len(each) == EPISODES for each in verdicts.values()), name
        counts[name] = (sum(verdicts["oracle"]), EPISODES)
    return f"rewards, ends and feedback equal; oracle: {summary(counts)}"


@check("gymnasium", "gymnasium", "1,000 oracle and 1,000 random episodes of every family through `mn.VectorEnv`")
def vector_environments() -> str:
    won = {}
    for name in FAMILIES:
        task, chance = family(name), torch.Generator().manual_seed(0)
        stages = torch.arange(EPISODES) % len(task.spec.stages)
        problems = task.sample(stages, chance)
        random = torch.randint(len(task.spec.vocabulary), (EPISODES, task.spec.horizon), generator=chance)
        for keys in (task.oracle(problems), random):
            envs, state = mn.VectorEnv(task, EPISODES), task.begin(problems)
            envs.reset(options={"problem": problems})
            first = torch.ones(EPISODES, dtype=torch.bool)  # the episode that is compared is not over
            solved = torch.zeros(EPISODES, dtype=torch.bool)
            for t in range(task.spec.horizon):
                token = keys[:, t] if t < keys.shape[1] else torch.full((EPISODES,), task.spec.end)
                step = task.step(state, token)
                seen, *flags, infos = envs.step(token.numpy())
                reward, terminated, truncated = (torch.from_numpy(flag)[first] for flag in flags)
                state, cut = step.state, task.truncated(step.state)
                late = ~step.done & ((t + 1 >= task.spec.horizon) | (cut if cut is not None else False))
                assert torch.equal(reward, step.reward.double()[first]), (name, t)
                assert torch.equal(terminated, (step.done & ~late)[first]), (name, t)
                assert torch.equal(truncated, late[first]), (name, t)
                assert torch.equal(torch.from_numpy(infos["success"])[first], step.success[first]), (name, t)
                if task.spec.feedback_width:
                    assert torch.equal(torch.from_numpy(seen["feedback"])[first], step.feedback[first]), (name, t)
                solved |= first & step.success
                first &= ~(step.done | late)
                if not first.any():
                    break
            if keys is not random:
                won[name] = (int(solved.sum()), EPISODES)
    return f"rewards, ends, verdicts and feedback equal; oracle: {summary(won)}"
