"""What a language model reads of `tutorial`."""

from __future__ import annotations

from modelnative.tasks.arithmetic.words import FormulaWords

RULES = """You press the keys of tools that know the operands and keep a value, 'last'. Nothing is shown.
MUL: last = a*b if last is empty, otherwise last*d (stage T0: no effect then).
ADD: last + c. SUB: last - d, or last - e at stage T2 after STO (stage T0: no effect).
STO: sets the memory. RCL: once the memory is set, last = d*e at stage T2, otherwise 0 if last is empty.
ANS: answer with last, which ends the episode. Digits and EOS have no effect."""


class TutorialWords(FormulaWords):
    """What `Tutorial` says to a language model."""

    def rules(self) -> str:
        """See `Task.rules`."""
        return RULES
