"""What the ranks of a test do; see `ranks`. Every function is run by each of them and returns something for JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelnative import cli
from modelnative.errors import UserError
from modelnative.runs import training as runs
from modelnative.runs.events import Finished
from modelnative.runs.training import Training
from modelnative.tasks import make_task
from modelnative.training.config import with_fields
from modelnative.training.metrics import stage_success
from modelnative.training.parallel import Group
from modelnative.training.recipes import recipe
from modelnative.training.trainer import Trainer

TINY = {"task": "worlds:Small", "policy": {"width": 8, "heads": 2}, "evaluate_every": 2, "threads": 1}


def config(fields: str) -> Any:
    """A tiny training, from its fields as JSON."""
    changes = json.loads(fields)
    names = {name: changes[name] for name in ("core", "algorithm", "curriculum") if name in changes}
    return with_fields(with_fields(recipe(**names), TINY), changes)


def weights(trainer: Trainer) -> list[float]:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.policy.parameters()]).tolist()


def warm() -> None:
    """Import and call once what the ranks will, before they are forked."""
    torch.set_num_threads(1)
    for module in ("api", "studio.live", "studio.tables"):
        importlib.import_module(f"modelnative.{module}")
    train(json.dumps([{"episodes": 4, "loss": {"minibatches": 4}}]), "2")


def laws(seed: str) -> bool:
    """What must hold of a group, on tensors of many shapes and types; every rank draws the same."""
    group, chance = Group(), random.Random(int(seed))
    for _ in range(25):
        n, more = chance.choice([0, 1, 2, 3, 5, 8, 13]), chance.choice([(), (3,), (2, 2)])
        whole = torch.randint(-9, 9, (n, *more), generator=torch.Generator().manual_seed(chance.randrange(1000)))
        whole = whole.to(chance.choice([torch.int64, torch.float32, torch.bool]))
        mine = group.shard(torch.arange(n))
        assert mine.tolist() == list(range(group.rank, n, group.size))
        assert torch.equal(group.gather(whole[mine], n), whole), "what is shared and joined is as before"
        scattered = group.scatter(whole[mine], n)
        assert scattered.shape == whole.shape
        assert torch.equal(scattered[mine], whole[mine])
        assert int(scattered.count_nonzero()) == int(whole[mine].count_nonzero()), "the others' rows are 0"
        length = chance.choice([0, n])
        given = whole if group.is_leader else whole[:length]
        assert torch.equal(group.broadcast(given), whole)
        numbers = [chance.random() for _ in range(3)]
        assert group.broadcast_numbers(numbers if group.is_leader else [0.0] * 3) == numbers
        assert group.broadcast_text("γ ≠ 1" * n if group.is_leader else "nothing") == "γ ≠ 1" * n
        assert group.max(group.rank * 7) == 7 * (group.size - 1)
    own = [torch.randn(n, 3, generator=torch.Generator().manual_seed(group.rank + 17 * n)) for n in (1, 1000, 7)]
    for rank_sum, tensor, parts in zip(group.add(own), own, map(joined, own), strict=True):
        assert rank_sum.shape == tensor.shape
        torch.testing.assert_close(rank_sum, parts.sum(0))
        assert group.broadcast_text(str(rank_sum.tolist())) == str(rank_sum.tolist()), "equal to the bit on every rank"
    group.close()
    Group().close()  # the same processes may train again
    return True


def joined(tensor: Tensor) -> Tensor:
    """Every rank's tensor: [size, ...]."""
    group = Group()
    if group.size == 1:
        return tensor[None]
    parts = [torch.empty_like(tensor) for _ in range(group.size)]
    torch.distributed.all_gather(parts, tensor)
    return torch.stack(parts)


def train_doubly(jobs: str, updates: str) -> list[Any]:
    """As `train`, with 64 bits: rounding is then too small to turn a sampled action, so that all else would show."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    torch.float32 = torch.float64
    return train(jobs, updates)


def train(jobs: str, updates: str) -> list[Any]:
    """The weights and the metrics of some trainings, one after the other, and measurements that are no update."""
    found = []
    for job in json.loads(jobs):
        made = config(json.dumps(job))
        trainer = Trainer(make_task(made.task), made)
        metrics = [dataclasses.asdict(trainer.update()) for _ in range(int(updates))]
        for line in metrics:
            del line["timing"]
        sampled = stage_success(trainer, 33, sampled=True)
        trainer.group.close()
        found.append({"weights": weights(trainer), "metrics": metrics, "sampled": sampled})
    return found


def follow(folder: str, fields: str) -> Any:
    """A whole run in a folder; the events of every rank."""
    group_size = Group().size
    runs.MEASURE_BELOW = runs.PRACTICE_BELOW = 1.0  # so that everything that all ranks must agree on happens
    runs.VERIFY_EVERY = runs.VERIFY_FAILING_EVERY = 2
    runs.SAMPLED_EPISODES = 16
    path = Path(folder) / f"of {group_size}"
    events = list(Training.start(path if Group().is_leader else Path("elsewhere"), config(fields)).events())
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.run.path == path
    return [[type(event).__name__ for event in events], last.evaluation.line(), last.sampled.line(), last.seconds]


def resume(*folders: str) -> Any:
    """Continue a run to its end; a folder for each rank, or one for all."""
    try:
        training = Training.resume(Path(folders[Group().rank % len(folders)]))
        for event in training.events():
            last = event
    except UserError as error:
        return str(error)
    return [type(last).__name__, training.trainer.updates, weights(training.trainer)]


def differ(folder: str) -> str:
    """Start with another seed on each rank."""
    try:
        Training.start(Path(folder) / "run", config(json.dumps({"seed": Group().rank, "updates": 1})))
    except UserError as error:
        return str(error)
    return ""


def command(*words: str) -> list[Any]:
    """The command line: exit code, standard output, standard error."""
    sys.argv = ["modelnative", *words]
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
    return [code, output.getvalue(), errors.getvalue()]


def full(folder: str) -> list[Any]:
    """The command line on rank 0's full disk: the second checkpoint cannot be written."""
    save = runs.Run.save

    def fail(run: Any, trainer: Trainer, progress: Any) -> Path:
        if trainer.updates:
            raise UserError("checkpoint: cannot be written (No space left on device)")
        return save(run, trainer, progress)

    runs.Run.save = fail  # type: ignore[method-assign]
    fields = ["--task", "worlds:Small", "--episodes", "16", "--policy.width", "8", "--checkpoint-every", "2"]
    return command("train", *fields, "--out", f"{folder}/full")
