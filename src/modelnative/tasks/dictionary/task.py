"""Associative memory: pairs are shown one at a time, then keys are queried; with or without an external store."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.contract.board import BoardField
from modelnative.tasks.contract.sampling import NumberedTask, draw_within, require_listable
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import (
    Problems,
    Split,
    State,
    Step,
    TaskSpec,
    in_split,
    mixed,
    replace,
    require,
)
from modelnative.tasks.dictionary.packed import gathered, order, rank, signed
from modelnative.tasks.dictionary.tables import (
    ANSWERS,
    ASK,
    CTX,
    EOS,
    FOUND,
    GET_KEY,
    HOLDS,
    IDLE,
    KEYS,
    MOVES,
    NEXT,
    OVER,
    PUT,
    PUT_KEY,
    PUT_VALUE,
    SYMBOLS,
    VOCABULARY,
    WRITES,
    make_tables,
)
from modelnative.tasks.dictionary.words import DictionaryWords

PAIRS = (1, 2, 4, 8, 16)  # of the stages, up to the option
ORDERS = 1 << 16  # largest number of orders of the queries
COPIES = 6  # draws for each rejected problem; all of them are held out one time in 16,000
LISTED = 200_000  # largest number of problems of a stage that is listed


@dataclass
class DictionaryProblems(Problems):
    """Adds the pairs and the queries, as words of sixteen numbers (see `packed`).

    Attributes:
        keys, values: int64 [n], words of the pairs in the order in which they are shown; 0 after the last one.
        places: int64 [n], words of the indices of the queried pairs, in order; 0 after the last one.
    """

    keys: Tensor
    values: Tensor
    places: Tensor


@dataclass
class DictionaryState(State):
    """A batch of n episodes.

    Attributes:
        keys, values: int64 [n], words; the lowest four bits are the pair that is shown or queried.
        queried_keys, queried_values: int64 [n], words of the queried pairs.
        place: int64 [n], minus the number of pairs to come; then the number of right answers.
        queries: int64 [n], number of queries.
        wrong: int64 [n], the wrong answer that ended the episode; −1 without one.
        mode: int64 [n], the mode with the store (see `tables`); IDLE without the store.
        held: int64 [n], the last key that was typed into a call.
        store: int64 [n], word of the value written for each key.
        filled: int64 [n], one bit for each key with a value.
    """

    keys: Tensor
    values: Tensor
    queried_keys: Tensor
    queried_values: Tensor
    place: Tensor
    queries: Tensor
    wrong: Tensor
    mode: Tensor
    held: Tensor
    store: Tensor
    filled: Tensor


class Dictionary(DictionaryWords, NumberedTask[DictionaryProblems, DictionaryState]):
    """Remember K pairs of a key and a value and answer queries for the values of some keys (associative recall).

    This is multi-query associative recall (MQAR; Arora et al., 2023) as episodes. The feedback shows one pair at a
    time, such as `c 7`; NEXT shows the next pair, and after the last one the first query, such as `a ASK`. A right
    value leads to the next query, or to success after the last one; a wrong value ends the episode. The keys of a
    problem are distinct, and so are the queries. The context is `CTX` alone and carries no information.

    Without the store the network must remember the pairs. Keys that are not listed end the episode:

    | key | while pairs are shown | while a value is queried |
    |---|---|---|
    | NEXT | the next pair, or the first query | ends the episode |
    | a value | ends the episode | is the answer |
    | others | ends the episode | ends the episode |

    With the store, answers must be read from it, so that the task measures tool use and not the network's memory:

    | key | while pairs are shown | while a value is queried |
    |---|---|---|
    | PUT, then a key and a value | writes the typed pair to the store | ends the episode |
    | GET, then a key | ends the episode | shows the key and its value in the store, blank if there is none |
    | a value | ends the episode | the answer, after GET of the queried key and if GET shows this value |
    | NEXT | as above | ends the episode |

    While a call is typed the display is blank: a pair must be remembered for two tokens, whatever K is.

    The oracle's program is the shortest successful one. With the store it is the shortest one that does not depend on
    the queries, which are not known while pairs are shown: `PUT key value NEXT` for every pair, `GET key value` for
    every query.

    A constant program, a memoryless policy and a policy that does not see the pairs are right with probability
    1 / 16^Q: 6% with one pair, 0.4% with more. With the store they reach even less, because they cannot copy a pair
    into it.

    Args:
        pairs: number K of pairs of the last stage, 1 to 16; the stages before it have 1, 2, 4, 8.
        queries: number Q of queries, at least 1; a stage with fewer pairs queries all of them.
        store: whether the tools PUT and GET exist.

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
        horizon = (4 * pairs + 3 * self.queries[-1]) if store else pairs + self.queries[-1]
        self.tables = PerDevice(lambda device: make_tables(self.pairs, self.queries, horizon, store).to(device))
        self.spec = TaskSpec(
            name="dictionary",
            vocabulary=VOCABULARY if store else VOCABULARY[:PUT],
            stages=tuple(f"K{count}" for count in self.pairs),
            context_length=1,
            feedback_width=2,
            horizon=horizon,
            start=CTX,
            end=EOS,
        )

    def options(self) -> dict[str, Any]:
        return {"pairs": self.pairs[-1], "queries": self.most, "store": self.store}

    # Episodes

    def begin(self, problems: DictionaryProblems) -> DictionaryState:
        tables = self.tables(problems.stage.device)
        zero = torch.zeros_like(problems.stage)
        return DictionaryState(
            done=zero.bool(),
            keys=problems.keys,
            values=problems.values,
            queried_keys=gathered(problems.keys, problems.places, self.queries[-1]),
            queried_values=gathered(problems.values, problems.places, self.queries[-1]),
            place=-tables.pairs.index_select(0, problems.stage),
            queries=tables.queries.index_select(0, problems.stage),
            wrong=zero - 1,
            mode=zero,
            held=zero,
            store=zero,
            filled=zero,
        )

    def step(self, state: DictionaryState, action: Tensor) -> Step[DictionaryState]:
        querying = state.place >= 0
        if self.store:
            row = torch.add(action, torch.add(querying, state.mode, alpha=2), alpha=len(VOCABULARY))
            word = self.tables(action.device).moves.index_select(0, row)
            stored, known = _stored(state)
            read = (word & ANSWERS > 0) & known & (state.held == state.keys & 15) & (action == stored)
            after, right, finished = _advance(state, action, word & MOVES > 0, read)
            after = _with_store(after, action, word, right & ~finished)
        else:
            nexts = ~state.done & ~querying & (action == NEXT)
            after, right, finished = _advance(state, action, nexts, ~state.done & querying & (action >> 4 == 1))
            after = replace(after, done=finished | ~(nexts | right))
        return Step(after, self.feedback(after), finished.float(), after.done, finished, torch.zeros_like(finished))

    def feedback(self, state: DictionaryState) -> Tensor:
        key = state.keys & 15
        value = torch.where(state.place < 0, state.values & 15 | SYMBOLS, ASK)
        if self.store:
            stored, known = _stored(state)
            found = state.mode == FOUND
            blank = ~found & (state.mode != IDLE)
            key = torch.where(found, state.held, key).masked_fill(blank, EOS)
            value = torch.where(found, stored, value).masked_fill(blank | (found & ~known), EOS)
        return torch.stack([key, value], 1)

    def oracle(self, problems: DictionaryProblems) -> Tensor:
        tables, state = self.tables(problems.stage.device), self.begin(problems)
        token, word, shift = (t.index_select(0, problems.stage) for t in (tables.token, tables.word, tables.shift))
        words = torch.stack([state.keys, state.values, state.queried_keys, state.queried_values], 1)
        return torch.where(word < 0, token, words.gather(1, word.clamp_min(0)) >> shift & 15 | token)

    # Problems

    def sample(self, stage: Tensor, generator: torch.Generator, split: Split = "train") -> DictionaryProblems:
        tables = self.tables(stage.device)

        def draw(stage: Tensor) -> Problems:
            orders = torch.randint(1 << 62, stage.shape, generator=generator, device=stage.device)
            values = torch.randint(-(1 << 63), (1 << 63) - 1, stage.shape, generator=generator, device=stage.device)
            # There are at most 2⁶⁰ orders, far fewer by default: the remainder of a number below 2⁶² is almost uniform.
            orders = orders % tables.orders.index_select(0, stage)
            values = values & tables.mask.index_select(0, stage)
            key = _key(tables.pairs.index_select(0, stage), orders, values)
            return Problems(stage, torch.stack([orders, values], 1), key)

        return self.problems(stage, draw_within(split, stage, draw, COPIES).context)

    def parse(self, stage: int, text: str) -> DictionaryProblems:
        count, query_count = self.pairs[stage], self.queries[stage]
        pairs, _, queries = text.replace(",", " ").partition("?")
        found = [re.fullmatch(r"([a-p])=(\d|1[0-5])", word, re.ASCII) for word in pairs.split()]
        keys = [KEYS.index(match[1]) for match in found if match]
        places = [keys.index(KEYS.index(q)) for q in queries.split() if q in KEYS and KEYS.find(q) in keys]
        right = len(keys) == len(found) == count and len(places) == len(queries.split()) == query_count
        right = right and len(set(keys)) == count and len(set(places)) == query_count
        example = " ".join(f"{key}={7 + 2 * i % 9}" for i, key in enumerate(KEYS[:count]))
        allowed = (
            f"{count} pairs of different keys a to p, values 0 to 15, a question mark, and {query_count} of the keys, "
            f"such as '{example} ? {' '.join(KEYS[:query_count])}'"
        )
        require(right, "problem", text, allowed)
        code = rank(keys, SYMBOLS) * math.perm(count, query_count) + rank(places, count)
        values = sum(int(match[2]) << 4 * i for i, match in enumerate(found) if match)
        return self.problems(torch.tensor([stage]), torch.tensor([[code, signed(values)]]))

    def render(self, problems: DictionaryProblems, i: int) -> str:
        pairs, queries, _ = self._read(*(int(x[i]) for x in _words(problems)))
        return f"{' '.join(f'{key}={value}' for key, value in pairs)}; asked: {' '.join(queries)}"

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        return {"store": ("store", "filled"), "call": ("held",), "mode": ("mode",)}

    def records(self, problems: DictionaryProblems, state: DictionaryState) -> list[dict[str, Any]]:
        """See `Task.records`; answer and target are the values of the queries, in order."""
        records = []
        columns = (*_words(problems), state.place, state.wrong)
        for *words, place, wrong in zip(*(column.tolist() for column in columns), strict=True):
            pairs, queries, target = self._read(*words)
            answer = target[: max(0, place)] + ([wrong] if wrong >= 0 else [])
            problem = " ".join([*(f"{key}={value}" for key, value in pairs), "?", *queries])
            own = {"problem": problem, "pairs": pairs, "queries": queries}
            records.append({**own, "answer": answer or None, "target": target})
        return records

    def registers(self, state: DictionaryState, i: int) -> dict[str, str]:
        display = " ".join(VOCABULARY[token] for token in self.feedback(state[i : i + 1])[0] if token != EOS)
        place = int(state.place[i])
        shown = {"to come": str(max(0, -place)), "answered": str(max(0, place))}
        if not self.store:
            return {**shown, "display": display}
        filled, store, held = int(state.filled[i]), int(state.store[i]), KEYS[int(state.held[i])]
        cells = [f"{key}={store >> 4 * k & 15}" for k, key in enumerate(KEYS) if filled >> k & 1]
        call = {PUT_KEY: "PUT", PUT_VALUE: f"PUT {held}", GET_KEY: "GET", FOUND: f"GET {held}"}
        return {**shown, "store": " ".join(cells), "call": call.get(int(state.mode[i]), ""), "display": display}

    def board(self, state: DictionaryState, i: int) -> list[BoardField]:
        """The registers, with the store as a row of cells."""
        shown = self.registers(state, i)
        cells = {"store": tuple(shown["store"].split())} if self.store else {}
        return [BoardField(label, cells.get(label, text)) for label, text in shown.items()]

    def _read(self, stage: int, keys: int, values: int, places: int) -> tuple[list[list[Any]], list[str], list[int]]:
        """A problem in plain Python: its pairs, its queries and their values."""
        pairs: list[list[Any]] = [[KEYS[keys >> 4 * k & 15], values >> 4 * k & 15] for k in range(self.pairs[stage])]
        queried = [pairs[places >> 4 * q & 15] for q in range(self.queries[stage])]
        return pairs, [key for key, _ in queried], [value for _, value in queried]

    def problems(self, stage: Tensor, numbers: Tensor) -> DictionaryProblems:
        """See `NumberedTask.problems`; a row has the number of the orders of keys and queries, and a word of values."""
        tables = self.tables(stage.device)
        orders, values = numbers.unbind(1)
        queries = tables.choices.index_select(0, stage)
        rest = orders // queries
        query_order = orders - rest * queries + tables.first.index_select(0, stage)
        return DictionaryProblems(
            stage=stage,
            context=torch.full_like(stage, CTX)[:, None],
            key=_key(tables.pairs.index_select(0, stage), orders, values),
            keys=order(rest, SYMBOLS, self.pairs[-1]) & tables.mask.index_select(0, stage),
            values=values,
            places=tables.places.index_select(0, query_order),
        )

    def numbers(self, stage: int, split: Split) -> Tensor:
        count = self.pairs[stage]
        total = math.perm(SYMBOLS, count) * math.perm(count, self.queries[stage]) * SYMBOLS**count
        require_listable(self.spec.stages[stage], total, LISTED)
        number = torch.arange(total)
        orders, values = number >> 4 * count, number & (1 << 4 * count) - 1
        return torch.stack([orders, values], 1)[in_split(_key(torch.tensor(count), orders, values), split)]


def _words(problems: DictionaryProblems) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return problems.stage, problems.keys, problems.values, problems.places


def _advance(
    state: DictionaryState, action: Tensor, nexts: Tensor, answers: Tensor
) -> tuple[DictionaryState, Tensor, Tensor]:
    """Show the next pair or query where NEXT was pressed or a valid answer is right.

    Returns:
        The state without changes of `done` and the store; whether the answer is right, bool [n]; whether it was the
        last one, bool [n].
    """
    right = answers & (action == (state.values & 15 | SYMBOLS))
    moves = nexts | right
    place = state.place + moves
    finished = right & (place == state.queries)
    moves, first_query = moves & ~finished, nexts & (place == 0)
    after = replace(
        state,
        keys=torch.where(first_query, state.queried_keys, torch.where(moves, state.keys >> 4, state.keys)),
        values=torch.where(first_query, state.queried_values, torch.where(moves, state.values >> 4, state.values)),
        place=place,
        wrong=torch.where(answers & ~right, action & 15, state.wrong),
    )
    return after, right, finished


def _with_store(state: DictionaryState, action: Tensor, word: Tensor, idle: Tensor) -> DictionaryState:
    """Apply a key to the store and to the current call; the call is finished where `idle`, bool [n], is true."""
    writes, shift = word & WRITES > 0, state.held << 2
    mode = (word & 7).masked_fill(idle, IDLE)
    return replace(
        state,
        done=mode == OVER,
        mode=mode,
        held=torch.where(word & HOLDS > 0, action, state.held),
        # XOR with the difference replaces the four bits.
        store=torch.where(writes, state.store ^ ((state.store >> shift ^ action) & 15) << shift, state.store),
        filled=torch.where(writes, state.filled | 1 << state.held, state.filled),
    )


def _stored(state: DictionaryState) -> tuple[Tensor, Tensor]:
    """The token of the value that is stored for the key of the call, int64 [n], and whether there is one, bool [n]."""
    return state.store >> (state.held << 2) & 15 | SYMBOLS, state.filled >> state.held & 1 > 0


def _key(pairs: Tensor, order: Tensor, values: Tensor) -> Tensor:
    """The key of the content, whatever the stages are.

    In a set of n problems, two have equal keys with probability n² / 2⁶⁵. Different K or orders are always
    distinguished, as there are fewer than 2⁶⁴ / 17 orders.
    """
    return mixed(torch.add(pairs, order, alpha=SYMBOLS + 1)) + values
