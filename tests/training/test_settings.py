"""What the program around it has set in torch changes nothing in a training, and a training leaves it as it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from modelnative.evidence.evaluate import evaluate
from modelnative.policies import registry
from modelnative.policies.policy import TokenPolicy
from modelnative.policies.registry import make_policy
from modelnative.tasks import make_task
from modelnative.training.config import TrainConfig, with_fields
from modelnative.training.trainer import Trainer

CONFIG = TrainConfig(updates=2, episodes=16, threads=2, evaluate_every=1)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "device": lambda: torch.device("meta"),
}


def trained(core: str) -> tuple[list[Any], list[torch.Tensor]]:
    trainer = Trainer(make_task("arithmetic"), with_fields(CONFIG, {"core": core}))
    metrics = [replace(trainer.update(), timing=None) for _ in range(2)]  # type: ignore[arg-type]
    return metrics, list(trainer.policy.state_dict().values())


@pytest.mark.parametrize(
    ("core", "names"), [*(("gru", [name]) for name in SETTINGS), ("gru", list(SETTINGS)), ("mingru", list(SETTINGS))]
)
def test_a_training_is_the_same_under_any_settings(core: str, names: list[str]) -> None:
    metrics, weights = trained(core)
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(SETTINGS[name]())
        outside = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"))
        found, others = trained(core)
        assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")) == outside
    assert found == metrics
    for one, other in zip(weights, others, strict=True):
        assert torch.equal(one, other)


def test_blocks_that_overlap_in_two_threads_restore_the_first_setting() -> None:
    with default_dtype(torch.float64):
        trainer = Trainer(make_task("arithmetic"), with_fields(CONFIG, {"updates": 6}))
        other = threading.Thread(
            target=lambda: list(Trainer(make_task("arithmetic"), with_fields(CONFIG, {"updates": 3})))
        )
        other.start()
        list(trainer)
        other.join()
        assert torch.get_default_dtype() == torch.float64


def threads_of_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("core", ["gru", "mingru"])
def test_the_number_of_threads_is_restored(core: str) -> None:
    """In this thread, and in those that are started later."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        trainer = Trainer(make_task("arithmetic"), with_fields(CONFIG, {"core": core, "episodes": 1200}))
        trainer.update()
        assert (torch.get_num_threads(), threads_of_a_new_thread()) == (3, 3)
        evaluate(trainer.policy, trainer.task, stages=["T0"])
        assert (torch.get_num_threads(), threads_of_a_new_thread()) == (3, 3)
        inside = threading.Thread(target=trainer.update)
        with trainer.pool.computing():  # as another training does meanwhile
            inside.start()
            inside.join()
        assert (torch.get_num_threads(), threads_of_a_new_thread()) == (3, 3)
    finally:
        torch.set_num_threads(before)


class Slow(TokenPolicy):
    """Takes so long to initialize that another thread draws in between."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        time.sleep(0.05)
        self.input.weight.data += torch.rand(self.input.weight.shape)


def test_trainings_in_two_threads_have_their_own_initial_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.CORES, "slow", f"{__name__}:Slow")
    spec, found = make_task("arithmetic").spec, {}

    def make(seed: int) -> None:
        found[seed] = make_policy(spec, "slow", CONFIG.policy, seed).input.weight

    alone = [make_policy(spec, "slow", CONFIG.policy, seed).input.weight for seed in range(4)]
    threads = [threading.Thread(target=make, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[seed], weight) for seed, weight in enumerate(alone))


def test_the_random_numbers_of_the_program_go_on() -> None:
    state = torch.get_rng_state()
    trainer = Trainer(make_task("arithmetic"), CONFIG)
    trainer.update()
    make_policy(trainer.task.spec, "gru", CONFIG.policy)
    assert torch.equal(torch.get_rng_state(), state)
