from __future__ import annotations

import pytest
import torch

from modelnative.speed.profile import profile_updates
from modelnative.training.config import with_fields
from modelnative.training.recipes import recipe


def test_operations_of_an_update(capfd: pytest.CaptureFixture[str]) -> None:
    fields = {
        "task": "worlds:Small",
        "episodes": 16,
        "threads": 1,
        "policy": {"width": 8},
        "loss": {"epochs": 1, "minibatches": 4},
    }
    threads = torch.get_num_threads()
    operations = profile_updates(with_fields(recipe(), fields), updates=2)
    assert torch.get_num_threads() == threads
    assert capfd.readouterr() == ("", "")
    seconds = [operation.seconds for operation in operations]
    assert seconds == sorted(seconds, reverse=True)
    assert sum(operation.share for operation in operations) == pytest.approx(1)
    (step,) = [operation for operation in operations if operation.name.endswith(("::_fused_adam_", "::clipped_adam"))]
    assert step.calls == 4, "one for each minibatch"
