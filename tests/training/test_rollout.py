"""What is in a rollout is recomputed: by a fresh forward pass, by the oracle, by playing the same actions again."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from own import LSTM
from torch import Tensor

from modelnative.policies.config import CORES
from modelnative.policies.contract import Policy, PolicyOutput
from modelnative.policies.policy import TokenPolicy
from modelnative.tasks import make_task
from modelnative.tasks.arithmetic.problems import ANS, EOS
from modelnative.tasks.arithmetic.task import Arithmetic
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, program_length
from modelnative.tasks.tutorial.task import Tutorial
from modelnative.training import rollout as rollout_module
from modelnative.training.rollout import COLUMNS, Plan, Rollout, empty_columns, play

N = 60
TASKS = {
    "display": Arithmetic(),
    "none": Arithmetic(feedback="none"),
    "potential": Arithmetic(reward="potential"),
    "tutorial": Tutorial(),
}
FIELDS = [f for f in Rollout.__dataclass_fields__ if f not in ("problems", "final")]


def draw_problems(task: AnyTask, n: int = N, seed: int = 0) -> Problems:
    return task.sample(torch.arange(n) % 3, torch.Generator().manual_seed(seed))


def bias(policy: Policy, tokens: list[int], amount: float) -> Policy:
    out = policy.actor if isinstance(policy, LSTM) else policy.heads.out
    out.bias.data[tokens] += amount
    return policy


def forward(policy: Policy, rollout: Rollout) -> PolicyOutput:
    """A fresh forward pass over whole episodes."""
    return policy(rollout.token, rollout.feedback, policy.initial_state(rollout.problems))


def exploration(task: AnyTask, problems: Problems) -> Tensor:
    """How explored actions are drawn, [n, V]: half from the whole vocabulary, half from the problem's own tokens."""
    size = len(task.spec.vocabulary)
    rows = []
    for context in problems.context.tolist():
        own = [token for token in context if token not in (task.spec.end, task.spec.start)] or list(range(size))
        rows.append([0.5 / size + 0.5 * own.count(token) / len(own) for token in range(size)])
    return torch.tensor(rows)


def sampled(task: AnyTask, problems: Problems, seed: int = 0) -> Plan:
    return Plan.sampled(problems, task.spec.horizon, torch.Generator().manual_seed(seed))


def wild(policy: Policy, task: AnyTask, seed: int = 0) -> tuple[Rollout, Plan]:
    """A rollout with hints of every length and exploration at any time."""
    generator = torch.Generator().manual_seed(seed)
    problems = draw_problems(task, seed=seed)
    program = task.oracle(problems)
    plan = Plan(
        uniform=torch.rand(N, task.spec.horizon, generator=generator),
        program=program,
        hints=(torch.rand(N, generator=generator) * (program_length(program, task.spec.end) + 1)).long(),
        explore=torch.rand(N, generator=generator) * (torch.rand(N, generator=generator) < 0.7),
        delay=torch.randint(3, (N,), generator=generator),
        reach=torch.randint(task.spec.horizon, (N,), generator=generator),
    )
    return play(policy, task, problems, plan), plan


@pytest.fixture(params=itertools.product((*CORES, "own:LSTM"), TASKS), ids="-".join)
def world(request, make_policy) -> tuple[Policy, AnyTask]:
    """Every core that is shipped, and a module that is no `Policy`, with each kind of task."""
    core, name = request.param
    return make_policy(TASKS[name], core), TASKS[name]


# Probabilities


def test_what_is_explored_where_the_context_says_nothing(make_policy) -> None:
    """Half of the keys would be CTX, which has no effect, if the context's only token counted."""
    task = make_task("dictionary", store=True)
    assert set(draw_problems(task).context.unique().tolist()) <= {task.spec.start, task.spec.end}
    policy = make_policy(task)
    rollout, plan = wild(policy, task)
    chances = forward(policy, rollout).log_probs.exp().gather(-1, rollout.action[..., None])[..., 0]
    share, mask = torch.where(rollout.explored, plan.explore, 0.0), rollout.loss_mask
    expected = ((1 - share) * chances + share / len(task.spec.vocabulary)).log()
    torch.testing.assert_close(rollout.behavior_log_prob[mask], expected[mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_probability_is_that_of_a_fresh_forward_pass(world, seed: int) -> None:
    """Exploration included. At hints it is not defined: they were not drawn."""
    policy, task = world
    rollout, plan = wild(policy, task, seed)
    chances = forward(policy, rollout).log_probs.exp().gather(-1, rollout.action[..., None])[..., 0]
    other = (
        exploration(task, rollout.problems).expand(len(chances), -1, -1).gather(-1, rollout.action[..., None])[..., 0]
    )
    share = torch.where(rollout.explored, plan.explore, 0.0)
    expected = ((1 - share) * chances + share * other).log()
    mask = rollout.loss_mask
    assert 50 < int(mask.sum()) < mask.numel()
    assert int(rollout.explored.sum()) >= 5
    torch.testing.assert_close(rollout.behavior_log_prob[mask], expected[mask], atol=1e-4, rtol=1e-4)


def test_every_value_is_that_of_a_fresh_forward_pass(world) -> None:
    policy, task = world
    rollout, _ = wild(policy, task)
    mask = rollout.loss_mask
    torch.testing.assert_close(rollout.value[mask], forward(policy, rollout).value[mask], atol=1e-4, rtol=1e-4)


def test_greedy_play_takes_the_most_probable_token(world) -> None:
    policy, task = world
    rollout = play(policy, task, draw_problems(task))
    output = forward(policy, rollout)
    running = rollout.running
    best = output.log_probs.amax(-1)[running]
    chosen = output.log_probs.gather(-1, rollout.action[..., None])[..., 0][running]
    torch.testing.assert_close(chosen, best, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rollout.behavior_log_prob[running], best, atol=1e-4, rtol=1e-4)
    clear = running & (output.log_probs.topk(2).values.diff(dim=-1)[..., 0] < -1e-3)
    assert torch.equal(rollout.action[clear], output.log_probs.argmax(-1)[clear])
    assert not bool(rollout.explored.any())


@pytest.mark.parametrize("explore", [0.0, 0.5, 1.0])
def test_actions_are_drawn_with_their_probability(make_policy, explore: float) -> None:
    task, n = TASKS["display"], 20_000
    policy = make_policy(task, scale=0.8)
    problems = draw_problems(task, 1)[torch.zeros(n, dtype=torch.int64)]
    plan = replace(sampled(task, problems), explore=torch.full((n,), explore), reach=torch.ones(n, dtype=torch.int64))
    rollout = play(policy, task, problems, plan)
    own = forward(policy, rollout).log_probs[0, 0].exp().detach()
    assert own.max() > 0.25
    chances = (1 - explore) * own + explore * exploration(task, problems[:1])[0]
    counts = torch.bincount(rollout.action[0], minlength=18)
    deviation = (n * chances * (1 - chances)).sqrt()
    assert bool(((counts - n * chances).abs() <= 5 * deviation + 1).all())


# Bookkeeping


def test_playing_the_actions_again_gives_everything(world) -> None:
    policy, task = world
    rollout, _ = wild(policy, task, 3)
    state = task.begin(rollout.problems)
    running = torch.ones(N, dtype=torch.bool)
    token, feedback = torch.full((N,), task.spec.start), task.feedback(state)
    success = torch.zeros(N, dtype=torch.bool)
    for t in range(len(rollout.action)):
        assert torch.equal(rollout.token[t][running], token[running])
        assert torch.equal(rollout.feedback[t][running], feedback[running])
        assert torch.equal(rollout.running[t], running)
        step = task.step(state, rollout.action[t])
        assert torch.equal(rollout.reward[t], step.reward)
        assert torch.equal(rollout.invalid[t], step.invalid)
        state, token, feedback = step.state, rollout.action[t], step.feedback
        running, success = running & ~step.done, success | step.success
    assert torch.equal(rollout.success, success)
    assert torch.equal(rollout.final.done, state.done)
    assert torch.equal(rollout.truncated, running)
    assert torch.equal(rollout.length, rollout.running.long().sum(0))


def test_nothing_counts_after_the_end(world) -> None:
    policy, task = world
    rollout, _ = wild(bias(policy, [ANS], 1.0), task, 4)
    over = ~rollout.running
    assert bool(over.any())
    assert bool((over.long().diff(dim=0) >= 0).all()), "an episode that ended runs again"
    assert not bool(rollout.reward[over].any())
    assert not bool((rollout.loss_mask | rollout.explored | rollout.invalid)[over].any())


def test_a_rollout_is_as_long_as_its_longest_episode(make_policy) -> None:
    task = TASKS["display"]
    problems = draw_problems(task)
    for seed in range(5):
        policy = bias(make_policy(task, seed=seed), [ANS, EOS], 9.0)
        rollout = play(policy, task, problems, sampled(task, problems, seed))
        assert len(rollout.action) == int(rollout.length.max()) < task.spec.horizon
        assert {len(getattr(rollout, f)) for f in FIELDS if f not in ("success", "bootstrap")} == {len(rollout.action)}


def test_the_time_limit_and_the_end_are_kept_apart(make_policy) -> None:
    task = TASKS["display"]
    program = task.oracle(draw_problems(task))
    endless = bias(make_policy(task), [ANS, EOS], -100.0)
    cut = play(endless, task, draw_problems(task), sampled(task, draw_problems(task)))
    assert bool(cut.truncated.all())
    assert bool(cut.running.all())
    assert cut.length.tolist() == [12] * N
    problems = draw_problems(task)
    hints = torch.where(problems.stage == 0, 0, program_length(program, EOS))
    plan = replace(sampled(task, problems), program=program, hints=hints)
    mixed = play(endless, task, problems, plan)
    assert torch.equal(mixed.truncated, problems.stage == 0)
    last = (problems.stage == 2).nonzero()[:, 0]
    assert mixed.length[last].tolist() == [12] * len(last), "as long as the horizon, and yet ended by an action"


# Hints and exploration


def test_hints_are_the_oracles_and_never_in_the_loss(world) -> None:
    policy, task = world
    rollout, plan = wild(policy, task, 5)
    time = torch.arange(len(rollout.action))[:, None]
    hint = rollout.running & (time < plan.hints)
    assert bool(hint.any())
    program = plan.program.T[: len(rollout.action)]
    assert torch.equal(rollout.action[hint], program[hint])
    assert torch.equal(rollout.loss_mask, rollout.running & ~hint)


def test_everything_succeeds_when_the_hint_is_the_whole_program(world) -> None:
    policy, task = world
    problems = draw_problems(task)
    program = task.oracle(problems)
    length = program_length(program, task.spec.end)
    rollout = play(policy, task, problems, replace(sampled(task, problems), program=program, hints=length))
    solvable = torch.tensor(task.spec.solvable or (True,) * 3)[problems.stage]
    assert bool(rollout.success[solvable].all())
    assert torch.equal(rollout.length, length)
    assert not bool(rollout.loss_mask.any())
    assert not bool(rollout.invalid.any())


def test_exploration_happens_at_its_time_only(world) -> None:
    policy, task = world
    rollout, plan = wild(policy, task, 6)
    time = torch.arange(len(rollout.action))[:, None]
    first = plan.hints + plan.delay
    within = (first <= time) & (time < first + plan.reach)
    expected = rollout.loss_mask & within & (plan.explore > 0)
    assert bool((rollout.loss_mask & ~within & (plan.explore > 0)).any())
    assert bool(expected.any())
    assert torch.equal(rollout.explored, expected)


def test_without_hints_all_running_tokens_are_in_the_loss(world) -> None:
    policy, task = world
    rollout = play(policy, task, draw_problems(task), sampled(task, draw_problems(task)))
    assert torch.equal(rollout.loss_mask, rollout.running)
    assert not bool(rollout.explored.any())


# Randomness


def test_the_generator_decides_everything(world) -> None:
    policy, task = world
    before = torch.get_rng_state()
    first, again, other = wild(policy, task, 7)[0], wild(policy, task, 7)[0], wild(policy, task, 8)[0]
    assert all(torch.equal(getattr(first, f), getattr(again, f)) for f in FIELDS)
    assert first.action.shape != other.action.shape or not torch.equal(first.action, other.action)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_policy_is_left_alone(world) -> None:
    policy, task = world
    before = [p.clone() for p in policy.parameters()]
    rollout, _ = wild(policy, task)
    assert all(torch.equal(p, q) for p, q in zip(policy.parameters(), before, strict=True))
    assert not rollout.value.requires_grad
    assert not rollout.behavior_log_prob.requires_grad


def test_rows_do_not_see_each_other(world) -> None:
    policy, task = world
    problems = draw_problems(task)
    rows = torch.arange(0, N, 7)
    whole, some = play(policy, task, problems), play(policy, task, problems[rows])
    steps = len(some.action)
    assert torch.equal(whole.action[:steps, rows][some.running], some.action[some.running])
    assert torch.equal(whole.success[rows], some.success)


@pytest.mark.parametrize("seed", range(3))
def test_taking_out_the_finished_changes_nothing(world, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the plain loop, which carries every episode to the end."""
    policy, task = world
    bias(policy, [ANS], 1.0)
    lean, _ = wild(policy, task, seed)
    monkeypatch.setattr(rollout_module, "COMPACT_BELOW", 0.0)
    plain, _ = wild(policy, task, seed)
    running = plain.running
    assert torch.equal(lean.running, running)
    assert torch.equal(lean.success, plain.success)
    for name in ("token", "feedback", "action", "reward", "loss_mask", "explored", "invalid"):
        assert torch.equal(getattr(lean, name)[running], getattr(plain, name)[running]), name
    for name in ("behavior_log_prob", "value"):
        torch.testing.assert_close(getattr(lean, name)[plain.loss_mask], getattr(plain, name)[plain.loss_mask])
    for left, right in zip(leaves(lean.final), leaves(plain.final), strict=True):
        assert torch.equal(left, right)


def leaves(batch: Batch) -> list[Tensor]:
    return [leaf for field in batch.fields() for leaf in (leaves(field) if isinstance(field, Batch) else [field])]


def test_of_a_blank_context_the_whole_vocabulary_is_explored() -> None:
    task = Arithmetic()
    spec, problems = task.spec, draw_problems(task, 500)
    problems.context.fill_(spec.end)
    policy = bias(TokenPolicy(spec), [ANS], 50.0)
    plan = replace(sampled(task, problems), explore=torch.ones(500), reach=torch.full((500,), spec.horizon))
    rollout = play(policy, task, problems, plan)
    assert set(rollout.action[0].tolist()) == set(range(len(spec.vocabulary)))
    chance = torch.full((500,), 1 / len(spec.vocabulary))
    torch.testing.assert_close(rollout.behavior_log_prob[0], chance.log())


# Columns


def test_episodes_of_a_larger_batch(make_policy) -> None:
    """`into` takes the columns where they stand, and leaves the others alone."""
    task = TASKS["display"]
    policy, problems = make_policy(task), draw_problems(task)
    plan, columns = sampled(task, problems), empty_columns(task, N, torch.device("cpu"))
    expected = play(policy, task, problems, plan)
    for part in (slice(0, 7), slice(7, N)):
        into = {name: column[:, part] if name in COLUMNS else column[part] for name, column in columns.items()}
        play(policy, task, problems[part], plan[part], final=False, into=into)
    steps = len(expected.action)
    assert torch.equal(columns["success"], expected.success)
    assert torch.equal(columns["running"][:steps], expected.running)
    for name in ("token", "action", "reward", "loss_mask", "invalid"):
        assert torch.equal(columns[name][:steps][expected.running], getattr(expected, name)[expected.running]), name
    assert not bool(columns["running"][steps:].any())


def test_some_episodes_of_a_rollout(world) -> None:
    policy, task = world
    rollout, _ = wild(policy, task)
    rows = torch.tensor([5, 0, 5])
    some = rollout.select(rows)
    assert some.final is None
    assert torch.equal(some.problems.key, rollout.problems.key[rows])
    assert torch.equal(some.success, rollout.success[rows])
    assert torch.equal(some.length, rollout.length[rows])
    for name in COLUMNS:
        assert torch.equal(getattr(some, name), getattr(rollout, name)[:, rows])


@pytest.mark.parametrize("core", [*CORES, "own:LSTM"])
def test_a_policy_may_compute_in_double_precision(core: str, make_policy) -> None:
    task = TASKS["display"]
    policy = make_policy(task, core).double()
    rollout, _ = wild(policy, task)
    assert rollout.value.dtype == rollout.behavior_log_prob.dtype == torch.float32
    own = rollout.loss_mask & ~rollout.explored
    log_probs = forward(policy, rollout).log_probs.gather(-1, rollout.action[..., None])[..., 0]
    torch.testing.assert_close(rollout.behavior_log_prob[own], log_probs[own].float(), rtol=1e-5, atol=1e-5)
