"""What is inside trained agents, by `modelnative inspect`: the claims of docs/concepts/inside.md, every seed.

    python benchmarks/inspection.py              # trains what is missing, then inspects; an hour on two cores
    python benchmarks/inspection.py arithmetic recall --seeds 3 --runs runs/inspect
    python benchmarks/inspection.py --table      # print the table of all results so far

Runs are kept in the folder of --runs and trained once, each in a process of its own, one after another. Results are
appended to benchmarks/inspection.jsonl, a line a run: of its last stage, the figures that `figures` takes from the
inspection.
"""

from __future__ import annotations

import sys

# The folder of a script is the first place where modules are looked for, and this file is no substitute for the
# standard library's `inspect`.
if __name__ == "__main__":
    sys.path.pop(0)

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import modelnative as mn

RESULTS = Path(__file__).with_suffix(".jsonl")
READER = ["--policy.reader", "gru", "--policy.width", "128", "--loss.hint-weight", "1"]
READER += ["--optimizer.anneal-below-failure", "0.5", "--updates", "600"]
MENDED = ["--task", "tutorial", "--algorithm", "a2c", "--curriculum", "uniform", "--policy.copy-head", "false"]
# Flags of `modelnative train`, and the stage whose figures are kept.
RUNS: dict[str, tuple[list[str], str]] = {
    "arithmetic": ([], "T2"),
    "no-copy": (["--policy.copy-head", "false", "--updates", "1500"], "T2"),
    "transformer": (["--core", "transformer"], "T2"),
    "recall": (["--task", "recall", "--options", "longest=30"], "L30"),
    "hops": (["--task", "hops"], "H6"),
    "countdown": (["--task", "countdown", "--options", "numbers=3", *READER], "C3"),
    "expressions": (["--task", "expressions", "--options", "operators=3", *READER], "E3"),
    "tutorial": ([*MENDED, "--optimizer.learning-rate", "3e-3", "--updates", "100"], "T2"),
}


def train(name: str, seed: int, folder: Path) -> Path:
    """The run of a name and seed; trained if it is missing."""
    run = folder / f"{name}-{seed}"
    if not (run / "result.json").exists():
        verb = ["resume", str(run)] if (run / "config.json").exists() else ["train", "--out", str(run)]
        flags = [*RUNS[name][0], "--seed", str(seed), "--threads", "1"] if verb[0] == "train" else []
        subprocess.run([sys.executable, "-m", "modelnative", *verb, *flags], check=True, stdout=subprocess.DEVNULL)
    return run


def figures(found: mn.Inspection, stage: str) -> dict[str, Any]:
    """What is kept of an inspection."""
    inside = found.stage(stage)
    by_key: dict[str, Any] = {}
    for exchange in inside.exchanges:
        row = by_key.setdefault(exchange.carrier.name, {})
        outcomes = {"answer": exchange.answer, "next": exchange.next_token, "same": exchange.same_procedure}
        row[exchange.key] = {
            level: {part: rate(getattr(o, part)) for part in ("donor", "own", "predicted", "noise")}
            | {"pairs": o.donor.trials, "predicted pairs": o.predicted.trials}
            for level, o in outcomes.items()
            if o is not None and o.tested
        }
    decoding = inside.decoding.as_dict() if inside.decoding else {}
    kept = ("key", "target", "label", "hidden", "margin", "low", "high")
    decoding["cells"] = [{name: cell[name] for name in kept} for cell in decoding.get("cells", ())]
    return {
        "stage": stage,
        "verdicts": {verdict.carrier: [verdict.word, list(verdict.keys)] for verdict in inside.verdicts},
        "exchanges": by_key,
        "removals": {removal.name: rate(removal.success) for removal in inside.removals},
        "transfers": {t.carrier: {"from": t.donor_stage, "donor": rate(t.donor)} for t in inside.transfers},
        "sensitivity": {
            s.stage: {"answer": rate(s.sensitivity.answer), "program": rate(s.sensitivity.program)}
            for s in found.stages
        },
        "decoding": decoding,
    }


def rate(share: Any) -> float | None:
    """The rate of a share, four decimals."""
    return None if share is None or share.rate is None else round(share.rate, 4)


def table(lines: list[dict[str, Any]]) -> str:
    """A row for each claim, every seed shown."""
    newest = {(line["run"], line["seed"]): line for line in lines}.values()
    rows = ["| run | what | threshold | each seed |", "| --- | --- | --- | --- |"]
    for name, what, asked, of in CLAIMS:
        values = [of(line) for line in sorted(newest, key=lambda line: line["seed"]) if line["run"] == name]
        if values:
            shown = " ".join("–" if value is None else f"{value:.3f}" for value in values)
            rows.append(f"| {name} | {what} | {asked} | {shown} |")
    return "\n".join(rows)


def _extreme(line: dict[str, Any], carrier: str, part: str, first: int, last: int, level: str = "answer") -> Any:
    """The lowest share of a carrier over some actions; None if it was never tested there."""
    cells = line["exchanges"].get(carrier, {})
    found = [c[level][part] for key, c in cells.items() if first <= int(key) <= last and level in c]
    return min((value for value in found if value is not None), default=None)


def _margin(line: dict[str, Any], least: int = 1) -> float | None:
    """The largest margin of a probe that looks ahead by at least so many actions."""
    cells = [c["margin"] for c in line["decoding"].get("cells", ()) if c["target"] - c["key"] >= least]
    return max(cells, default=None)


def _use(line: dict[str, Any], name: str) -> float | None:
    """A figure of the removal or steering; the median of random ones."""
    use = line["decoding"].get("use")
    if use is None:
        return None
    if isinstance(use[name], list):
        return sorted(part["rate"] for part in use[name])[len(use[name]) // 2]
    return use[name]["rate"]


def _program(name: str) -> Any:
    return lambda line: max(stage[name] for stage in line["sensitivity"].values())


# The run, what is measured, what was asked for, and how it is computed.
CLAIMS: list[tuple[str, str, str, Any]] = [
    *(
        (
            run,
            f"{carrier} exchanged, actions 2–12: as predicted, lowest",
            "≥ 0.99",
            lambda x, c=carrier: _extreme(x, c, "predicted", 2, 12),
        )
        for run in ("arithmetic", "transformer")
        for carrier in ("memory register", "all registers")
    ),
    *(
        (
            run,
            f"{carrier} exchanged, actions 2–12{pairs}: {what}, lowest",
            "≥ 0.99" if level == "same" else "",
            lambda x, c=carrier, p=part, level=level: _extreme(x, c, p, 2, 12, level),
        )
        for run in ("arithmetic", "transformer")
        for carrier, part, what in (("context", "predicted", "as predicted"), ("hidden state", "own", "own answer"))
        for level, pairs in (("same", ", same procedure"), ("answer", ", all pairs"))
    ),
    ("arithmetic", "success with blank feedback", "", lambda x: x["removals"]["feedback: blank"]),
    ("arithmetic", "success without the hidden state", "", lambda x: x["removals"]["hidden state: 0"]),
    ("arithmetic", "largest margin of a probe", "≤ 0.02", _margin),
    ("no-copy", "context exchanged: own answer, lowest", "≥ 0.99", lambda x: _extreme(x, "context", "own", 1, 12)),
    (
        "no-copy",
        "hidden state exchanged at action 1: donor's answer",
        "≥ 0.99",
        lambda x: _extreme(x, "hidden state", "donor", 1, 1),
    ),
    (
        "no-copy",
        "memory register exchanged: as predicted, lowest",
        "",
        lambda x: _extreme(x, "memory register", "predicted", 2, 12),
    ),
    (
        "recall",
        "hidden state exchanged from action 2 on: donor's cue, lowest",
        "≥ 0.99",
        lambda x: _extreme(x, "hidden state", "donor", 2, 99),
    ),
    ("recall", "the cue's subspace removed: success", "0.125 ± 0.03", lambda x: _use(x, "removed")),
    ("recall", "random subspaces removed: success, median of 5", "≥ 0.95", lambda x: _use(x, "random")),
    ("recall", "moved to another cue: that cue is typed", "", lambda x: _use(x, "steered")),
    ("recall", "moved in a random direction", "", lambda x: _use(x, "steered_random")),
    (
        "hops",
        "feedback exchanged, actions 2–6: donor's next node, lowest",
        "≥ 0.99",
        lambda x: _extreme(x, "feedback", "donor", 2, 6, "next"),
    ),
    (
        "hops",
        "hidden state exchanged at the last action: donor's answer",
        "",
        lambda x: _extreme(x, "hidden state", "donor", 8, 8),
    ),
    (
        "hops",
        "with the hidden state of H3: as long as the donor's",
        "≥ 0.98",
        lambda x: x["transfers"]["hidden state"]["donor"],
    ),
    (
        "hops",
        "with the stage and context of H3: as long as the donor's",
        "",
        lambda x: x["transfers"]["context"]["donor"],
    ),
    ("hops", "with all of these of H3", "≥ 0.98", lambda x: x["transfers"]["whole policy state"]["donor"]),
    ("hops", "largest margin, two actions ahead or more", "≤ 0.02", lambda x: _margin(x, 2)),
    ("countdown", "success", "", lambda x: x["removals"]["nothing"]),
    ("countdown", "second operation after the first: margin over six controls", "≥ 0.10", _margin),
    ("countdown", "… lower end of its interval", "≥ 0.08", lambda x: x["decoding"]["best"]["low"]),
    ("countdown", "its subspace removed: success", "", lambda x: _use(x, "removed")),
    ("countdown", "random subspaces removed: success, median of 5", "", lambda x: _use(x, "random")),
    (
        "countdown",
        "hidden state exchanged at action 2: donor's next action",
        "",
        lambda x: _extreme(x, "hidden state", "donor", 2, 2, "next"),
    ),
    ("expressions", "success", "", lambda x: x["removals"]["nothing"]),
    ("expressions", "largest margin of a probe", "", _margin),
    ("expressions", "its subspace removed: success", "", lambda x: _use(x, "removed")),
    ("tutorial", "a changed problem changes the actions, highest of 3 stages", "≤ 0.01", _program("program")),
    ("tutorial", "a changed target changes the answer, highest of 3 stages", "≥ 0.5", _program("answer")),
]


def main() -> None:
    """Train, inspect, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="run", help="; ".join(RUNS))
    parser.add_argument("--seeds", type=int, default=3, help="seeds FIRST to N - 1 (default 3)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="FIRST", help="of them (default 0)")
    parser.add_argument("--runs", type=Path, default=Path("runs/inspect"), help="where runs are kept (runs/inspect)")
    parser.add_argument("--again", action="store_true", help="inspect runs that have results, too; the newest count")
    parser.add_argument("--table", action="store_true", help="print the table of all results so far, measure nothing")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(RUNS)
    if unknown:
        parser.error(f"unknown run {sorted(unknown)[0]!r}; choose from {'; '.join(RUNS)}")
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    done = {(line["run"], line["seed"]) for line in lines}
    for name in [] if arguments.table else arguments.names or RUNS:
        for seed in range(arguments.first_seed, arguments.seeds):
            if (name, seed) in done and not arguments.again:
                continue
            run = train(name, seed, arguments.runs)
            before = time.process_time()
            found = mn.inspect(run, file=run / "inspect.json")
            cost = round(time.process_time() - before, 1)
            line = {"run": name, "seed": seed, "cpu_seconds": cost, **figures(found, RUNS[name][1])}
            with open(RESULTS, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            lines.append(json.loads(json.dumps(line)))
            print(name, seed, f"{cost} s", *found.stage(RUNS[name][1]).words, sep="\n  ", flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
