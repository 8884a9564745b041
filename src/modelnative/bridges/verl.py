"""Tasks for verl's tool agent loop: tools, a dataset, a reward function, and `mn.audit` for verl's batches.

verl makes a tool for each call and releases it again, so the episode is kept, as JSON, in the loop's `extra_fields`,
which verl hands on to the reward function. `audit_batch` and `rows` need no verl.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from modelnative.errors import UserError, choose
from modelnative.extras import optional
from modelnative.tasks import make_task
from modelnative.tasks.contract.episode import Episode
from modelnative.tasks.contract.task import SPLITS, AnyTask, Split, require
from modelnative.training.audit import (
    Audit,
    Readings,
    Weights,
    group_readings,
    log_prob_readings,
    problem_readings,
    verdict_readings,
)

TESTED = ("0.9", "0.10")  # from, and below
STORED = "modelnative_episode"  # the episode in `extra_fields`
LOSSES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "seq-mean-token-mean")


def rows(
    task: AnyTask | str,
    *,
    stages: Sequence[str] = (),
    count: int = 1000,
    seed: int = 0,
    split: Split = "train",
) -> list[dict[str, Any]]:
    """Return the rows of a dataset, to be written as a Parquet file for `data.train_files`.

    A row names its problem by seed and index, so that all rollouts of a prompt share the problem.

    Args:
        task: a task or the name of one.
        stages: the names of the stages that problems are drawn from, in turn; empty means all.
        count: number of rows.
        seed: of the problems.
        split: which problems are drawn.

    Raises:
        UserError: an argument is not allowed.
    """
    require(count >= 1, "count", count, "at least 1")
    choose("split", split, SPLITS)
    episode, found = Episode(task), []
    names = list(stages) or list(episode.task.spec.stages)
    for index in range(count):
        where = {"stage": names[index % len(names)], "seed": seed, "index": index, "split": split}
        opening = episode.begin(names[index % len(names)], seed=seed, index=index, split=split)
        prompt = [{"role": "system", "content": episode.rules}, {"role": "user", "content": opening}]
        kwargs = {call.name: {"create_kwargs": where} for call in episode.calls}
        row = {
            "data_source": f"modelnative/{episode.task.spec.name}",
            "agent_name": "tool_agent",
            "prompt": prompt,
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": index, "need_tools_kwargs": True, "tools_kwargs": kwargs},
        }
        found.append(row)
    return found


def tool_config(task: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of the YAML file for `actor_rollout_ref.rollout.multi_turn.tool_config_path`.

    Args:
        task: the name of a task, or `module:name`.
        options: of the task.
    """
    calls, name = make_task(task, **(options or {})).calls(), f"{__name__}.EpisodeTool"
    config = {"type": "native", "task": task, "options": dict(options or {})}
    return {"tools": [{"class_name": name, "config": {**config, "call": call.name}} for call in calls]}


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any], **rest: Any
) -> dict[str, float]:
    """Return the rewards of an episode as verl's reward functions do, for `reward.custom_reward_function`.

    `score` is the sum of the task's rewards, `acc` the verifier's verdict. An episode without a call has zeros.
    """
    stored = extra_info.get(STORED)
    if stored is None:
        return {"score": 0.0, "acc": 0.0, "truncated": 0.0, "refused": 0.0, "keys": 0.0}
    episode = Episode.of(stored["episode"], make_task(stored["task"], **stored["options"]))
    verdict = {"acc": float(episode.success), "truncated": float(episode.truncated), "refused": float(episode.refused)}
    return {"score": episode.score, **verdict, "keys": float(len(episode.keys))}


def audit_batch(
    data: Any,
    *,
    new_log_probs: Tensor | None = None,
    grouped: bool = True,
    loss_agg_mode: str = "token-mean",
    success: Tensor | None = None,
) -> Audit:
    """Check a batch of verl before its first gradient step, as `mn.audit` does.

    Args:
        data: a `DataProto` after its advantages were computed, or a mapping with the same names: tensors
            `response_mask`, `advantages` and `token_level_rewards` (or `token_level_scores`), [n, T] each; where there
            are any, `old_log_probs` and `rollout_log_probs` [n, T], `attention_mask` [n, P + T] and `prompts` [n, P];
            and the n names `uid`.
        new_log_probs: float [n, T], from a forward pass of the actor, to be compared with `old_log_probs`. Without
            them, `old_log_probs`, which the actor computes, are compared with the `rollout_log_probs` of the engine
            that sampled.
        grouped: whether advantages are relative to the mean of a `uid` (GRPO, RLOO, Dr. GRPO; not GAE).
        loss_agg_mode: of verl's actor: whether the loss divides by the length of an episode.
        success: bool [n], the verdicts, if they are not positive rewards.

    Raises:
        UserError: a tensor is missing, or shapes do not fit.

    Example:
        >>> ones = torch.ones(2, 3)
        >>> batch = {"response_mask": ones, "advantages": ones, "token_level_rewards": ones, "uid": ["a", "b"]}
        >>> [alarm.check for alarm in audit_batch(batch).alarms]
        ['group_mean']
    """
    choose("loss_agg_mode", loss_agg_mode, LOSSES)
    tensors = getattr(data, "batch", data)
    mask = _tensor(tensors, "response_mask").bool()
    if not bool(mask.any()):
        raise UserError("response_mask: no token is in the loss")
    advantages = _tensor(tensors, "advantages", mask)
    paid = "token_level_rewards" if "token_level_rewards" in tensors else "token_level_scores"
    returns = _tensor(tensors, paid, mask).sum(1)
    old, new = ("old_log_probs", new_log_probs) if new_log_probs is not None else ("rollout_log_probs", None)
    readings: Readings = {}
    if old in tensors and (new is not None or "old_log_probs" in tensors):
        new = _tensor(tensors, "old_log_probs", mask) if new is None else new
        require(new.shape == mask.shape, "new_log_probs", list(new.shape), f"the shape {list(mask.shape)}")
        readings |= log_prob_readings(_tensor(tensors, old, mask)[mask], new[mask])
    if "attention_mask" in tensors:  # calls and answers of the tools; what follows is padding
        written = tensors["attention_mask"][:, -mask.shape[1] :].bool()
        readings["tokens_after_the_end"] = (float((mask & ~written).sum()), int(mask.sum()))
    if grouped:
        groups = _groups(data, len(mask)).to(mask.device)
        problems = groups
        if "prompts" in tensors:
            _, problems = tensors["prompts"].unique(dim=0, return_inverse=True)
        weights = advantages
        if loss_agg_mode == "seq-mean-token-mean":
            weights = advantages / mask.sum(1, keepdim=True).clamp_min(1)
        readings |= problem_readings(Weights.of(advantages, mask), problems)
        readings |= group_readings(Weights.of(weights, mask), groups, returns)
    won = returns > 0 if success is None else success.bool()
    readings |= verdict_readings(Weights.of(advantages, mask), won)
    return Audit(readings)


def _tensor(tensors: Any, name: str, like: Tensor | None = None) -> Tensor:
    if name not in tensors:
        raise UserError(f"{name}: the batch lacks it; expected a batch of verl with its advantages")
    found: Tensor = tensors[name]
    if like is not None:
        require(found.shape == like.shape, name, list(found.shape), f"the shape {list(like.shape)} of response_mask")
    return found


def _groups(data: Any, n: int) -> Tensor:
    """The group of each episode, int64 [n]."""
    others = getattr(data, "non_tensor_batch", data)
    if "uid" not in others:
        raise UserError("uid: the batch lacks it; expected the name of each episode's group, or grouped=False")
    names = [str(name) for name in others["uid"]]
    require(len(names) == n, "uid", len(names), f"{n} names, one for each episode")
    number = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number[name] for name in names])


def __getattr__(name: str) -> Any:
    """`EpisodeTool`, made when it is first used: its base class needs verl."""
    if name != "EpisodeTool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = _tool_class()
    return made


def _tool_class() -> type:
    base: Any = optional("verl.tools.base_tool", "verl", *TESTED, package="verl").BaseTool
    schemas: Any = optional("verl.tools.schemas", "verl", *TESTED, package="verl")

    class EpisodeTool(base):  # type: ignore[misc, unused-ignore]
        """One call of a task; `tool_config` lists those of a task."""

        def __init__(self, config: dict[str, Any], tool_schema: Any = None) -> None:
            self.task = make_task(config["task"], **config.get("options", {}))
            self.problems: dict[str, dict[str, Any]] = {}
            super().__init__(config, tool_schema)

        def get_openai_tool_schema(self) -> Any:
            found = {call.name: call for call in self.task.calls()}
            schema = found[choose("call", self.config["call"], found)].schema()
            return schemas.OpenAIFunctionToolSchema.model_validate(schema)

        async def create(self, instance_id: str | None = None, **kwargs: Any) -> tuple[str, Any]:
            name = instance_id or uuid4().hex
            self.problems[name] = kwargs["create_kwargs"]
            return name, schemas.ToolResponse()

        async def execute(
            self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
        ) -> tuple[Any, float, dict[str, Any]]:
            fields, row = kwargs["agent_data"].extra_fields, self.problems[instance_id]
            if STORED in fields:
                episode = Episode.of(fields[STORED]["episode"], self.task)
            else:
                episode = Episode(self.task)
                episode.begin(row["stage"], seed=row["seed"], index=row["index"], split=row["split"])
            shown = episode.call(self.name, parameters)
            fields[STORED] = {
                "task": self.config["task"],
                "options": self.config.get("options", {}),
                "episode": episode.to_json(),
            }
            metrics = {"success": float(shown.success), "refused": float(shown.refused)}
            return schemas.ToolResponse(text=shown.text), shown.reward, metrics

        async def release(self, instance_id: str, **kwargs: Any) -> None:
            self.problems.pop(instance_id, None)

    return EpisodeTool
