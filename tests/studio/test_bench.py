from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType

from modelnative.speed.measure import BenchResult, TimeToSolution, default_config
from modelnative.speed.processes import PeakMemory, matmul_name
from modelnative.speed.profile import ProfiledOperation
from modelnative.speed.throughput import Throughput
from modelnative.studio.bench import TOP, page, profile


def shown(parts: Iterable[RenderableType]) -> str:
    console = Console(file=io.StringIO(), width=120, highlight=False)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def measured(core: str = "gru", processes: int = 2) -> BenchResult:
    rates = []
    for count in dict.fromkeys((1, processes)):
        rates += [
            Throughput(matmul_name(64), "GFLOP/s", count, 1, (60.0 * count,)),
            Throughput("environment", "steps/s", count, 1, (8e6 * count, 9e6 * count, 1e7 * count)),
            Throughput("training", "steps/s", count, 1, (100_000.0 * count,)),
        ]
    if processes > 1:
        rates.append(Throughput(matmul_name(64), "GFLOP/s", 1, processes, (90.0,)))
        rates.append(Throughput("environment, compiled", "steps/s", 1, 1, (2e7,), 33.0))
    memory = tuple(PeakMemory(count, 300 * count << 20) for count in dict.fromkeys((1, processes)))
    solved = (TimeToSolution(0, 12.5, 90, True, "all right"), TimeToSolution(1, 20.0, 600, False, "not yet"))
    return BenchResult(default_config(core=core), 5.0, tuple(rates), memory, ("no compiler",), solved)


def test_the_page_of_a_machine() -> None:
    text = shown(page(measured()))
    row = next(line for line in text.splitlines() if line.strip().startswith("training"))
    assert row.split() == ["training", "steps/s", "100k", "100k–100k", "20.1%", "200k", "200k–200k", "20.1%"]
    for part in (
        "8.00M–10.0M",
        "120 GFLOP/s with 2 processes of 1 thread; 90.0 with 1 process of 2 threads",
        "% of matmul: % of this machine's matrix-multiply speed",
        "rollout 30,080, update 90,240, training 120,320 FLOP a step",
        "300 MiB at most, 1 process",
        "600 MiB at most, 2 processes together",
        "33.0 s, including warm-up, 1 process of 1 thread",
        "missing   no compiler",
        "1 of 2 seeds, median 16.2 s (12.5–20.0)",
    ):
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 120


def test_one_process_of_another_core() -> None:
    text = shown(page(measured("mingru", 1)))
    assert "processes" not in text
    assert "work      not counted for the core mingru" in text
    assert text.count("%") == 2, "only in the heading and in the line that explains it"


def test_a_profile_shows_the_most_expensive() -> None:
    operations = [ProfiledOperation(f"aten::op{i}", 2.0, 0.01, 1 / 25) for i in range(25)]
    text = shown(profile(operations))
    assert "One update, 1 thread: 250.0 ms in 25 kinds of operation" in text
    assert f"aten::op{TOP - 1} " in text
    assert f"aten::op{TOP} " not in text
    assert "5 others: 20.0%" in text
    assert "others" not in shown(profile(operations[:TOP]))
