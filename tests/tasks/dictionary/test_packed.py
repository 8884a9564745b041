"""Words of sixteen numbers, and orders."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelnative.tasks.dictionary.packed import gathered, order, rank, signed

numbers = st.lists(st.integers(0, 15), min_size=1, max_size=16)


def word(content):
    return signed(sum(number << 4 * i for i, number in enumerate(content)))


def content(packed, count):
    return [packed >> 4 * i & 15 for i in range(count)]


@given(numbers, st.data())
def test_gathering_is_indexing(held, data):
    places = data.draw(st.lists(st.integers(0, len(held) - 1), max_size=16))
    found = gathered(torch.tensor([word(held)]), torch.tensor([word(places)]), len(places))
    assert found.tolist() == [word([held[place] for place in places])]


@pytest.mark.parametrize(("size", "count"), [(1, 1), (3, 2), (4, 4), (5, 3), (16, 2), (16, 4)])
def test_orders_are_all_permutations_in_the_order_of_their_rank(size, count):
    chosen = order(torch.arange(math.perm(size, count)), size, count)
    listed = [tuple(content(packed, count)) for packed in chosen.tolist()]
    assert sorted(listed) == list(itertools.permutations(range(size), count))
    for row in {0, 1, len(listed) // 3, len(listed) - 1} & set(range(len(listed))):
        assert rank(listed[row], size) == row


@given(st.permutations(range(16)), st.integers(1, 16))
def test_every_order_is_found_from_its_rank(permutation, count):
    chosen = list(permutation[:count])
    found = order(torch.tensor([rank(chosen, 16)]), 16, count)
    assert content(found.item(), count) == chosen
