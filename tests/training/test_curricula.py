from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelnative.policies.registry import named
from modelnative.training.config import CurriculumConfig
from modelnative.training.curricula import Hints
from modelnative.training.curriculum import Curriculum, Draw
from modelnative.training.registry import CURRICULA

LENGTHS, HORIZON = (6, 8, 12), 13


def new_curriculum(name: str, lengths: torch.Tensor, horizon: int, config: CurriculumConfig) -> Curriculum:
    return named("curriculum", name, CURRICULA, Curriculum)(lengths, horizon, config)


SEEDS = st.integers(0, 10**6)


def make(name: str, lengths: tuple[int, ...] = LENGTHS, **numbers: float) -> Curriculum:
    return new_curriculum(name, torch.tensor(lengths), HORIZON, CurriculumConfig(**numbers))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def play(curriculum: Curriculum, skill: list[float], rounds: int, seed: int = 0, n: int = 300) -> list[Draw]:
    """Rounds of a policy that succeeds at each stage with a fixed probability, whatever the hint."""
    source, draws = generator(seed), []
    for i in range(rounds):
        draw = curriculum.draw(n, source, i / rounds)
        curriculum.observe(draw, torch.rand(n, generator=source) < torch.tensor(skill)[draw.stage])
        draws.append(draw)
    return draws


def check_draw(draw: Draw, n: int) -> None:
    lengths = torch.tensor(LENGTHS)[draw.stage]
    for name in ("stage", "own_tokens", "delay", "reach"):
        tensor = getattr(draw, name)
        assert tensor.dtype == torch.int64
        assert tensor.shape == (n,)
    assert draw.explore.dtype == torch.float32
    assert draw.explore.shape == (n,)
    assert bool(((draw.stage >= 0) & (draw.stage < 3)).all())
    assert bool(((draw.own_tokens >= 1) & (draw.own_tokens <= HORIZON)).all())
    whole = draw.own_tokens == HORIZON
    assert bool(((draw.own_tokens < lengths) | whole).all()), "no hint is the horizon, not the program"
    assert bool(((draw.explore >= 0) & (draw.explore < 1)).all())
    assert bool(((draw.delay >= 0) & (draw.delay < HORIZON)).all())
    assert bool(((draw.reach >= 1) & (draw.reach <= HORIZON)).all())


# All curricula


@pytest.mark.parametrize("name", CURRICULA)
@given(seed=SEEDS, skill=st.lists(st.floats(0, 1), min_size=3, max_size=3), rounds=st.integers(1, 12))
def test_draws_are_valid(name: str, seed: int, skill: list[float], rounds: int) -> None:
    for draw in play(make(name), skill, rounds, seed, n=40):
        check_draw(draw, 40)


@pytest.mark.parametrize("name", CURRICULA)
def test_the_generator_decides_the_draws(name: str) -> None:
    before = torch.get_rng_state()
    one, two = (make(name).draw(50, generator(1), 0.4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.fields(), two.fields(), strict=True))
    other = make(name).draw(50, generator(2), 0.4)
    assert not all(torch.equal(a, b) for a, b in zip(one.fields(), other.fields(), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", CURRICULA)
@pytest.mark.parametrize("skill", [[0.97, 0.7, 0.3], [1.0, 1.0, 1.0]])
def test_its_state_is_the_whole_curriculum(name: str, skill: list[float]) -> None:
    """A copy by state_dict goes on exactly as the original."""
    original, copy = make(name), make(name)
    play(original, skill, 20)
    state = {key: value.clone() for key, value in original.state_dict().items()}
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    copy.load_state_dict(state)
    for one, two in zip(play(original, skill, 5, seed=9), play(copy, skill, 5, seed=9), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.fields(), two.fields(), strict=True))
    assert original.describe() == copy.describe()
    assert all(torch.equal(value, copy.state_dict()[key]) for key, value in original.state_dict().items())
    if name not in ("uniform", "tutorial", "discover"):  # those draw alike from the start to the end here
        fresh, later = (c.draw(300, generator(), 0.0) for c in (make(name), copy))
        assert not all(torch.equal(a, b) for a, b in zip(fresh.fields(), later.fields(), strict=True))


@pytest.mark.parametrize("name", CURRICULA)
def test_success_is_measured_without_hint_and_without_exploration(name: str) -> None:
    curriculum = make(name, success_ema=0.5)
    assert curriculum.seen.tolist() == [False] * 3
    stage = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    free = torch.tensor([HORIZON, HORIZON, HORIZON, 3, HORIZON, 2, 11])
    explore = torch.tensor([0.0, 0.0, 0.2, 0.0, 0.2, 0.0, 0.0])
    success = torch.tensor([True, False, True, True, True, True, True])
    curriculum.observe(Draw(stage, free, explore, torch.zeros_like(stage), torch.ones_like(stage)), success)
    assert curriculum.seen.tolist() == [True, False, False]
    assert curriculum.success.tolist() == [0.5, 0.0, 0.0]
    again = Draw(stage[:1], free[:1], explore[:1], stage[:1], stage[:1] + 1)
    curriculum.observe(again, success[:1])
    assert curriculum.success.tolist() == pytest.approx([0.75, 0.0, 0.0])


@pytest.mark.parametrize("name", [name for name in CURRICULA if name != "hints"])
def test_without_hints_the_policy_writes_all(name: str) -> None:
    for draw in play(make(name), [1.0, 0.8, 0.2], 20):
        assert draw.own_tokens.unique().tolist() == [HORIZON]


@pytest.mark.parametrize("name", [name for name in CURRICULA if name not in ("hints", "discover", "self-imitation")])
def test_exploration_fades_with_success(name: str) -> None:
    curriculum = make(name, explore=0.4)

    def exploring(success: float) -> float:
        curriculum.success.fill_(success)
        explore = curriculum.draw(4000, generator(), 0.0).explore
        assert explore.max() in (0.0, pytest.approx(0.4))
        return float((explore > 0).float().mean())

    assert exploring(0.0) == pytest.approx(0.5, abs=0.03), "some episodes measure the policy as it is"
    assert exploring(0.96) == pytest.approx(0.2, abs=0.03)
    assert exploring(1.0) == 0.0


# Each


def shares(curriculum: Curriculum, progress: float = 0.0, n: int = 6000) -> list[float]:
    stage = curriculum.draw(n, generator(), progress).stage
    return (torch.bincount(stage, minlength=3) / n).tolist()


def test_uniform_draws_all_stages_alike() -> None:
    assert shares(make("uniform")) == pytest.approx([1 / 3] * 3, abs=0.03)


def test_threshold_opens_stages_in_order_and_forgets_none() -> None:
    curriculum, skill = make("threshold"), [0.0, 1.0, 1.0]
    play(curriculum, skill, 30)
    assert shares(curriculum) == [1.0, 0.0, 0.0]
    assert curriculum.describe() == ["", "locked", "locked"]
    play(curriculum, [1.0, 0.1, 1.0], 60)
    assert curriculum.describe() == ["", "", "locked"]
    first = shares(curriculum)
    assert 0 < first[0] < first[1], "the stage that fails gets more, the solved one a little"
    assert first[2] == 0
    play(curriculum, [1.0, 1.0, 0.0], 60)
    assert curriculum.describe() == ["", "", ""]
    assert min(shares(curriculum)) > 0
    play(curriculum, [0.0, 0.0, 0.0], 60)
    assert curriculum.describe() == ["", "", ""], "an open stage stays open"
    assert shares(curriculum) == pytest.approx([1 / 3] * 3, abs=0.05)


def test_threshold_opens_one_stage_at_a_time() -> None:
    curriculum = make("threshold")
    opened = []
    for _ in range(60):
        play(curriculum, [1.0] * 3, 1)
        opened.append(curriculum.describe().count(""))
    assert opened == sorted(opened)
    assert {1, 2, 3} >= set(opened)
    assert opened[-1] == 3
    assert max(b - a for a, b in zip([1, *opened], opened, strict=False)) == 1


def test_learnability_weighs_by_p_times_one_minus_p() -> None:
    curriculum = make("learnability", min_stage_weight=0.01)
    assert shares(curriculum) == pytest.approx([1 / 3] * 3, abs=0.03)
    curriculum.success.copy_(torch.tensor([0.5, 0.9, 1.0]))
    curriculum.seen.fill_(True)
    weights = torch.tensor([0.25, 0.09, 0.0]) + 0.01
    assert shares(curriculum) == pytest.approx((weights / weights.sum()).tolist(), abs=0.03)


def test_regret_is_what_the_oracle_does_better() -> None:
    curriculum = new_curriculum("regret", torch.tensor([6, 8, 0]), HORIZON, CurriculumConfig(min_stage_weight=0.05))
    curriculum.success.copy_(torch.tensor([0.9, 0.5, 0.0]))
    weights = torch.tensor([0.1, 0.5, 0.05])
    assert shares(curriculum) == pytest.approx((weights / weights.sum()).tolist(), abs=0.03)


def test_progress_goes_where_success_changes() -> None:
    curriculum = make("progress")
    play(curriculum, [0.0, 0.0, 0.0], 20)
    assert shares(curriculum) == pytest.approx([1 / 3] * 3, abs=0.03), "nothing moves"
    play(curriculum, [0.0, 1.0, 0.0], 5)
    rising = shares(curriculum)
    assert rising[1] > 0.7
    assert min(rising) > 0, "the others are looked at now and then"
    play(curriculum, [0.0, 1.0, 0.0], 400)
    assert shares(curriculum)[1] < 0.5, "what was learned long ago is no progress"
    play(curriculum, [0.0, 0.2, 0.0], 5)
    assert shares(curriculum)[1] > 0.7, "forgetting counts, too"


def test_the_bandit_prefers_what_succeeds_half_of_the_time() -> None:
    curriculum = make("bandit")
    assert shares(curriculum) == pytest.approx([1 / 3] * 3, abs=0.03), "everything is tried"
    play(curriculum, [1.0, 0.5, 0.0], 200)
    preferred = shares(curriculum)
    assert preferred[1] > 0.8
    assert preferred[0] == pytest.approx(preferred[2], abs=0.03)


def test_the_bandit_maintains_what_is_solved() -> None:
    curriculum = make("bandit", min_stage_weight=0.08)
    play(curriculum, [1.0, 0.5, 0.0], 200)
    floor = 0.08 / 1.16
    assert shares(curriculum, n=20_000) == pytest.approx([floor, 1 - 2 * floor, floor], abs=0.01)


def test_tutorial_keeps_to_its_schedule() -> None:
    curriculum = make("tutorial")
    for progress, stage in [(0, 0), (0.49, 0), (0.51, 1), (0.82, 1), (0.84, 2), (0.999, 2), (1.0, 2)]:
        assert shares(curriculum, progress, 20)[stage] == 1.0
    single = new_curriculum("tutorial", torch.tensor([6]), HORIZON, CurriculumConfig())
    assert single.draw(5, generator(), 0.9).stage.tolist() == [0] * 5


# Hints


def test_hints_start_with_one_free_token() -> None:
    draw = make("hints").draw(200, generator(), 0.0)
    assert draw.own_tokens.unique().tolist() == [1]
    assert draw.delay.unique().tolist() == [0]
    assert draw.reach.unique().tolist() == [1]


def test_the_frontier_moves_only_past_the_threshold() -> None:
    curriculum = make("hints", threshold=0.5)
    stage = torch.zeros(10, dtype=torch.int64)
    draw = Draw(stage, torch.ones_like(stage), torch.full((10,), 0.3), stage, stage + 1)
    frontiers = []
    for wins in (0, 5, 6, 10):
        curriculum.observe(draw, torch.arange(10) < wins)
        frontiers.append(curriculum.frontier.tolist())
    assert frontiers == [[1, 1, 1], [1, 1, 1], [2, 1, 1], [3, 1, 1]]
    below = dataclasses.replace(draw, explore=torch.zeros(10))
    curriculum.observe(below, torch.ones(10, dtype=torch.bool))
    assert curriculum.frontier.tolist() == [3, 1, 1], "episodes below the frontier do not move it"


@given(SEEDS, st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_the_frontier_never_goes_back(seed: int, skill: list[float]) -> None:
    curriculum = make("hints")
    assert isinstance(curriculum, Hints)
    source, before = generator(seed), (curriculum.frontier.clone(), curriculum.complete.clone())
    for _ in range(25):
        draw = curriculum.draw(60, source, 0.0)
        wins = torch.rand(60, generator=source) < torch.tensor(skill)[draw.stage] * torch.rand(1, generator=source)
        curriculum.observe(draw, wins)
        step = curriculum.frontier - before[0]
        assert bool(((step == 0) | (step == 1)).all())
        assert bool((curriculum.complete | ~before[1]).all())
        assert bool((curriculum.frontier <= curriculum.lengths).all())
        before = curriculum.frontier.clone(), curriculum.complete.clone()


def test_hints_end_and_then_there_are_none() -> None:
    curriculum = make("hints")
    draws = play(curriculum, [1.0] * 3, 60)
    assert curriculum.complete.tolist() == [True] * 3
    assert curriculum.describe() == [""] * 3
    last = curriculum.draw(500, generator(), 0.0)
    assert last.own_tokens.unique().tolist() == [HORIZON]
    assert not bool(last.explore.any())
    assert {int(f) for draw in draws for f in draw.own_tokens} >= set(range(1, 12))


def test_a_stage_that_does_not_succeed_keeps_its_hints() -> None:
    curriculum = make("hints")
    play(curriculum, [1.0, 0.0, 1.0], 60)
    assert curriculum.frontier.tolist() == [6, 1, 12]
    assert curriculum.complete.tolist() == [True, False, True]
    assert curriculum.describe() == ["", "1/8 free", ""]
    draw = curriculum.draw(3000, generator(), 0.0)
    assert draw.own_tokens[draw.stage == 1].unique().tolist() == [1]
    assert min(shares(curriculum)) > 0


def test_only_the_frontier_is_explored() -> None:
    curriculum = make("hints", frontier=0.5, explore=0.2)
    play(curriculum, [0.8] * 3, 3)
    frontier = curriculum.frontier
    assert bool((frontier < curriculum.lengths).all())
    draw = curriculum.draw(4000, generator(), 0.0)
    explored = draw.explore > 0
    assert bool((draw.own_tokens[explored] == frontier[draw.stage][explored]).all())
    assert draw.explore[explored].unique().tolist() == pytest.approx([0.2])
    assert explored.float().mean() == pytest.approx(0.5, abs=0.05)
    assert draw.reach.unique().tolist() == [1], "the first token that is free"
    rest = draw.own_tokens[~explored & (draw.stage == 2)]
    counts = torch.bincount(rest)[1:]
    assert len(counts) == frontier[2]
    assert float(counts.min() / counts.max()) > 0.6, "the others are uniform up to the frontier"


def test_a_stage_that_is_stuck_without_hints_explores_anywhere() -> None:
    curriculum = make("hints", explore=0.3, success_ema=0.0)
    play(curriculum, [1.0] * 3, 60)
    assert curriculum.describe() == [""] * 3
    assert not bool(curriculum.draw(2000, generator(), 0.0).explore.any()), "nothing fails"
    play(curriculum, [1.0, 1.0, 0.0], 40)
    draw = curriculum.draw(4000, generator(), 0.0)
    stuck = draw.stage == 2
    assert not bool(draw.explore[~stuck].any())
    assert (draw.explore[stuck] > 0).float().mean() == pytest.approx(0.5, abs=0.05)
    assert draw.delay[stuck].unique().tolist() == list(range(12)), "at any place of its program"
    assert draw.own_tokens[stuck].unique().tolist() == [HORIZON], "and still without a hint"


def test_hints_work_without_exploration() -> None:
    """The frontier moves by the episodes at the frontier, explored or not."""
    curriculum = make("hints", explore=0.0)
    for draw in play(curriculum, [1.0] * 3, 60):
        assert not bool(draw.explore.any())
    assert curriculum.describe() == [""] * 3


def test_a_stage_whose_oracle_fails_gets_no_hints() -> None:
    """Its length is given as 0, and it is played whole from the start, whatever the others do."""
    curriculum = make("hints", (6, 0, 12))
    assert isinstance(curriculum, Hints)
    for skill in ([0.0] * 3, [1.0, 0.2, 1.0]):
        for draw in play(curriculum, skill, 40):
            blocked = draw.stage == 1
            assert bool(blocked.any())
            assert draw.own_tokens[blocked].unique().tolist() == [HORIZON]
    assert curriculum.describe() == ["", "", ""]
    assert curriculum.success[1] == pytest.approx(0.2, abs=0.1)
    for name in CURRICULA:
        draw = make(name, (6, 0, 12)).draw(500, generator(), 0.7)
        assert bool((draw.own_tokens[draw.stage == 1] == HORIZON).all())
