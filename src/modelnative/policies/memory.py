"""Whether a computation fits into memory, estimated before anything is allocated."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import torch

from modelnative.errors import UserError

CGROUPS = ("memory.max", "memory/memory.limit_in_bytes")  # where Linux has the limit of a container: version 2, 1


def require_memory(needed: int, device: str | torch.device, choices: str) -> None:
    """Raise a `UserError` if something needs more memory than the device has.

    Args:
        needed: a lower bound of the bytes.
        device: where; a device whose memory is not known has enough.
        choices: what makes it smaller, for the message.
    """
    device, most = torch.device(device), float(needed)
    if device.type == "cuda" and torch.cuda.is_available():
        most = torch.cuda.get_device_properties(device).total_memory
    elif device.type == "cpu" and "SC_PHYS_PAGES" in os.sysconf_names:
        most = min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), _container_limit())
    if needed > most:
        raise UserError(
            f"memory: at least {needed / 1e9:,.1f} GB are needed, and device {str(device)!r} has {most / 1e9:,.1f} GB; "
            f"choose smaller {choices}"
        )


@functools.cache
def _container_limit() -> float:
    """The bytes that this process may use in its container, however many the machine has; infinity without a limit."""
    for name in CGROUPS:
        try:
            return float(Path("/sys/fs/cgroup", name).read_text())
        except (OSError, ValueError):  # there is no such file, or it says `max`
            continue
    return float("inf")
