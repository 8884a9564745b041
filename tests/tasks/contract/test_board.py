from __future__ import annotations

import pytest
import torch

from modelnative.tasks import TASKS, make_task
from modelnative.tasks.contract.board import BoardField

BOARDS = [*((name, {}) for name in TASKS), ("dictionary", {"store": True}), ("hops", {"maps": 2})]


@pytest.mark.parametrize(("name", "options"), BOARDS, ids=str)
def test_a_board_keeps_its_labels(name: str, options: dict[str, object]) -> None:
    task = make_task(name, **options)
    generator = torch.Generator().manual_seed(0)
    problems = task.sample(torch.full((4,), len(task.spec.stages) - 1), generator, "all")
    state = task.begin(problems)
    labels = [field.label for field in task.board(state, 0)]
    assert len(set(labels)) == len(labels) > 0
    for _ in range(min(task.spec.horizon, 12)):
        state = task.step(state, torch.randint(len(task.spec.vocabulary), (4,), generator=generator)).state
        for i in range(4):
            board = task.board(state, i)
            assert [field.label for field in board] == labels
            registers = task.registers(state, i)
            for field in board:
                assert isinstance(field, BoardField)
                assert field.marked < len(field.value)
                if field.label in registers and isinstance(field.value, str):
                    assert field.value == registers[field.label]


def test_the_map_marks_the_node_on_the_display() -> None:
    task = make_task("hops")
    problems = task.sample(torch.tensor([0]), torch.Generator().manual_seed(0), "all")
    state = task.step(task.begin(problems), torch.tensor([task.spec.vocabulary.index("n3")])).state
    cells = {field.label: field for field in task.board(state, 0)}
    shown = cells["map of NEXT"]
    assert shown.value[3] == f"n3→{cells['display'].value}"
    assert shown.value[shown.marked].startswith(f"{cells['display'].value}→")


def test_countdown_shows_the_numbers_that_are_left() -> None:
    task = make_task("countdown")
    problems = task.sample(torch.tensor([0]), torch.Generator().manual_seed(0), "all")
    board = {field.label: field.value for field in task.board(task.begin(problems), 0)}
    record = task.records(problems, task.begin(problems))[0]
    assert board["target"] == str(record["target"])
    assert [cell.partition(" = ")[2] for cell in board["numbers"] if "–" not in cell] == [
        str(number) for number in record["numbers"]
    ]
