"""A task of your own: the pocket calculator with one rule changed, checked against the contract, then trained on.

For a whole new world, subclass `modelnative.tasks.task.Task`; `check_task` says what is still missing.
"""

import dataclasses
import tempfile
from pathlib import Path

import torch

import modelnative as mn
from modelnative.tasks.arithmetic import Arithmetic, Calculator
from modelnative.tasks.check import check_task
from modelnative.tasks.task import Step


class Tidy(Arithmetic):
    """A press without effect costs a hundredth; what counts as success stays the verifier's verdict."""

    def step(self, state: Calculator, action: torch.Tensor) -> Step[Calculator]:
        step = super().step(state, action)
        return dataclasses.replace(step, reward=step.reward - 0.01 * step.invalid)


if __name__ == "__main__":
    check_task(Tidy(), limit=500)
    print("the contract holds")
    with tempfile.TemporaryDirectory() as folder:
        # On the command line: modelnative train --task own_task:Tidy
        finished = mn.train(f"{Path(__file__).stem}:Tidy", out=Path(folder) / "run", updates=10, episodes=128)
        print("after ten updates:", finished.evaluation.line())
