from __future__ import annotations

import pytest

import modelnative as mn
from modelnative.evidence import clinic
from modelnative.evidence.clinic import diagnose
from modelnative.evidence.faults import CASES, Case


@pytest.mark.parametrize("name", CASES)
def test_every_fault_is_seen_by_the_second_update_and_its_twin_is_silent(name: str) -> None:
    found = diagnose(CASES[name], seed=3)
    assert found.false_alarms == ()
    assert found.update is not None
    assert found.update <= 2
    assert found.check in CASES[name].checks


def test_a_fault_that_is_not_there_is_missed() -> None:
    case = Case("none", "nothing is wrong", "", ("log_prob_gap_mean",), lambda trainer: None)
    found = diagnose(case)
    assert (found.update, found.passed) == (None, False)
    assert found.healthy < 1e-5


def test_curves_show_what_both_twins_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clinic, "CURVES", 3)
    small = mn.TrainConfig(episodes=32, policy=mn.PolicyConfig(width=8), stages=1)
    (found,) = mn.clinic(["engine mismatch"], curves=True, config=small)
    assert set(found.curves) == {"healthy", "sick"}
    assert all(0 <= rate <= 1 for rates in found.curves.values() for rate in rates)


def test_an_unknown_case_is_refused() -> None:
    with pytest.raises(mn.UserError, match="case: unknown value 'lenght bias'; did you mean 'length bias'"):
        mn.clinic(["lenght bias"])
    with pytest.raises(mn.UserError, match="seeds: 0 is not allowed; expected from 1 to 100,000"):
        mn.clinic(seeds=0)
