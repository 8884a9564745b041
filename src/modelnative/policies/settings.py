"""Settings of torch that belong to the whole process or to a thread: set to what is needed here, and put back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

_LOCK = threading.RLock()
_DTYPES: list[torch.dtype] = []  # an entry for each open block of `standard_settings`; first that before the first


@contextmanager
def standard_settings() -> Iterator[None]:
    """Within the block, and as a decorator, torch is as in a new process, whatever the program around it has set.

    The default is float32 on the CPU, gradients can be taken, and nothing is cast automatically.
    """
    with _LOCK:
        _DTYPES.append(torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    on_cpu = torch.get_default_device().type == "cpu"  # else a mode that slows every operation
    try:
        with (
            nullcontext() if on_cpu else torch.device("cpu"),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
        ):
            yield
    finally:
        with _LOCK:  # the default type is one for all threads: the last block to end puts it back
            before = _DTYPES[0]
            _DTYPES.pop()
            if not _DTYPES:
                torch.set_default_dtype(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, torch's global random numbers are those of `seed`; after it they go on as if nothing was drawn.

    One thread at a time is in such a block.
    """
    with _LOCK, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
