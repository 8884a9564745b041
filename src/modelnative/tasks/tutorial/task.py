"""The published tutorial's environment with its faults: tools that know their operands, and a scorer one step short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelnative.tasks.arithmetic.problems import (
    ADD,
    ANS,
    EOS,
    MUL,
    OPERANDS,
    RCL,
    STO,
    SUB,
    ArithmeticProblems,
    OperandTask,
)
from modelnative.tasks.contract.task import State, Step, replace, require

PROGRAMS = (
    "MUL ADD ANS",
    "MUL ADD SUB ANS",
    "MUL STO SUB MUL ADD ANS",  # (a·b − e)·d + c, which is the target when d = 1 or a·b = 0
)
RULES = """You press the keys of tools that know the operands and keep a value, 'last'. Nothing is shown.
MUL: last = a*b if last is empty, otherwise last*d (stage T0: no effect then).
ADD: last + c. SUB: last - d, or last - e at stage T2 after STO (stage T0: no effect).
STO: sets the memory. RCL: once the memory is set, last = d*e at stage T2, otherwise 0 if last is empty.
ANS: answer with last, which ends the episode. Digits and EOS have no effect."""
CHOSEN = 6  # actions that the tutorial's policy chooses in an episode
READ = 7  # largest number of actions that the tutorial's environment reads


@dataclass
class TutorialState(State):
    """The registers of the tools. Only ANS ends an episode.

    Attributes:
        problem: the problems.
        last: int64 [n], 0 if it is empty.
        has_last: bool [n], whether `last` is filled.
        has_memory: bool [n], whether a value was stored; the value is never read.
    """

    problem: ArithmeticProblems
    last: Tensor
    has_last: Tensor
    has_memory: Tensor


class Tutorial(OperandTask[TutorialState]):
    """The task of the published tutorial: press tools that already know a, b, c, d and e.

    All five operands are in the context at every stage. The reward is the published score (`published_score`), paid at
    ANS. Success compares `last` at ANS with the *declared* target: a·b + c (T0), (a·b + c) − d (T1), (a·b + c) − d·e
    (T2).

    | key | effect |
    |---|---|
    | MUL | last = a·b if last is empty, else last·d (T0: no effect) |
    | ADD | last += c; no effect when last is empty |
    | SUB | last −= d, at T2 after STO e; no effect when last is empty or at T0 |
    | STO | sets the memory; no effect when it is set |
    | RCL | when the memory is set: last = d·e at T2, last = 0 at T0 and T1 when last is empty; otherwise no effect |
    | ANS | ends the episode |
    | digits, CTX, EOS | no effect; EOS does *not* end the episode, it only pads |

    The declared target cannot be reached at T2. The best constant program of six tokens is right on 27.1% of the
    problems (`MUL STO SUB MUL ADD ANS`: d = 1 or a·b = 0), and only 74.181% have any program that is right (83.262%
    with seven tokens), by coincidence of the operands. The oracle is the best constant program of a stage: it succeeds
    on all problems of T0 and T1 and not at T2, as `spec.solvable` declares.

    Args:
        horizon: 6, the number of actions that the tutorial's policy chooses, or 7, the number that its environment
            reads.

    Example:
        >>> task = Tutorial()
        >>> problem = task.parse(0, "3 7 2 4 5")
        >>> task.render(problem, 0)
        'a=3 b=7 c=2 d=4 e=5; compute a*b + c'
        >>> state = task.begin(problem)
        >>> for token in task.spec.token_ids(["MUL", "ANS"]):  # one step short
        ...     step = task.step(state, torch.tensor([token]))
        ...     state = step.state
        >>> round(step.reward.item(), 6), step.success.item()
        (1.05, False)
    """

    def __init__(self, horizon: int = CHOSEN) -> None:
        require(horizon in (CHOSEN, READ), "horizon", horizon, f"{CHOSEN} or {READ}")
        super().__init__("tutorial", (len(OPERANDS),) * 3, horizon, solvable=(True, True, False))

    def options(self) -> dict[str, Any]:
        return {"horizon": self.spec.horizon}

    def rules(self) -> str:
        return RULES

    def oracle(self, problems: ArithmeticProblems) -> Tensor:
        """The best constant program of each stage for the declared target: int64 [n, horizon]; see the class for T2."""
        programs = [self.spec.token_ids(program.split()) for program in PROGRAMS]
        padded = torch.tensor([program + [EOS] * (self.spec.horizon - len(program)) for program in programs])
        return padded.to(problems.stage.device)[problems.stage]

    # Episodes

    def begin(self, problems: ArithmeticProblems) -> TutorialState:
        zero = torch.zeros_like(problems.stage)
        no = torch.zeros_like(zero, dtype=torch.bool)
        return TutorialState(no, problems, zero, no, no)

    def step(self, state: TutorialState, action: Tensor) -> Step[TutorialState]:
        running, stage = ~state.done, state.problem.stage
        a, b, c, d, e = state.problem.operands.unbind(1)
        multiplies = running & (action == MUL) & (~state.has_last | (stage > 0))
        adds = running & (action == ADD) & state.has_last
        subtracts = running & (action == SUB) & state.has_last & (stage > 0)
        stores = running & (action == STO) & ~state.has_memory
        recalls = running & (action == RCL) & state.has_memory & (~state.has_last | (stage == 2))
        ends = running & (action == ANS)
        last = torch.where(multiplies, torch.where(state.has_last, state.last * d, a * b), state.last)
        last = last + torch.where(adds, c, 0)
        last = last - torch.where(subtracts, torch.where((stage == 2) & state.has_memory, e, d), 0)
        last = torch.where(recalls, torch.where(stage == 2, d * e, 0), last)
        after = replace(
            state,
            done=state.done | ends,
            last=last,
            has_last=state.has_last | multiplies | recalls,
            has_memory=state.has_memory | stores,
        )
        reward = torch.where(ends, published_score(after), 0.0).float()
        success = ends & after.has_last & (after.last == after.problem.target)
        effective = multiplies | adds | subtracts | stores | recalls | ends
        return Step(after, self.feedback(after), reward, after.done, success, running & ~effective)

    def feedback(self, state: TutorialState) -> Tensor:
        return state.last.new_empty(len(state), 0)

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        return {"last": ("last",), "mode": ("has_last", "has_memory")}

    def records(self, problems: ArithmeticProblems, state: TutorialState) -> list[dict[str, Any]]:
        return self.answer_records(problems, state.last, state.done & state.has_last)

    def registers(self, state: TutorialState, i: int) -> dict[str, str]:
        last = str(int(state.last[i])) if bool(state.has_last[i]) else ""
        return {"last": last, "memory": "set" if bool(state.has_memory[i]) else "", "display": last}


def published_score(state: TutorialState) -> Tensor:
    """Return the published score: float64 [n]; 0 unless the episode has ended with a value in `last`.

    With g0 = a·b, g1 = g0 + c, g2 = g1 − d, g3 = d·e, g4 = g1 − g3 it pays 1 if `last` equals g0, g1, g2 at T0, T1, T2
    (each one step short of the declared target), plus 0.2 times the weights of the terms that `last` equals:
    T0 .25[g0] + .5[g1]; T1 .25[g0] + .5[g1] + .75[g2]; T2 .2[g0] + .4[g1] + .6[g4] + .6[g3].
    """
    a, b, c, d, e = state.problem.operands.unbind(1)
    g0, g3 = a * b, d * e
    g1 = g0 + c
    hit = (state.last[:, None] == torch.stack([g0, g1, g1 - d, g3, g1 - g3], 1)).double()
    weights = torch.tensor(
        [[0.25, 0.5, 0.0, 0.0, 0.0], [0.25, 0.5, 0.75, 0.0, 0.0], [0.2, 0.4, 0.0, 0.6, 0.6]],
        dtype=torch.float64,
        device=state.last.device,
    )
    stage = state.problem.stage
    paid = hit.gather(1, stage[:, None]).squeeze(1)  # the target paid at stage s is g_s
    return torch.where(state.done & state.has_last, paid + 0.2 * (weights[stage] * hit).sum(1), 0.0)
