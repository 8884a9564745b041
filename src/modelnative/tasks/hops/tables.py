"""Lookup tables of `hops`: the ways to write the number of hops, and the effect of each key."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch


@dataclass
class HopsTables(Batch):
    """Lookup tables: the ways to write the number of hops, and the effect of each key.

    The effects have one row for each (mode, key), with the key changing fastest. The modes are, in this order: one for
    each chosen tool, no tool chosen, ANS pressed, answered, ended without an answer.

    Attributes:
        mode: int64, the mode after the key.
        shown: int64, the token that is displayed; −1 if the display does not change or shows the result of a call.
        word, shift: int64, the position in `maps` of the result of a call.
        calls, answers, done, invalid: bool, the key calls a tool; gives the answer; the episode is over after it; it
            has no effect.
        rows: int16 [rows, tokens], all ways to write the number of hops, followed by CTX; stage after stage.
        first: int64 [stages], the first row of each stage.
        ways: int64 [stages], the number of rows of each stage.
    """

    mode: Tensor
    shown: Tensor
    word: Tensor
    shift: Tensor
    calls: Tensor
    answers: Tensor
    done: Tensor
    invalid: Tensor
    rows: Tensor
    first: Tensor
    ways: Tensor


def ways_to_write(h: int, hops: int, count_as: str, marks: tuple[int, int, int], width: int, ctx: int) -> Tensor:
    """Return all ways to write h hops, as the last tokens of a context: int16 [ways, tokens].

    Args:
        h: the number of hops.
        hops: the largest number.
        count_as: see `count` of `Hops`.
        marks: the tokens of the digit 0, of HOP and of GAP.
        width: digits of a number.
        ctx: the last token.
    """
    first_digit, hop, gap = marks
    if count_as == "digits":
        tokens = [[first_digit + int(digit) for digit in f"{h:0{width}d}"]]
    else:
        ways: Iterable[Sequence[int]] = [range(h)]
        if count_as == "scattered":
            ways = itertools.combinations(range(hops), h)
        elif count_as == "shifted":
            ways = [range(first, first + h) for first in range(hops - h + 1)]
        tokens = [[hop if place in marked else gap for place in range(hops)] for marked in map(set, ways)]
    return torch.tensor([[*row, ctx] for row in tokens], dtype=torch.int16)


def make_tables(rows: list[Tensor], maps: int, size: int, words: int, per: int, bits: int, keys: int) -> HopsTables:
    """Make the tables.

    Args:
        rows: the ways to write the hops of each stage.
        maps: the number of maps.
        size: the number of nodes.
        words, per, bits: of a packed map; see `Packing`.
        keys: the number of tokens; ANS and EOS are the last two.
    """
    ways = torch.tensor([len(part) for part in rows])
    none, answering, answered, ended = range(maps, maps + 4)
    mode, key = torch.meshgrid(torch.arange(maps + 4), torch.arange(keys), indexing="ij")
    mode, key = mode.flatten(), key.flatten()
    running, node, tool = mode <= answering, key < size, key - size
    calls, answers = node & (mode < none), node & (mode == answering)
    chooses = running & (tool >= 0) & (tool < maps) & (tool != mode) & (maps > 1)
    prepares, ends = running & (key == keys - 2) & (mode != answering), running & (key == keys - 1)
    after = torch.where(chooses, tool, mode)
    for effect, then in ((prepares, answering), (answers, answered), (ends, ended)):
        after = after.masked_fill(effect, then)
    shown = torch.where(answers, key, torch.where(chooses | prepares | ends, keys - 1, -1))
    node = torch.where(calls, key, 0)
    return HopsTables(
        mode=after,
        shown=shown,
        word=mode * calls * words + node // per,
        shift=node % per * bits,
        calls=calls,
        answers=answers,
        done=after > answering,
        invalid=running & ~(calls | chooses | prepares | answers | ends),
        rows=torch.cat(rows),
        first=ways.cumsum(0) - ways,
        ways=ways,
    )
