"""The cores by name. Importing this does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelnative.errors import UserError, choose
from modelnative.tasks.importing import imported, module_name

if TYPE_CHECKING:
    from torch import nn

    from modelnative.policies.config import PolicyConfig
    from modelnative.policies.contract import Policy
    from modelnative.tasks.contract.task import TaskSpec

CORES: dict[str, str] = {
    "gru": "modelnative.policies.cores.gru:GRU",
    "transformer": "modelnative.policies.cores.transformer:Transformer",
    "mingru": "modelnative.policies.cores.mingru:MinGRU",
    "memoryless": "modelnative.policies.cores.memoryless:Memoryless",
}


def named(field: str, name: Any, registry: dict[str, str], base: type = object) -> Any:
    """The class that a registered name, or `module:Name` of the user's own, stands for.

    Raises:
        UserError: the name is unknown (the message has the nearest one), the module cannot be imported, or what it
            names is no subclass of `base`.
    """
    if not isinstance(name, str) or (":" not in name and name not in registry):
        try:
            choose(field, name, registry)
        except UserError as error:
            raise UserError(f"{error}; or your own as module:Name") from error
    try:
        kind = imported(registry.get(name, name))
    except UserError as error:
        raise UserError(f"{field}: {name!r} is not allowed; {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        expected = f"a subclass of {base.__name__}" if base is not object else "a class"
        raise UserError(f"{field}: {name!r} is not allowed; expected {expected}")
    return kind


def make_policy(spec: TaskSpec, core: str, config: PolicyConfig, seed: int = 0) -> Policy:
    """A new policy: `TokenPolicy` around a core, or the user's own policy, made by `Class(spec, config)`.

    Its weights are float32 and drawn by `seed`; torch's global random numbers are left as they were.

    Raises:
        UserError: there is no such name, or it is the name of neither a core nor a policy.
    """
    from torch import nn

    from modelnative.policies.core import Core
    from modelnative.policies.memory import require_memory
    from modelnative.policies.policy import TokenPolicy
    from modelnative.policies.settings import seeded, standard_settings

    kind = named("core", core, CORES, nn.Module)
    is_core = issubclass(kind, Core)
    if is_core and core in CORES:  # each has at least four square matrices of float32 in a layer
        require_memory(16 * config.width**2 * (config.layers or 1), "cpu", "policy.width or policy.layers")
    if not is_core and not hasattr(kind, "initial_state"):
        raise UserError(f"core: {core!r} is not allowed; expected a Core, or a policy with initial_state and forward")
    with standard_settings(), seeded(seed):
        policy: Policy = TokenPolicy(spec, config, kind) if is_core else kind(spec, config)
    return policy


def policy_name(policy: nn.Module) -> str:
    """The name by which `make_policy` makes a policy like this one: that of its core, or of its own class."""
    from modelnative.policies.policy import TokenPolicy

    kind = type(policy.core) if type(policy) is TokenPolicy else type(policy)
    target = f"{module_name(kind.__module__) or kind.__module__}:{kind.__qualname__}"
    return next((name for name, known in CORES.items() if known == target), target)
