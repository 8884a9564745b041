"""Known faults of reinforcement-learning recipes, each as a change that plants it in a trainer.

Cases and their reports are from public issue trackers and papers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.task import Problems
from modelnative.training.rollout import Rollout
from modelnative.training.trainer import Trainer
from modelnative.training.update_state import UpdateState

NOISE, TEMPERATURE, STALE, OTHER_TOKENS, PARTS = 0.05, 1.3, 4, 0.01, 4

Spoil = Callable[[Trainer], None]


@dataclass(frozen=True)
class Case:
    """A fault.

    Attributes:
        name: what `modelnative clinic` calls it.
        fault: what is wrong.
        reports: where it was met.
        checks: the readings of which one at least must raise an alarm.
        spoil: plants it in a trainer.
        algorithm: of both twins.
    """

    name: str
    fault: str
    reports: str
    checks: tuple[str, ...]
    spoil: Spoil
    algorithm: str = "ppo"


def _after_play(change: Callable[[Rollout], dict[str, Tensor]]) -> Spoil:
    """Change columns of every rollout."""

    def spoil(trainer: Trainer) -> None:
        play = trainer.play

        def changed(*arguments: Any) -> Rollout:
            rollout = play(*arguments)
            columns: dict[str, Any] = dict(change(rollout))
            return replace(rollout, **columns)

        trainer.play = changed  # type: ignore[method-assign,assignment]

    return spoil


def _noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like)


def _shifted(by: int) -> Callable[[Rollout], dict[str, Tensor]]:
    def change(rollout: Rollout) -> dict[str, Tensor]:
        moved = rollout.loss_mask.roll(by, 0)
        moved[0 if by > 0 else -1] = False
        return {"loss_mask": moved}

    return change


def _other_tokens(rollout: Rollout) -> dict[str, Tensor]:
    changed = torch.rand(rollout.action.shape, generator=torch.Generator().manual_seed(0)) < OTHER_TOKENS
    return {"action": torch.where(changed.to(rollout.action.device), rollout.action ^ 1, rollout.action)}


def _stale(trainer: Trainer) -> None:
    """Play with the weights of some updates ago."""
    play, kept = trainer.play, list[dict[str, Tensor]]()

    def played(*arguments: Any) -> Rollout:
        kept.append(copy.deepcopy(trainer.policy.state_dict()))
        trainer.policy.load_state_dict(kept[-1 - min(STALE, len(kept) - 1)])
        rollout = play(*arguments)
        trainer.policy.load_state_dict(kept[-1])
        del kept[: -STALE - 1]
        return rollout

    trainer.play = played  # type: ignore[method-assign,assignment]


def _with_advantages(change: Callable[[Trainer, Rollout, Tensor], Tensor]) -> Spoil:
    def spoil(trainer: Trainer) -> None:
        advantages = trainer.algorithm.advantages

        def changed(rollout: Rollout) -> tuple[Tensor, Tensor]:
            advantage, target = advantages(rollout)
            return change(trainer, rollout, advantage), target

        trainer.algorithm.advantages = changed  # type: ignore[method-assign]

    return spoil


def _strided(trainer: Trainer, rollout: Rollout, advantage: Tensor) -> Tensor:
    """Relative to the mean of every so manyth episode, instead of those side by side."""
    returns = (rollout.reward * rollout.loss_mask).sum(0)
    groups = returns.view(trainer.algorithm.num_generations, -1)
    return (groups - groups.mean(0)).flatten().expand_as(advantage)


def _by_length(trainer: Trainer, rollout: Rollout, advantage: Tensor) -> Tensor:
    length = rollout.loss_mask.sum(0).clamp_min(1)
    return advantage * length.float().mean() / length


def _mean_of_means(trainer: Trainer) -> None:
    """Accumulate the gradient over four parts of a minibatch, each divided by its own tokens."""
    gradient = trainer.gradient

    def averaged(state: UpdateState, rows: Tensor) -> tuple[list[Tensor], Tensor]:
        found = [gradient(state, part) for part in rows.tensor_split(PARTS)]
        gradients = [torch.stack(each).mean(0) for each in zip(*(part for part, _ in found), strict=True)]
        return gradients, torch.stack([terms for _, terms in found]).mean(0)

    trainer.gradient = averaged  # type: ignore[method-assign]


def _unread(trainer: Trainer) -> None:
    """Give the network the first problem's context in every episode."""
    policy: Any = trainer.policy
    begin, context = policy.initial_state, list[Tensor]()

    def initial_state(problems: Problems) -> Any:
        context[:] = context or [problems.context[:1].clone()]
        return begin(replace(problems, context=context[0].expand_as(problems.context).contiguous()))

    policy.initial_state = initial_state


def _paid_at_the_end(rollout: Rollout) -> dict[str, Tensor]:
    """The last action of every episode is paid as success is."""
    last = rollout.running & ~torch.cat([rollout.running[1:], torch.zeros_like(rollout.running[:1])])
    return {"reward": torch.where(last, 1.0, rollout.reward)}


def _at_the_start(change: Callable[[Tensor, Tensor | None], Tensor]) -> Spoil:
    """Change the core's state before the first token; the second argument is its last state of an earlier call."""

    def spoil(trainer: Trainer) -> None:
        policy: Any = trainer.policy
        begin, forward, last = policy.initial_state, policy.forward, list[Tensor]()

        def initial_state(problems: Problems) -> Any:
            state = begin(problems)
            return replace(state, core=change(state.core, last[-1] if last else None))

        def followed(*arguments: Any) -> Any:
            output = forward(*arguments)
            last[:] = [output.state.core.detach()]
            return output

        policy.initial_state, policy.forward = initial_state, followed

    return spoil


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            "engine mismatch",
            "the engine that samples rounds otherwise than the one that learns",
            "verl #2953, AReaL #1290, open-instruct #1473",
            ("log_prob_gap_mean",),
            _after_play(lambda r: {"behavior_log_prob": r.behavior_log_prob + NOISE * _noise(r.behavior_log_prob)}),
        ),
        Case(
            "stale weights",
            "the sampler plays with the weights of four updates ago",
            "verl #7495, TRL #5312",
            ("log_prob_gap_mean", "effective_sample_size"),
            _stale,
        ),
        Case(
            "mask late",
            "the loss mask is shifted by one to the right",
            "prime-rl #1525, slime #1418, trlx #508",
            ("log_prob_gap_mean", "tokens_after_the_end"),
            _after_play(_shifted(1)),
        ),
        Case(
            "mask early",
            "the loss mask is shifted by one to the left",
            "trlx #509",
            ("last_actions_left_out", "log_prob_gap_mean"),
            _after_play(_shifted(-1)),
        ),
        Case(
            "mask inverted",
            "what was given is trained on, and what was chosen is not",
            "RAGEN #71, unsloth #5673, slime #1370",
            ("last_actions_left_out", "log_prob_gap_mean"),
            _after_play(lambda r: {"loss_mask": r.running & ~r.loss_mask}),
        ),
        Case(
            "wrong groups",
            "a group has episodes of different problems",
            "Search-R1 #88",
            ("group_mean",),
            _with_advantages(_strided),
            "grpo",
        ),
        Case(
            "length bias",
            "the tokens of long episodes weigh less than those of short ones",
            "Dr. GRPO (arXiv 2503.20783), TRL #3256",
            ("weight_by_length",),
            _with_advantages(_by_length),
            "grpo",
        ),
        Case(
            "temperature",
            "stored log-probabilities are those of another temperature",
            "TRL #3029, NeMo-RL #935, prime-rl #697",
            ("log_prob_gap_mean",),
            _after_play(lambda r: {"behavior_log_prob": r.behavior_log_prob / TEMPERATURE}),
        ),
        Case(
            "batch leak",
            "what the network reads is averaged over the batch",
            "NeMo-Aligner #68, OpenRLHF #217, TRL #469; the tutorial's encoder",
            ("row_alone",),
            _at_the_start(lambda core, last: core + core.mean(0)),
        ),
        Case(
            "state carried over",
            "the state of an earlier episode is added at the start of the next",
            "Mava #1006, RLlib #21392, torchrl #3711",
            ("row_alone", "log_prob_gap_mean"),
            _at_the_start(lambda core, last: core if last is None else core + last.mean(0)),
        ),
        Case(
            "other tokens",
            "one token in a hundred is recorded as another, as by tokenizing text again",
            "rllm #272, prime-rl #1334, verl #6719",
            ("replayed_differently",),
            _after_play(_other_tokens),
        ),
        Case(
            "mean of means",
            "the gradient is accumulated over parts of a batch, each divided by its own tokens",
            "TRL #3021, verl #906, SkyRL #925, open-instruct #1161",
            ("gradient_of_parts",),
            _mean_of_means,
        ),
        Case(
            "problem unread",
            "the network is given the same problem in every episode, as by a prompt that is cut off",
            "RAGEN-2 (arXiv 2604.06268), on templates that ignore the input",
            ("problem_unread",),
            _unread,
        ),
        Case(
            "proxy reward",
            "an episode that ends is paid, whether it succeeds or not",
            "spurious rewards (arXiv 2506.10947); the published tutorial's score",
            ("paid_without_success",),
            _after_play(_paid_at_the_end),
        ),
        Case(
            "wrong sign",
            "the advantages are negated",
            "ToolRL #52, OpenRLHF #1309",
            ("verdict_correlation",),
            _with_advantages(lambda trainer, rollout, advantage: -advantage),
        ),
    )
}
