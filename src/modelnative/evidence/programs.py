"""Programs that read nothing: one sequence of tokens for all problems, and a search for the best of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, State, mixed

CHUNK = 1 << 13  # episodes played at once: large enough to be fast, small enough for the caches
ROWS = 1 << 16  # actions put to a task in one call of the search
PILOT = 64  # problems of the search that tells what the exact one would cost
NODES = 2000  # the most states that the pilot visits
COST = 350_000_000  # actions that the exact search may take: half a minute on one core
BEAM_COST = 15_000_000  # the same of the beam search
FIRST = 8  # proposals that are tried before any search
SAMPLE = 256  # problems of the beam search
FINALISTS = 24  # of its programs, which are then played on all problems

Program = tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """The best constant program that a search found.

    Attributes:
        program: its tokens.
        successes: among the problems of the search.
        width: 0 when no program of at most `length` tokens does better; else the beam's, and there may be a better one.
        length: the most tokens that were tried.
    """

    program: Program
    successes: int
    width: int
    length: int


@torch.no_grad()
def played(task: AnyTask, problems: Problems, programs: Tensor) -> Iterator[tuple[Problems, Tensor, State]]:
    """Play programs, chunk by chunk: the chunk's problems, whether each succeeded (bool), and the last state.

    Args:
        programs: int64 [n, T], a row a problem, or [1, T], the same for all.
    """
    for start in range(0, len(problems), CHUNK):
        chunk = problems[start : start + CHUNK]
        actions = programs[start : start + CHUNK] if len(programs) > 1 else programs.expand(len(chunk), -1)
        state, success = task.begin(chunk), torch.zeros(len(chunk), dtype=torch.bool)
        for action in actions.unbind(1):
            step = task.step(state, action.contiguous())
            state, success = step.state, success | step.success
            if bool(state.done.all()):
                break
        yield chunk, success, state


def successes(task: AnyTask, problems: Problems, programs: Tensor) -> int:
    """How many problems the programs (as in `played`) solve."""
    return sum(int(success.sum()) for _, success, _ in played(task, problems, programs))


def best_program(task: AnyTask, problems: Problems, length: int, proposals: Sequence[Program]) -> Found:
    """The constant program of at most `length` tokens that solves the most problems.

    Exact where that is feasible, which a search over a few of the problems tells; otherwise a beam search.

    Args:
        proposals: the oracle's programs of some problems. The most frequent of them, and the one that has at each
            place the most frequent token, are the first that are tried; the beam keeps what many of them begin with.
    """
    tried = {program[:length] for program, _ in Counter(proposals).most_common(FIRST)}
    tried.add(tuple(Counter(p[t] for p in proposals if len(p) > t).most_common(1)[0][0] for t in _places(proposals)))
    tried = {program[:length] for program in tried if program}
    pilot = problems[_spread(len(problems), PILOT)]
    vocabulary = len(task.spec.vocabulary)
    search = Exact(task, pilot, length, tried, NODES)
    if search.run() and search.nodes * len(problems) * vocabulary <= COST:
        # There are at least as many different states of all problems as of some of them, hence the margin.
        search = Exact(task, problems, length, tried, 2 * search.nodes + NODES // 10)
        if search.run():
            return Found(search.best, search.most, 0, length)
    sample = problems[_spread(len(problems), SAMPLE)]
    width = max(1, BEAM_COST // (length * vocabulary**2 * len(sample)))
    candidates, reached = beam(task, sample, length, width, proposals)
    tried |= {search.best, *candidates}
    counts = {p: successes(task, problems, torch.tensor([p])) for p in sorted(tried) if p}
    best = max(counts, key=lambda program: (counts[program], -len(program)))
    return Found(best, counts[best], width, reached)


def _places(proposals: Sequence[Program]) -> range:
    return range(max(map(len, proposals), default=0))


def _spread(n: int, most: int) -> Tensor:
    """At most so many of n rows, evenly spaced."""
    return torch.linspace(0, n - 1, min(most, n)).long()


class Exact:
    """Depth-first search over the states that all problems together reach, with bounds (branch and bound).

    Two prefixes after which every running problem is in the same state are one: only the one with more successes, and
    more tokens left, is continued. A prefix is left when its successes and all problems that still run would not beat
    the best program so far.

    Args:
        tried: programs whose successes are a first bound.
        limit: the most states to visit.
    """

    def __init__(self, task: AnyTask, problems: Problems, length: int, tried: set[Program], limit: int) -> None:
        self.task, self.problems, self.length, self.limit = task, problems, length, limit
        self.best: Program = ()
        self.most, self.nodes = -1, 0
        self.seen: dict[int, list[tuple[int, int]]] = {}
        for program in sorted(tried):
            if program:
                self._offer(program, successes(task, problems, torch.tensor([program])))

    def run(self) -> bool:
        """Whether the search came to its end; then `best` and `most` are exact."""
        rows = torch.arange(len(self.problems))
        tokens = torch.arange(len(self.task.spec.vocabulary))
        # A prefix, and how to get there: its parent's rows and state, and its last token.
        stack: list[tuple[Program, int, Tensor, State]] = [((), 0, rows, self.task.begin(self.problems))]
        while stack:
            prefix, wins, rows, state = stack.pop()
            if prefix:
                step = self.task.step(state, torch.full((len(rows),), prefix[-1]))
                running = ~step.done
                rows, state = rows[running], step.state[running]
            if wins + len(rows) <= self.most:
                continue
            if self.nodes >= self.limit:
                return False
            self.nodes += 1
            left = self.length - len(prefix) - 1
            for part in tokens.split(max(1, ROWS // len(rows))):
                for token, more, alive, digest in self._expand(rows, state, part, left):
                    longer = (*prefix, token)
                    self._offer(longer, wins + more)
                    if left and alive and wins + more + alive > self.most and self._new(digest, wins + more, left):
                        stack.append((longer, wins + more, rows, state))
        return True

    def _expand(self, rows: Tensor, state: State, tokens: Tensor, left: int) -> list[tuple[int, int, int, int]]:
        """For each token: itself, the problems that it solves, those that run then, and a digest of their states."""
        wide = Batch.cat([state] * len(tokens)) if len(tokens) > 1 else state
        step = self.task.step(wide, tokens.repeat_interleave(len(rows)))
        running = ~step.done
        digests = torch.zeros_like(running)
        if left:  # else nothing is continued
            digests = mixed(digest_rows(step.state, wide) + mixed(rows).repeat(len(tokens))) * running
        columns = (step.success, running, digests)
        totals = (column.view(len(tokens), -1).sum(1).tolist() for column in columns)
        return list(zip(tokens.tolist(), *totals, strict=True))

    def _offer(self, program: Program, wins: int) -> None:
        if wins > self.most or (wins == self.most and len(program) < len(self.best)):
            self.best, self.most = program, wins

    def _new(self, digest: int, wins: int, left: int) -> bool:
        """Whether no prefix that was seen has led to the same states with as many successes and tokens left."""
        known = self.seen.setdefault(digest, [])
        if any(w >= wins and tokens >= left for w, tokens in known):
            return False
        known.append((wins, left))
        return True


def beam(
    task: AnyTask, problems: Problems, length: int, width: int, proposals: Sequence[Program]
) -> tuple[list[Program], int]:
    """Beam search for constant programs: the most successful ones on a few problems, and the most tokens tried.

    Half of the beam are the prefixes that solve the most problems with one token more, the other half those that the
    most proposals begin with. Prefixes that lead to the same states are one.
    """
    n, vocabulary = len(problems), len(task.spec.vocabulary)
    prefixes: list[Program] = [()]
    wins = torch.zeros(1, dtype=torch.int64)
    state = task.begin(problems)
    salt = mixed(torch.arange(n))
    seen: dict[int, int] = {}
    found: dict[Program, int] = {}
    spent = 0
    for depth in range(length):
        if spent > 2 * BEAM_COST:
            return _top(found), depth
        spent += vocabulary * len(state)
        table = []
        for token in range(vocabulary):
            step = task.step(state, torch.full((len(state),), token))
            running = ~step.done
            digest = (mixed(digest_rows(step.state, state) + salt.repeat(len(prefixes))) * running).view(-1, n).sum(1)
            table.append((step.success.view(-1, n).sum(1) + wins, running.view(-1, n).sum(1), digest))
        total, alive, digests = (torch.stack(column, 1) for column in zip(*table, strict=True))  # each [C, V]
        ahead = total.amax(1).tolist()
        for prefix, row in zip(prefixes, total.tolist(), strict=True):
            best = max(range(vocabulary), key=row.__getitem__)
            found[(*prefix, best)] = row[best]
        found = {program: found[program] for program in _top(found)}
        starts = _starts(proposals, depth)
        likely = [starts.get(prefix, 0) for prefix in prefixes]
        order = range(len(prefixes))
        by_success = sorted(order, key=lambda i: (-ahead[i], -likely[i]))
        by_proposal = sorted(order, key=lambda i: (-likely[i], -ahead[i]))
        kept = list(dict.fromkeys([*by_success[: -(-width // 2)], *by_proposal[: width // 2]]))
        children = []
        for i, token in ((i, token) for i in kept for token in range(vocabulary)):
            state_of, more = int(digests[i, token]), int(total[i, token])
            if int(alive[i, token]) and more > seen.get(state_of, -1):
                seen[state_of] = more
                children.append((i, token))
        if not children:
            return _top(found), length
        rows = torch.cat([torch.arange(i * n, (i + 1) * n) for i, _ in children])
        state = task.step(state[rows], torch.tensor([token for _, token in children]).repeat_interleave(n)).state
        wins = torch.stack([total[i, token] for i, token in children])
        prefixes = [(*prefixes[i], token) for i, token in children]
    return _top(found), length


def _top(found: dict[Program, int]) -> list[Program]:
    return sorted(found, key=lambda program: (-found[program], len(program), program))[:FINALISTS]


def _starts(proposals: Sequence[Program], length: int) -> dict[Program, int]:
    """How many proposals begin with each prefix of that length."""
    counts: dict[Program, int] = {}
    for program in proposals:
        counts[program[:length]] = counts.get(program[:length], 0) + 1
    return counts


def digest_rows(after: State, before: State) -> Tensor:
    """A number for each row of a state, int64 [n]: equal rows have equal ones, others by a chance of about 2⁻⁶³.

    The problem in a state counts for nothing as long as `step` passes it on, tensor by tensor, as it was: the row's
    own number stands for it. (A random linear form over wrapping int64.)
    """
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(len(after), dtype=torch.int64)
    for new, old, fixed in zip(_leaves(after), _leaves(before), _problem(after), strict=True):
        rows = new.reshape(len(new), -1)
        factors = torch.randint(-(2**63), 2**63 - 1, (rows.shape[1],), generator=generator) | 1
        if fixed and new is old:
            continue
        rows = rows.double().view(torch.int64) if rows.is_floating_point() else rows.long()
        total = total + (rows * factors).sum(1)
    return total


def _leaves(batch: Batch) -> list[Tensor]:
    """All tensors of a batch, and of the batches in it."""
    parts = (_leaves(v) if isinstance(v, Batch) else [v] for v in batch.fields())
    return [tensor for part in parts for tensor in part]


def _problem(batch: Batch, inside: bool = False) -> list[bool]:
    """For each of `_leaves`, whether it is part of a problem."""
    inside = inside or isinstance(batch, Problems)
    parts = (_problem(v, inside) if isinstance(v, Batch) else [inside] for v in batch.fields())
    return [flag for part in parts for flag in part]
