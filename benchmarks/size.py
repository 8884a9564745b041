"""Lines of code of one or two checkouts by room, without docstrings, comments and blank lines.

    python benchmarks/size.py                 # this checkout
    python benchmarks/size.py ../before .     # two, side by side

`new` counts the modules of `NEW`, abilities that revision 2d78264 did not have, in the last checkout; what its modules
have learned since is in `rest`. The last line has the mean number of characters of a line, which denser lines raise.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

NEW = {
    "other libraries": "bridges/* api/sharing.py cli/sharing.py extras.py",
    "language models": "tasks/contract/calls.py tasks/contract/episode.py tasks/*/words.py",
    "looking inside": "evidence/carriers.py evidence/decoding.py evidence/donors.py evidence/inspect.py "
    "evidence/interventions.py evidence/probes.py evidence/removals.py evidence/ridge.py evidence/sensitivity.py "
    "evidence/sharing.py evidence/steering.py evidence/switches.py evidence/verdicts.py studio/inspection.py",
    "studio, player, plots": "studio/server/* studio/player.py studio/plot.py cli/studio.py tasks/contract/board.py "
    "evidence/episode_choice.py",
    "audits": "training/audit.py training/auditor.py evidence/clinic.py evidence/faults.py studio/clinic.py",
    "searches": "training/discovery/* training/self_imitation/*",
    "comparisons": "evidence/comparison.py sweeps/comparison.py sweeps/groups.py studio/comparison.py",
    "mixtures, Gymnasium": "tasks/mixture/* tasks/gymnasium/*",
    "loggers, notebooks": "runs/loggers.py studio/notebook_view.py evidence/notebook.py",
    "doctor, memory, old runs": "studio/doctor.py cli/doctor.py training/update_memory.py policies/memory.py "
    "runs/upgrade.py tasks/contract/fingerprint.py",
    "more kernels in C++": "native/adam.py native/gradient.py native/mingru.py native/network.py native/play.py "
    "native/transformer.py",
}
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(text: str) -> list[str]:
    """The lines of a module that hold code."""
    prose: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        if documented and ast.get_docstring(node):
            prose.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    tokens = (token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in NO_CODE)
    numbers = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)} - prose
    return [line for number, line in enumerate(text.splitlines(), 1) if number in numbers]


def count(root: Path) -> tuple[Counter[str], Counter[str], Counter[str], float]:
    """Lines by room, those of new abilities by room and by ability, and the mean length of a line."""
    folder, characters = root / "src" / "modelnative", 0
    rooms, new, abilities = Counter[str](), Counter[str](), Counter[str]()
    for path in sorted(folder.rglob("*.py")):
        name, lines = path.relative_to(folder), code_lines(path.read_text(encoding="utf-8"))
        room, characters = name.parts[0].removesuffix(".py"), characters + sum(len(line.strip()) for line in lines)
        rooms[room] += len(lines)
        for ability in (ability for ability, patterns in NEW.items() if any(map(name.match, patterns.split()))):
            abilities[ability] += len(lines)
            new[room] += len(lines)
    return rooms, new, abilities, characters / max(1, rooms.total())


def main() -> None:
    """Print the table."""
    *earlier, (rooms, new, abilities, width) = [count(Path(root)) for root in sys.argv[1:3] or ["."]]
    before, width_before = (earlier[0][0], f"{earlier[0][-1]:.1f}") if earlier else (Counter[str](), "")
    print(f"{'room':<26}{'before':>9}{'now':>9}{'new':>9}{'rest':>9}")
    for room in [*sorted({*rooms, *before}), "all"]:
        was, now, added = (each.total() if room == "all" else each[room] for each in (before, rooms, new))
        print(f"{room:<26}{was:>9,}{now:>9,}{added:>9,}{now - added:>9,}")
    for ability, lines in abilities.items():
        print(f"  {ability:<24}{'':>18}{lines:>9,}")
    print(f"{'characters a line':<26}{width_before:>9}{width:>9.1f}")


if __name__ == "__main__":
    main()
