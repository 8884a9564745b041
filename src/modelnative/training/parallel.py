"""Sharing one batch among threads and processes without changing what is learned.

All random numbers are drawn for the whole batch before it is shared; every thread and process takes some of its
episodes, and gradients are added up. So the number of threads changes nothing, and the number of processes nothing but
the order of additions.
"""

from __future__ import annotations

import atexit
import itertools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.native import kernel_threads
from modelnative.tasks.contract.task import Problems
from modelnative.training.launcher import launch
from modelnative.training.rollout import COLUMNS, VERDICTS, Rollout

A = TypeVar("A")
R = TypeVar("R")

TIMEOUT = timedelta(minutes=30)  # how long to wait for a process that neither answers nor is known to be gone
PATIENCE = 10.0  # seconds before it is said that other processes are waited for
# Columns of a rollout that only the process that played an episode learns from.
PRIVATE = ("token", "feedback", "action", "behavior_log_prob")


def cores(limit: int = 8) -> int:
    """How many cores this process may use: OMP_NUM_THREADS if it is set, else all; at most `limit`."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(limit, int(wanted) if wanted.isdigit() and int(wanted) else usable_cores())


def usable_cores() -> int:
    """The cores that this process may use; in a container these can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Threads that each compute on one core.

    Small matrices are not worth sharing among cores: two threads on two halves of a batch are faster than two threads
    on each of its operations.

    Args:
        threads: at least 1; with 1 all is done in the caller's thread.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._executor: ThreadPoolExecutor | None = None
        if threads > 1:
            self._executor = ThreadPoolExecutor(threads, "modelnative", initializer=lambda: torch.set_num_threads(1))

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within the block, this thread's operations share the pool's cores; results do not depend on how many."""
        with kernel_threads(self.threads):
            yield

    def map(self, function: Callable[[A], R], items: Iterable[A]) -> list[R]:
        """`function` of every item, in their order."""
        return list(self.stream(function, items))

    def stream(self, function: Callable[[A], R], items: Iterable[A]) -> Iterator[R]:
        """As `map`, one result after the other, with no more items at a time than there are threads."""
        waiting = iter(items)
        try:
            while some := list(itertools.islice(waiting, self.threads)):
                if self._executor is None or len(some) == 1:
                    yield from map(function, some)
                else:
                    yield from self._executor.map(function, some)
        finally:  # a thread that the caller starts has the number that torch was told last, which is the 1 of ours
            torch.set_num_threads(torch.get_num_threads())


class Group:
    """The processes that train one policy together, as `torchrun` starts them; alone without it.

    Attributes:
        rank: which of them this is, from 0; rank 0 writes the files.
        size: how many there are.

    Raises:
        UserError: the processes cannot find each other, or the device cannot be shared.
    """

    _parting = False

    def __init__(self, device: str = "cpu") -> None:
        self.rank, self.size, _ = launch()
        if self.size == 1:
            return
        cuda = torch.device(device).type == "cuda"
        if cuda:
            torch.cuda.set_device(own_device(device))
        if not torch.distributed.is_initialized():
            waits = f"waiting for the other {self.size - 1} of WORLD_SIZE={self.size} processes\n"
            said = threading.Timer(PATIENCE, sys.stderr.write, [waits])
            said.daemon = True
            try:
                if self.is_leader:
                    said.start()
                # Numbers that decide what to do next are on the CPU, so that no GPU has to wait for them.
                torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=TIMEOUT)
            except (RuntimeError, ValueError) as error:
                raise UserError(f"WORLD_SIZE: {self.size} processes cannot be joined ({_reason(error)})") from error
            finally:
                said.cancel()

    @property
    def is_leader(self) -> bool:
        """Whether this is the process that verifies and writes."""
        return self.rank == 0

    def shard(self, rows: Tensor) -> Tensor:
        """Those of some rows that are this process's: every `size`th of the batch."""
        return rows if self.size == 1 else rows[rows % self.size == self.rank]

    def scatter(self, tensor: Tensor, n: int) -> Tensor:
        """This process's rows in their places among n; the others are 0."""
        if self.size == 1:
            return tensor
        whole = tensor.new_zeros(n, *tensor.shape[1:])
        whole[self.rank :: self.size] = tensor
        return whole

    def add(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum of each tensor over the processes, the same to the bit on all of them."""
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        self._agree(lambda: torch.distributed.all_reduce(flat))
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def gather(self, tensor: Tensor, n: int) -> Tensor:
        """What all processes have of n rows that they shared, put together along the first dimension."""
        if self.size == 1:
            return tensor
        most = -(-n // self.size)
        whole = tensor.new_zeros(most, self.size, *tensor.shape[1:])
        padded = torch.cat([tensor, tensor.new_zeros(most - len(tensor), *tensor.shape[1:])])
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        self._agree(lambda: torch.distributed.all_gather(parts, padded))
        for rank, part in enumerate(parts):
            whole[:, rank] = part
        return whole.flatten(0, 1)[:n]

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, on every process; the others give one of the same type and, but for its length, shape."""
        if self.size == 1:
            return tensor
        length = int(self.broadcast_numbers([len(tensor)])[0])
        copied = tensor.contiguous() if self.rank == 0 else tensor.new_empty(length, *tensor.shape[1:])
        self._agree(lambda: torch.distributed.broadcast(copied, 0))
        return copied

    def broadcast_numbers(self, values: Sequence[float]) -> list[float]:
        """Rank 0's numbers, on every process."""
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64)
        self._agree(lambda: torch.distributed.broadcast(numbers, 0))
        return numbers.tolist()

    def broadcast_text(self, text: str) -> str:
        """Rank 0's text, on every process."""
        if self.size == 1:
            return text
        return bytes(self.broadcast(torch.tensor(list(text.encode()), dtype=torch.uint8)).tolist()).decode()

    def max(self, value: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return value
        largest = torch.tensor(value)
        self._agree(lambda: torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX))
        return int(largest)

    def close(self) -> None:
        """Wait until all processes are at their end, so that none misses another that has nothing more to do."""
        self.max(0)
        # Not now: the same processes may train again, and gloo cannot join them a second time.
        if self.size > 1 and not Group._parting:
            Group._parting = True
            atexit.register(torch.distributed.destroy_process_group)

    def _agree(self, exchange: Callable[[], object]) -> None:
        try:
            exchange()
        except RuntimeError as error:
            if "TORCHELASTIC_RUN_ID" in os.environ and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends all when one is gone; first say why
            raise UserError(
                f"rank {self.rank}: another of the {self.size} processes is gone ({_reason(error)}); the newest "
                "checkpoint stands, and any number of processes can continue from it with: modelnative resume RUN"
            ) from error


def gather_rollout(
    columns: dict[str, Tensor], problems: Problems, length: int, group: Group, private: Sequence[str] = PRIVATE
) -> Rollout:
    """One rollout of all `problems` from the columns that this process and the others have played, each its shard.

    The columns in `private` are not exchanged; rows of other processes are 0 in them.
    """
    length, n = group.max(length), len(problems)

    def whole(name: str) -> Tensor:
        own = columns[name][:length]
        if group.size == 1:
            return own
        rows = own.transpose(0, 1)
        return (group.scatter(rows, n) if name in private else group.gather(rows, n)).transpose(0, 1).contiguous()

    verdicts = {name: group.gather(columns[name], n) for name in VERDICTS}
    return Rollout(problems, final=None, **{name: whole(name) for name in COLUMNS}, **verdicts)


def own_device(name: str) -> str:
    """The device of this process where `name` is asked for: of several processes on a machine, each has its own GPU.

    Raises:
        UserError: there are fewer GPUs than processes, or one GPU was named for all.
    """
    if launch().size == 1 or torch.device(name).type != "cuda":
        return name
    if torch.device(name).index is not None:
        raise UserError(
            f"device: {name!r} is not allowed with several processes; expected cuda, a GPU for each of them"
        )
    local, found = launch().local_rank, torch.cuda.device_count()
    if local >= found:
        raise UserError(f"device: {found} GPUs are here, too few for this machine's processes; start one for each GPU")
    return f"cuda:{local}"


def reports_errors() -> bool:
    """Whether this process prints the error: of the processes of one `torchrun`, only the first to ask does.

    All of them fail when one does, and who can tell depends on which: rank 0 may be the one that died.
    """
    try:
        if launch().size == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            return True
        # torchrun's own, so that it outlives every worker.
        store = torch.distributed.TCPStore(  # type: ignore[attr-defined]  # it is public, if not by __all__
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=5),
            wait_for_workers=False,
        )
        return store.add(f"modelnative/reported/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except (RuntimeError, KeyError, ValueError):
        return True


def _reason(error: Exception) -> str:
    """What torch says, without the place in its source and its advice."""
    return re.sub(r"^\[\S+\] |\. This is typically.*", "", str(error).strip().splitlines()[0])
