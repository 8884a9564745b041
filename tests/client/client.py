"""A program of a user, written against the installed package: typed, and without the package's source at hand.

`make test` checks its types, `tests/test_client.py` and `.ci/wheel` run it with the built wheel.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import modelnative as mn


@mn.tool
def double(x: int) -> int:
    """Twice x."""
    return 2 * x


task = mn.ToolTask([double], problems={"x": range(30)}, target=lambda p: double(p["x"]))


class Counter(mn.Callback):
    """Counts updates, and remembers whether the training finished."""

    updates = 0
    finished = False

    def on_update(self, event: mn.Updated) -> None:
        self.updates += 1
        assert event.metrics.update == self.updates

    def on_finish(self, event: mn.Finished) -> None:
        self.finished = True


def without_a_folder(updates: int) -> list[int]:
    """The steps of each update of a training that writes nothing."""
    steps: list[int] = []

    def note(event: mn.Event) -> None:
        if isinstance(event, mn.Updated):
            steps.append(event.metrics.steps)

    config = mn.TrainConfig(updates=updates, episodes=16)
    trainer = mn.Trainer(mn.make("arithmetic"), config, callbacks=[note])
    assert [metrics.steps for metrics in trainer] == steps
    return steps


def random_success(name: str, steps: int) -> float:
    """The share of episodes that random actions solve."""
    envs = mn.VectorEnv(mn.make(name), 32)
    envs.reset(seed=0)
    random = np.random.default_rng(0)
    solved, ended = 0, 0
    for _ in range(steps):
        _, _, terminated, truncated, infos = envs.step(random.integers(len(envs.task.spec.vocabulary), size=32))
        ended += int((terminated | truncated).sum())
        solved += int(infos["success"].sum())
    return solved / ended


def message(folder: Path) -> str:
    """What a misspelled name is answered with."""
    try:
        mn.train("arithmetik", out=folder)
    except mn.UserError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    config: mn.TrainConfig = mn.recipe("arithmetic", algorithm="grpo")
    assert config.algorithm == "grpo"
    counter = Counter()
    finished = mn.train(
        task,
        out=folder / "run",
        callbacks=[counter],
        updates=2,
        episodes=16,
        policy={"width": 8},
        seed=3,
    )
    assert (counter.updates, counter.finished) == (2, True)
    assert len(without_a_folder(3)) == 3
    evaluation = mn.evaluate(finished.run.path)
    assert evaluation == finished.evaluation
    total = evaluation.total()
    assert total.problems == 30
    explanation = mn.explain(folder / "run", stage="T0", problem="x=7")
    assert explanation.oracle[0] == "double"
    assert "did you mean 'arithmetic'" in message(folder / "other")
    assert 0 <= random_success("arithmetic", 100) < 0.5
    print(f"{mn.__version__}: {total.successes} of {total.problems} problems solved")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
