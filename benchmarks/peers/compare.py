"""The library and its peers on the same task, side by side: one command.

    python benchmarks/peers/compare.py throughput                  # every configuration, 20 s each, 3 rounds
    python benchmarks/peers/compare.py throughput 'ours*' --rounds 1 --seconds 5
    python benchmarks/peers/compare.py throughput --grid           # also the batched peers at every size; long
    python benchmarks/peers/compare.py solve                       # 10 minutes each, every problem verified
    python benchmarks/peers/compare.py table                       # what was measured so far; measures nothing
    python benchmarks/peers/compare.py list

Configurations are chosen by name or pattern. `--ours` adds one of the library's, as fields of its `TrainConfig`:
`--ours '{"episodes": 2048, "threads": 2}'`. Each runs in a process of its own, one after the other, round by round
(A B C, A B C, …), so that what else the machine does falls on all alike. Results are appended to throughput.jsonl and
solve.jsonl beside this file.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIBRARIES = (
    "torch",
    "numpy",
    "sb3-contrib",
    "stable-baselines3",
    "torchrl",
    "tensordict",
    "gymnasium",
    "jax",
    "jaxlib",
    "skrl",
)
LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

# A family is what the library is compared with: of each, the best configuration counts.
FAMILIES = {
    "ours": "ours, with hints",
    "ours-uniform": "ours, playing what the peers play",
    "sb3-8-python": "SB3, 8 Python environments",
    "sb3-batched": "SB3, batched",
    "cleanrl-python": "CleanRL's structure, Python environments",
    "cleanrl-batched": "CleanRL's structure, batched",
    "torchrl-lstm": "TorchRL LSTM, batched",
    "torchrl-gru": "TorchRL GRU, batched",
    "jax": "JAX, one compiled program",
    "skrl": "skrl GRU, batched",
}


def sized(peer: str, environments: int, steps: int, threads: int, **more: Any) -> dict[str, Any]:
    """A peer's configuration."""
    return {"peer": peer, "threads": threads, "fields": {"environments": environments, "steps": steps, **more}}


def ours(**fields: Any) -> dict[str, Any]:
    """One of the library's; 0 threads is its own choice."""
    processes = fields.pop("processes", 1)
    return {"peer": "ours", "threads": fields.get("threads", 0), "processes": processes, "fields": fields}


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "ours": ours(),
    "ours-2048": ours(episodes=2048),
    "ours-8192": ours(episodes=8192),
    "ours-8192-2-processes": ours(episodes=8192, threads=1, processes=2),
    "ours-uniform": ours(curriculum="uniform"),
    "ours-uniform-2048": ours(curriculum="uniform", episodes=2048),
    "ours-uniform-8192": ours(curriculum="uniform", episodes=8192),
    "ours-uniform-1-thread": ours(curriculum="uniform", threads=1),
    "ours-uniform-2048-1-thread": ours(curriculum="uniform", episodes=2048, threads=1),
    "ours-uniform-8192-1-thread": ours(curriculum="uniform", episodes=8192, threads=1),
    "ours-uniform-2048-2-processes": ours(curriculum="uniform", episodes=2048, threads=1, processes=2),
    "ours-uniform-8192-2-processes": ours(curriculum="uniform", episodes=8192, threads=1, processes=2),
    "sb3-8-python": sized("sb3", 8, 128, 1, world="python"),
    "sb3-8-python-own-critic": sized("sb3", 8, 128, 1, world="python", critic="own"),
    "sb3-batched-512": sized("sb3", 512, 24, 1, world="tensor"),
    "sb3-batched-512-own-critic": sized("sb3", 512, 24, 1, world="tensor", critic="own"),
    "cleanrl-python-512": sized("cleanrl", 512, 24, 1, world="python"),
    "cleanrl-batched-512": sized("cleanrl", 512, 24, 1),
    "cleanrl-batched-2048": sized("cleanrl", 2048, 24, 1),
    "cleanrl-batched-2048-2-threads": sized("cleanrl", 2048, 24, 2),
    "torchrl-lstm-512": sized("torchrl", 512, 24, 1, core="lstm"),
    "torchrl-gru-512": sized("torchrl", 512, 24, 1, core="gru"),
    # The best shapes of a search; the first as purejaxrl would have it.
    "jax-512-plain": sized("jax", 512, 12, 1),
    "jax-512": sized("jax", 512, 24, 1, pairs=True, shuffle=False),
    "jax-2048": sized("jax", 2048, 12, 1, pairs=True, shuffle=False),
    "jax-2048-2-devices": sized("jax", 2048, 12, 2, pairs=True, shuffle=False),
    "jax-8192": sized("jax", 8192, 12, 1, pairs=True, shuffle=False),
    "skrl-512": sized("skrl", 512, 24, 1),
    "skrl-2048": sized("skrl", 2048, 24, 1),
    "skrl-8192": sized("skrl", 8192, 24, 1),
}
# The batched peers at every size. On a busy machine two threads wait for each other and lose all that they may win.
BATCHED: dict[str, tuple[str, dict[str, str]]] = {
    "sb3-batched": ("sb3", {"world": "tensor"}),
    "cleanrl-batched": ("cleanrl", {}),
    "torchrl-lstm": ("torchrl", {"core": "lstm"}),
    "torchrl-gru": ("torchrl", {"core": "gru"}),
    "jax": ("jax", {"pairs": True, "shuffle": False}),
    "skrl": ("skrl", {}),
}
GRID = {
    f"{name}-{n}x{steps}-{threads}": sized(peer, n, steps, threads, **more)
    for name, (peer, more) in BATCHED.items()
    for n in (512, 2048, 4096)
    for steps in (12, 24, 64, 128)
    for threads in (1, 2)
}
# Seconds to a solution: our recipe uses the oracle's hints, which the peers have not; the second of ours does not.
SOLVERS: dict[str, dict[str, Any]] = {
    "ours": ours(),
    "ours-no-hints": ours(curriculum="threshold"),
    "sb3-8-python": CONFIGURATIONS["sb3-8-python-own-critic"],
    "sb3-batched-512": CONFIGURATIONS["sb3-batched-512-own-critic"],
    "cleanrl-batched-512": CONFIGURATIONS["cleanrl-batched-512"],
    "torchrl-lstm-512": CONFIGURATIONS["torchrl-lstm-512"],
    "torchrl-gru-512": CONFIGURATIONS["torchrl-gru-512"],
    "jax-2048": CONFIGURATIONS["jax-2048"],
}


def make(configuration: dict[str, Any], seed: int, schedule: str) -> Any:
    """The training itself; each library is imported by the process that needs it."""
    peer, fields = configuration["peer"], configuration["fields"]
    if peer == "ours":
        from ours import Ours

        return Ours(seed, **fields)
    from worlds import Stages

    if peer == "sb3":
        from sb3_lstm import SB3 as Kind
    elif peer == "cleanrl":
        from cleanrl_lstm import CleanRL as Kind
    elif peer == "jax":
        from jax_ppo import JAX as Kind
    elif peer == "skrl":
        from skrl_ppo import SKRL as Kind
    else:
        from torchrl_ppo import TorchRL as Kind
    return Kind(Stages(schedule), seed, **fields)


def run_throughput(job: dict[str, Any]) -> dict[str, Any]:
    """Updates for some seconds, after one that is not counted."""
    training = make(job["configuration"], job["seed"], "uniform")
    training.update()
    steps = updates = 0
    agree = getattr(training, "agree", float)  # several processes of ours must agree on when to end
    start, cpu = time.perf_counter(), time.process_time()
    while (elapsed := agree(time.perf_counter() - start)) < job["seconds"]:
        steps += training.update()
        updates += 1
    if hasattr(training, "close"):
        training.close()
    return {
        "steps_per_second": steps / elapsed,
        "steps": steps,
        "updates": updates,
        "seconds": elapsed,
        "cpu_seconds": time.process_time() - cpu,
        "parameters": training.parameters,
    }


def run_solve(job: dict[str, Any]) -> dict[str, Any]:
    """Train for some seconds (verification stands outside the clock), and play every problem."""
    configuration, seed, seconds = job["configuration"], job["seed"], job["seconds"]
    if configuration["peer"] == "ours":
        from ours import solve

        return solve(seconds, seed, **configuration["fields"])
    from worlds import verify

    training = make(configuration, seed, job["schedule"])
    curve: list[dict[str, Any]] = []
    elapsed, steps, updates, rates = 0.0, 0, 0, verify(training)
    while elapsed < seconds and min(rates["train"].values()) < 1:
        start, until = time.perf_counter(), min(seconds, elapsed + job["every"])
        while elapsed + time.perf_counter() - start < until:
            steps += training.update()
            updates += 1
        elapsed += time.perf_counter() - start
        rates = verify(training)
        curve.append({"seconds": elapsed, "train": rates["train"]})
    return {
        "parameters": training.parameters,
        "seconds": elapsed,
        "updates": updates,
        "steps": steps,
        "rates": rates,
        "curve": curve,
    }


def launch(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a process of its own; what it says of itself, with what it was and where it ran."""
    environment = {name: value for name, value in os.environ.items() if name not in LIMITS}
    if threads := job["configuration"]["threads"]:
        environment |= dict.fromkeys((*LIMITS, "PEER_DEVICES"), str(threads))
    load = os.getloadavg()[0]
    program = [sys.executable]
    if (processes := job["configuration"].get("processes", 1)) > 1:
        program += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*program, str(Path(__file__)), "job", json.dumps(job)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{job['name']} failed:\n{done.stderr}")
    return {**job, **json.loads(done.stdout.splitlines()[-1]), "load_before": load, "machine": machine()}


def machine() -> dict[str, Any]:
    """What a figure was measured on."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True)
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "revision": revision.stdout.strip(),
    }


def append(kind: str, line: dict[str, Any]) -> None:
    """Keep a result."""
    with open(HERE / f"{kind}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(kind: str) -> list[dict[str, Any]]:
    """The results so far."""
    path = HERE / f"{kind}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def family(line: dict[str, Any]) -> str:
    """What a result counts for: the longest of the families that its name begins with."""
    if line["configuration"]["peer"] == "ours":
        return "ours-uniform" if line["schedule"] == "uniform" else "ours"
    return max((key for key in FAMILIES if line["name"].startswith(key)), key=len)


def throughput_table(lines: list[dict[str, Any]]) -> str:
    """Median and range of each configuration, then the best of ours against the best of each family."""
    rates: dict[str, list[float]] = {}
    for line in lines:
        rates.setdefault(line["name"], []).append(line["steps_per_second"])
    shapes = {line["name"]: line for line in lines}
    rows = [
        "| configuration | threads | parameters | runs | steps/s, median (range) | steps per processor second |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, values in rates.items():
        line = shapes[name]
        work = statistics.median(run["steps"] / run["cpu_seconds"] for run in lines if run["name"] == name)
        rows.append(
            f"| {name} | {line['configuration']['threads'] or 'own'} | {line['parameters']:,} | {len(values)} |"
            f" {statistics.median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f}) | {work:,.0f} |"
        )
    best: dict[str, str] = {}
    for name, values in rates.items():
        kind = family(shapes[name])
        if kind not in best or statistics.median(values) > statistics.median(rates[best[kind]]):
            best[kind] = name
    for mine in ("ours", "ours-uniform"):
        others = {kind: name for kind, name in best.items() if not kind.startswith("ours")}
        if mine not in best or not others:
            continue
        rows += [
            "",
            f"Steps/s of {best[mine]} ({FAMILIES[mine]}) over those of the best of each:",
            "",
            "| | which is | ratio of medians (range over rounds) |",
            "| --- | --- | --- |",
        ]
        own = rates[best[mine]]
        for kind, name in others.items():
            theirs = rates[name]
            pairs = [a / b for a, b in zip(own, theirs, strict=False)]
            whole = statistics.median(own) / statistics.median(theirs)
            rows.append(f"| {FAMILIES[kind]} | {name} | {whole:.2f} ({min(pairs):.2f}–{max(pairs):.2f}) |")
    return "\n".join(rows)


def solve_table(lines: list[dict[str, Any]]) -> str:
    """What each reached, over all problems, and how long it took."""
    rows = [
        "| configuration | schedule | seed | solved | seconds | steps | train T0 | T1 | T2 | held-out T0 | T1 | T2 |",
        "| --- " * 12 + "|",
    ]
    for line in lines:
        cells = [int(rate * 1e4) / 1e4 for split in ("train", "heldout") for rate in line["rates"][split].values()]
        solved = min(line["rates"]["train"].values()) == 1
        rows.append(
            f"| {line['name']} | {line['schedule']} | {line['seed']} | {'yes' if solved else 'no'} |"
            f" {line['seconds']:.1f} | {line['steps']:,} | {' | '.join(f'{cell:.4f}' for cell in cells)} |"
        )
    return "\n".join(rows)


TABLES = {"throughput": throughput_table, "solve": solve_table}
NOTHING = "no results yet; measure some first, as with `compare.py throughput`"


def chosen(patterns: list[str], known: dict[str, Any], parser: argparse.ArgumentParser) -> list[str]:
    """The names that match; all without a pattern."""
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            parser.error(f"no configuration matches {pattern!r}; choose from {', '.join(known)}")
    return [name for name in known if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def plot(lines: list[dict[str, Any]], path: Path) -> None:
    """Steps per second of every configuration, a dot a run and a bar for the median, as SVG."""
    from matplotlib.figure import Figure

    rates: dict[str, list[float]] = {}
    for line in lines:
        rates.setdefault(line["name"], []).append(line["steps_per_second"] / 1000)
    names = sorted(rates, key=lambda name: statistics.median(rates[name]))
    figure = Figure(figsize=(7, 0.34 * len(names) + 1), layout="constrained")
    axes = figure.add_subplot()
    colors = ["#2a9d8f" if name.startswith("ours") else "#9aa5ab" for name in names]
    axes.barh(names, [statistics.median(rates[name]) for name in names], color=colors)
    for row, name in enumerate(names):
        axes.plot(rates[name], [row] * len(rates[name]), ".", color="#1d2327", markersize=4)
    axes.set_xlabel("thousand training steps a second, updates included, two cores")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("throughput", "solve", "table", "plot", "list", "job"))
    parser.add_argument("names", nargs="*", metavar="name", help="names or patterns of configurations (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run (throughput; default 3)")
    parser.add_argument("--seconds", type=float, default=20, help="of each run (throughput; default 20)")
    parser.add_argument("--minutes", type=float, default=10, help="of each run (solve; default 10)")
    parser.add_argument("--every", type=float, default=60, help="seconds between verifications (solve; default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, problems and actions (default 0)")
    parser.add_argument(
        "--schedule", choices=("threshold", "uniform"), default="threshold", help="peers' stages (solve)"
    )
    parser.add_argument("--grid", action="store_true", help="add the batched peers at every size (throughput)")
    parser.add_argument("--ours", action="append", default=[], metavar="JSON", help="add ours with these fields")
    parser.add_argument("--fields", type=json.loads, default={}, metavar="JSON", help="fields to change in the peers")
    parser.add_argument("--dry", action="store_true", help="print the table, keep nothing")
    arguments = parser.parse_intermixed_args()

    if arguments.command == "job":
        import torch

        job = json.loads(arguments.names[0])
        torch.set_num_threads(job["configuration"]["threads"] or torch.get_num_threads())
        said = {"throughput": run_throughput, "solve": run_solve}[job["kind"]](job)
        if int(os.environ.get("RANK", 0)) == 0:
            print(json.dumps(said))
        return
    known = dict(SOLVERS) if arguments.command == "solve" else CONFIGURATIONS | (GRID if arguments.grid else {})
    extra = {f"ours {text}": ours(**json.loads(text)) for text in arguments.ours}
    if arguments.command == "list":
        for name, configuration in {**known, **GRID}.items():
            print(f"{name:32} {json.dumps(configuration)}")
        return
    if arguments.command == "table":
        if not any(read(kind) for kind in TABLES):
            parser.error(NOTHING)
        for kind, table in TABLES.items():
            lines = read(kind)
            for start in dict.fromkeys(line["start"] for line in lines):
                mine = [line for line in lines if line["start"] == start]
                print(f"## {kind}, {start}", table(mine), json.dumps(mine[0]["machine"]), "", sep="\n\n")
        return
    if arguments.command == "plot":
        if not (newest := read("throughput")):
            parser.error(NOTHING)
        plot([line for line in newest if line["start"] == newest[-1]["start"]], HERE / "throughput.svg")
        return
    names = [*extra, *chosen(arguments.names, known, parser)]
    known |= extra
    lines, start = [], time.strftime("%Y-%m-%d %H:%M:%S")
    for number in range(arguments.rounds if arguments.command == "throughput" else 1):
        for name in names:
            configuration = known[name]
            schedule = "uniform" if arguments.command == "throughput" else arguments.schedule
            if configuration["peer"] == "ours":
                schedule = configuration["fields"].get("curriculum", "hints")
            else:
                configuration = {**configuration, "fields": {**configuration["fields"], **arguments.fields}}
            job = {
                "kind": arguments.command,
                "name": name,
                "start": start,
                "configuration": configuration,
                "seed": arguments.seed,
                "round": number,
                "seconds": arguments.seconds if arguments.command == "throughput" else arguments.minutes * 60,
                "every": arguments.every,
                "schedule": schedule,
            }
            line = launch(job)
            lines.append(line)
            if not arguments.dry:
                append(arguments.command, line)
            said = f"{line['steps_per_second']:,.0f} steps/s" if "steps_per_second" in line else line["rates"]["train"]
            print(f"round {number}  {name:32} {said}  (load before: {line['load_before']:.1f})", flush=True)
    print("", TABLES[arguments.command](lines), "", sep="\n")
    print(json.dumps(machine()))


if __name__ == "__main__":
    main()
