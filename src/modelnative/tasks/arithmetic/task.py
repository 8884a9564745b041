"""Three stages of arithmetic on a pocket calculator with one memory cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative.errors import choose
from modelnative.tasks.arithmetic.problems import (
    ADD,
    EOS,
    MUL,
    OPERANDS,
    STO,
    VOCABULARY,
    ArithmeticProblems,
    OperandTask,
)
from modelnative.tasks.calculator import (
    PLACES,
    CalculatorState,
    PocketCalculator,
    calculator_rules,
    display_text,
)
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.tables import PerDevice
from modelnative.tasks.contract.task import State, Step, replace, require

COUNTS = (3, 4, 5)  # operands of each stage
PROGRAMS = (
    "a MUL b ADD c ANS",
    "a MUL b ADD c SUB d ANS",
    "d MUL e STO a MUL b ADD c SUB RCL ANS",
)
LONGEST = 1000  # keys of an episode
MILESTONE = 0.1  # reward for each sub-result, once


@dataclass
class ArithmeticState(State):
    """A batch of n episodes.

    Attributes:
        key, target: int64 [n], of the problems.
        calculator: the registers.
        earned: bool [n, 3], the milestones that were paid; [n, 0] for the other rewards.
    """

    key: Tensor
    target: Tensor
    calculator: CalculatorState
    earned: Tensor


class Arithmetic(OperandTask[ArithmeticState]):
    """Compute a·b + c (T0), (a·b + c) − d (T1) or (a·b + c) − d·e (T2) on a pocket calculator.

    The keys are those of `modelnative.tasks.calculator` with one memory cell (STO, RCL) and one digit for each entry.

    Args:
        feedback: `display` shows the calculator's display after each key (a sign and eight digits, blank when
            empty); `none` is open loop.
        reward: `outcome` pays 1 for success; `milestone` adds 0.1 once for each sub-result computed; `potential`
            adds γΦ(s′) − Φ(s) (Ng, Harada and Russell, 1999), where Φ is minus the oracle's distance to the goal
            divided by the length of its program.
        horizon: maximum number of keys in an episode, 12 (the length of T2's program) to 1000.
        gamma: discount γ of `potential`.

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
        allowed = f"at least {longest}, the length of the oracle's program, and at most {LONGEST}"
        require(longest <= horizon <= LONGEST, "horizon", horizon, allowed)
        require(0.0 < gamma <= 1.0, "gamma", gamma, "a number in (0, 1]")
        self.closed_loop = feedback == "display"
        self.reward = reward
        self.gamma = gamma
        self.machine = PocketCalculator(memories=1)
        self.programs = PerDevice(lambda device: tuple(part.to(device) for part in _program_tables(horizon)))
        super().__init__("arithmetic", COUNTS, horizon, PLACES if self.closed_loop else 0)

    def options(self) -> dict[str, Any]:
        feedback = "display" if self.closed_loop else "none"
        return {"feedback": feedback, "reward": self.reward, "horizon": self.spec.horizon, "gamma": self.gamma}

    def oracle(self, problems: ArithmeticProblems) -> Tensor:
        tokens, operands = (table.index_select(0, problems.stage) for table in self.programs(problems.stage.device))
        return torch.where(tokens < 0, problems.operands.gather(1, operands), tokens)

    # Episodes

    def begin(self, problems: ArithmeticProblems) -> ArithmeticState:
        no = torch.zeros_like(problems.stage, dtype=torch.bool)
        earned = no.new_zeros(len(no), 3 if self.reward == "milestone" else 0)
        return ArithmeticState(no, problems.key, problems.target, self.machine.empty(problems.stage), earned)

    def step(self, state: ArithmeticState, action: Tensor) -> Step[ArithmeticState]:
        calculator, done, success, invalid = self.machine.press(state.calculator, action, state.target)
        after = ArithmeticState(done, state.key, state.target, calculator, state.earned)
        reward = success.float()
        if self.reward == "milestone":
            paid = ~state.done[:, None] & _milestones(self.recall(state.key), calculator) & ~state.earned
            after = replace(after, earned=state.earned | paid)
            reward = reward + MILESTONE * paid.sum(1)
        elif self.reward == "potential":
            shaping = self.gamma * self._potential(after) - self._potential(state)
            reward = reward + torch.where(state.done, 0.0, shaping)
        return Step(after, self.feedback(after), reward, done, success, invalid)

    def feedback(self, state: ArithmeticState) -> Tensor:
        if not self.closed_loop:
            return state.key.new_empty(len(state), 0)
        return self.machine.display(state.calculator.value)

    def only_calculator(self) -> PocketCalculator | None:
        """The calculator, if its display, its keys and its verdict are all that an episode is; else None."""
        plain = type(self) is Arithmetic and self.closed_loop and self.reward == "outcome"
        return self.machine if plain and vars(self).keys().isdisjoint(("begin", "step", "feedback")) else None

    def records(self, problems: ArithmeticProblems, state: ArithmeticState) -> list[dict[str, Any]]:
        return self.answer_records(problems, state.calculator.value, state.calculator.answered)

    def registers(self, state: ArithmeticState, i: int) -> dict[str, str]:
        shown = self.machine.registers(state.calculator, i)
        return {name.removesuffix(" 1"): text for name, text in shown.items()}

    def state_groups(self) -> dict[str, tuple[str, ...]]:
        return self.machine.state_groups("calculator")

    def rules(self) -> str:
        return calculator_rules(["STO"], ["RCL"], 1, self.closed_loop)

    def show(self, row: Sequence[int]) -> str:
        return display_text(VOCABULARY, row, self.spec.end)

    def _potential(self, state: ArithmeticState) -> Tensor:
        """Φ: float32 [n]; 0 where an episode has ended; at its start −1, or more where an operand 0 is a shortcut."""
        program = self.oracle(self.recall(state.key))
        n, length = len(state), (program != EOS).sum(1)
        # STO empties entry and operator, so that after it the whole program succeeds from any state with a value.
        reset = torch.cat([torch.full_like(program[:, :1], STO), program], 1)
        suffixes = [program, reset] + [
            torch.cat([program[:, k:], torch.full_like(program[:, :k], EOS)], 1) for k in range(1, self.spec.horizon)
        ]
        costs = torch.stack([length, length + 1] + [length - k for k in range(1, self.spec.horizon)])
        width = self.spec.horizon + 1
        keys = torch.cat([pad(s, (0, width - s.shape[1]), value=EOS) for s in suffixes])
        trial, target = Batch.cat([state.calculator] * len(suffixes)), state.target.repeat(len(suffixes))
        for t in range(width):
            trial, _, _, _ = self.machine.press(trial, keys[:, t], target)
        right = (trial.answered & (trial.value == target)).view(-1, n)
        distance = torch.where(right, costs, 2 * width).amin(0)
        return torch.where(state.done, 0.0, -distance / length)


def _milestones(problems: ArithmeticProblems, state: CalculatorState) -> Tensor:
    """Which sub-results are displayed as the result of their own operation: bool [n, 3] (a·b, a·b + c, d·e)."""
    a, b, c, d, e = problems.operands.unbind(1)
    stage, product, total = problems.stage, state.computed_by(MUL), state.computed_by(ADD)
    return torch.stack(
        [
            product & (state.value == a * b),
            total & (state.value == a * b + c) & (stage >= 1),
            product & (state.value == d * e) & (stage == 2),
        ],
        1,
    )


def _program_tables(horizon: int) -> tuple[Tensor, Tensor]:
    """The oracle's programs: tokens, with −1 in place of an operand, and the index of that operand.

    Both are int64 [3, horizon].
    """
    tokens = torch.full((len(PROGRAMS), horizon), EOS)
    operands = torch.zeros_like(tokens)
    for s, program in enumerate(PROGRAMS):
        for t, word in enumerate(program.split()):
            if word in OPERANDS:
                tokens[s, t], operands[s, t] = -1, OPERANDS.index(word)
            else:
                tokens[s, t] = VOCABULARY.index(word)
    return tokens, operands
