"""The pocket calculator: three stages of arithmetic, one memory, a digit typed at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from modelnative.errors import choose
from modelnative.tasks.batch import Batch
from modelnative.tasks.operands import OPERANDS, ArithmeticProblems, OperandSpace, OperandTask
from modelnative.tasks.task import State, Step, TaskSpec, replace, require

CTX, MUL, ADD, SUB, ANS, STO, RCL, EOS = range(10, 18)
VOCABULARY = (*"0123456789", "CTX", "MUL", "ADD", "SUB", "ANS", "STO", "RCL", "EOS")
STAGES = ("T0", "T1", "T2")
COUNTS = (3, 4, 5)  # operands of each stage
PROGRAMS = (
    "a MUL b ADD c ANS",
    "a MUL b ADD c SUB d ANS",
    "d MUL e STO a MUL b ADD c SUB RCL ANS",
)
DIGITS = 8  # of the display; a key whose result would need more has no effect
LIMIT = 10**DIGITS
MILESTONE = 0.1  # credit for each sub-result, once


@dataclass
class Calculator(State):
    """The registers. An empty register holds 0 and its flag says so.

    Attributes:
        problem: the problems under way.
        entry, accumulator, memory: int64 [n].
        has_entry, has_accumulator, has_memory: bool [n].
        pending: int64 [n], MUL, ADD, SUB, or 0 when no operator waits.
        value: int64 [n], what `value` of the rules is now; has_value: bool [n].
        answered: bool [n], ended by ANS.
        earned: bool [n, 3], which milestones were paid.
    """

    problem: ArithmeticProblems
    entry: Tensor
    accumulator: Tensor
    memory: Tensor
    has_entry: Tensor
    has_accumulator: Tensor
    has_memory: Tensor
    pending: Tensor
    value: Tensor
    has_value: Tensor
    answered: Tensor
    earned: Tensor


class Arithmetic(OperandTask[Calculator]):
    """Compute a·b + c (T0), (a·b + c) − d (T1) or (a·b + c) − d·e (T2) on a pocket calculator.

    Args:
        feedback: `display` shows the calculator's display after each key (a sign and eight digits, blank when
            empty); `none` is open loop.
        reward: `outcome` pays 1 for success; `milestone` adds 0.1 once for each sub-result computed; `potential`
            adds γΦ(s′) − Φ(s) (Ng, Harada and Russell, 1999), Φ being minus the oracle's distance to go over the
            length of its program.
        horizon: the most keys in an episode, at least 12 (the length of T2's program).
        gamma: the discount γ of `potential`.

    Example:
        >>> task = Arithmetic()
        >>> problem = task.parse(2, "3 7 2 4 5")
        >>> task.render(problem, 0)
        'a=3 b=7 c=2 d=4 e=5; compute (a*b + c) - d*e'
        >>> " ".join(VOCABULARY[t] for t in task.oracle(problem)[0])
        '4 MUL 5 STO 3 MUL 7 ADD 2 SUB RCL ANS'
    """

    def __init__(
        self,
        feedback: Literal["display", "none"] = "display",
        reward: Literal["outcome", "milestone", "potential"] = "outcome",
        horizon: int = 12,
        gamma: float = 1.0,
    ) -> None:
        choose("feedback", feedback, ("display", "none"))
        choose("reward", reward, ("outcome", "milestone", "potential"))
        longest = max(len(program.split()) for program in PROGRAMS)
        require(horizon >= longest, "horizon", horizon, f"at least {longest}, the length of the oracle's program")
        require(0.0 < gamma <= 1.0, "gamma", gamma, "a number in (0, 1]")
        self.closed_loop = feedback == "display"
        self.reward = reward
        self.gamma = gamma
        self.space = OperandSpace(COUNTS, mark=CTX, pad=EOS)
        self.spec = TaskSpec(
            name="arithmetic",
            vocabulary=VOCABULARY,
            stages=STAGES,
            context_length=len(OPERANDS) + 1,
            feedback_width=DIGITS + 1 if self.closed_loop else 0,
            horizon=horizon,
            start=CTX,
            end=EOS,
            positions=tuple(OPERANDS),
        )

    def options(self) -> dict[str, Any]:
        feedback = "display" if self.closed_loop else "none"
        return {"feedback": feedback, "reward": self.reward, "horizon": self.spec.horizon, "gamma": self.gamma}

    def oracle(self, problems: ArithmeticProblems) -> Tensor:
        templates = torch.full((len(STAGES), self.spec.horizon), EOS)
        for s, program in enumerate(PROGRAMS):
            for t, word in enumerate(program.split()):
                # An operand stands as −1 − its place until the problem is known.
                templates[s, t] = -1 - OPERANDS.index(word) if word in OPERANDS else VOCABULARY.index(word)
        template = templates.to(problems.stage.device)[problems.stage]
        return torch.where(template < 0, problems.operands.gather(1, (-1 - template).clamp_min(0)), template)

    # Episodes

    def begin(self, problems: ArithmeticProblems) -> Calculator:
        zero = torch.zeros_like(problems.stage)
        no = torch.zeros_like(zero, dtype=torch.bool)
        earned = no[:, None].expand(-1, 3)
        return Calculator(no, problems, zero, zero, zero, no, no, no, zero, zero, no, no, earned)

    def step(self, state: Calculator, action: Tensor) -> Step[Calculator]:
        after, effective = _press(state, action)
        running = ~state.done
        ended = running & after.done
        success = ended & after.answered & after.has_value & (after.value == after.problem.target)
        reward = success.float()
        if self.reward == "milestone":
            paid = running[:, None] & _milestones(after) & ~state.earned
            after = replace(after, earned=state.earned | paid)
            reward = reward + MILESTONE * paid.sum(1)
        elif self.reward == "potential":
            shaping = self.gamma * self._potential(after) - self._potential(state)
            reward = reward + torch.where(running, shaping, 0.0)
        return Step(after, self.feedback(after), reward, after.done, success, running & ~effective)

    def feedback(self, state: Calculator) -> Tensor:
        if not self.closed_loop:
            return state.pending.new_empty(len(state), 0)
        table = self._display_table.to(state.value.device)
        size = state.value.abs()
        high = size // 10**4
        blank = ~state.has_value
        # Rows of the table: 0–9999 with leading blanks, 10000–19999 with leading zeros, 20000 all blank.
        low_row = torch.where(blank, 2 * 10**4, size - high * 10**4 + torch.where(high > 0, 10**4, 0))
        high_row = torch.where(high > 0, high, 2 * 10**4)
        sign = torch.where(state.value < 0, SUB, EOS)
        return torch.cat([sign[:, None], table[high_row], table[low_row]], 1)

    def records(self, problems: ArithmeticProblems, state: Calculator) -> list[dict[str, Any]]:
        return self.space.records(problems, state.value, state.answered & state.has_value)

    def registers(self, state: Calculator, i: int) -> dict[str, str]:
        def show(value: Tensor, there: Tensor) -> str:
            return str(int(value[i])) if bool(there[i]) else ""

        pending = int(state.pending[i])
        return {
            "entry": show(state.entry, state.has_entry),
            "accumulator": show(state.accumulator, state.has_accumulator),
            "pending": VOCABULARY[pending] if pending else "",
            "memory": show(state.memory, state.has_memory),
            "display": show(state.value, state.has_value),
        }

    @cached_property
    def _display_table(self) -> Tensor:
        """The four digits of 0–9999 with leading blanks, then with leading zeros, then blanks: int64 [20001, 4]."""
        zeros = torch.arange(10**4)[:, None] // torch.tensor([1000, 100, 10, 1]) % 10
        leading = (zeros.cumsum(1) == 0) & torch.tensor([True, True, True, False])
        return torch.cat([zeros.masked_fill(leading, EOS), zeros, torch.full((1, 4), EOS)])

    def _potential(self, state: Calculator) -> Tensor:
        """Φ: float32 [n]; 0 where an episode has ended; −1 at its start, or more where zeros shorten the way."""
        program = self.oracle(state.problem)
        n, length = len(state), (program != EOS).sum(1)
        # STO empties entry and operator, so the whole program succeeds after it from any state with a value.
        reset = torch.cat([torch.full_like(program[:, :1], STO), program], 1)
        suffixes = [program, reset] + [
            torch.cat([program[:, k:], torch.full_like(program[:, :k], EOS)], 1) for k in range(1, self.spec.horizon)
        ]
        costs = torch.stack([length, length + 1] + [length - k for k in range(1, self.spec.horizon)])
        width = self.spec.horizon + 1
        keys = torch.cat([torch.nn.functional.pad(s, (0, width - s.shape[1]), value=EOS) for s in suffixes])
        trial = Batch.cat([state] * len(suffixes))
        for t in range(width):
            trial, _ = _press(trial, keys[:, t])
        right = (trial.answered & trial.has_value & (trial.value == trial.problem.target)).view(-1, n)
        distance = torch.where(right, costs, 2 * width).amin(0)
        return torch.where(state.done, 0.0, -distance / length)


def _press(state: Calculator, action: Tensor) -> tuple[Calculator, Tensor]:
    """The state after a key, and bool [n]: the key had an effect. An episode that is done has none."""
    digit = action < CTX
    operator = (action >= MUL) & (action <= SUB)
    store = action == STO
    recall = action == RCL
    ends = (action == ANS) | (action == EOS)
    typed = torch.where(digit, action, state.memory)
    result = _apply(state.pending, state.accumulator, typed)
    types = (digit | (recall & state.has_memory)) & (result.abs() < LIMIT)
    takes = (operator | store) & state.has_value
    effective = (types | takes | ends) & ~state.done
    types, takes = types & effective, takes & effective
    after = replace(
        state,
        done=state.done | ends,
        entry=torch.where(types, typed, torch.where(takes, 0, state.entry)),
        has_entry=(state.has_entry & ~takes) | types,
        accumulator=torch.where(takes, state.value, state.accumulator),
        has_accumulator=state.has_accumulator | takes,
        memory=torch.where(takes & store, state.value, state.memory),
        has_memory=state.has_memory | (takes & store),
        pending=torch.where(takes, torch.where(operator, action, 0), state.pending),
        value=torch.where(types, result, state.value),
        has_value=state.has_value | types,
        answered=state.answered | ((action == ANS) & ~state.done),
    )
    return after, effective


def _apply(pending: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left ∘ right under the pending operator; right where none waits."""
    signed = torch.where(pending == SUB, -right, right)
    total = torch.where(pending == 0, signed, left + signed)
    return torch.where(pending == MUL, left * right, total)


def _milestones(state: Calculator) -> Tensor:
    """Which sub-results stand on the display as the result of their own operation: bool [n, 3] (a·b, a·b + c, d·e)."""
    a, b, c, d, e = state.problem.operands.unbind(1)
    stage, computed = state.problem.stage, state.has_entry
    product = computed & (state.pending == MUL)
    total = computed & (state.pending == ADD)
    return torch.stack(
        [
            product & (state.value == a * b),
            total & (state.value == a * b + c) & (stage >= 1),
            product & (state.value == d * e) & (stage == 2),
        ],
        1,
    )
