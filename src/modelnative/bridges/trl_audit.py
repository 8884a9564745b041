"""`mn.audit` for TRL's `GRPOTrainer`: the same checks of its batches, before their first gradient step.

Which tokens the model wrote is recorded where they are sampled, so that the trainer's masks are checked against what
happened and not against themselves. Needs the extra `trl`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from modelnative.bridges.trl import TESTED
from modelnative.extras import optional
from modelnative.tasks.contract.episode import Episode
from modelnative.tasks.contract.task import require
from modelnative.training.audit import (
    Alarm,
    Audit,
    Weights,
    group_readings,
    log_prob_readings,
    mask_readings,
    problem_readings,
    verdict_readings,
)

ALONE = 2  # episodes that are read one by one
Turn = tuple[list[list[int]], list[list[int]]]  # the tokens before, and those that were sampled, of each episode


class TRLAudit:
    """The audits of a `GRPOTrainer`; see `audit_trainer`.

    Attributes:
        audits: the audits, with the step of each.
        last: the tensors of the last audit, by the names of `mn.audit`'s arguments.
    """

    def __init__(self, trainer: Any, every: int, on_alarm: Callable[[Alarm], None]) -> None:
        self.audits: list[tuple[int, Audit]] = []
        self.last: dict[str, Tensor] = {}
        self._trainer, self._every, self._on_alarm = trainer, every, on_alarm
        self._turns: list[Turn] = []
        self._returns: Tensor | None = None
        self._batches, self._known = 0, set[str]()
        self._wrap("_generate_single_turn", self._record_turn)
        self._wrap("_calculate_rewards", self._record_returns)
        self._wrap("_generate_and_score_completions", self._audit)

    @property
    def alarms(self) -> list[Alarm]:
        """The alarms of all audits."""
        return [alarm for _, audit in self.audits for alarm in audit.alarms]

    def _wrap(self, name: str, around: Callable[..., Any]) -> None:
        inner = getattr(self._trainer, name)
        setattr(self._trainer, name, lambda *args, **options: around(inner, *args, **options))

    def _record_turn(self, inner: Callable[..., Any], prompt_ids: Any, *args: Any, **options: Any) -> Any:
        sampled, logs = inner(prompt_ids, *args, **options)
        self._turns.append(([list(ids) for ids in prompt_ids], [list(ids) for ids in sampled]))
        return sampled, logs

    def _record_returns(self, inner: Callable[..., Any], *args: Any, **options: Any) -> Any:
        rewards = inner(*args, **options)
        weights = self._trainer.reward_weights.to(rewards.device)
        self._returns = (rewards * weights).nansum(1)
        return rewards

    def _audit(self, inner: Callable[..., Any], inputs: Sequence[Any]) -> Any:
        self._turns, self._returns = [], None
        rows = [{name: value for name, value in row.items() if name != "prompt"} for row in inputs]
        batch = inner(inputs)
        self._batches += 1
        if self._trainer.model.training and (self._batches <= 2 or self._batches % self._every == 0):
            audit = self._read(batch, rows)
            self.audits.append((self._trainer.state.global_step, audit))
            for name, (value, _) in audit.readings.items():
                self._trainer._metrics["train"][f"audit/{name}"].append(value)
            for alarm in audit.alarms:
                if alarm.check not in self._known:
                    self._known.add(alarm.check)
                    self._on_alarm(alarm)
        return batch

    @torch.no_grad()
    def _read(self, batch: dict[str, Any], rows: list[dict[str, Any]]) -> Audit:
        trainer, n = self._trainer, len(rows)
        mask = (batch["completion_mask"] * batch.get("tool_mask", 1)).bool()
        sampled, different = sampled_tokens(self._turns, batch["completion_ids"])
        readings = mask_readings(mask, sampled)
        new = self._log_probs(batch["prompt_ids"], batch["prompt_mask"], batch["completion_ids"], batch)
        old = batch.get("sampling_per_token_logps", batch.get("old_per_token_logps"))
        if old is not None:
            readings |= log_prob_readings(old[mask], new[mask])
        kept = mask.any(1)  # the trainer may leave out whole episodes, such as those that were cut off
        chosen = kept.nonzero()[:ALONE, 0].tolist()
        if chosen:
            readings["row_alone"] = (max(self._row_alone(batch, i, new[i], mask[i]) for i in chosen), len(chosen))
        first = trainer.accelerator.process_index * n
        assert self._returns is not None
        returns = self._returns[first : first + n]
        advantages = batch["advantages"][:, None].expand(mask.shape)
        names = [json.dumps([prompt, row], default=str) for prompt, row in zip(self._turns[0][0], rows, strict=True)]
        index = {name: k for k, name in enumerate(dict.fromkeys(names))}
        problems = torch.tensor([index[name] for name in names], device=mask.device)
        groups = torch.arange(n, device=mask.device) // trainer.num_generations
        success = returns > 0
        episodes = [getattr(environment, "_episode", None) for environment in trainer.environments or []]
        if episodes and all(isinstance(episode, Episode) for episode in episodes):
            played = [episode for episode in episodes if isinstance(episode, Episode)]
            success = torch.tensor([episode.success for episode in played], device=mask.device)
            different += sum(_plays_differently(episode) for episode in played)
        readings["replayed_differently"] = (float(different), n)
        if trainer.multi_objective_aggregation == "sum_then_normalize":
            # An episode that is left out still has its part in the mean of its group.
            readings |= problem_readings(Weights.of(advantages, mask | ~kept[:, None]), problems)
            by_length = trainer.loss_type == "grpo"  # which divides by the length of an episode
            weights = advantages / mask.sum(1, keepdim=True).clamp_min(1) if by_length else advantages
            readings |= group_readings(Weights.of(weights[kept], mask[kept]), groups[kept], returns[kept])
        readings |= verdict_readings(Weights.of(advantages, mask), success)
        self.last = {
            "old_log_probs": new if old is None else old,
            "new_log_probs": new,
            "mask": mask,
            "running": sampled,
            "advantages": batch["advantages"],
            "returns": returns,
            "problems": problems,
            "groups": groups,
            "success": success,
        }
        return Audit(readings)

    def _log_probs(self, prompt: Tensor, prompt_mask: Tensor, completion: Tensor, batch: dict[str, Any]) -> Tensor:
        mask = torch.cat([prompt_mask, batch["completion_mask"]], 1)
        return self._of(torch.cat([prompt, completion], 1), mask, completion.shape[1])

    def _of(self, ids: Tensor, mask: Tensor, keep: int) -> Tensor:
        log_probs, *_ = self._trainer._get_per_token_logps_and_entropies(
            self._trainer.model, ids, mask, keep, batch_size=len(ids)
        )
        return log_probs

    def _row_alone(self, batch: dict[str, Any], i: int, new: Tensor, mask: Tensor) -> float:
        """How far the log-probabilities of an episode are from those in a batch of its own, without padding."""
        prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()]
        completion = batch["completion_ids"][i][batch["completion_mask"][i].bool()]
        ids = torch.cat([prompt, completion])[None]
        alone = self._of(ids, torch.ones_like(ids), len(completion))[0]
        length = len(completion)
        return float((alone - new[:length])[mask[:length]].abs().max())


def audit_trainer(trainer: Any, every: int = 10, on_alarm: Callable[[Alarm], None] | None = None) -> TRLAudit:
    """Audit a `GRPOTrainer` from now on: its first two batches, and then every tenth.

    The readings are logged as `audit/NAME`. The checks are those of `mn.audit`; an audit costs a forward pass.

    Args:
        trainer: a `GRPOTrainer`, before `train`.
        every: batches between audits.
        on_alarm: called with the first alarm of each check; by default, a warning.

    Raises:
        UserError: `trl` is not installed, or `trainer` is no `GRPOTrainer`.
    """
    trl = optional("trl", "trl", *TESTED)
    require(every >= 1, "every", every, "at least 1")
    require(isinstance(trainer, trl.GRPOTrainer), "trainer", trainer, "a GRPOTrainer")
    return TRLAudit(trainer, every, on_alarm or _warn)


def sampled_tokens(turns: Sequence[Turn], completion: Tensor) -> tuple[Tensor, int]:
    """Which tokens of the completions the model sampled, and how many of them are others now.

    Args:
        turns: for each turn of the episodes, the tokens before it and those that were sampled. The first turn has all
            episodes; a later one has, in order, those that go on.
        completion: int64 [n, T], the completions as the trainer has them.

    Returns:
        bool [n, T]; and the number of sampled tokens that the completions do not have at their places.
    """
    (prompts, sampled), later = turns[0], turns[1:]
    sampled_at = torch.zeros(completion.shape, dtype=torch.bool)
    so_far, different = [list(prompt) for prompt in prompts], 0
    rows = list(range(len(prompts)))
    for before, tokens in [(prompts, sampled), *later]:
        place, found = 0, []
        for context in before:  # the next episode whose tokens so far begin the context
            while context[: len(so_far[rows[place]])] != so_far[rows[place]]:
                place += 1
            found.append(rows[place])
            place += 1
        for row, context, new in zip(found, before, tokens, strict=True):
            start = len(context) - len(prompts[row])
            new = new[: completion.shape[1] - start]  # the trainer cuts completions at their largest length
            sampled_at[row, start : start + len(new)] = True
            different += int((completion[row, start : start + len(new)].cpu() != torch.tensor(new)).sum()) if new else 0
            so_far[row] = [*context, *new]
        rows = found
    return sampled_at.to(completion.device), different


def _plays_differently(episode: Episode) -> bool:
    again = Episode.of(episode.to_json(), episode.task)
    return (again.score, again.success, again.over) != (episode.score, episode.success, episode.over)


def _warn(alarm: Alarm) -> None:
    warnings.warn(alarm.text, UserWarning, stacklevel=6)
