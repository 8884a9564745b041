"""Draws by rejection, and keys made from content."""

import pytest
import torch

from modelnative.errors import UserError
from modelnative.tasks.contract.sampling import content_key, draw_within
from modelnative.tasks.contract.task import Problems, in_split


def numbers_from(generator, most=1000):
    def draw(stage):
        number = torch.randint(most, stage.shape, generator=generator)
        return Problems(stage, number[:, None], number)

    return draw


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_draws_stay_in_the_split_and_are_uniform_there(split):
    stage = torch.arange(50_000) % 3
    problems = draw_within(split, stage, numbers_from(torch.Generator().manual_seed(0)))
    assert torch.equal(problems.stage, stage)
    assert torch.equal(problems.context[:, 0], problems.key)
    inside = torch.arange(1000)[in_split(torch.arange(1000), split)]
    assert torch.equal(problems.key.unique(), inside)
    counts = problems.key.bincount(minlength=1000)[inside].double()
    expected = len(stage) / len(inside)
    assert (counts - expected).abs().max() < 6 * expected**0.5


def test_an_empty_split_is_named():
    train = int(torch.arange(1000)[in_split(torch.arange(1000), "train")][0])

    def draw(stage):
        same = torch.full_like(stage, train)
        return Problems(stage, same[:, None], same)

    with pytest.raises(UserError, match="split: 'heldout' has no problem of stage 7"):
        draw_within("heldout", torch.full((2,), 7), draw)


def test_keys_tell_contents_apart():
    content = torch.cartesian_prod(*[torch.arange(-3, 20)] * 4)
    assert content_key(content).unique().numel() == len(content)
    assert not torch.equal(content_key(content[:, :3]), content_key(content[:, 1:]))


# Numbers

SIZES = torch.tensor([300, 1000, 50])


def number_key(stage, numbers):
    return stage * 10_000 + numbers[:, 0] * 10 + numbers[:, 1]


def drawn_numbers(split, stage, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(stage):
        unit = torch.rand(len(stage), generator=generator, dtype=torch.float64)
        number = (unit * SIZES[stage]).long()
        numbers = torch.stack([number // 10, number % 10], 1)
        return Problems(stage, numbers, number_key(stage, numbers))

    return draw_within(split, stage, draw, copies=6).context


@pytest.mark.parametrize("split", ["all", "train", "heldout"])
def test_numbers_stay_in_the_split_and_are_uniform_there(split):
    stage = torch.arange(120_000) % 3
    numbers = drawn_numbers(split, stage)
    assert bool(in_split(number_key(stage, numbers), split).all())
    for s, size in enumerate(SIZES.tolist()):
        number = torch.arange(size)
        inside = number[
            in_split(number_key(torch.full((size,), s), torch.stack([number // 10, number % 10], 1)), split)
        ]
        counts = (numbers[stage == s] * torch.tensor([10, 1])).sum(1).bincount(minlength=size)[inside].double()
        assert int(counts.sum()) == 40_000
        expected = 40_000 / len(inside)
        chi = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi - (len(inside) - 1)) < 5 * (2 * len(inside)) ** 0.5


@pytest.mark.parametrize("copies", [1, 6])
def test_single_numbers(copies):
    generator = torch.Generator().manual_seed(0)

    def draw(stage):
        number = torch.randint(1000, stage.shape, generator=generator)
        return Problems(stage, number, number)

    problems = draw_within("heldout", torch.zeros(5000, dtype=torch.int64), draw, copies)
    assert torch.equal(problems.context.unique(), torch.arange(1000)[in_split(torch.arange(1000), "heldout")])
