"""The memory of an update, estimated from a few episodes before the batch is allocated."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from modelnative.policies.contract import Policy, forward_rollout
from modelnative.policies.memory import require_memory
from modelnative.tasks.contract.task import AnyTask, Problems
from modelnative.training.gradient import policy_gradient
from modelnative.training.loss import LossWeights
from modelnative.training.rollout import SHORTER, Rollout, empty_columns, rollout_bytes
from modelnative.training.update_state import UpdateState

if TYPE_CHECKING:
    from modelnative.training.trainer import Trainer

FACTOR = 2.0  # the measured peak is between the estimate over this and the estimate times this
DERIVATIVE = 1.5  # times what a forward pass keeps is what the gradient step needs
FEW, MORE = 8, 16  # episodes that are tried
STEPS = 8  # of a rollout that are tried
LARGE = 1 << 33  # bytes of a crude bound below which nothing is tried
PER_UNIT = 64  # bytes for each unit of a layer and token in that bound
SMALLER = "episodes, policy.width or policy.layers, or more loss.minibatches"


class UpdateMemory(NamedTuple):
    """Bytes that an update needs beside the network: the whole rollout, and the larger of acting and learning."""

    rollout: int
    acting: int
    learning: int

    @property
    def total(self) -> int:
        """What is held at the same time."""
        return self.rollout + max(self.acting, self.learning)


def require_training_memory(trainer: Trainer, played: int, learned: int) -> None:
    """Raise a `UserError` if a training surely does not fit, before its tensors are allocated.

    The network with its gradients and Adam's two moments, and the rollout, are known. For the whole of an update the
    estimate over `FACTOR` is compared; nothing is tried where a crude bound shows that it fits anywhere.
    """
    config, horizon = trainer.config, trainer.task.spec.horizon
    weights = sum(parameter.nbytes for parameter in trainer.parameters)
    require_memory(4 * weights, config.device, "policy.width or policy.layers")
    require_memory(rollout_bytes(trainer.task, config.episodes), config.device, SHORTER)
    units = sum(parameter.shape[0] for parameter in trainer.parameters if parameter.dim())
    if config.episodes * horizon * units * PER_UNIT > LARGE:
        require_memory(int(update_memory(trainer, played, learned).total / FACTOR), config.device, SMALLER)


@torch.random.fork_rng(devices=())
def update_memory(trainer: Trainer, played: int, learned: int) -> UpdateMemory:
    """The memory of one update of a training, in bytes, if its episodes are as long as the horizon allows.

    A few episodes are played and learned from while the tensors that live are counted; what an episode adds is
    multiplied by the episodes that are held at a time. The peaks that were measured (`benchmarks/memory.py`) are within
    a factor of `FACTOR` of it for the cores that are shipped.

    Args:
        trainer: of the training.
        played, learned: the most episodes that one thread plays, and learns from, at a time.
    """
    config, policy, task = trainer.config, trainer.policy, trainer.task
    weights = sum(parameter.nbytes for parameter in trainer.parameters)
    mine = -(-config.episodes // trainer.group.size)
    rows = -(-mine // config.loss.minibatches)

    def held(n: int, most: int) -> int:
        parts = trainer.parts(n, most)
        return -(-n // parts) * min(parts, trainer.pool.threads)

    acting, learning = held(mine, played), held(rows, learned)
    gradients = weights * (2 + trainer.parts(rows, learned))
    problems = {n: _problems(task, n, config.device) for n in (FEW, MORE)}
    return UpdateMemory(
        rollout=rollout_bytes(task, mine),
        acting=int(acting * _acting(policy, task, problems)),
        learning=int(learning * _learning(trainer, problems)) + gradients,
    )


def _problems(task: AnyTask, n: int, device: str) -> Problems:
    last = torch.full((n,), len(task.spec.stages) - 1, device=device)
    problems: Problems = task.sample(last, torch.Generator(device).manual_seed(0))
    return problems


def _read(task: AnyTask, steps: int, problems: Problems) -> tuple[Tensor, Tensor]:
    """Tokens and feedback of so many steps, of which a policy's memory does not depend."""
    shape = (steps, len(problems))
    tokens = torch.full(shape, task.spec.start, device=problems.stage.device)
    return tokens, tokens[..., None].expand(*shape, task.spec.feedback_width).contiguous()


def _learning(trainer: Trainer, problems: Mapping[int, Problems]) -> float:
    """Bytes that an episode adds to a gradient step: what its forward pass keeps for the derivative.

    The derivative itself is not tried: with few episodes, the gradients would be more than that. Where one operator
    computes the whole gradient, nothing is kept.
    """
    policy, task = trainer.policy, trainer.task

    def step(few: Problems) -> Any:
        tokens, feedback = _read(task, task.spec.horizon, few)
        lengths = torch.full((len(few),), len(tokens), device=tokens.device)
        return forward_rollout(policy, few, tokens, feedback, lengths, None)

    def gradient(few: Problems) -> Any:
        state, rows = _one_action(task, few), torch.arange(len(few), device=few.stage.device)
        weights = LossWeights.of(trainer.config.loss, 0.0, float(len(few)))
        return living_bytes(lambda: policy_gradient(policy, trainer.parameters, state, rows, weights))[0]

    if len({gradient(few) for few in problems.values()}) == 1:
        return 0.0
    return DERIVATIVE * _each({n: living_bytes(lambda n=n: step(problems[n]))[1] for n in problems})  # type: ignore[misc]


def _one_action(task: AnyTask, problems: Problems) -> UpdateState:
    """An update whose episodes have one action each."""
    n = len(problems)
    columns = empty_columns(task, n, problems.stage.device)
    for name in ("running", "loss_mask"):
        columns[name][0] = True
    columns["token"], columns["feedback"] = _read(task, task.spec.horizon, problems)
    rollout, nothing = Rollout(problems, final=None, **columns), torch.zeros_like(columns["value"])
    return UpdateState.of(rollout, nothing, nothing, rollout.loss_mask, steps=n)


@torch.no_grad()
def _acting(policy: Policy, task: AnyTask, problems: Mapping[int, Problems]) -> float:
    """Bytes that an episode adds to a rollout at its last step, if its state grows evenly."""
    steps = min(STEPS, task.spec.horizon)
    peaks: list[float] = []
    state = {n: policy.initial_state(few) for n, few in problems.items()}
    for _ in range(steps):
        peak = {}
        for n, few in problems.items():

            def step(n: int = n, few: Problems = few) -> Any:
                return policy(*_read(task, 1, few), state[n]).state

            peak[n], _ = living_bytes(step, state[n])
            state[n] = step()
        peaks.append(_each(peak))
    growth = peaks[-1] - peaks[-2] if steps > 1 else 0.0
    return peaks[-1] + growth * (task.spec.horizon - steps)


def _each(peaks: Mapping[int, int]) -> float:
    return max(0.0, (peaks[MORE] - peaks[FEW]) / (MORE - FEW))


def living_bytes(function: Callable[[], Any], held: Any = None) -> tuple[int, int]:
    """The most bytes of tensors that live at a time while a function runs, and those that live at its end.

    Args:
        function: whose tensors are counted, those that torch's kernels use inside excepted.
        held: tensors that are counted, too.
    """
    with _Living(held) as living:
        result = function()
        end = living.now
    del result
    return living.peak, end


class _Living(TorchDispatchMode):
    """Counts the bytes of the tensors that operations return, until they are freed."""

    def __init__(self, held: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}
        self._count(held)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._count(result)
        return result

    def _count(self, result: Any) -> None:
        for x in tree_iter(result):
            if not isinstance(x, Tensor) or x.is_sparse:
                continue
            storage = x.untyped_storage()
            place, size = id(storage), storage.nbytes()
            if place in self._known and self._known[place]() is storage:
                continue

            def freed(_: Any, place: int = place, size: int = size) -> None:
                self.now -= size
                self._known.pop(place, None)

            self._known[place] = weakref.ref(storage, freed)
            self.now += size
            self.peak = max(self.peak, self.now)
