"""What the interventions say, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from modelnative.evidence.carriers import CONTEXT, HIDDEN, LEAST, WHOLE_POLICY, WHOLE_TOOLS
from modelnative.evidence.donors import Exchange, Outcome, StageTransfer
from modelnative.evidence.evaluate import floor
from modelnative.evidence.removals import Removal
from modelnative.evidence.sensitivity import Sensitivity

Word = Literal["carried", "shared", "not carried", "not tested"]
KINDS = ("policy", "observation", "tools")
CARRIED, NOT_CARRIED = 0.9, 0.1  # shares that follow an exchange


@dataclass(frozen=True)
class Verdict:
    """What one carrier carries.

    Attributes:
        word: `carried`: at some action, at least 0.9 of the comparable pairs follow the exchange. `shared`: at none so
            many, but by the lower end of the 95% interval more than 0.1, or 0.1 more than by noise of the same size.
            `not carried`: at no action. `not tested`: never enough comparable pairs.
        keys: the numbers of the actions at which it is carried, or shared, from 1.
        strongest: the exchange that was followed most, and its outcome.
        kept: the lowest share of own answers after an exchange; None where answers were not tested.
    """

    carrier: str
    word: Word
    keys: tuple[int, ...]
    strongest: tuple[Exchange, Outcome] | None
    kept: float | None = None

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        shown: dict[str, object] = {"carrier": self.carrier, "verdict": self.word, "keys": list(self.keys)}
        shown["kept"] = None if self.kept is None else round(self.kept, 6)
        if self.strongest is not None:
            exchange, outcome = self.strongest
            level = "answer" if outcome is exchange.answer else "next token"
            shown["strongest"] = {"key": exchange.key, "in": level, **outcome.as_dict()}
        return shown


def verdicts(exchanges: Sequence[Exchange]) -> list[Verdict]:
    """One for each carrier: parts of the policy, what it observes, registers."""
    found = {exchange.carrier.name: exchange.carrier for exchange in exchanges}
    names = sorted(found, key=lambda name: (KINDS.index(found[name].kind), name in (WHOLE_POLICY, WHOLE_TOOLS)))
    chance = {
        (exchange.key, outcome is exchange.answer): outcome.noise_donor.rate or 0.0
        for exchange in exchanges
        for outcome in exchange.outcomes
        if outcome.noise_donor is not None
    }
    return [_verdict(name, [e for e in exchanges if e.carrier.name == name], chance) for name in names]


def _verdict(name: str, exchanges: list[Exchange], chance: dict[tuple[int, bool], float]) -> Verdict:
    words: dict[int, Word] = {}
    found: list[tuple[Exchange, Outcome]] = []
    for exchange in exchanges:
        for outcome in exchange.outcomes:
            by_chance = chance.get((exchange.key, outcome is exchange.answer), 0.0)
            word = words.get(exchange.key, "not carried")
            if outcome.followed >= CARRIED:
                word = "carried"
            elif outcome.surely_followed > by_chance + NOT_CARRIED and word != "carried":
                word = "shared"
            words[exchange.key] = word
            found.append((exchange, outcome))
    strongest = max(found, key=lambda pair: pair[1].followed, default=None)
    own = [e.answer.own.hits / e.answer.own.trials for e in exchanges if e.answer.own.trials >= LEAST]
    kept = min(own, default=None)
    for word in ("carried", "shared"):
        keys = tuple(key for key, given in words.items() if given == word)
        if keys:
            return Verdict(name, word, keys, strongest, kept)
    return Verdict(name, "not carried" if words else "not tested", (), strongest, kept)


def ranges(keys: Iterable[int], known: Sequence[int]) -> str:
    """Numbers as ranges of neighbors among the known ones.

    Example:
        >>> ranges([1, 2, 4, 8], [1, 2, 4, 6, 8])
        '1-4, 8'
    """
    parts: list[list[int]] = []
    for key in keys:
        if parts and known.index(key) == known.index(parts[-1][-1]) + 1:
            parts[-1].append(key)
        else:
            parts.append([key])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def in_words(
    found: Sequence[Verdict],
    keys: Sequence[int],
    read: Sensitivity,
    removals: Sequence[Removal],
    transfers: Sequence[StageTransfer],
) -> list[str]:
    """Sentences about one stage."""
    left = {removal.name: removal.success.rate or 0.0 for removal in removals}
    whole = left["nothing"]
    return [
        f"The agent solves {floor(whole)} of the problems.",
        *_reading(read),
        *_carrying(found, keys),
        *_hidden(found, left, whole),
        *_stage(transfers),
        *_feedback(left, whole),
    ]


def _reading(read: Sensitivity) -> Iterator[str]:
    answer, program = read.answer.rate, read.program.rate
    if answer is None or program is None:
        return
    if answer >= 0.5 and program <= 0.01:
        yield (
            "Where a change of the problem changes the right answer, the agent's answer changes in "
            f"{floor(answer)}, but its actions change in {floor(program)}: the tools read the problem, the network "
            "does not."
        )
    else:
        yield (
            f"Where a change of the problem changes the right answer, the agent's answer changes in {floor(answer)}; "
            f"its actions change in {floor(program)}."
        )


def _carrying(found: Sequence[Verdict], keys: Sequence[int]) -> Iterator[str]:
    for word, begin in (("carried", "Carried"), ("shared", "Partly carried")):
        parts = [f"{v.carrier} (actions {ranges(v.keys, keys)})" for v in found if v.word == word]
        if parts:
            yield f"{begin} by: {', '.join(parts)}."
    parts = [v.carrier for v in found if v.word == "not carried"]
    if parts:
        yield f"Not carried by: {', '.join(parts)}."


def _hidden(found: Sequence[Verdict], left: dict[str, float], whole: float) -> Iterator[str]:
    found_hidden = next((v for v in found if v.carrier == HIDDEN), None)
    needed = left.get("hidden state: 0", whole) < whole / 2
    if found_hidden is not None and found_hidden.word == "not carried" and needed:
        without, kept = floor(left["hidden state: 0"]), found_hidden.kept
        if kept is None or kept >= CARRIED:
            yield (
                f"The hidden state of another problem changes nothing, but without one success is {without}: it tells "
                "the place in the program, not the problem."
            )
        else:
            yield (
                "The hidden state of another problem is not followed, but disturbs: the own answer is kept in "
                f"{floor(kept)} or more. Without a hidden state success is {without}."
            )


def _stage(transfers: Sequence[StageTransfer]) -> Iterator[str]:
    parts = [transfer for transfer in transfers if (transfer.donor.rate or 0.0) >= CARRIED]
    if parts:
        best = parts[0]
        what = "what the network reads" if best.carrier == CONTEXT else f"the {best.carrier}"
        yield (
            f"With {what} of a problem of {best.donor_stage}, {floor(best.donor.rate)} of the episodes are as long as "
            "the donor's: it says how many actions to make."
        )


def _feedback(left: dict[str, float], whole: float) -> Iterator[str]:
    blank = left.get("feedback: blank")
    if blank is None or whole == 0:
        return
    if blank >= whole - 0.05:
        yield f"With blank feedback success is {floor(blank)}: the feedback is not needed."
    else:
        yield f"With blank feedback success is {floor(blank)}: the feedback is used."
