"""What every policy must fulfil: acting and learning agree, rows and times do not leak, all of it learns."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.policies.config import CORES, PolicyConfig
from modelnative.policies.policy import Policy, Thought
from modelnative.tasks.arithmetic.task import CTX, Arithmetic
from modelnative.training.config import LossConfig
from modelnative.training.loss import surrogate
from modelnative.training.rollout import Plan, play

VALUE = 18  # the row of the value in the matrix of the heads: after one for each token
FIELDS = ("log_probs", "value", "hidden", "copied")


def same(left: Tensor, right: Tensor) -> None:
    tolerance = 1e-10 if left.dtype == torch.float64 else 2e-4
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def same_thoughts(left: Thought, right: Thought) -> None:
    for field in FIELDS:
        same(getattr(left, field), getattr(right, field))


def part(thought: Thought, *index) -> Thought:
    return Thought(*(getattr(thought, field)[index] for field in FIELDS))


def differs(left: Tensor, right: Tensor) -> bool:
    return bool((left - right).abs().amax() > 1e-4)


# Acting and learning


def test_step_after_step_equals_unroll(case) -> None:
    learned, end = case.unroll()
    acted, last = case.steps(case.policy.begin(case.context, case.stage), 0, 12)
    same_thoughts(acted, learned)
    same(last.memory, end.memory)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("core", CORES)
def test_step_after_step_equals_unroll_with_any_layers(core, layers, make_case) -> None:
    case = make_case(core, layers=layers)
    same_thoughts(case.steps(case.policy.begin(case.context, case.stage), 0, 12)[0], case.unroll()[0])


@pytest.mark.parametrize("core", CORES)
def test_step_after_step_equals_unroll_in_single_precision(core, make_case) -> None:
    case = make_case(core)
    case.policy.float()
    same_thoughts(case.steps(case.policy.begin(case.context, case.stage), 0, 12)[0], case.unroll()[0])


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_prefix_and_the_rest_equal_the_whole(case, cut: int) -> None:
    policy, whole = case.policy, case.unroll()[0]
    head, middle = policy.unroll(case.tokens[:cut], case.feedback[:cut], policy.begin(case.context, case.stage))
    rest, end = policy.unroll(case.tokens[cut:], case.feedback[cut:], middle)
    acted, last = case.steps(middle, cut, 12)
    same_thoughts(head, part(whole, slice(cut)))
    same_thoughts(rest, part(whole, slice(cut, None)))
    same_thoughts(acted, rest)
    same(last.memory, end.memory)


def test_states_are_values(case) -> None:
    """Continuing twice from the same state gives the same: nothing is remembered outside of it."""
    state = case.steps(case.policy.begin(case.context, case.stage), 0, 4)[1]
    first, kept = case.steps(state, 4, 8)[0], state.memory.clone()
    case.policy.step(case.tokens[9], case.feedback[9], state)
    assert torch.equal(state.memory, kept)
    same_thoughts(case.steps(state, 4, 8)[0], first)


# Packed sequences


def test_sequences_of_different_lengths_equal_each_alone(case) -> None:
    """And only the thoughts that are asked for are had."""
    lengths, whole = torch.tensor([12, 12, 9, 5, 5, 2, 1]), case.unroll()[0]
    running = torch.arange(12)[:, None] < lengths
    heed = torch.arange(0, int(lengths.sum()), 3)
    start = case.policy.begin(case.context, case.stage)
    packed = case.tokens[running], case.feedback[running], start, running.sum(1).tolist()
    thought, end = case.policy.think(*packed)
    same_thoughts(thought, part(whole, running))
    same_thoughts(case.policy.think(*packed, heed)[0], part(thought, heed))
    same(end.memory, case.unroll()[1].memory[:2])
    assert len(end) == 2


def test_what_is_not_read_has_no_gradient(case) -> None:
    """Gradients of packed sequences are those of the padded ones, where the padding does not count."""
    lengths = torch.tensor([12, 11, 9, 5, 5, 2, 1])
    running = torch.arange(12)[:, None] < lengths
    weight = torch.randn(12, 7, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def gradients(hidden: Tensor, weight: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((hidden * weight).sum(), read, materialize_grads=True))

    read = [p for name, p in case.policy.named_parameters() if not name.startswith("heads")]
    start = case.policy.begin(case.context, case.stage)
    packed = case.policy.think(case.tokens[running], case.feedback[running], start, running.sum(1).tolist())[0]
    found = gradients(packed.hidden, weight[running])
    for left, right in zip(found, gradients(case.unroll()[0].hidden, weight * running[..., None]), strict=True):
        same(left, right)


# Rows and times


def test_a_row_depends_on_itself_alone(case, redraw) -> None:
    whole, end = case.unroll()
    policy, n = case.policy, len(case.stage)
    for row in range(n):
        context, stage, tokens, feedback = redraw(case, 100 + row)
        stage = stage.flip(0)
        context[row], stage[row] = case.context[row], case.stage[row]
        tokens[:, row], feedback[:, row] = case.tokens[:, row], case.feedback[:, row]
        mixed, mixed_end = policy.unroll(tokens, feedback, policy.begin(context, stage))
        same_thoughts(part(mixed, slice(None), row), part(whole, slice(None), row))
        same(mixed_end.memory[row], end.memory[row])
        other = (row + 1) % n
        assert differs(mixed.hidden[:, other], whole.hidden[:, other])


def test_a_row_alone_is_the_same(case) -> None:
    whole, policy = case.unroll()[0], case.policy
    for row in range(len(case.stage)):
        one = slice(row, row + 1)
        start = policy.begin(case.context[one], case.stage[one])
        alone = policy.unroll(case.tokens[:, one], case.feedback[:, one], start)[0]
        same_thoughts(alone, part(whole, slice(None), one))


@pytest.mark.parametrize("t", range(0, 12, 3))
def test_the_future_is_not_seen(case, redraw, t: int) -> None:
    policy, whole = case.policy, case.unroll()[0]
    _, _, tokens, feedback = redraw(case, 50 + t)
    tokens[: t + 1], feedback[: t + 1] = case.tokens[: t + 1], case.feedback[: t + 1]
    other = policy.unroll(tokens, feedback, policy.begin(case.context, case.stage))[0]
    same_thoughts(part(other, slice(t + 1)), part(whole, slice(t + 1)))
    if t + 1 < len(tokens):
        assert differs(other.hidden[t + 1 :], whole.hidden[t + 1 :])


def test_everything_is_read(case) -> None:
    """Each input changes what is said at the last time, even one read at the first; but not without memory."""
    policy, base = case.policy, case.unroll()[0].hidden[-1]

    def last(context: Tensor, tokens: Tensor, feedback: Tensor) -> Tensor:
        return policy.unroll(tokens, feedback, policy.begin(context, case.stage))[0].hidden[-1]

    for place in range(case.context.shape[1]):
        context = case.context.clone()
        context[:, place] = (context[:, place] + 1) % 18
        assert differs(last(context, case.tokens, case.feedback), base), f"context place {place}"
    swapped = case.context.clone()
    swapped[:, [0, 1]] = torch.tensor([3, 7])
    mirrored = swapped.clone()
    mirrored[:, [0, 1]] = torch.tensor([7, 3])
    places = last(swapped, case.tokens, case.feedback), last(mirrored, case.tokens, case.feedback)
    assert differs(*places), "the order of the context"
    mirrored = case.feedback.flip(-1)
    assert differs(last(case.context, case.tokens, mirrored), base), "the order of the feedback"
    for t in (0, 11):
        tokens = case.tokens.clone()
        tokens[t] = (tokens[t] + 1) % 18
        counts = t == 11 or case.core != "memoryless"
        assert differs(last(case.context, tokens, case.feedback), base) == counts, f"token {t}"
        for place in range(case.feedback.shape[-1]):
            feedback = case.feedback.clone()
            feedback[t, :, place] = (feedback[t, :, place] + 1) % 18
            said = last(case.context, case.tokens, feedback)
            assert differs(said, base) == counts, f"feedback {t}, place {place}"


def test_only_a_stage_aware_policy_sees_the_stage(case) -> None:
    policy = case.policy
    start = policy.begin(case.context, (case.stage + 1) % 3)
    other = policy.unroll(case.tokens, case.feedback, start)[0]
    if not policy.stage_aware:
        same_thoughts(other, case.unroll()[0])
    else:
        assert differs(other.log_probs[0], case.unroll()[0].log_probs[0])
        moved = case.policy.begin(case.context, case.stage)
        moved = dataclasses.replace(moved, stage=(moved.stage + 1) % 3)
        assert differs(policy.unroll(case.tokens, case.feedback, moved)[0].hidden, case.unroll()[0].hidden)


# What comes out


def test_outputs_are_distributions_of_the_right_shape(case) -> None:
    thought, _ = case.unroll()
    steps, n = case.tokens.shape
    assert thought.log_probs.shape == (steps, n, 18)
    assert thought.value.shape == (steps, n)
    assert thought.hidden.shape == (steps, n, 16)
    assert thought.copied.shape == (steps, n, case.context.shape[1] if case.config.copy_head else 0)
    same(thought.log_probs.exp().sum(-1), torch.ones(steps, n, dtype=torch.float64))
    assert bool(thought.log_probs.isfinite().all())
    one, _ = case.policy.step(case.tokens[0], case.feedback[0], case.policy.begin(case.context, case.stage))
    assert one.log_probs.shape == (n, 18)
    assert one.value.shape == (n,)


def test_hidden_is_what_the_heads_read(case) -> None:
    thought, state = case.unroll()
    for t, hidden in enumerate(thought.hidden):
        log_probs, value, copied = case.policy.heads(hidden, state.context, state.keys)
        same_thoughts(part(thought, t), Thought(log_probs, value, hidden, copied))


# Hidden states can be replaced


@pytest.mark.parametrize("core", CORES)
def test_whoever_gets_a_memory_continues_the_donors_episode(core, make_case) -> None:
    """Without copy head the memory is all that an episode carries; the donor's future reads the same tokens."""
    case = make_case(core, copy=False, stage_aware=False)
    policy = case.policy
    state = case.steps(policy.begin(case.context, case.stage), 0, 5)[1]
    tokens, feedback = case.tokens.clone(), case.feedback.clone()
    tokens[:, 1], feedback[:, 1] = tokens[:, 0], feedback[:, 0]
    plain = policy.unroll(tokens[5:], feedback[5:], state)[0]
    order = torch.tensor([1, 0, *range(2, len(case.stage))])
    swapped = policy.unroll(tokens[5:], feedback[5:], dataclasses.replace(state, memory=state.memory[order]))[0]
    same_thoughts(part(swapped, slice(None), 0), part(plain, slice(None), 1))
    same_thoughts(part(swapped, slice(None), 1), part(plain, slice(None), 0))
    same_thoughts(part(swapped, slice(None), slice(2, None)), part(plain, slice(None), slice(2, None)))
    assert differs(plain.log_probs[:, 0], plain.log_probs[:, 1])


def test_a_state_is_a_batch(case) -> None:
    """Rows can be picked and joined, memory included."""
    state = case.steps(case.policy.begin(case.context, case.stage), 0, 3)[1]
    rows = torch.tensor([4, 0, 4])
    picked = case.policy.unroll(case.tokens[3:, rows], case.feedback[3:, rows], state[rows])[0]
    whole = case.unroll()[0]
    same_thoughts(picked, Thought(*(getattr(whole, f)[3:][:, rows] for f in FIELDS)))


# Gradients


@pytest.mark.parametrize("feedback", ["display", "none"])
def test_the_policy_gradient_reaches_every_parameter(case, feedback: str) -> None:
    task = Arithmetic(feedback=feedback)  # type: ignore[arg-type]
    policy = Policy(task.spec, case.core, case.config)  # as it starts, without noise
    generator = torch.Generator().manual_seed(0)
    problems = task.sample(torch.arange(300) % 3, generator)
    rollout = play(policy, task, problems, Plan.free(problems, 12, generator))
    thought = policy.unroll(rollout.token, rollout.feedback, policy.begin(problems.context, problems.stage))[0]
    advantage = torch.randn(rollout.reward.shape, generator=generator)
    arguments = (rollout.action, rollout.behavior_log_prob, advantage, advantage, rollout.free, rollout.explored)
    surrogate(thought, *arguments, LossConfig(value_weight=0.0), 0.0).loss.backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert parameter.grad.isfinite().all(), name
    rows = policy.heads.out.weight.grad.abs().sum(1)
    assert rows[VALUE] == 0
    # Keys of the calculator never stand in a context, so that their content is never scored.
    used = [row for row in range(len(rows)) if row != VALUE and row <= VALUE + len(case.context[0]) + CTX + 1]
    assert bool((rows[used] > 0).all())


# Options


@pytest.mark.parametrize("core", CORES)
def test_open_loop_policies_read_no_feedback(core, make_case) -> None:
    case = make_case(core, feedback="none")
    assert case.feedback.shape[-1] == 0
    same_thoughts(case.steps(case.policy.begin(case.context, case.stage), 0, 12)[0], case.unroll()[0])
    case.policy.input.weight.data[18 + 3 :] = torch.nan
    assert bool(case.unroll()[0].log_probs.isfinite().all())


def test_cores_are_what_they_are_called() -> None:
    spec = Arithmetic().spec
    kinds = {name: type(Policy(spec, name).core).__name__ for name in CORES}
    assert kinds == {
        "gru": "GRU",
        "tutorial-gru": "GRU",
        "mingru": "MinGRU",
        "memoryless": "Memoryless",
        "transformer": "Transformer",
    }


def test_an_unknown_core_is_refused() -> None:
    with pytest.raises(UserError, match=r"core: unknown value 'grru'; did you mean 'gru'\?"):
        Policy(Arithmetic().spec, "grru")


def test_width_and_layers_are_kept() -> None:
    spec = Arithmetic().spec
    for core in CORES:
        sizes = {
            (width, layers): sum(p.numel() for p in Policy(spec, core, PolicyConfig(width, layers)).parameters())
            for width in (8, 16)
            for layers in (1, 2)
        }
        assert sizes[8, 1] < sizes[8, 2] < sizes[16, 2]
        assert sizes[8, 1] < sizes[16, 1]
