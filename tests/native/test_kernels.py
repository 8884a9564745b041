"""Every kernel against the plain definition of its operator, which says what it computes."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelnative import native
from modelnative.native import copy_heads as heads_module
from modelnative.native import gru as gru_module
from modelnative.native import mingru as mingru_module
from modelnative.native import operators
from modelnative.native import policy_loss as loss_module
from modelnative.native import sample_actions as sampling_module
from modelnative.policies.config import PolicyConfig
from modelnative.policies.core import InputRows
from modelnative.policies.cores.gru import gru
from modelnative.policies.cores.mingru import min_gru
from modelnative.policies.heads import copy_heads
from modelnative.policies.policy import TokenPolicy
from modelnative.tasks import make_task
from modelnative.training.config import with_fields
from modelnative.training.loss import LossTokens, LossWeights, policy_loss
from modelnative.training.recipes import recipe
from modelnative.training.rollout import Plan, play, sample_actions
from modelnative.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not native.enabled(), reason=f"kernels: {native.describe()}")

SEEDS = st.integers(0, 10**6)
VOCABULARY, PLACES, PADDING, WIDTH = 11, 5, 10, 32
CALLS = (
    gru_module.GRUCall,
    mingru_module.MinGRUCall,
    heads_module.HeadsCall,
    loss_module.LossCall,
    sampling_module.SampleCall,
)


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, torch computes everything."""
    return lambda: monkeypatch.setattr(operators, "enabled", lambda: False)


def normal(seed: int) -> Callable[..., Tensor]:
    """Draws tensors; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def results(function: Callable[..., Any], arguments: tuple[Any, ...], weights: list[Tensor] | None) -> list[Tensor]:
    """What it returns, and the gradients of a weighted sum of that."""
    returned = function(*arguments)
    outputs = [returned] if isinstance(returned, Tensor) else list(returned)
    leaves = [x for x in arguments if isinstance(x, Tensor) and x.requires_grad]
    if weights is None:
        return outputs
    total = torch.stack([(output * weight).sum() for output, weight in zip(outputs, weights, strict=True)]).sum()
    return [*outputs, *torch.autograd.grad(total, leaves)]


def computes(operator: Callable[..., Any], *arguments: Any) -> bool:
    """Whether the kernel computes an operator."""
    bound = inspect.signature(operator).bind(*arguments)
    bound.apply_defaults()
    kernel = operators.KERNELS[operator.__name__]
    return kernel.supports(*kernel.flatten(*bound.args))


def compare(operator: Callable[..., Any], *arguments: Any, weights: list[Tensor] | None = None) -> None:
    """The kernel computes, and gives what the plain definition gives, in values and gradients, up to rounding."""
    assert computes(operator, *arguments) or 0 in [len(x) for x in arguments if isinstance(x, Tensor)]
    found, plain = results(operator, arguments, weights), results(operator.__wrapped__, arguments, weights)
    for ours, theirs in zip(found, plain, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        scale = float(theirs.detach().abs().max()) + 1e-3 if theirs.numel() else 1.0
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-3, atol=1e-4)


# gru


def recurrence(seed: int, n: int, width: int = WIDTH) -> tuple[Tensor, ...]:
    draw = normal(seed)
    weight = draw(3 * width, width) / width**0.5
    return tuple(x.requires_grad_() for x in (draw(n, width), weight, draw(width)))


@given(SEEDS, st.integers(0, 70), st.integers(1, 6), st.sampled_from(["none", "sorted", "any", "one"]))
@settings(deadline=None, max_examples=40)
def test_gru(seed: int, n: int, steps: int, ends: str) -> None:
    """On given inputs. Sequences may end in any order, and there may be none at all."""
    draw = normal(seed)
    lengths = torch.randint(1, steps + 1, (n,), generator=torch.Generator().manual_seed(seed))
    lengths = {"none": None, "sorted": lengths.sort(descending=True).values, "any": lengths}.get(
        ends, torch.ones_like(lengths)
    )
    inputs = draw(steps, n, 3 * WIDTH).requires_grad_()
    compare(gru, inputs, None, *recurrence(seed, n), lengths, weights=[draw(steps, n, WIDTH)])


@given(SEEDS, st.integers(0, 70), st.integers(1, 6), st.booleans(), st.integers(0, 3), st.booleans())
@settings(deadline=None, max_examples=40)
def test_gru_on_sums_of_rows(seed: int, n: int, steps: int, stages: bool, places: int, some_end: bool) -> None:
    draw, generator = normal(seed), torch.Generator().manual_seed(seed)

    def tokens(*shape: int) -> Tensor:
        return torch.randint(4, shape, generator=generator)

    table = draw(6 + 4 * places, 3 * WIDTH).requires_grad_()
    stage = 4 + torch.randint(2, (n,), generator=generator) if stages else None
    rows = InputRows(tokens(steps, n), stage, tokens(steps, n, places) if places else None, 6, 4, blank=3)
    lengths = torch.randint(1, steps + 1, (n,), generator=generator) if some_end else None
    compare(gru, table, rows, *recurrence(seed, n), lengths, weights=[draw(steps, n, WIDTH)])


def test_gru_without_a_gradient() -> None:
    draw = normal(0)
    with torch.no_grad():
        compare(gru, draw(4, 7, 3 * WIDTH), None, *recurrence(0, 7))


# min_gru


@given(SEEDS, st.integers(1, 70), st.integers(1, 13))
@settings(deadline=None, max_examples=30)
def test_min_gru(seed: int, n: int, steps: int) -> None:
    draw = normal(seed)
    gates, initial = draw(steps, n, 2 * WIDTH).requires_grad_(), draw(n, WIDTH).requires_grad_()
    compare(min_gru, gates, initial, weights=[draw(steps, n, WIDTH)])


# copy_heads


def heads(seed: int, rows: int, episodes: int, copy: bool, size: float) -> tuple[Any, ...]:
    """Arguments of `copy_heads`; scores are about as large as `size`."""
    draw, generator = normal(seed), torch.Generator().manual_seed(seed)
    scores = VOCABULARY + 1 + (PLACES + VOCABULARY if copy else 0)
    context = torch.randint(VOCABULARY, (episodes, PLACES), generator=generator)
    context[::3, 0] = 3  # not all contexts are padding alone
    tensors = (draw(rows, WIDTH), draw(scores, WIDTH) * size / WIDTH**0.5, draw(scores) * size)
    return *(x.requires_grad_() for x in tensors), context, VOCABULARY, PADDING


@given(
    SEEDS,
    st.integers(0, 8),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from(["all", "some", "none"]),
    st.sampled_from([0.1, 1.0, 30.0]),
)
@settings(deadline=None, max_examples=60)
def test_copy_heads(seed: int, steps: int, episodes: int, copy: bool, chosen: str, size: float) -> None:
    """Values, and gradients of all three outputs, `copied` included."""
    draw = normal(seed + 1)
    arguments = heads(seed, steps * episodes, episodes, copy, size)
    order = torch.randperm(steps * episodes, generator=torch.Generator().manual_seed(seed))
    selected = {"all": None, "some": order[: len(order) // 3].sort().values, "none": order[:0]}[chosen]
    rows = len(order) if selected is None else len(selected)
    log_probs = copy_heads.__wrapped__(*arguments, selected)[0]
    assume(bool(((log_probs + 69.07).abs() > 0.1).all()))  # a probability at the floor has either gradient
    weights = [draw(rows, VOCABULARY), draw(rows), draw(rows, PLACES if copy else 0)]
    compare(copy_heads, *arguments, selected, weights=weights)


def test_copy_heads_without_a_gradient() -> None:
    with torch.no_grad():
        compare(copy_heads, *heads(0, 40, 10, True, 1.0))


# policy_loss


def tokens(seed: int, rows: int, logits: Tensor, hints: bool) -> LossTokens:
    """Actions taken nearly as the policy takes them now; outside of the masks nothing has a meaning."""
    draw, generator = normal(seed), torch.Generator().manual_seed(seed)

    def some(share: float) -> Tensor:
        return torch.rand(rows, generator=generator) < share

    action = torch.randint(VOCABULARY, (rows,), generator=generator)
    own = logits.detach().log_softmax(-1).clamp_min(-60).gather(1, action[:, None])[:, 0]
    loss_mask = some(0.8)
    columns = {"behavior_log_prob": own + draw(rows) / 5, "advantage": draw(rows), "target": draw(rows)}
    garbage = {name: torch.where(loss_mask, column, torch.nan) for name, column in columns.items()}
    hint_mask = ~loss_mask & some(0.5) & hints
    return LossTokens(action, **garbage, loss_mask=loss_mask, explored=some(0.3), hint_mask=hint_mask)


WEIGHTS = st.builds(
    LossWeights,
    clip_low=st.sampled_from([0.0, 0.2]),
    clip_high=st.sampled_from([0.0, 0.3]),
    imitation=st.sampled_from([0.0, 0.7]),
    hint=st.sampled_from([0.0, 0.4]),
    value=st.sampled_from([0.0, 0.5]),
    entropy=st.sampled_from([0.0, 0.03]),
    count=st.just(17.0),
)


def loss_of(columns: LossTokens, weights: LossWeights, loss: Any = policy_loss) -> Callable[..., list[Tensor]]:
    """The loss as a function of logits and value, for `results`: the loss itself, and the terms of reports."""
    return lambda logits, value: [(terms := loss(logits, value, columns, weights))[0], terms[1:].detach()]


@given(SEEDS, st.integers(0, 230), WEIGHTS, st.booleans(), st.sampled_from([0.1, 1.0, 5.0]), st.booleans())
@settings(deadline=None, max_examples=80)
def test_policy_loss(seed: int, rows: int, weights: LossWeights, hints: bool, size: float, masked: bool) -> None:
    draw = normal(seed + 1)
    logits = (draw(rows, VOCABULARY) * size).requires_grad_()
    if masked:  # actions that a policy rules out
        logits = logits.detach().masked_fill(draw(rows, VOCABULARY) > 1.5, -torch.inf).requires_grad_()
    value = draw(rows).requires_grad_()
    columns = tokens(seed, rows, logits, hints)
    allowed = logits.detach().gather(1, columns.action[:, None])[:, 0] > -1e9
    columns.loss_mask, columns.hint_mask = columns.loss_mask & allowed, columns.hint_mask & allowed
    # A ratio at the very edge of the clip counts as either.
    own = logits.detach().log_softmax(-1).gather(1, columns.action[:, None])[:, 0]
    ratio = (own - columns.behavior_log_prob).exp()[columns.loss_mask]
    for edge in (1 - weights.clip_low, 1 + weights.clip_high):
        assume(bool(((ratio - edge).abs() > 1e-4).all()))
    assert computes(policy_loss, logits, value, columns, weights)
    ones = [torch.tensor(1.0), torch.zeros(7)]
    found = results(loss_of(columns, weights), (logits, value), ones)
    plain = results(loss_of(columns, weights, policy_loss.__wrapped__), (logits, value), ones)  # type: ignore[attr-defined]
    for ours, theirs in zip(found, plain, strict=True):
        assert bool(theirs.isfinite().all()), "nothing outside the masks reaches the loss or its gradient"
        scale = float(theirs.detach().abs().max()) + 1e-3 if theirs.numel() else 1.0
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-3, atol=2e-4)


def test_the_gradient_of_the_loss_can_be_taken_twice_and_scaled() -> None:
    logits, value = torch.randn(40, VOCABULARY, requires_grad=True), torch.randn(40, requires_grad=True)
    weights = LossWeights(0.2, 0.3, 0.7, 0.4, 0.5, 0.03, 17.0)
    loss = policy_loss(logits, value, tokens(0, 40, logits, True), weights)[0]
    first, again = (torch.autograd.grad(loss, (logits, value), retain_graph=True) for _ in range(2))
    scaled = torch.autograd.grad(3 * loss, (logits, value))
    for one, two, three in zip(first, again, scaled, strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(3 * one, three)


# sample_actions


@given(SEEDS, st.integers(0, 230), st.sampled_from([0.1, 1.0, 30.0]))
@settings(deadline=None, max_examples=40)
def test_the_most_likely_action(seed: int, rows: int, size: float) -> None:
    logits = size * normal(seed)(rows, VOCABULARY)
    action, log_prob = sample_actions(logits)
    expected, best = sample_actions.__wrapped__(logits)  # type: ignore[attr-defined]
    torch.testing.assert_close(log_prob, best, rtol=1e-4, atol=1e-4)
    second = logits.log_softmax(-1).topk(2).values[:, 1]
    sure = best - second > 1e-3
    assert torch.equal(action[sure], expected[sure])


@given(SEEDS, st.integers(0, 230), st.sampled_from([0.1, 1.0, 30.0]), st.sampled_from(["no", "some", "all"]))
@settings(deadline=None, max_examples=60)
def test_actions_are_drawn_from_the_mixture(seed: int, rows: int, size: float, explores: str) -> None:
    generator, draw = torch.Generator().manual_seed(seed), normal(seed)
    logits = size * draw(rows, VOCABULARY)
    logits[draw(rows, VOCABULARY) > 2] = -torch.inf
    logits[:, 0] = 0.0
    uniform, share = (torch.rand(rows, generator=generator) for _ in range(2))
    if explores == "some":
        share[torch.rand(rows, generator=generator) < 0.5] = 0.0
    blind = torch.rand(rows, VOCABULARY, generator=generator)
    blind /= blind.sum(1, keepdim=True)
    mixture = (None, None) if explores == "no" else (share, blind)
    action, log_prob = sample_actions(logits, uniform, *mixture)
    chances = torch.lerp(logits.softmax(-1), blind, share[:, None]) if explores != "no" else logits.softmax(-1)
    torch.testing.assert_close(log_prob.exp(), chances.gather(1, action[:, None])[:, 0], rtol=1e-4, atol=1e-6)
    sums = chances.cumsum(1)
    clear = (sums / sums[:, -1:] - uniform[:, None]).abs().amin(1) > 1e-5
    expected = sample_actions.__wrapped__(logits, uniform, *mixture)[0]  # type: ignore[attr-defined]
    assert torch.equal(action[clear], expected[clear])
    assert torch.equal(expected[clear], (sums < uniform[:, None] * sums[:, -1:]).sum(1).clamp_max(10)[clear])


# Operators


EXAMPLES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "gru": lambda: (torch.randn(4, 3, 3 * WIDTH).requires_grad_(), *recurrence(0, 3), *[None] * 4, 0, 0, 0),
    "min_gru": lambda: (torch.randn(4, 3, 2 * WIDTH).requires_grad_(), torch.randn(3, WIDTH).requires_grad_()),
    "copy_heads": lambda: (*heads(0, 12, 3, True, 1.0), None),
    "policy_loss": lambda: (
        (logits := torch.randn(9, VOCABULARY).requires_grad_()),
        torch.randn(9).requires_grad_(),
        *(getattr(tokens(0, 9, logits, True), field.name) for field in dataclasses.fields(LossTokens)),
        [0.2, 0.3, 0.7, 0.4, 0.5, 0.03, 17.0],
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_operator_of_torch_is_differentiable(name: str) -> None:
    arguments = EXAMPLES[name]()
    returned = getattr(torch.ops.modelnative, name).default(*arguments)
    output = returned if isinstance(returned, Tensor) else returned[0]
    leaves = [x for x in arguments if isinstance(x, Tensor) and x.requires_grad]
    gradients = torch.autograd.grad(output.flatten()[0], leaves)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(bool(gradient.any()) for gradient in gradients)
    with torch.no_grad():
        again = getattr(torch.ops.modelnative, name).default(*arguments)
    assert not (again if isinstance(again, Tensor) else again[0]).requires_grad


def test_sampling_is_an_operator_of_torch_without_a_derivative() -> None:
    action, log_prob = torch.ops.modelnative.sample_actions.default(torch.randn(3, 4), None, None, None)
    assert action.dtype == torch.int64
    assert not log_prob.requires_grad


@pytest.mark.parametrize("call", CALLS)
def test_a_struct_of_another_size_is_noticed(call: type[operators.Call]) -> None:
    class Longer(call):  # type: ignore[misc, valid-type]
        _fields_ = operators.struct_fields("", "more")

    with pytest.raises(AssertionError, match="Longer is not the struct that C"):
        Longer().run("gru_forward")


def test_the_plain_definition_computes_what_a_kernel_cannot() -> None:
    """In double precision, at widths that no vector divides, and on other devices."""
    draw = normal(0)
    inputs, start, weight, bias = draw(2, 3, 9), draw(3, 3), draw(9, 3), draw(3)
    assert not computes(gru, inputs, None, start, weight, bias)
    assert torch.equal(gru(inputs, None, start, weight, bias), gru.__wrapped__(inputs, None, start, weight, bias))  # type: ignore[attr-defined]
    assert not computes(sample_actions, torch.zeros(2, 3, dtype=torch.float64))
    assert not computes(sample_actions, torch.zeros(2, 3), torch.zeros(2, dtype=torch.float64))
    assert not computes(sample_actions, torch.zeros(2, 3, device="meta"))
    assert sample_actions(torch.zeros(2, 3, dtype=torch.float64))[1].dtype == torch.float32
    assert not computes(
        copy_heads, *(x.double() for x in heads(0, 4, 2, True, 1.0)[:3]), *heads(0, 4, 2, True, 1.0)[3:]
    )


def test_tensors_need_not_be_contiguous() -> None:
    draw = normal(0)
    inputs = draw(7, 4, 3 * WIDTH).transpose(0, 1).requires_grad_()
    start, weight, bias = recurrence(0, 7)
    compare(
        gru,
        inputs,
        None,
        start,
        weight.detach().t().contiguous().t().requires_grad_(),
        bias,
        weights=[draw(4, 7, WIDTH)],
    )
    rest = heads(0, 12, 4, True, 1.0)[1:]
    compare(
        copy_heads,
        draw(WIDTH, 12).t().requires_grad_(),
        *rest,
        weights=[draw(12, VOCABULARY), draw(12), draw(12, PLACES)],
    )
    compare(sample_actions, draw(VOCABULARY, 6).t(), torch.rand(6, 2)[:, 0])


def test_arguments_can_be_named() -> None:
    logits, uniform = torch.randn(5, VOCABULARY), torch.rand(5)
    expected = sample_actions(logits, uniform)
    for found in (sample_actions(logits, uniform=uniform), sample_actions(uniform=uniform, blind=None, logits=logits)):
        assert torch.equal(found[0], expected[0])
    start, weight, bias = recurrence(0, 3)
    inputs, lengths = torch.randn(2, 3, 3 * WIDTH), torch.tensor([2, 1, 1])
    found = gru(inputs, None, start, weight, lengths=lengths, bias=bias)
    assert torch.equal(found, gru(inputs, None, start, weight, bias, lengths))
    assert not bool(found[1, 1:].any()), "named lengths count"


def test_torch_compile_traces_the_plain_definitions() -> None:
    compiled = torch.compile(sample_actions, backend="eager", fullgraph=True)
    logits = torch.randn(5, VOCABULARY)
    action, log_prob = compiled(logits)
    assert torch.equal(action, logits.argmax(-1))
    torch.testing.assert_close(log_prob, logits.log_softmax(-1).amax(-1))


# The whole


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("stage_aware", [True, False])
@pytest.mark.parametrize(("curriculum", "reader"), [("hints", "sum"), ("uniform", "sum"), ("hints", "gru")])
def test_an_update(layers: int, stage_aware: bool, curriculum: str, reader: str, plainly: Callable[[], None]) -> None:
    fields = {
        "episodes": 96,
        "curriculum": curriculum,
        "threads": 1,
        "policy": {"width": 32, "layers": layers, "stage_aware": stage_aware, "reader": reader},
    }
    ours, theirs = (Trainer(make_task("arithmetic"), with_fields(recipe(), fields)) for _ in range(2))
    mine = [ours.update() for _ in range(2)]
    plainly()
    others = [theirs.update() for _ in range(2)]
    for a, b in zip(mine, others, strict=True):
        assert (a.steps, a.success) == (b.steps, b.success)
        assert a.policy_loss == pytest.approx(b.policy_loss, abs=1e-4)
        assert a.gradient_norm == pytest.approx(b.gradient_norm, rel=1e-3)
    # Adam divides by the size of a gradient, so that rounding near 0 is seen.
    for a, b in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("episodes", [7, 100, 1000])
def test_the_number_of_threads_changes_nothing_to_the_bit(episodes: int) -> None:
    fields = {"episodes": episodes, "curriculum": "uniform"}
    runs = [Trainer(make_task("arithmetic"), with_fields(recipe(), {**fields, "threads": n})) for n in (1, 2, 3)]
    for _ in range(3):
        metrics = [dataclasses.replace(run.update(), timing=None) for run in runs]  # type: ignore[arg-type]
    assert metrics[0] == metrics[1] == metrics[2]
    for run in runs[1:]:
        for a, b in zip(runs[0].parameters, run.parameters, strict=True):
            assert torch.equal(a, b)


def test_a_row_is_the_same_to_the_bit_whatever_stands_beside_it() -> None:
    task = make_task("arithmetic")
    policy = TokenPolicy(task.spec, PolicyConfig())
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    generator = torch.Generator().manual_seed(0)
    problems = task.sample(torch.randint(3, (300,), generator=generator), generator)
    plan = Plan.sampled(problems, 12, generator)
    whole = play(policy, task, problems, plan)
    for rows in (torch.arange(1), torch.tensor([299, 5, 7]), torch.randperm(300)):
        part = play(policy, task, problems[rows], plan[rows])
        length = len(part.action)
        assert torch.equal(part.action, whole.action[:length, rows] * part.running)
        for name in ("behavior_log_prob", "value"):
            own, other = getattr(part, name), getattr(whole, name)[:length, rows]
            assert torch.equal(own[part.running], other[part.running])
