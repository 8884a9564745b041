"""One problem, token by token: what the policy wrote, how certain it was, and what the tool did."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from modelnative.errors import require_number
from modelnative.evidence.interventions import Hook, Moment, begin
from modelnative.evidence.notebook import html_table
from modelnative.evidence.problem_set import problem_text
from modelnative.evidence.record import Record
from modelnative.policies.contract import Policy
from modelnative.tasks.contract.board import BoardField
from modelnative.tasks.contract.task import AnyTask, Problems, TaskSpec, program_length

TOP = 6  # most probable tokens that are kept for each position
HOTTEST = 10.0  # temperature


@dataclass(frozen=True)
class ExplainedToken(Record):
    """One token of an episode.

    Attributes:
        token: the token that the policy wrote.
        oracle: the oracle's token at the same position; empty after the end of its program, None without a program.
        probability: of the token, at temperature 1.
        value: expected return before the token.
        entropy: of the policy's distribution at temperature 1, in nats.
        source: name of the context position that most of the probability was copied from; empty if the token was
            generated from the vocabulary.
        copied: share of the token's probability that was copied from the context.
        registers: the tool's registers after the token.
        valid: whether the token had an effect.
        top: the most probable tokens and their probabilities, highest first.
        weights: the probability, of any token, that is copied from each context position, as many as
            `Explanation.context` has; empty without a copy head.
        board: what the task shows of its tools after the token.
        reward: of the token.
        attention: for each of `Explanation.heads`, the weights of the places of `Explanation.context`, then of the
            start and of the tokens written before this one; empty for a policy without attention.
    """

    token: str
    oracle: str | None
    probability: float
    value: float
    entropy: float
    source: str
    copied: float
    registers: dict[str, str]
    valid: bool
    top: tuple[tuple[str, float], ...] = ()
    weights: tuple[float, ...] = ()
    board: tuple[BoardField, ...] = ()
    reward: float = 0.0
    attention: tuple[tuple[float, ...], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready. Numbers are rounded to five digits after the point; one that is not finite is None."""
        found = super().as_dict()
        del found["registers"]  # the board has them
        numbers = ("probability", "value", "entropy", "copied", "reward")
        return {
            **found,
            **{name: _rounded(found[name]) for name in numbers},
            "top": [[token, _rounded(probability)] for token, probability in self.top],
            "weights": [_rounded(weight) for weight in self.weights],
            "attention": [[round(weight, 3) for weight in head] for head in self.attention],
        }


@dataclass(frozen=True)
class Explanation(Record):
    """An episode and the oracle's program for the same problem.

    Attributes:
        stage: its name.
        problem: the problem as text.
        record: the task's record of the episode.
        rows: the tokens that the policy wrote.
        success: the verifier's verdict.
        truncated: the episode reached the horizon.
        oracle: the oracle's program; empty for a task without an oracle.
        context: what the policy reads of the problem: name and token of each position, without padding at the end; the
            name of a mark that ends a short context is empty.
        board: what the task shows of its tools before the first token.
        temperature: of the distribution that tokens were drawn from; 0 for the most probable tokens.
        heads: names of the heads of attention; empty without attention.
    """

    stage: str
    problem: str
    record: dict[str, Any]
    rows: tuple[ExplainedToken, ...]
    success: bool
    truncated: bool
    oracle: tuple[str, ...]
    context: tuple[tuple[str, str], ...] = ()
    board: tuple[BoardField, ...] = ()
    temperature: float = 0.0
    heads: tuple[str, ...] = ()

    @property
    def departure(self) -> int | None:
        """Index of the first token that differs from the oracle's program; None where there is none."""
        if not self.oracle:
            return None
        return next((i for i, row in enumerate(self.rows) if row.token != row.oracle), None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: what an episode player shows."""
        found = super().as_dict()
        record, tokens = found.pop("record"), found.pop("rows")
        answers = {name: _text(record.get(name)) for name in ("answer", "target")}
        return {**found, **answers, "departure": self.departure, "tokens": tokens}

    def _repr_html_(self) -> str:
        names = list(self.rows[0].registers) if self.rows else []
        head = ["", "token", "oracle", "probability", "value", "copied from", *names, ""]
        rows = []
        for number, row in enumerate(self.rows, 1):
            marks = [*(["≠"] if row.oracle not in (None, row.token) else []), *([] if row.valid else ["no effect"])]
            numbers = [f"{row.probability:.3f}", f"{row.value:.2f}", row.source]
            registers = [row.registers.get(name, "") for name in names]
            rows.append([str(number), row.token, row.oracle or "", *numbers, *registers, ", ".join(marks)])
        answer, target = self.record.get("answer"), self.record.get("target")
        outcome = f"{'✓ Right' if self.success else '✗ Wrong'}: answer {answer}, target {target}."
        return html_table(f"{self.stage}: {self.problem}", head, rows, [outcome])


@torch.no_grad()
def explain(
    policy: Policy,
    task: AnyTask,
    problems: Problems,
    *,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    hook: Hook | None = None,
) -> Explanation:
    """Play one problem and describe every token.

    Args:
        policy: the policy that plays.
        task: the task that it plays.
        problems: a batch of one problem.
        temperature: logits are divided by it before a token is drawn; 0 takes the most probable token.
        generator: of the CPU, draws the tokens; none is needed at temperature 0.
        hook: returns what is to be used in place of a moment, before each token; see `interventions.playback`.

    Raises:
        UserError: the temperature is out of range.
    """
    require_number("temperature", temperature, 0, HOTTEST, f"from 0 to {HOTTEST:g}", whole=False)
    spec = task.spec
    problems = problems.to(next(policy.parameters()).device)
    oracle, context = oracle_tokens(task, problems), _context(spec, problems)
    now = begin(policy, task, problems)
    board = tuple(task.board(now.state, 0))
    rows: list[ExplainedToken] = []
    heads: tuple[str, ...] = ()
    success = False
    for t in range(spec.horizon):
        now = now if hook is None else hook(t, now)
        attention = _attention(policy, now, spec.context_length, len(context))
        heads = tuple(attention)
        output = policy(now.token[None], now.feedback[None], now.memory)
        log_probs, value = output.log_probs[0, 0], output.value[0, 0]
        probabilities = log_probs.exp()
        if temperature > 0:
            drawn = (log_probs / temperature).softmax(-1).cpu()
            token = torch.multinomial(drawn, 1, generator=generator).to(now.token.device)
        else:
            token = log_probs.argmax(-1, keepdim=True)
        step = task.step(now.state, token)
        now, success = Moment(step.state, output.state, token, step.feedback), success or bool(step.success[0])
        source, copied_share, weights = "", 0.0, ()
        if output.copied is not None and output.copied.numel():
            weights = tuple(output.copied[0, 0, : len(context)].tolist())
            read = getattr(output.state, "context", problems.context)  # the own one, unless it was exchanged
            by_position = torch.where(read[0] == token, output.copied[0, 0], 0.0)
            copied_share = float(by_position.sum() / probabilities[token])
            source = _position_name(spec, problems, int(by_position.argmax())) if copied_share > 0.5 else ""
        best = probabilities.topk(min(TOP, len(probabilities)))
        rows.append(
            ExplainedToken(
                token=spec.vocabulary[int(token)],
                oracle="".join(oracle[t : t + 1]) if oracle else None,
                probability=float(probabilities[token]),
                value=float(value),
                entropy=float(-(probabilities * log_probs).sum()),
                source=source,
                copied=copied_share,
                registers=task.registers(now.state, 0),
                valid=not bool(step.invalid[0]),
                top=tuple((spec.vocabulary[i], p) for i, p in zip(*(x.tolist() for x in best[::-1]), strict=True)),
                weights=weights,
                board=tuple(task.board(now.state, 0)),
                reward=float(step.reward[0]),
                attention=tuple(attention.values()),
            )
        )
        if bool(step.done[0]):
            break
    return Explanation(
        stage=spec.stages[int(problems.stage[0])],
        problem=problem_text(task, problems, 0),
        record=task.records(problems, now.state)[0],
        rows=tuple(rows),
        success=success,
        truncated=not bool(now.state.done[0]),
        oracle=oracle,
        context=context,
        board=board,
        temperature=temperature,
        heads=heads,
    )


def oracle_tokens(task: AnyTask, problems: Problems) -> tuple[str, ...]:
    """The oracle's program for the first problem, as token names; empty for a task without an oracle."""
    if not task.has_oracle:
        return ()
    program = task.oracle(problems)
    length = int(program_length(program, task.spec.end)[0])
    return tuple(task.spec.vocabulary[token] for token in program[0, :length].tolist())


def _attention(policy: Policy, now: Moment, length: int, places: int) -> dict[str, tuple[float, ...]]:
    """For each head by its name, the weights of the first places of the context, and of the tokens so far."""
    method = getattr(policy, "attention", None)
    found = None if method is None else method(now.token[None], now.feedback[None], now.memory)
    if found is None:
        return {}
    layers, heads = found.shape[2:4]
    names = [f"layer {layer + 1}, head {head + 1}" for layer in range(layers) for head in range(heads)]
    rows = found[0, 0].flatten(0, 1).tolist()
    return {name: (*row[:places], *row[length:]) for name, row in zip(names, rows, strict=True)}


def _context(spec: TaskSpec, problems: Problems) -> tuple[tuple[str, str], ...]:
    """Name and token of each position of the first problem's context, without padding at the end."""
    tokens = problems.context[0].tolist()
    while tokens and tokens[-1] == spec.end:
        tokens.pop()
    names = ("" if token == spec.start else spec.position_name(place) for place, token in enumerate(tokens))
    return tuple(zip(names, (spec.vocabulary[token] for token in tokens), strict=True))


def _position_name(spec: TaskSpec, problems: Problems, position: int) -> str:
    """The name of a context position, or of the token there where it is the mark that ends a short context."""
    token = int(problems.context[0, position])
    return spec.vocabulary[token] if token == spec.start else spec.position_name(position)


def _rounded(number: float) -> float | None:
    return round(number, 5) if math.isfinite(number) else None


def _text(value: object) -> str | None:
    """A value of a record for people; a long one is cut."""
    return None if value is None else str(value)[:200]
