"""Constant programs: one sequence of tokens for all problems, and a search for the best one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import AnyTask, Problems, State, mixed

CHUNK = 1 << 13  # episodes played at once: large enough to be fast, small enough for the caches
MAX_ROWS = 1 << 16  # actions in one call of `step` during the exact search
PILOT_PROBLEMS = 64  # of the pilot search, which estimates the cost of the exact search
PILOT_NODES = 2000  # states that the pilot search may visit
EXACT_COST = 350_000_000  # actions that the exact search may take: half a minute on one core
BEAM_COST = 15_000_000  # actions that the beam search may take
FIRST_PROPOSALS = 8  # proposals that are played before any search
BEAM_PROBLEMS = 256  # of the beam search
FINALISTS = 24  # programs of the beam search that are played on all problems

Program = tuple[int, ...]


@dataclass(frozen=True)
class ConstantProgram:
    """The best constant program that a search found.

    Attributes:
        program: its tokens.
        successes: among the problems of the search.
        beam_width: 0 if the search was exact, so that no program of at most `max_length` tokens does better.
        max_length: the largest number of tokens that was tried.
    """

    program: Program
    successes: int
    beam_width: int
    max_length: int


@torch.no_grad()
def played(task: AnyTask, problems: Problems, programs: Tensor) -> Iterator[tuple[Problems, Tensor, State]]:
    """Play programs in chunks; yields a chunk's problems, their successes (bool), and their last state.

    Args:
        task: the task of the problems.
        problems: n problems.
        programs: int64 [n, T], one program for each problem, or [1, T], one for all problems.
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
    """The number of problems that programs (as for `played`) solve."""
    return sum(int(success.sum()) for _, success, _ in played(task, problems, programs))


def best_program(task: AnyTask, problems: Problems, length: int, proposals: Sequence[Program]) -> ConstantProgram:
    """The constant program of at most `length` tokens that solves the most problems.

    The search is exact if a pilot search on a few problems shows that this is feasible; otherwise it is a beam search.

    Args:
        task: the task of the problems.
        problems: the problems to solve.
        length: largest number of tokens.
        proposals: the oracle's programs of some problems. The most frequent ones, and the program of the most frequent
            token at each position, are played first. The beam search prefers prefixes that many proposals share.
    """
    frequent = [program for program, _ in Counter(proposals).most_common(FIRST_PROPOSALS)]
    columns = itertools.zip_longest(*proposals)
    typical = tuple(Counter(t for t in column if t is not None).most_common(1)[0][0] for column in columns)
    tried = {program[:length] for program in (*frequent, typical) if program}
    pilot = problems[_evenly_spaced(len(problems), PILOT_PROBLEMS)]
    vocabulary = len(task.spec.vocabulary)
    search = ExactSearch(task, pilot, length, tried, PILOT_NODES)
    if search.run() and search.nodes * len(problems) * vocabulary <= EXACT_COST:
        # All problems reach at least as many different states as some of them, hence the margin.
        search = ExactSearch(task, problems, length, tried, 2 * search.nodes + PILOT_NODES // 10)
        if search.run():
            return ConstantProgram(search.best, search.best_successes, 0, length)
    sample = problems[_evenly_spaced(len(problems), BEAM_PROBLEMS)]
    width = max(1, BEAM_COST // (length * vocabulary**2 * len(sample)))
    candidates, reached = beam_search(task, sample, length, width, proposals)
    tried |= {search.best, *candidates}
    counts = {p: successes(task, problems, torch.tensor([p])) for p in sorted(tried) if p}
    best = max(counts, key=lambda program: (counts[program], -len(program)))
    return ConstantProgram(best, counts[best], width, reached)


def _evenly_spaced(n: int, limit: int) -> Tensor:
    """The indices of at most `limit` of n rows."""
    return torch.linspace(0, n - 1, min(limit, n)).long()


class ExactSearch:
    """Depth-first branch and bound over the states that all problems together reach.

    Prefixes that leave all unfinished problems in the same state are merged: only the prefix with more successes or
    more remaining tokens is continued. A prefix is pruned if its successes and all unfinished problems together would
    not exceed the best program so far.

    Args:
        task: the task of the problems.
        problems: the problems to solve.
        length: largest number of tokens.
        tried: programs whose successes are the first bound.
        limit: largest number of states to visit.

    Attributes:
        best, best_successes: the best program so far, and its successes.
        nodes: number of states visited.
    """

    def __init__(self, task: AnyTask, problems: Problems, length: int, tried: set[Program], limit: int) -> None:
        self.task, self.problems, self.length, self.limit = task, problems, length, limit
        self.best: Program = ()
        self.best_successes, self.nodes = -1, 0
        self.seen: dict[int, list[tuple[int, int]]] = {}
        for program in sorted(tried):
            self._keep_if_best(program, successes(task, problems, torch.tensor([program])))

    def run(self) -> bool:
        """Search; returns whether the search was completed, so that `best` is exact."""
        rows = torch.arange(len(self.problems))
        every = torch.arange(len(self.task.spec.vocabulary))
        if self.best_successes < 0:  # a program that has no effect is one, too
            self._keep_if_best((0,), successes(self.task, self.problems, every[None, :1]))
        # A prefix, its successes, and the rows and state before its last token.
        stack: list[tuple[Program, int, Tensor, State]] = [((), 0, rows, self.task.begin(self.problems))]
        while stack:
            prefix, wins, rows, state = stack.pop()
            if prefix:
                step = self.task.step(state, torch.full((len(rows),), prefix[-1]))
                running = ~step.done
                rows, state = rows[running], step.state[running]
            if wins + len(rows) <= self.best_successes:
                continue
            if self.nodes >= self.limit:
                return False
            self.nodes += 1
            left = self.length - len(prefix) - 1
            # All other tokens lead to the same states with fewer tokens left, which is worth no visit.
            effective = self.task.effective_tokens(state)
            tokens = every if effective is None else torch.tensor(effective, dtype=torch.int64)
            for part in tokens.split(max(1, MAX_ROWS // len(rows))):
                for token, more, alive, digest in self._expand(rows, state, part, left):
                    longer = (*prefix, token)
                    self._keep_if_best(longer, wins + more)
                    promising = left and alive and wins + more + alive > self.best_successes
                    if promising and self._is_new(digest, wins + more, left):
                        stack.append((longer, wins + more, rows, state))
        return True

    def _expand(self, rows: Tensor, state: State, tokens: Tensor, left: int) -> list[tuple[int, int, int, int]]:
        """For each token: the token, its successes, the problems still running, and a digest of their states."""
        wide = Batch.cat([state] * len(tokens)) if len(tokens) > 1 else state
        # Without tokens left no prefix is continued.
        found = outcomes(self.task, wide, tokens.repeat_interleave(len(rows)), rows if left else None, len(tokens))
        return list(zip(tokens.tolist(), *(column.tolist() for column in found), strict=True))

    def _keep_if_best(self, program: Program, wins: int) -> None:
        if wins > self.best_successes or (wins == self.best_successes and len(program) < len(self.best)):
            self.best, self.best_successes = program, wins

    def _is_new(self, digest: int, wins: int, left: int) -> bool:
        """Whether no earlier prefix reached the same states with as many successes and remaining tokens."""
        known = self.seen.setdefault(digest, [])
        if any(w >= wins and tokens >= left for w, tokens in known):
            return False
        known.append((wins, left))
        return True


def beam_search(
    task: AnyTask, problems: Problems, length: int, width: int, proposals: Sequence[Program]
) -> tuple[list[Program], int]:
    """Beam search for constant programs; returns the most successful ones, and the largest number of tokens tried.

    Half of the beam holds the prefixes that solve the most problems with one more token, the other half the prefixes
    that the most proposals share. Prefixes that lead to the same states are merged.
    """
    n, vocabulary = len(problems), len(task.spec.vocabulary)
    prefixes: list[Program] = [()]
    wins = torch.zeros(1, dtype=torch.int64)
    state = task.begin(problems)
    rows = torch.arange(n)
    seen: dict[int, int] = {}
    found: dict[Program, int] = {}
    cost = 0
    for depth in range(length):
        if cost > 2 * BEAM_COST:
            return _most_successful(found), depth
        cost += vocabulary * len(state)
        actions = (torch.full((len(state),), token) for token in range(vocabulary))
        table = [outcomes(task, state, action, rows, len(prefixes)) for action in actions]
        solved, alive, digests = (torch.stack(column, 1) for column in zip(*table, strict=True))  # each [C, V]
        total = solved + wins[:, None]
        ahead = total.amax(1).tolist()
        for prefix, row in zip(prefixes, total.tolist(), strict=True):
            best = max(range(vocabulary), key=row.__getitem__)
            found[(*prefix, best)] = row[best]
        found = {program: found[program] for program in _most_successful(found)}
        frequency = Counter(program[:depth] for program in proposals)
        likely = [frequency[prefix] for prefix in prefixes]
        order = range(len(prefixes))
        by_success = sorted(order, key=lambda i: (-ahead[i], -likely[i]))
        by_proposal = sorted(order, key=lambda i: (-likely[i], -ahead[i]))
        kept = list(dict.fromkeys([*by_success[: -(-width // 2)], *by_proposal[: width // 2]]))
        children = []
        for i, token in ((i, token) for i in kept for token in range(vocabulary)):
            digest_of, more = int(digests[i, token]), int(total[i, token])
            if int(alive[i, token]) and more > seen.get(digest_of, -1):
                seen[digest_of] = more
                children.append((i, token))
        if not children:
            return _most_successful(found), length
        before = state[torch.cat([rows + i * n for i, _ in children])]
        state = task.step(before, torch.tensor([token for _, token in children]).repeat_interleave(n)).state
        wins = torch.stack([total[i, token] for i, token in children])
        prefixes = [(*prefixes[i], token) for i, token in children]
    return _most_successful(found), length


def _most_successful(found: dict[Program, int]) -> list[Program]:
    return sorted(found, key=lambda program: (-found[program], len(program), program))[:FINALISTS]


def outcomes(task: AnyTask, state: State, action: Tensor, rows: Tensor | None, groups: int) -> tuple[Tensor, ...]:
    """One action in each episode: successes, running episodes and a digest of their states, for each group.

    Args:
        task: the task.
        state: groups of n episodes each, one group after the other.
        action: int64 [groups * n].
        rows: int64 [n], which problems the episodes of a group play; None for no digest.
        groups: their number.
    """
    step = task.step(state, action)
    running = ~step.done
    digests = torch.zeros_like(running)
    if rows is not None:
        digests = mixed(digest_rows(step.state, state) + mixed(rows).repeat(groups)) * running
    return tuple(column.view(groups, -1).sum(1) for column in (step.success, running, digests))


def digest_rows(after: State, before: State) -> Tensor:
    """A hash of each row of a state, int64 [n]. Different rows have equal hashes with probability about 2⁻⁶³.

    Tensors of the problem that `step` passes on unchanged are left out: the caller adds the row's index instead. The
    hash is a random linear form over wrapping int64.
    """
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(len(after), dtype=torch.int64)
    for (new, fixed), (old, _) in zip(_leaves(after), _leaves(before), strict=True):
        rows = new.reshape(len(new), -1)
        factors = torch.randint(-(2**63), 2**63 - 1, (rows.shape[1],), generator=generator) | 1
        if fixed and new is old:
            continue
        rows = rows.double().view(torch.int64) if rows.is_floating_point() else rows.long()
        total = total + (rows * factors).sum(1)
    return total


def _leaves(batch: Batch, inside: bool = False) -> Iterator[tuple[Tensor, bool]]:
    """All tensors of a batch and of the batches in it, each with whether it belongs to a problem."""
    inside = inside or isinstance(batch, Problems)
    for value in batch.fields():
        if isinstance(value, Batch):
            yield from _leaves(value, inside)
        else:
            yield value, inside
