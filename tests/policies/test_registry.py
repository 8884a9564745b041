"""Names of cores and policies: registered ones, and `module:Class` of the user's own."""

from __future__ import annotations

import subprocess
import sys

import own
import pytest
from torch import nn

from modelnative.errors import UserError
from modelnative.policies.config import CORES, PolicyConfig
from modelnative.policies.core import Core
from modelnative.policies.policy import TokenPolicy
from modelnative.policies.registry import make_policy, named, policy_name
from modelnative.tasks.arithmetic.task import Arithmetic

SPEC, SMALL = Arithmetic().spec, PolicyConfig(width=8)


@pytest.mark.parametrize("core", CORES)
def test_every_registered_core_is_a_core(core: str) -> None:
    kind = named("core", core, CORES, Core)
    policy = make_policy(SPEC, core, SMALL)
    assert type(policy) is TokenPolicy
    assert type(policy.core) is kind
    assert policy_name(policy) == core


def test_a_policy_and_a_core_of_ones_own() -> None:
    policy = make_policy(SPEC, "own:LSTM", SMALL)
    assert type(policy) is own.LSTM
    assert policy_name(policy) == "own:LSTM"
    policy = make_policy(SPEC, "own:Average", SMALL)
    assert type(policy) is TokenPolicy
    assert type(policy.core) is own.Average
    assert policy_name(policy) == "own:Average"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("grru", r"core: unknown value 'grru'; did you mean 'gru'\?.*or your own as module:Name"),
        ("own:LSTN", r"core: 'own:LSTN' is not allowed; cannot import own:LSTN: .*did you mean 'LSTM'"),
        ("ovn:LSTM", r"core: 'ovn:LSTM' is not allowed; cannot import ovn:LSTM: no module named 'ovn'"),
        ("own.py:LSTM", r"core: 'own.py:LSTM' is not allowed; .*without .py: own:LSTM"),
        ("own:discounted_returns", "core: 'own:discounted_returns' is not allowed; expected a subclass of Module"),
        ("own:WithoutOracle", "core: 'own:WithoutOracle' is not allowed; expected a subclass of Module"),
        ("torch.nn:Linear", "core: 'torch.nn:Linear' is not allowed; expected a Core, or a policy with initial_state"),
    ],
)
def test_a_name_that_is_wrong(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make_policy(SPEC, name, SMALL)
    assert "\n" not in str(error.value)


def test_without_a_base_any_class_will_do() -> None:
    assert named("core", "torch.nn:Linear", CORES) is nn.Linear
    with pytest.raises(UserError, match="core: 'own:discounted_returns' is not allowed; expected a class"):
        named("core", "own:discounted_returns", CORES)


def test_names_are_checked_without_torch() -> None:
    """`config` reads the names; the command line answers at once."""
    code = "import sys, modelnative.policies.registry, modelnative.training.registry; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
