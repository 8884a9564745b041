"""What every policy must fulfil: acting and learning agree, rows and times do not leak, all of it learns."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.policies.config import CORES, PolicyConfig
from modelnative.policies.contract import Policy, PolicyOutput, forward_rollout, select_rows
from modelnative.policies.cores.transformer import KeyValueCache
from modelnative.policies.policy import TokenPolicy, TokenState
from modelnative.policies.registry import make_policy
from modelnative.tasks.arithmetic.problems import CTX
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.training.config import LossConfig
from modelnative.training.loss import LossTokens, LossWeights, policy_loss
from modelnative.training.rollout import Plan, play

VALUE = 18  # the row of the value in the matrix of the heads: after one for each token
FIELDS = ("logits", "value", "hidden", "copied")


def same(left: Tensor, right: Tensor) -> None:
    tolerance = 1e-10 if left.dtype == torch.float64 else 2e-4
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def same_outputs(left: PolicyOutput, right: PolicyOutput, fields: tuple[str, ...] = FIELDS) -> None:
    for field in fields:
        same(getattr(left, field), getattr(right, field))


def numbers(state: TokenState) -> Tensor:
    """The state of the core, the batch first."""
    return state.core.keys_values if isinstance(state.core, KeyValueCache) else state.core


def part(output: PolicyOutput, *index) -> PolicyOutput:
    return dataclasses.replace(output.map(lambda tensor: tensor[index]), state=None)


def differs(left: Tensor, right: Tensor) -> bool:
    return bool((left - right).abs().amax() > 1e-4)


# Acting and learning


def test_acting_equals_learning(case) -> None:
    """One token at a time gives what all of them at once give, the state included."""
    learned = case.whole()
    acted = case.steps(case.start, 0, 12)
    same_outputs(acted, learned)
    same(numbers(acted.state), numbers(learned.state))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("core", CORES)
def test_acting_equals_learning_with_any_layers(core, layers, make_case) -> None:
    case = make_case(core, layers=layers)
    same_outputs(case.steps(case.start, 0, 12), case.whole())


@pytest.mark.parametrize("core", CORES)
def test_acting_equals_learning_in_single_precision(core, make_case) -> None:
    case = make_case(core)
    case.policy.float()
    same_outputs(case.steps(case.start, 0, 12), case.whole())


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_prefix_and_the_rest_equal_the_whole(case, cut: int) -> None:
    policy, whole = case.policy, case.whole()
    head = policy(case.tokens[:cut], case.feedback[:cut], case.start)
    rest = policy(case.tokens[cut:], case.feedback[cut:], head.state)
    acted = case.steps(head.state, cut, 12)
    same_outputs(head, part(whole, slice(cut)))
    same_outputs(rest, part(whole, slice(cut, None)))
    same_outputs(acted, rest)
    same(numbers(acted.state), numbers(rest.state))


@pytest.mark.parametrize("learns", [True, False])
def test_states_are_values(case, learns: bool) -> None:
    """Continuing twice from the same state gives the same: nothing is remembered outside of it."""
    with torch.set_grad_enabled(learns):
        state = case.steps(case.start, 0, 4).state
        first, kept = case.steps(state, 4, 8), numbers(state).clone()
        after, other = numbers(first.state).clone(), select_rows(state, torch.arange(7))
        case.policy(case.tokens[9:10], case.feedback[9:10], state)
        assert torch.equal(numbers(state), kept)
        assert torch.equal(numbers(first.state), after)
        same_outputs(case.steps(state, 4, 8), first)
        same_outputs(case.steps(other, 4, 8), first)


# Whole episodes


LENGTHS = [
    None,
    [12, 12, 9, 5, 5, 2, 1],
    [12, 11, 10, 9, 8, 7, 6],
    [12, 1, 1, 1, 1, 1, 1],
    [3, 12, 1, 12, 2, 7, 5],  # slower, but allowed
]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_forward_rollout_equals_the_default_of_policy(case, lengths: list[int] | None) -> None:
    """At every token before the end of its sequence, whichever are selected."""
    episodes = None if lengths is None else torch.tensor(lengths)
    running = torch.arange(12)[:, None] < (torch.full((7,), 12) if episodes is None else episodes)
    before_end = running.flatten().nonzero()[:, 0]
    for selected in (None, before_end, before_end[::3]):
        arguments = (case.problems, case.tokens, case.feedback, episodes, selected)
        output, expected = case.policy.forward_rollout(*arguments), Policy.forward_rollout(case.policy, *arguments)
        assert output.state is expected.state is None
        assert output.logits.shape == expected.logits.shape == (84 if selected is None else len(selected), 18)
        counts = before_end if selected is None else slice(None)
        same_outputs(part(output, counts), part(expected, counts), ("logits", "value", "copied"))
        flat = case.whole().map(lambda tensor: tensor.flatten(0, 1))
        same_outputs(expected, part(flat, slice(None) if selected is None else selected))


def test_sequences_of_different_lengths_equal_each_alone(case) -> None:
    lengths = torch.tensor([12, 12, 9, 5, 5, 2, 1])
    output = case.policy.forward_rollout(case.problems, case.tokens, case.feedback, lengths, None)
    for i, length in enumerate(lengths.tolist()):
        one = slice(i, i + 1)
        start = case.policy.initial_state(case.problems[one])
        alone = case.policy(case.tokens[:length, one], case.feedback[:length, one], start)
        same(output.logits.view(12, 7, -1)[:length, one], alone.logits)
        same(output.value.view(12, 7)[:length, one], alone.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_comes_after_the_end_has_no_gradient(case, dtype: torch.dtype) -> None:
    """With lengths, gradients are those without, where what comes after the end does not count."""
    policy = case.policy.to(dtype)
    lengths = torch.tensor([12, 11, 9, 5, 5, 2, 1])
    running = (torch.arange(12)[:, None] < lengths).flatten()
    selected = running.nonzero()[:, 0]
    weight = torch.randn(84, 18, generator=torch.Generator().manual_seed(1)).to(dtype)

    def gradients(lengths: Tensor | None, selected: Tensor | None, weight: Tensor) -> list[Tensor]:
        output = policy.forward_rollout(case.problems, case.tokens, case.feedback, lengths, selected)
        loss = (output.logits * weight).sum() + (output.value * weight[:, 0]).sum()
        return list(torch.autograd.grad(loss, list(policy.parameters()), materialize_grads=True))

    expected = gradients(None, None, weight * running[:, None])
    for found in (gradients(lengths, selected, weight[running]), gradients(None, selected, weight[running])):
        for left, right in zip(found, expected, strict=True):
            scale = 1 if dtype == torch.float64 else 1 / (1 + float(right.abs().max()))
            same(left * scale, right * scale)


# Rows and times


def test_a_row_depends_on_itself_alone(case, redraw) -> None:
    whole = case.whole()
    policy, n = case.policy, len(case.problems)
    for row in range(n):
        problems, tokens, feedback = redraw(case, 100 + row)
        order = torch.arange(n).flip(0)
        order[row] = n + row  # of the case's own problems
        problems = type(problems).cat([problems, case.problems])[order]
        tokens[:, row], feedback[:, row] = case.tokens[:, row], case.feedback[:, row]
        mixed = policy(tokens, feedback, policy.initial_state(problems))
        same_outputs(part(mixed, slice(None), row), part(whole, slice(None), row))
        same(numbers(mixed.state)[row], numbers(whole.state)[row])
        other = (row + 1) % n
        assert differs(mixed.hidden[:, other], whole.hidden[:, other])


def test_a_row_alone_is_the_same(case) -> None:
    whole, policy = case.whole(), case.policy
    for row in range(len(case.problems)):
        one = slice(row, row + 1)
        alone = policy(case.tokens[:, one], case.feedback[:, one], policy.initial_state(case.problems[one]))
        same_outputs(alone, part(whole, slice(None), one))


@pytest.mark.parametrize("t", range(0, 12, 3))
def test_the_future_is_not_seen(case, redraw, t: int) -> None:
    whole = case.whole()
    _, tokens, feedback = redraw(case, 50 + t)
    tokens[: t + 1], feedback[: t + 1] = case.tokens[: t + 1], case.feedback[: t + 1]
    other = case.policy(tokens, feedback, case.start)
    same_outputs(part(other, slice(t + 1)), part(whole, slice(t + 1)))
    if t + 1 < len(tokens):
        assert differs(other.hidden[t + 1 :], whole.hidden[t + 1 :])


def test_everything_is_read(case) -> None:
    """Each input changes the last output, even one read at the first token; but not without memory."""
    policy, base = case.policy, case.whole().hidden[-1]

    def last(context: Tensor, tokens: Tensor, feedback: Tensor) -> Tensor:
        problems = dataclasses.replace(case.problems, context=context)
        return policy(tokens, feedback, policy.initial_state(problems)).hidden[-1]

    given = case.problems.context
    for place in range(given.shape[1]):
        context = given.clone()
        context[:, place] = (context[:, place] + 1) % 18
        assert differs(last(context, case.tokens, case.feedback), base), f"context place {place}"
    swapped = given.clone()
    swapped[:, [0, 1]] = torch.tensor([3, 7])
    mirrored = swapped.clone()
    mirrored[:, [0, 1]] = torch.tensor([7, 3])
    places = last(swapped, case.tokens, case.feedback), last(mirrored, case.tokens, case.feedback)
    assert differs(*places), "the order of the context"
    mirrored = case.feedback.flip(-1)
    assert differs(last(given, case.tokens, mirrored), base), "the order of the feedback"
    for t in (0, 11):
        tokens = case.tokens.clone()
        tokens[t] = (tokens[t] + 1) % 18
        counts = t == 11 or case.core != "memoryless"
        assert differs(last(given, tokens, case.feedback), base) == counts, f"token {t}"
        for place in range(case.feedback.shape[-1]):
            feedback = case.feedback.clone()
            feedback[t, :, place] = (feedback[t, :, place] + 1) % 18
            assert differs(last(given, case.tokens, feedback), base) == counts, f"feedback {t}, place {place}"


def test_only_a_stage_aware_policy_sees_the_stage(case) -> None:
    policy, whole = case.policy, case.whole()
    problems = dataclasses.replace(case.problems, stage=(case.problems.stage + 1) % 3)
    other = policy(case.tokens, case.feedback, policy.initial_state(problems))
    if not policy.stage_aware:
        same_outputs(other, whole)
    else:
        assert differs(other.logits[0], whole.logits[0])
        moved = dataclasses.replace(case.start, stage=problems.stage)
        assert differs(policy(case.tokens, case.feedback, moved).hidden, whole.hidden)


# What comes out


def test_outputs_are_distributions_of_the_right_shape(case) -> None:
    output = case.whole()
    steps, n = case.tokens.shape
    assert output.logits.shape == (steps, n, 18)
    assert output.value.shape == (steps, n)
    assert output.hidden.shape == (steps, n, 16)
    assert output.copied.shape == (steps, n, case.problems.context.shape[1] if case.config.copy_head else 0)
    same(output.log_probs.exp().sum(-1), torch.ones(steps, n, dtype=torch.float64))
    same(output.log_probs, output.logits)
    assert bool(output.log_probs.isfinite().all())


def test_hidden_is_what_the_heads_read(case) -> None:
    output = case.whole()
    for t, hidden in enumerate(output.hidden):
        log_probs, value, copied = case.policy.heads(hidden, output.state.context, output.state.keys)
        same_outputs(part(output, t), PolicyOutput(log_probs, value, None, hidden, copied))


# Hidden states can be replaced


@pytest.mark.parametrize("core", CORES)
def test_a_replaced_state_continues_the_donors_episode(core, make_case) -> None:
    """Without copy head the core's state is all that an episode carries; the donor's future reads the same tokens."""
    case = make_case(core, copy=False, stage_aware=False)
    policy = case.policy
    state = case.steps(case.start, 0, 5).state
    tokens, feedback = case.tokens.clone(), case.feedback.clone()
    tokens[:, 1], feedback[:, 1] = tokens[:, 0], feedback[:, 0]
    plain = policy(tokens[5:], feedback[5:], state)
    order = torch.tensor([1, 0, *range(2, len(case.problems))])
    swapped = policy(tokens[5:], feedback[5:], dataclasses.replace(state, core=select_rows(state.core, order)))
    same_outputs(part(swapped, slice(None), 0), part(plain, slice(None), 1))
    same_outputs(part(swapped, slice(None), 1), part(plain, slice(None), 0))
    same_outputs(part(swapped, slice(None), slice(2, None)), part(plain, slice(None), slice(2, None)))
    assert differs(plain.logits[:, 0], plain.logits[:, 1])


def test_rows_of_a_state_can_be_selected(case) -> None:
    state = case.steps(case.start, 0, 3).state
    rows = torch.tensor([4, 0, 4])
    selected = case.policy(case.tokens[3:, rows], case.feedback[3:, rows], select_rows(state, rows))
    same_outputs(selected, part(case.whole(), slice(3, None), rows))


# Gradients


@pytest.mark.parametrize("feedback", ["display", "none"])
def test_the_policy_gradient_reaches_every_parameter(case, feedback: str) -> None:
    task = Arithmetic(feedback=feedback)  # type: ignore[arg-type]
    policy = make_policy(task.spec, case.core, case.config)  # as it starts, without noise
    generator = torch.Generator().manual_seed(0)
    problems = task.sample(torch.arange(300) % 3, generator)
    rollout = play(policy, task, problems, Plan.sampled(problems, 12, generator))
    output = forward_rollout(policy, problems, rollout.token, rollout.feedback, None, None)
    advantage = torch.randn(rollout.reward.shape, generator=generator)
    columns = (rollout.action, rollout.behavior_log_prob, advantage, advantage, rollout.loss_mask, rollout.explored)
    tokens = LossTokens(*(column.flatten() for column in (*columns, rollout.hint_mask)))
    weights = LossWeights.of(LossConfig(value_weight=0.0), 0.0, float(rollout.loss_mask.sum()))
    policy_loss(output.logits, output.value, tokens, weights)[0].backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert parameter.grad.isfinite().all(), name
    rows = policy.heads.out.weight.grad.abs().sum(1)
    assert rows[VALUE] == 0
    # Keys of the calculator never stand in a context, so that their content is never scored.
    used = [row for row in range(len(rows)) if row != VALUE and row <= VALUE + problems.context.shape[1] + CTX + 1]
    assert bool((rows[used] > 0).all())


# Options


@pytest.mark.parametrize("core", CORES)
def test_open_loop_policies_read_no_feedback(core, make_case) -> None:
    case = make_case(core, feedback="none")
    assert case.feedback.shape[-1] == 0
    same_outputs(case.steps(case.start, 0, 12), case.whole())
    case.policy.input.weight.data[18 + 3 :] = torch.nan
    assert bool(case.whole().logits.isfinite().all())


def test_cores_are_what_they_are_called() -> None:
    spec = Arithmetic().spec
    kinds = {name: type(make_policy(spec, name, PolicyConfig()).core).__name__ for name in CORES}
    assert kinds == {"gru": "GRU", "mingru": "MinGRU", "memoryless": "Memoryless", "transformer": "Transformer"}


def test_an_unknown_core_is_refused() -> None:
    with pytest.raises(UserError, match=r"core: unknown value 'grru'; did you mean 'gru'\?"):
        make_policy(Arithmetic().spec, "grru", PolicyConfig())


def test_width_and_layers_are_kept() -> None:
    spec = Arithmetic().spec
    for core in CORES:
        sizes = {
            (width, layers): sum(
                p.numel() for p in make_policy(spec, core, PolicyConfig(width=width, layers=layers)).parameters()
            )
            for width in (8, 16)
            for layers in (1, 2)
        }
        assert sizes[8, 1] < sizes[8, 2] < sizes[16, 2]
        assert sizes[8, 1] < sizes[16, 1]


def test_the_default_core_is_the_gru() -> None:
    assert (
        TokenPolicy(Arithmetic().spec).state_dict().keys()
        == make_policy(Arithmetic().spec, "gru", PolicyConfig()).state_dict().keys()
    )
