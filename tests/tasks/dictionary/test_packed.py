"""Words of sixteen numbers, and orders."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelnative.tasks.dictionary.packed import PackedOrders, gathered, orders, rank, signed

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
    chosen, left = orders(size, count)
    listed = [tuple(content(packed, count)) for packed in chosen.tolist()]
    assert sorted(listed) == list(itertools.permutations(range(size), count))
    for row in {0, 1, len(listed) // 3, len(listed) - 1} & set(range(len(listed))):
        assert rank(listed[row], size) == row
        assert content(int(left[row]), size - count) == sorted(set(range(size)) - set(listed[row]))


@given(st.permutations(range(16)), st.integers(1, 16))
def test_every_order_is_found_from_its_rank(permutation, count):
    chosen = list(permutation[:count])
    found = PackedOrders(count, torch.device("cpu"))(torch.tensor([rank(chosen, 16)]))
    assert content(found.item(), count) == chosen
