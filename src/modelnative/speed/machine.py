"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from modelnative import native


def machine() -> dict[str, Any]:
    """Versions, processor, threads and kernels of this process, JSON-ready."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "kernels": native.describe(),
    }
