"""Several seeds of one configuration, trained side by side as one computation; each is a run of its own."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelnative.errors import UserError
from modelnative.runs.run import Run
from modelnative.runs.training import Event, Interrupted, Started, Training, signals
from modelnative.tasks.contract.task import require
from modelnative.training.config import TrainConfig
from modelnative.training.parallel import Pool, cores
from modelnative.training.team import update_together


@dataclass
class Team:
    """Trainings under way: iterate over `events()`, which tells of each seed what a `Training` would.

    Folder `path` has a run `seed-N` for each. Their numbers differ from those of a run alone by rounding only.
    """

    path: Path
    trainings: list[Training]

    @classmethod
    def start(cls, path: Path, config: TrainConfig, seeds: int) -> Team:
        """New runs with the seeds from `config.seed` on.

        Raises:
            UserError: a field is not sensible, the network is not one that can be stacked, or the folder exists.
        """
        require(seeds >= 1, "seeds", seeds, "at least 1")
        require(config.core == "gru", "core", config.core, "gru, where several seeds are trained as one batch")
        reader = config.policy.reader
        require(reader == "sum", "policy.reader", reader, "sum, where several seeds are trained as one batch")
        if path.exists():
            raise UserError(f"out: {str(path)!r} exists; name a new folder")
        seed = range(config.seed, config.seed + seeds)
        return cls(path, [Training.start(path / f"seed-{s}", dataclasses.replace(config, seed=s)) for s in seed])

    @classmethod
    def resume(cls, path: Path) -> Team:
        """The runs in `path` that have no result yet, each at its newest checkpoint."""
        folders = seeds_of(path)
        waiting = [folder for folder in folders if not Run.open(folder).result_path.exists()]
        if not waiting:
            raise UserError(f"run: every seed in {str(path)!r} is finished")
        return cls(path, [Training.resume(folder) for folder in waiting])

    def events(self) -> Iterator[tuple[int, Event]]:
        """Train all to their end; seed and event, as they come.

        Ctrl-C and SIGTERM end it after the current update, with a checkpoint of each.

        Raises:
            UserError: as `Training.events`.
        """
        pool, last = Pool(cores()), time.perf_counter()
        for training in self.trainings:
            trainer = training.trainer
            parameters = sum(p.numel() for p in trainer.policy.parameters())
            started = Started(training.run, trainer.updates, trainer.task.spec.stages, parameters)
            yield trainer.config.seed, started
        with signals() as received:
            while active := [training for training in self.trainings if training.goes_on]:
                size = -(-len(active) // pool.threads)  # a thread for each group of networks
                groups = [active[i : i + size] for i in range(0, len(active), size)]
                updated = pool.map(lambda group: update_together([t.trainer for t in group]), groups)
                before_that, last = last, time.perf_counter()
                for training, metrics in zip(active, [m for some in updated for m in some], strict=True):
                    elapsed = (
                        training.progress.elapsed + last - before_that
                    )  # the clock of all, the others' verifications
                    for event in training.advance(metrics, before_that):
                        yield training.trainer.config.seed, event
                    if training.goes_on:
                        training.progress.elapsed = elapsed  # its own verification comes with the next update
                if received:
                    for training in active:
                        training.save()
                        stopped = Interrupted(training.run, training.trainer.updates, received[0])
                        yield training.trainer.config.seed, stopped
                    return
            for training in self.trainings:
                for event in training.finish():
                    yield training.trainer.config.seed, event


def seeds_of(path: Path) -> list[Path]:
    """The runs of a team's folder, by their seeds; none if it is not such a folder."""
    folders = [folder for folder in path.glob("seed-*") if folder.is_dir() and folder.name[5:].isdigit()]
    return sorted(folders, key=lambda folder: int(folder.name[5:]))
