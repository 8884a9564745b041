"""The vocabulary and the lookup tables of `dictionary`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.dictionary.packed import PackedOrders, orders

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
class DictionaryTables:
    """Lookup tables.

    Attributes:
        pairs, queries: int64 [stages], the number of pairs K and the number of queries.
        mask: int64 [stages], the bits of K numbers of a word.
        orders: int64 [stages], number of orders of keys and queries.
        choices, first: int64 [stages], number of orders of the queries, and the index of the first one in `places`.
        places: int64, words of the indices of the queried pairs, stage after stage.
        keys: unpacks the number of an order of keys to a word.
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
    keys: PackedOrders
    moves: Tensor
    token: Tensor
    word: Tensor
    shift: Tensor


def make_tables(
    pairs: tuple[int, ...], queries: tuple[int, ...], horizon: int, store: bool, device: torch.device
) -> DictionaryTables:
    """Make the tables of the stages with `pairs` and `queries`, on `device`."""
    choices = [math.perm(k, q) for k, q in zip(pairs, queries, strict=True)]
    places = [orders(k, q)[0] for k, q in zip(pairs, queries, strict=True)]
    programs = [_program(k, q, store) for k, q in zip(pairs, queries, strict=True)]
    padded = torch.tensor([program + [(EOS, -1, 0)] * (horizon - len(program)) for program in programs])
    token, word, shift = (column.contiguous().to(device) for column in padded.unbind(2))

    def column(numbers: Iterable[int]) -> Tensor:
        return torch.tensor(list(numbers), device=device)

    return DictionaryTables(
        pairs=column(pairs),
        queries=column(queries),
        mask=column((1 << 4 * k) - 1 if k < SYMBOLS else -1 for k in pairs),
        orders=column(math.perm(SYMBOLS, k) * c for k, c in zip(pairs, choices, strict=True)),
        choices=column(choices),
        first=column(sum(choices[:s]) for s in range(len(pairs))),
        places=torch.cat(places).to(device),
        keys=PackedOrders(pairs[-1], device),
        moves=_moves().to(device),
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
