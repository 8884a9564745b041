"""The contract of a policy: what its state may be, and what a module that is no `Policy` is given."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from own import LSTM, Average
from torch import Tensor, nn

from modelnative.policies.config import PolicyConfig
from modelnative.policies.contract import Policy, PolicyOutput, forward_rollout, select_rows
from modelnative.policies.policy import TokenPolicy
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.batch import Batch


class Pair(NamedTuple):
    first: Tensor
    second: Any


@dataclass
class Record:
    h: Tensor
    rest: Any = None


@dataclass(frozen=True)
class Frozen:
    h: Tensor


@dataclass
class Rows(Batch):
    h: Tensor


class Shared:
    """A state that knows how to select its rows, and shares a part among them."""

    def __init__(self, h: Tensor, table: Tensor) -> None:
        self.h, self.table = h, table

    def select_rows(self, rows: Tensor) -> Shared:
        return Shared(self.h[rows], self.table)


A, B = torch.arange(5), torch.arange(10).view(5, 2)
CHOSEN = torch.tensor([3, 0, 3])


@pytest.mark.parametrize(
    ("state", "leaves"),
    [
        pytest.param(B, lambda state: [state], id="tensor"),
        pytest.param((A, B), lambda state: [*state], id="tuple"),
        pytest.param([A, (B,)], lambda state: [state[0], state[1][0]], id="list"),
        pytest.param({"h": A, "deep": {"c": B}}, lambda state: [state["h"], state["deep"]["c"]], id="dict"),
        pytest.param(Pair(A, (B, A)), lambda state: [state.first, *state.second], id="namedtuple"),
        pytest.param(Record(A, {"c": B}), lambda state: [state.h, state.rest["c"]], id="dataclass"),
        pytest.param(Frozen(A), lambda state: [state.h], id="frozen dataclass"),
        pytest.param(Rows(B), lambda state: [state.h], id="batch"),
    ],
)
def test_rows_of_every_kind_of_state(state: Any, leaves: Any) -> None:
    selected = select_rows(state, CHOSEN)
    assert type(selected) is type(state)
    for part, whole in zip(leaves(selected), leaves(state), strict=True):
        assert torch.equal(part, whole[CHOSEN])


def test_what_is_no_tensor_stays() -> None:
    assert select_rows((A, None, 7, Record(A)), CHOSEN)[1:3] == (None, 7)
    assert select_rows(Record(A), CHOSEN).rest is None
    assert select_rows((), CHOSEN) == ()


def test_a_state_may_select_its_rows_itself() -> None:
    state = Shared(A, B)
    selected = select_rows({"inner": state}, CHOSEN)["inner"]
    assert torch.equal(selected.h, A[CHOSEN])
    assert selected.table is B


def test_the_rows_of_no_episode() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert [len(tensor) for tensor in select_rows((A, B), none)] == [0, 0]


def inputs(task: Arithmetic, n: int = 5, steps: int = 4) -> tuple[Any, Tensor, Tensor]:
    problems = task.sample(torch.arange(n) % 3, torch.Generator().manual_seed(0))
    tokens = torch.randint(18, (steps, n))
    return problems, tokens, torch.randint(18, (steps, n, task.spec.feedback_width))


@pytest.mark.parametrize("selected", [None, torch.tensor([0, 7, 19])], ids=["all", "some"])
def test_forward_rollout_of_a_module_that_is_no_policy(selected: Tensor | None) -> None:
    task = Arithmetic()
    policy = LSTM(task.spec, PolicyConfig(width=8))
    problems, tokens, feedback = inputs(task)
    assert not isinstance(policy, Policy)
    output = forward_rollout(policy, problems, tokens, feedback, torch.tensor([4, 4, 3, 2, 1]), selected)
    expected = policy(tokens, feedback, policy.initial_state(problems))
    rows = torch.arange(20) if selected is None else selected
    assert torch.equal(output.logits, expected.logits.flatten(0, 1)[rows])
    assert torch.equal(output.value, expected.value.flatten()[rows])
    assert output.state is output.hidden is output.copied is None
    torch.testing.assert_close(output.log_probs.exp().sum(-1), torch.ones(len(rows)))


def test_forward_rollout_is_a_policys_own_where_it_has_one() -> None:
    class Own(LSTM):
        def forward_rollout(self, *arguments: Any) -> PolicyOutput:
            return PolicyOutput(torch.zeros(1, 18), torch.zeros(1))

    task = Arithmetic()
    output = forward_rollout(Own(task.spec, PolicyConfig(width=8)), *inputs(task), None, None)
    assert output.logits.shape == (1, 18)


def test_an_output_maps_all_but_its_state() -> None:
    output = PolicyOutput(torch.ones(2, 3), torch.ones(2), "state", None, torch.ones(2, 4))
    doubled = output.map(lambda tensor: 2 * tensor)
    assert [doubled.state, doubled.hidden] == ["state", None]
    for name in ("logits", "value", "copied"):
        assert torch.equal(getattr(doubled, name), 2 * getattr(output, name))


def test_the_base_class_demands_both_methods() -> None:
    with pytest.raises(NotImplementedError):
        Policy().initial_state(None)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        Policy()(A, B, None)


def test_a_core_may_have_any_structure_as_its_state() -> None:
    """In `TokenPolicy`, acting equals learning and rows can be selected, whatever the core's state is."""
    task = Arithmetic()
    policy = TokenPolicy(task.spec, PolicyConfig(width=8), Average).double()
    problems, tokens, feedback = inputs(task)
    state = policy.initial_state(problems)
    whole = policy(tokens, feedback, state)
    for t in range(4):
        output = policy(tokens[t : t + 1], feedback[t : t + 1], state)
        torch.testing.assert_close(output.logits[0], whole.logits[t])
        state = output.state
    rows = torch.tensor([4, 1])
    some = policy(tokens[:, rows], feedback[:, rows], select_rows(policy.initial_state(problems), rows))
    torch.testing.assert_close(some.logits, whole.logits[:, rows])
    assert isinstance(policy.core, nn.Module)
    assert {field.name for field in dataclasses.fields(state)} >= {"core", "context", "stage"}
