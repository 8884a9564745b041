"""Settings of the whole suite: one thread for each worker, a fixed seed for each test, no deadlines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from ranks import Ranks

# Results depend on the number of threads, and pytest-xdist has already given every core a worker. The variable is for
# the processes that tests start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# The names in runs and sweeps that tests write may refer to the helpers, in every process.
os.environ["MODELNATIVE_TRUST"] = ",".join(path.stem for path in (Path(__file__).parent / "helpers").glob("*.py"))

# A shell that starts the suite in the background has it ignore Ctrl-C, and `nohup` a closed terminal; so would every
# process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The first call of a torch function can be a hundred times slower than the second, so no deadline means anything.
settings.register_profile("dev", deadline=None, max_examples=30)
settings.register_profile("ci", deadline=None, max_examples=12, derandomize=True, database=None, print_blob=True)
settings.register_profile("nightly", settings.get_profile("ci"), max_examples=100)
settings.register_profile("thorough", deadline=None, max_examples=1000)  # pytest --hypothesis-profile=thorough
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """A test's networks are the same whichever tests ran before it in the same worker."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """Runs a function of `helpers/ranked.py` in several processes."""
    with Ranks() as made:
        yield made
