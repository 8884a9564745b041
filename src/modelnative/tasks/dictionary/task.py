"""Associative memory: pairs of key and value stream by, then keys are asked; with a store to write to, or without."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.errors import UserError
from modelnative.tasks.contract.sampling import numbers_within
from modelnative.tasks.contract.task import (
    Problems,
    Split,
    State,
    Step,
    Task,
    TaskSpec,
    in_split,
    mixed,
    replace,
    require,
)
from modelnative.tasks.dictionary.packed import Orders, gathered, orders, rank, signed

SYMBOLS = 16  # keys, and values
KEYS = "abcdefghijklmnop"
VALUES = tuple(map(str, range(SYMBOLS)))
CTX, NEXT, ASK, EOS, PUT, GET = range(2 * SYMBOLS, 2 * SYMBOLS + 6)
VOCABULARY = (*KEYS, *VALUES, "CTX", "NEXT", "ASK", "EOS", "PUT", "GET")  # the last two only with the store
PAIRS = (1, 2, 4, 8, 16)  # of the stages, as far as the option goes
ORDERS = 1 << 16  # in which keys can be asked, at most
LISTED = 200_000  # a stage with no more problems than this is listed

# What a call of the store waits for, and how an episode with the store ends.
IDLE, PUT_KEY, PUT_VALUE, GET_KEY, FOUND, OVER = range(6)
# What a key does, beside leading to another mode.
HOLDS, WRITES, MOVES, ANSWERS = 8, 16, 32, 64


@dataclass
class DictionaryProblems(Problems):
    """Adds the pairs and what is asked, as words of sixteen numbers (see `words.py`).

    Attributes:
        keys, values: int64 [n], of the pairs, in the order in which they are shown; 0 after the last one.
        places: int64 [n], which of the pairs are asked, in order; 0 after the last one.
    """

    keys: Tensor
    values: Tensor
    places: Tensor


@dataclass
class Reading(State):
    """An episode under way.

    Attributes:
        keys, values: int64 [n], words; the lowest four bits are the pair that is shown or asked now.
        asked, truth: int64 [n], words; keys and values of the pairs that will be asked.
        place: int64 [n], minus the pairs not yet gone by; then the right answers given.
        queries: int64 [n], how many pairs are asked.
        wrong: int64 [n], the value that was answered wrongly; −1 without one.
        mode: int64 [n], what a call of the store waits for; IDLE without the store.
        held: int64 [n], the key that was typed last into a call.
        store: int64 [n], a word; the value written for each key.
        filled: int64 [n], a bit for each key with a value.
    """

    keys: Tensor
    values: Tensor
    asked: Tensor
    truth: Tensor
    place: Tensor
    queries: Tensor
    wrong: Tensor
    mode: Tensor
    held: Tensor
    store: Tensor
    filled: Tensor


class Dictionary(Task[DictionaryProblems, Reading]):
    """K pairs of a key and a value stream by, then the values of some keys are asked: associative recall.

    This is multi-query associative recall (MQAR; Arora et al., 2023) as episodes. The feedback shows one pair at a
    time, such as `c 7`; NEXT shows the next one, and after the last one the first query, such as `a ASK`. A right value
    brings the next query, or success after the last one; a wrong one ends the episode. The keys of a problem are
    distinct, and so are the queries. The context is `CTX` and tells nothing.

    Without the store the network must keep the pairs. A key for which there is no use ends the episode:

    | key | while pairs are shown | while a value is asked |
    |---|---|---|
    | NEXT | the next pair, or the first query | ends the episode |
    | a value | ends the episode | is the answer |
    | others | ends the episode | ends the episode |

    With the store, answers must be read from it, so that it measures the use of a tool and not of the network's memory:

    | key | while pairs are shown | while a value is asked |
    |---|---|---|
    | PUT, then a key and a value | writes what was typed (not what is shown) | ends the episode |
    | GET, then a key | ends the episode | shows the key and what was written for it, blank if nothing |
    | a value | ends the episode | after GET of the key that is asked, and if it is what GET shows, the answer |
    | NEXT | as above | ends the episode |

    While a call is typed the display is blank: a pair must be kept for two tokens, whatever K is.

    The oracle's program is the shortest success. With the store it is the shortest of those that succeed whatever will
    be asked, as nobody can know that in time: `PUT key value NEXT` for every pair, `GET key value` for every query.

    Always the same values, after as many NEXT, are right one time in 16^Q; so is an agent without memory, or one that
    does not see the pairs: 6% with one pair, 0.4% with more. With the store they reach less still, as none of them can
    copy a pair into it.

    Args:
        pairs: K of the last stage, 1 to 16; those before it have 1, 2, 4, 8.
        queries: Q, at least 1; a stage with fewer pairs asks all of them.
        store: whether there are the tools PUT and GET.

    Example:
        >>> task = Dictionary(pairs=2, queries=1)
        >>> problem = task.parse(1, "c=7 a=15 ? a")
        >>> task.render(problem, 0)
        'c=7 a=15; asked: a'
        >>> " ".join(task.spec.vocabulary[t] for t in task.oracle(problem)[0])
        'NEXT NEXT 15'
        >>> task = Dictionary(pairs=1, store=True)
        >>> " ".join(task.spec.vocabulary[t] for t in task.oracle(task.parse(0, "c=7 ? c"))[0])
        'PUT c 7 NEXT GET c 7'
    """

    def __init__(self, pairs: int = 8, queries: int = 2, store: bool = False) -> None:
        require(1 <= pairs <= SYMBOLS, "pairs", pairs, f"a number from 1 to {SYMBOLS}")
        most = max(q for q in range(1, SYMBOLS + 1) if math.perm(pairs, min(q, pairs)) <= ORDERS)
        require(1 <= queries <= most, "queries", queries, f"a number from 1 to {most}, with {pairs} pairs")
        self.store = store
        self.most = queries
        self.pairs = (*(count for count in PAIRS if count < pairs), pairs)
        self.queries = tuple(min(queries, count) for count in self.pairs)
        self._tables: dict[torch.device, Tables] = {}
        self.spec = TaskSpec(
            name="dictionary",
            vocabulary=VOCABULARY if store else VOCABULARY[:PUT],
            stages=tuple(f"K{count}" for count in self.pairs),
            context_length=1,
            feedback_width=2,
            horizon=max(self._length(stage) for stage in range(len(self.pairs))),
            start=CTX,
            end=EOS,
        )

    def options(self) -> dict[str, Any]:
        return {"pairs": self.pairs[-1], "queries": self.most, "store": self.store}

    def _length(self, stage: int) -> int:
        """Of the oracle's program."""
        return self.pairs[stage] * (4 if self.store else 1) + self.queries[stage] * (3 if self.store else 1)

    def tables(self, device: torch.device) -> Tables:
        """What is looked up, on `device`."""
        if device not in self._tables:
            self._tables[device] = _tables(self.pairs, self.queries, self.spec.horizon, self.store, device)
        return self._tables[device]

    # Episodes

    def begin(self, problems: DictionaryProblems) -> Reading:
        tables = self.tables(problems.stage.device)
        zero = torch.zeros_like(problems.stage)
        return Reading(
            done=zero.bool(),
            keys=problems.keys,
            values=problems.values,
            asked=gathered(problems.keys, problems.places, self.queries[-1]),
            truth=gathered(problems.values, problems.places, self.queries[-1]),
            place=-tables.pairs.index_select(0, problems.stage),
            queries=tables.queries.index_select(0, problems.stage),
            wrong=zero - 1,
            mode=zero,
            held=zero,
            store=zero,
            filled=zero,
        )

    def step(self, state: Reading, action: Tensor) -> Step[Reading]:
        asking = state.place >= 0
        if self.store:
            row = torch.add(action, torch.add(asking, state.mode, alpha=2), alpha=len(VOCABULARY))
            word = self.tables(action.device).moves.index_select(0, row)
            stored, known = _looked_up(state)
            read = (word & ANSWERS > 0) & known & (state.held == state.keys & 15) & (action == stored)
            after, right, finished = _onward(state, action, word & MOVES > 0, read)
            after = _written(after, action, word, right & ~finished)
        else:
            nexts = ~state.done & ~asking & (action == NEXT)
            after, right, finished = _onward(state, action, nexts, ~state.done & asking & (action >> 4 == 1))
            after = replace(after, done=finished | ~(nexts | right))
        return Step(after, self.feedback(after), finished.float(), after.done, finished, torch.zeros_like(finished))

    def feedback(self, state: Reading) -> Tensor:
        key = state.keys & 15
        value = torch.where(state.place < 0, state.values & 15 | SYMBOLS, ASK)
        if self.store:
            stored, known = _looked_up(state)
            found = state.mode == FOUND
            blank = ~found & (state.mode != IDLE)
            key = torch.where(found, state.held, key).masked_fill(blank, EOS)
            value = torch.where(found, stored, value).masked_fill(blank | (found & ~known), EOS)
        return torch.stack([key, value], 1)

    def oracle(self, problems: DictionaryProblems) -> Tensor:
        tables, state = self.tables(problems.stage.device), self.begin(problems)
        token, word, shift = (t.index_select(0, problems.stage) for t in (tables.token, tables.word, tables.shift))
        words = torch.stack([state.keys, state.values, state.asked, state.truth], 1)
        return torch.where(word < 0, token, words.gather(1, word.clamp_min(0)) >> shift & 15 | token)

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> DictionaryProblems:
        tables = self.tables(stage.device)

        def draw(stage: Tensor) -> Tensor:
            order = torch.randint(1 << 62, stage.shape, generator=generator, device=stage.device)
            values = torch.randint(-(1 << 63), (1 << 63) - 1, stage.shape, generator=generator, device=stage.device)
            # There are at most 2⁶⁰ orders, and far fewer by default: what a division leaves of 2⁶² favours none much.
            order = order % tables.orders.index_select(0, stage)
            return torch.stack([order, values & tables.mask.index_select(0, stage)], 1)

        def key(stage: Tensor, numbers: Tensor) -> Tensor:
            return _key(tables.pairs.index_select(0, stage), *numbers.unbind(1))

        return self._problems(stage, *numbers_within(split, stage, draw, key).unbind(1))

    def enumerate(self, stage: int, split: Split = "all", chunk: int = 1 << 15) -> Iterator[DictionaryProblems]:
        for numbers in self._all(stage, split).split(chunk):
            count = 4 * self.pairs[stage]
            yield self._problems(torch.full_like(numbers, stage), numbers >> count, numbers & (1 << count) - 1)

    def count(self, stage: int, split: Split = "all") -> int:
        return len(self._all(stage, split))

    def parse(self, stage: int, text: str) -> DictionaryProblems:
        count, asked = self.pairs[stage], self.queries[stage]
        pairs, _, queries = text.replace(",", " ").partition("?")
        found = [re.fullmatch(r"([a-p])=(\d|1[0-5])", word, re.ASCII) for word in pairs.split()]
        keys = [KEYS.index(match[1]) for match in found if match]
        places = [keys.index(KEYS.index(q)) for q in queries.split() if q in KEYS and KEYS.find(q) in keys]
        right = len(keys) == len(found) == count and len(places) == len(queries.split()) == asked
        if not right or len(set(keys)) < count or len(set(places)) < asked:
            example = " ".join(f"{key}={7 + 2 * i % 9}" for i, key in enumerate(KEYS[:count]))
            raise UserError(
                f"problem: {text!r} is not allowed; expected {count} pairs of different keys a to p, values 0 to 15, "
                f"a question mark, and {asked} of the keys, such as '{example} ? {' '.join(KEYS[:asked])}'"
            )
        code = rank(keys, SYMBOLS) * math.perm(count, asked) + rank(places, count)
        values = sum(int(match[2]) << 4 * i for i, match in enumerate(found) if match)
        return self._problems(torch.tensor([stage]), torch.tensor([code]), torch.tensor([signed(values)]))

    def render(self, problems: DictionaryProblems, i: int) -> str:
        pairs, queries, _ = self._read(*(int(x[i]) for x in _words(problems)))
        return f"{' '.join(f'{key}={value}' for key, value in pairs)}; asked: {' '.join(queries)}"

    def records(self, problems: DictionaryProblems, state: Reading) -> list[dict[str, Any]]:
        """As in `Task`: `pairs` in order, `queries`; answer and target are the values of the queries, in order."""
        records = []
        columns = (*_words(problems), state.place, state.wrong)
        for *words, place, wrong in zip(*(column.tolist() for column in columns), strict=True):
            pairs, queries, target = self._read(*words)
            answer = target[: max(0, place)] + ([wrong] if wrong >= 0 else [])
            problem = " ".join([*(f"{key}={value}" for key, value in pairs), "?", *queries])
            own = {"problem": problem, "pairs": pairs, "queries": queries}
            records.append({**own, "answer": answer or None, "target": target})
        return records

    def registers(self, state: Reading, i: int) -> dict[str, str]:
        display = " ".join(VOCABULARY[token] for token in self.feedback(state[i : i + 1])[0] if token != EOS)
        place = int(state.place[i])
        shown = {"to come": str(max(0, -place)), "answered": str(max(0, place))}
        if not self.store:
            return {**shown, "display": display}
        filled, store, held = int(state.filled[i]), int(state.store[i]), KEYS[int(state.held[i])]
        cells = [f"{key}={store >> 4 * k & 15}" for k, key in enumerate(KEYS) if filled >> k & 1]
        call = {PUT_KEY: "PUT", PUT_VALUE: f"PUT {held}", GET_KEY: "GET", FOUND: f"GET {held}"}
        return {**shown, "store": " ".join(cells), "call": call.get(int(state.mode[i]), ""), "display": display}

    def _read(self, stage: int, keys: int, values: int, places: int) -> tuple[list[list[Any]], list[str], list[int]]:
        """A problem in plain Python: its pairs, its queries, their values."""
        pairs: list[list[Any]] = [[KEYS[keys >> 4 * k & 15], values >> 4 * k & 15] for k in range(self.pairs[stage])]
        asked = [pairs[places >> 4 * q & 15] for q in range(self.queries[stage])]
        return pairs, [key for key, _ in asked], [value for _, value in asked]

    def _problems(self, stage: Tensor, order: Tensor, values: Tensor) -> DictionaryProblems:
        """Problems from stages, the number of an order of keys and queries, and a word of values: int64 [n]."""
        tables = self.tables(stage.device)
        queries = tables.choices.index_select(0, stage)
        rest = order // queries
        asked = order - rest * queries + tables.first.index_select(0, stage)
        return DictionaryProblems(
            stage=stage,
            context=torch.full_like(stage, CTX)[:, None],
            key=_key(tables.pairs.index_select(0, stage), order, values),
            keys=tables.keys(rest) & tables.mask.index_select(0, stage),
            values=values,
            places=tables.places.index_select(0, asked),
        )

    def _all(self, stage: int, split: Split) -> Tensor:
        """A stage's problems of a split, each as one number: its order · 16^K + its values. int64, ascending."""
        count = self.pairs[stage]
        total = math.perm(SYMBOLS, count) * math.perm(count, self.queries[stage]) * SYMBOLS**count
        if total > LISTED:
            raise UserError(f"stage: {self.spec.stages[stage]!r} is too many to list: {total:,} problems")
        number = torch.arange(total)
        key = _key(torch.tensor(count), number >> 4 * count, number & (1 << 4 * count) - 1)
        return number[in_split(key, split)]


def _words(problems: DictionaryProblems) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return problems.stage, problems.keys, problems.values, problems.places


def _onward(state: Reading, action: Tensor, nexts: Tensor, answers: Tensor) -> tuple[Reading, Tensor, Tensor]:
    """The next pair or query, where NEXT was pressed or an answer that counts is right.

    Returns:
        The state, but for `done` and the store; the answer is right, bool [n]; it was the last one, bool [n].
    """
    right = answers & (action == (state.values & 15 | SYMBOLS))
    moves = nexts | right
    place = state.place + moves
    finished = right & (place == state.queries)
    moves, asks = moves & ~finished, nexts & (place == 0)
    after = replace(
        state,
        keys=torch.where(asks, state.asked, torch.where(moves, state.keys >> 4, state.keys)),
        values=torch.where(asks, state.truth, torch.where(moves, state.values >> 4, state.values)),
        place=place,
        wrong=torch.where(answers & ~right, action & 15, state.wrong),
    )
    return after, right, finished


def _written(state: Reading, action: Tensor, word: Tensor, idle: Tensor) -> Reading:
    """What a key does to the store and to a call of it; where it is `idle`, bool [n], the call is over."""
    writes, shift = word & WRITES > 0, state.held << 2
    mode = (word & 7).masked_fill(idle, IDLE)
    return replace(
        state,
        done=mode == OVER,
        mode=mode,
        held=torch.where(word & HOLDS > 0, action, state.held),
        # What the four bits differ by makes new ones of the old.
        store=torch.where(writes, state.store ^ ((state.store >> shift ^ action) & 15) << shift, state.store),
        filled=torch.where(writes, state.filled | 1 << state.held, state.filled),
    )


def _looked_up(state: Reading) -> tuple[Tensor, Tensor]:
    """The token of the value that is stored for the key in the call, int64 [n], and whether there is one, bool [n]."""
    return state.store >> (state.held << 2) & 15 | SYMBOLS, state.filled >> state.held & 1 > 0


def _key(pairs: Tensor, order: Tensor, values: Tensor) -> Tensor:
    """Of the content, whatever stages there are; different but for a chance of n² / 2⁶⁵ in a set of n.

    K and the order are told apart for certain: there are fewer than 2⁶⁴ / 17 orders.
    """
    return mixed(torch.add(pairs, order, alpha=SYMBOLS + 1)) + values


@dataclass
class Tables:
    """What is looked up, a row for each stage where nothing else is said.

    Attributes:
        pairs, queries: int64 [stages], K, and how many of them are asked.
        mask: int64 [stages], the bits of K numbers in a word.
        orders: int64 [stages], in which keys and queries can come.
        choices, first: int64 [stages], in how many orders K pairs can be asked; the first of them in `places`.
        places: int64, words of places, for one K after the other.
        keys: words of keys from their number.
        moves: int64, what a key does with the store; a row for each (mode, a value is asked, key).
        token, word, shift: int64 [stages, horizon], the oracle's program: a token; or the symbol that stands at `shift`
            in keys, values, asked, truth (word 0 to 3; −1 for none).
    """

    pairs: Tensor
    queries: Tensor
    mask: Tensor
    orders: Tensor
    choices: Tensor
    first: Tensor
    places: Tensor
    keys: Orders
    moves: Tensor
    token: Tensor
    word: Tensor
    shift: Tensor


def _tables(
    pairs: tuple[int, ...], queries: tuple[int, ...], horizon: int, store: bool, device: torch.device
) -> Tables:
    choices = [math.perm(k, q) for k, q in zip(pairs, queries, strict=True)]
    places = [orders(k, q)[0] for k, q in zip(pairs, queries, strict=True)]
    programs = [_program(k, q, store) for k, q in zip(pairs, queries, strict=True)]
    padded = torch.tensor([program + [(EOS, -1, 0)] * (horizon - len(program)) for program in programs])
    token, word, shift = (column.contiguous().to(device) for column in padded.unbind(2))

    def column(numbers: Iterable[int]) -> Tensor:
        return torch.tensor(list(numbers), device=device)

    return Tables(
        pairs=column(pairs),
        queries=column(queries),
        mask=column((1 << 4 * k) - 1 if k < SYMBOLS else -1 for k in pairs),
        orders=column(math.perm(SYMBOLS, k) * c for k, c in zip(pairs, choices, strict=True)),
        choices=column(choices),
        first=column(sum(choices[:s]) for s in range(len(pairs))),
        places=torch.cat(places).to(device),
        keys=Orders(pairs[-1], device),
        moves=_moves().to(device),
        token=token,
        word=word,
        shift=shift,
    )


def _program(pairs: int, queries: int, store: bool) -> list[tuple[int, int, int]]:
    """The oracle's: token, word and shift of each step; values are tokens from 16 on."""
    program = []
    for i in range(pairs):
        put = [(PUT, -1, 0), (0, 0, 4 * i), (SYMBOLS, 1, 4 * i)] if store else []
        program += [*put, (NEXT, -1, 0)]
    for i in range(queries):
        get = [(GET, -1, 0), (0, 2, 4 * i)] if store else []
        program += [*get, (SYMBOLS, 3, 4 * i)]
    return program


def _moves() -> Tensor:
    """With the store: the mode after a key, and what else it does."""
    moves = torch.full((6, 2, len(VOCABULARY)), OVER)
    reading, asking = 0, 1
    keys, values = slice(0, SYMBOLS), slice(SYMBOLS, 2 * SYMBOLS)
    moves[IDLE, reading, NEXT] = IDLE | MOVES
    moves[IDLE, reading, PUT] = PUT_KEY
    moves[PUT_KEY, reading, keys] = PUT_VALUE | HOLDS
    moves[PUT_VALUE, reading, values] = IDLE | WRITES
    moves[IDLE, asking, GET] = moves[FOUND, asking, GET] = GET_KEY
    moves[GET_KEY, asking, keys] = FOUND | HOLDS
    moves[FOUND, asking, values] = OVER | ANSWERS
    return moves.flatten()
