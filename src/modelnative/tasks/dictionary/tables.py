"""The vocabulary and the lookup tables of `dictionary`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.dictionary.packed import order

SYMBOLS = 16  # number of keys and of values
KEYS = "abcdefghijklmnop"
VALUES = tuple(map(str, range(SYMBOLS)))
CTX, NEXT, ASK, EOS, PUT, GET = range(2 * SYMBOLS, 2 * SYMBOLS + 6)
VOCABULARY = (*KEYS, *VALUES, "CTX", "NEXT", "ASK", "EOS", "PUT", "GET")  # PUT and GET only with the store
# Modes with the store: which token a call needs next, a result is displayed, the episode is over.
IDLE, PUT_KEY, PUT_VALUE, GET_KEY, FOUND, OVER = range(6)
# The effects of a key besides the next mode.
HOLDS, WRITES, MOVES, ANSWERS = 8, 16, 32, 64


@dataclass
class DictionaryTables(Batch):
    """Lookup tables.

    Attributes:
        pairs, queries: int64 [stages], the number of pairs K and the number of queries.
        mask: int64 [stages], the bits of K numbers of a word.
        orders: int64 [stages], number of orders of keys and queries.
        choices, first: int64 [stages], number of orders of the queries, and the index of the first one in `places`.
        places: int64, words of the indices of the queried pairs, stage after stage.
        moves: int64, the effect of a key with the store, for each (mode, whether a value is queried, key).
        token, word, shift: int64 [stages, horizon], the oracle's program: a token, or the symbol at bit `shift` of one
            of the words keys, values, queried keys and queried values (0 to 3; −1 for a token).
    """

    pairs: Tensor
    queries: Tensor
    mask: Tensor
    orders: Tensor
    choices: Tensor
    first: Tensor
    places: Tensor
    moves: Tensor
    token: Tensor
    word: Tensor
    shift: Tensor


def make_tables(pairs: tuple[int, ...], queries: tuple[int, ...], horizon: int, store: bool) -> DictionaryTables:
    """Make the tables of the stages with `pairs` and `queries`, on the CPU."""
    stages = list(zip(pairs, queries, strict=True))
    choices = torch.tensor([math.perm(k, q) for k, q in stages])
    programs = [_program(k, q, store) for k, q in stages]
    padded = torch.tensor([program + [(EOS, -1, 0)] * (horizon - len(program)) for program in programs])
    token, word, shift = padded.permute(2, 0, 1).contiguous()
    return DictionaryTables(
        pairs=torch.tensor(pairs),
        queries=torch.tensor(queries),
        mask=torch.tensor([(1 << 4 * k) - 1 if k < SYMBOLS else -1 for k in pairs]),
        orders=torch.tensor([math.perm(SYMBOLS, k) for k in pairs]) * choices,
        choices=choices,
        first=choices.cumsum(0) - choices,
        places=torch.cat([order(torch.arange(math.perm(k, q)), k, q) for k, q in stages]),
        moves=_moves(),
        token=token,
        word=word,
        shift=shift,
    )


def _program(pairs: int, queries: int, store: bool) -> list[tuple[int, int, int]]:
    """The oracle's program: token, word and shift of each step; the tokens of values begin at 16."""
    program = []
    for i in range(pairs):
        put = [(PUT, -1, 0), (0, 0, 4 * i), (SYMBOLS, 1, 4 * i)] if store else []
        program += [*put, (NEXT, -1, 0)]
    for i in range(queries):
        get = [(GET, -1, 0), (0, 2, 4 * i)] if store else []
        program += [*get, (SYMBOLS, 3, 4 * i)]
    return program


def _moves() -> Tensor:
    """The effects of the keys with the store: the next mode and flags."""
    moves = torch.full((6, 2, len(VOCABULARY)), OVER)
    reading, querying = 0, 1
    keys, values = slice(0, SYMBOLS), slice(SYMBOLS, 2 * SYMBOLS)
    moves[IDLE, reading, NEXT] = IDLE | MOVES
    moves[IDLE, reading, PUT] = PUT_KEY
    moves[PUT_KEY, reading, keys] = PUT_VALUE | HOLDS
    moves[PUT_VALUE, reading, values] = IDLE | WRITES
    moves[IDLE, querying, GET] = moves[FOUND, querying, GET] = GET_KEY
    moves[GET_KEY, querying, keys] = FOUND | HOLDS
    moves[FOUND, querying, values] = OVER | ANSWERS
    return moves.flatten()
