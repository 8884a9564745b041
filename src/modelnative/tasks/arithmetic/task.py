"""The pocket calculator: three stages of arithmetic, one memory, a digit typed at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from modelnative import native
from modelnative.errors import choose
from modelnative.tasks.arithmetic.problems import OPERANDS, ArithmeticProblems, OperandSpace, OperandTask
from modelnative.tasks.contract.batch import Batch
from modelnative.tasks.contract.task import State, Step, TaskSpec, replace, require

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
EMPTY = LIMIT  # stands for no value: one more than any value that there can be
HALF = 10**4  # the display is looked up by its upper and its lower four digits
BITS = 5  # of a token in a word of a table
RECIPROCAL = -(-(2**45) // HALF)
MILESTONE = 0.1  # credit for each sub-result, once

# The bits of a calculator's mode: which registers are filled, how the episode ended, and which operator waits.
ENTRY, ACCUMULATOR, MEMORY, ANSWERED, ENDED, PENDING = 1, 2, 4, 8, 16, 32
MODES = 4 * PENDING  # no operator, or MUL, ADD, SUB


@dataclass
class Calculator(State):
    """The registers, and a mode that says which of them are filled.

    Attributes:
        key, target: int64 [n], of the problems under way.
        mode: int64 [n], the sum of its bits; PENDING counts once for MUL, twice for ADD, three times for SUB.
        entry, memory: int64 [n], 0 until they are filled.
        left: int64 [n], the accumulator while an operator waits, else 0.
        value: int64 [n], what `value` of the rules is now; `EMPTY` without one.
        earned: bool [n, 3], which milestones were paid; [n, 0] where none are.
    """

    key: Tensor
    target: Tensor
    mode: Tensor
    entry: Tensor
    left: Tensor
    memory: Tensor
    value: Tensor
    earned: Tensor

    @property
    def answered(self) -> Tensor:
        """Ended by ANS: bool [n]."""
        return self.mode & ANSWERED > 0

    @property
    def has_value(self) -> Tensor:
        """Whether there is a value: bool [n]."""
        return self.value != EMPTY


@dataclass
class Keys(Batch):
    """What each key does. A row for each choice of (result fits the display, mode, key), the key counting fastest.

    Attributes:
        digit: int64, the digit that it types; 0 for other keys.
        recalls: bool, it types the memory.
        sign: int64, of what is typed, in a sum with what waits at its left.
        multiplies: bool, what is typed is multiplied instead.
        types, operates, stores: bool, it types; the value goes to the left of an operator; or into the memory.
        mode: int64, after the key.
        done, answers, invalid: bool, the episode is over after it; it ends it with ANS; it has no effect.
    """

    digit: Tensor
    recalls: Tensor
    sign: Tensor
    multiplies: Tensor
    types: Tensor
    operates: Tensor
    stores: Tensor
    mode: Tensor
    done: Tensor
    answers: Tensor
    invalid: Tensor

    def words(self) -> Tensor:
        """The same as a word of bits for each row, for the native kernel: int32."""
        kinds = (self.recalls, self.sign < 0, self.multiplies, self.types, self.operates, self.stores)
        parts = [(self.digit, 0), *((kind, 4 + i) for i, kind in enumerate(kinds)), (self.mode, 10)]
        parts += [(self.done, 17), (self.answers, 18), (self.invalid, 19)]
        return torch.stack([part.int() << shift for part, shift in parts]).sum(0, dtype=torch.int32)


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
        self._tables: dict[torch.device, Tables] = {}
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
        tables = self.tables(problems.stage.device)
        tokens = tables.tokens.index_select(0, problems.stage)
        places = tables.places.index_select(0, problems.stage)
        return torch.where(tokens < 0, problems.operands.gather(1, places), tokens)

    # Episodes

    def begin(self, problems: ArithmeticProblems) -> Calculator:
        zero = torch.zeros_like(problems.stage)
        no = torch.zeros_like(zero, dtype=torch.bool)
        empty = torch.full_like(zero, EMPTY)
        earned = no.new_zeros(len(no), 3 if self.reward == "milestone" else 0)
        return Calculator(no, problems.key, problems.target, zero, zero, zero, zero, empty, earned)

    def step(self, state: Calculator, action: Tensor) -> Step[Calculator]:
        tables = self.tables(action.device)
        if native.computes(action.device):
            after, success, invalid = _press_natively(tables.words, state, action)
        else:
            after, row = _press(tables.keys, state, action)
            invalid = tables.keys.invalid.index_select(0, row)
            success = tables.keys.answers.index_select(0, row) & (after.value == after.target)
        reward = success.float()
        if self.reward == "milestone":
            paid = ~state.done[:, None] & _milestones(self.space.recall(state.key), after) & ~state.earned
            after = replace(after, earned=state.earned | paid)
            reward = reward + MILESTONE * paid.sum(1)
        elif self.reward == "potential":
            shaping = self.gamma * self._potential(after) - self._potential(state)
            reward = reward + torch.where(state.done, 0.0, shaping)
        return Step(after, self.feedback(after), reward, after.done, success, invalid)

    def feedback(self, state: Calculator) -> Tensor:
        if not self.closed_loop:
            return state.value.new_empty(len(state), 0)
        tables = self.tables(state.value.device)
        if native.computes(state.value.device):
            return native.display(tables.high, tables.low, state.value, self.spec.feedback_width)
        size = state.value.abs()
        # Division by 10⁴, exact up to 2³⁵: the processor multiplies eight numbers while it divides one.
        high = (size * RECIPROCAL) >> 45
        # Its upper digits being there, the lower ones show leading zeros: rows from 10⁴ on. EMPTY is row 2·10⁴.
        low = torch.sub(size, (high - 1).clamp(0, HALF - 2), alpha=HALF)
        # A right shift leaves −1 of negative values, 0 of the others.
        high = torch.sub(high, state.value >> 63, alpha=HALF + 1)
        words = tables.high.index_select(0, high) | tables.low.index_select(0, low)
        if torch.compiler.is_compiling():
            # The other form would be compiled into a loop over all places, which looks each word up nine times.
            return torch.stack([words >> BITS * place & 2**BITS - 1 for place in range(DIGITS + 1)], 1)
        return (words[:, None] >> tables.shifts) & (2**BITS - 1)

    def records(self, problems: ArithmeticProblems, state: Calculator) -> list[dict[str, Any]]:
        return self.space.records(problems, state.value, state.answered & state.has_value)

    def registers(self, state: Calculator, i: int) -> dict[str, str]:
        mode, value = int(state.mode[i]), int(state.value[i])
        operator = mode // PENDING
        # Only STO leaves an accumulator without an operator, and it fills the memory with the same.
        accumulator = state.left if operator else state.memory
        return {
            "entry": str(int(state.entry[i])) if mode & ENTRY else "",
            "accumulator": str(int(accumulator[i])) if mode & ACCUMULATOR else "",
            "pending": VOCABULARY[CTX + operator] if operator else "",
            "memory": str(int(state.memory[i])) if mode & MEMORY else "",
            "display": str(value) if value != EMPTY else "",
        }

    def tables(self, device: torch.device) -> Tables:
        """What is looked up, on `device`."""
        if device not in self._tables:
            self._tables[device] = _tables(self.spec.horizon, device)
        return self._tables[device]

    def _potential(self, state: Calculator) -> Tensor:
        """Φ: float32 [n]; 0 where an episode has ended; −1 at its start, or more where zeros shorten the way."""
        program = self.oracle(self.space.recall(state.key))
        n, length = len(state), (program != EOS).sum(1)
        # STO empties entry and operator, so the whole program succeeds after it from any state with a value.
        reset = torch.cat([torch.full_like(program[:, :1], STO), program], 1)
        suffixes = [program, reset] + [
            torch.cat([program[:, k:], torch.full_like(program[:, :k], EOS)], 1) for k in range(1, self.spec.horizon)
        ]
        costs = torch.stack([length, length + 1] + [length - k for k in range(1, self.spec.horizon)])
        width = self.spec.horizon + 1
        typed = torch.cat([pad(s, (0, width - s.shape[1]), value=EOS) for s in suffixes])
        trial = Batch.cat([state] * len(suffixes))
        for t in range(width):
            trial, _ = _press(self.tables(program.device).keys, trial, typed[:, t])
        right = (trial.answered & (trial.value == trial.target)).view(-1, n)
        distance = torch.where(right, costs, 2 * width).amin(0)
        return torch.where(state.done, 0.0, -distance / length)


def _press(keys: Keys, state: Calculator, action: Tensor) -> tuple[Calculator, Tensor]:
    """The state after a key, and its row of `keys`. Lookups cost a third of the same logic in tensors of flags."""
    row = torch.add(action, state.mode, alpha=len(VOCABULARY))
    typed = torch.where(keys.recalls.index_select(0, row), state.memory, keys.digit.index_select(0, row))
    total = torch.addcmul(state.left, keys.sign.index_select(0, row), typed)
    result = torch.where(keys.multiplies.index_select(0, row), state.left * typed, total)
    row = torch.add(row, result.abs() >= LIMIT, alpha=MODES * len(VOCABULARY))
    types, stores = keys.types.index_select(0, row), keys.stores.index_select(0, row)
    left = torch.where(keys.operates.index_select(0, row), state.value, state.left)
    after = Calculator(
        done=keys.done.index_select(0, row),
        key=state.key,
        target=state.target,
        mode=keys.mode.index_select(0, row),
        entry=torch.where(types, typed, state.entry),
        left=torch.where(stores, 0, left),
        memory=torch.where(stores, state.value, state.memory),
        value=torch.where(types, result, state.value),
        earned=state.earned,
    )
    return after, row


def _press_natively(words: Tensor, state: Calculator, action: Tensor) -> tuple[Calculator, Tensor, Tensor]:
    """The state after a key, whether it succeeds, and whether it is invalid; `words` are those of `Keys`."""
    before = (state.mode, state.entry, state.left, state.memory, state.value, state.target)
    (mode, entry, left, memory, value), (done, success, invalid) = native.press(words, before, action)
    after = Calculator(done, state.key, state.target, mode, entry, left, memory, value, state.earned)
    return after, success, invalid


def _milestones(problems: ArithmeticProblems, state: Calculator) -> Tensor:
    """Which sub-results stand on the display as the result of their own operation: bool [n, 3] (a·b, a·b + c, d·e)."""
    a, b, c, d, e = problems.operands.unbind(1)
    stage, computed = problems.stage, state.mode & ENTRY > 0
    product = computed & (state.mode // PENDING == MUL - CTX)
    total = computed & (state.mode // PENDING == ADD - CTX)
    return torch.stack(
        [
            product & (state.value == a * b),
            total & (state.value == a * b + c) & (stage >= 1),
            product & (state.value == d * e) & (stage == 2),
        ],
        1,
    )


# Tables


@dataclass
class Tables:
    """What is looked up instead of computed.

    Attributes:
        keys, words: what each key does; see `Keys`.
        high: int64 [20002], the sign and the upper digits: of 0–9999, blank when 0; all blank; the same, negative.
        low: int64 [20001], the lower digits: of 0–9999 with leading blanks, then with leading zeros; then blank.
        shifts: int64 [9], where in such a word each token of the display stands.
        tokens: int64 [3, horizon], the programs; −1 where an operand stands.
        places: int64 [3, horizon], which operand that is.
    """

    keys: Keys
    words: Tensor
    high: Tensor
    low: Tensor
    shifts: Tensor
    tokens: Tensor
    places: Tensor


def _tables(horizon: int, device: torch.device) -> Tables:
    zeros = torch.arange(HALF)[:, None] // torch.tensor([1000, 100, 10, 1]) % 10
    blanks = zeros.masked_fill((zeros.cumsum(1) == 0) & torch.tensor([True, True, True, False]), EOS)
    none = torch.full((1, 4), EOS)
    upper = torch.cat([none, blanks[1:], none])
    high = torch.cat([pad(upper, (1, 0), value=sign) for sign in (EOS, SUB)])
    shifts = BITS * torch.arange(DIGITS + 1)
    words = ((high << shifts[:-4]).sum(1), (torch.cat([blanks, zeros, none]) << shifts[-4:]).sum(1))
    tokens = torch.full((len(PROGRAMS), horizon), EOS)
    places = torch.zeros_like(tokens)
    for s, program in enumerate(PROGRAMS):
        for t, word in enumerate(program.split()):
            if word in OPERANDS:
                tokens[s, t], places[s, t] = -1, OPERANDS.index(word)
            else:
                tokens[s, t] = VOCABULARY.index(word)
    columns = (*words, shifts, tokens, places)
    keys = _keys()
    return Tables(keys.to(device), keys.words().to(device), *(column.to(device) for column in columns))


def _keys() -> Keys:
    """The rules, for every mode and key at once."""
    grid = torch.meshgrid(torch.arange(2), torch.arange(MODES), torch.arange(len(VOCABULARY)), indexing="ij")
    fits, mode, key = grid[0].flatten() == 0, grid[1].flatten(), grid[2].flatten()
    running = mode & ENDED == 0
    has_value = mode & (ENTRY | ACCUMULATOR) > 0
    operator = (key >= MUL) & (key <= SUB)
    digit = running & (key < CTX)
    recalls = running & (key == RCL) & (mode & MEMORY > 0)
    types = (digit | recalls) & fits
    operates = running & operator & has_value
    stores = running & (key == STO) & has_value
    ends = running & ((key == ANS) | (key == EOS))
    after = torch.where(types, mode | ENTRY, mode)
    after = torch.where(operates, mode & MEMORY | ACCUMULATOR | (key - CTX) * PENDING, after)
    after = torch.where(stores, MEMORY | ACCUMULATOR, after)
    after = torch.where(ends, mode | ENDED | torch.where(key == ANS, ANSWERED, 0), after)
    pending = mode // PENDING
    return Keys(
        digit=torch.where(digit, key, 0),
        recalls=recalls,
        sign=torch.where(pending == SUB - CTX, -1, 1),
        multiplies=pending == MUL - CTX,
        types=types,
        operates=operates,
        stores=stores,
        mode=after,
        done=after & ENDED > 0,
        answers=ends & (key == ANS),
        invalid=running & ~(types | operates | stores | ends),
    )
