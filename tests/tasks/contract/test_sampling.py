"""Problems drawn by rejection, and keys made from content."""

import pytest
import torch

from modelnative.errors import UserError
from modelnative.tasks.contract.sampling import content_key, draw_within
from modelnative.tasks.contract.task import Problems, in_split


def numbers(generator, most=1000):
    def draw(stage):
        number = torch.randint(most, stage.shape, generator=generator)
        return Problems(stage, number[:, None], number)

    return draw


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_draws_stay_in_the_split_and_are_uniform_there(split):
    stage = torch.arange(50_000) % 3
    problems = draw_within(split, stage, numbers(torch.Generator().manual_seed(0)))
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

    with pytest.raises(UserError, match="heldout"):
        draw_within("heldout", torch.zeros(2, dtype=torch.int64), draw)


def test_keys_tell_contents_apart():
    content = torch.cartesian_prod(*[torch.arange(-3, 20)] * 4)
    assert content_key(content).unique().numel() == len(content)
    assert not torch.equal(content_key(content[:, :3]), content_key(content[:, 1:]))
