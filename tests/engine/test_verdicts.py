"""A verdict is one of three levels, or it is none."""

from dataclasses import FrozenInstanceError, asdict
from typing import Any

import pytest

from shieldguard import JudgeError, RiskCategory, RiskLevel, UnparsedVerdict, Verdict

SPREAD = {RiskLevel.SAFE: 0.2, RiskLevel.POTENTIAL: 0.5, RiskLevel.HARMFUL: 0.3}


@pytest.mark.parametrize(
    ("given", "level"),
    [
        *((level, level) for level in RiskLevel),
        (0, RiskLevel.SAFE),
        (0.0, RiskLevel.SAFE),
        (0.5, RiskLevel.POTENTIAL),
        (1, RiskLevel.HARMFUL),
        (1.0, RiskLevel.HARMFUL),
    ],
)
def test_the_number_of_a_level_is_taken_for_it(given: Any, level: RiskLevel) -> None:
    assert Verdict(level=given).level is level


@pytest.mark.parametrize(
    "level",
    [
        float("nan"),
        float("inf"),
        0.7,
        0.1,
        0.49999999,
        -0.5,
        -1,
        2,
        "0",
        "1",
        "safe",
        "",
        b"0",
        None,
        [],
        {},
        [0.0],
    ],
    ids=repr,
)
def test_whatever_else_is_no_verdict_and_least_of_all_a_safe_one(level: Any) -> None:
    with pytest.raises(UnparsedVerdict) as unparsed:
        Verdict(level=level)
    assert str(unparsed.value) == f"a level must be 0, 0.5 or 1, not {level!r}"
    assert isinstance(unparsed.value, JudgeError)


def test_levels_are_written_as_the_model_card_writes_them() -> None:
    assert [str(level) for level in RiskLevel] == ["0", "0.5", "1"]
    assert f"level {RiskLevel.POTENTIAL}" == "level 0.5"


def test_levels_compare_as_numbers() -> None:
    assert RiskLevel.SAFE < RiskLevel.POTENTIAL < RiskLevel.HARMFUL
    assert max(RiskLevel) is RiskLevel.HARMFUL


def test_a_verdict_does_not_change() -> None:
    verdict = Verdict(level=RiskLevel.HARMFUL)
    with pytest.raises(FrozenInstanceError):
        verdict.level = RiskLevel.SAFE  # type: ignore[misc]


def test_probabilities_do_not_change_behind_the_verdicts_back() -> None:
    given = dict(SPREAD)
    verdict = Verdict(level=RiskLevel.POTENTIAL, probabilities=given)
    given[RiskLevel.HARMFUL] = 0.0
    assert verdict.probabilities == SPREAD


def test_levels_of_probabilities_and_the_category_may_come_as_they_are_written() -> None:
    written = Verdict(level=RiskLevel.SAFE, probabilities={0.5: 1.0}, category="Safe")  # type: ignore[dict-item,arg-type]
    assert written.risk == 0.5
    assert written.category is RiskCategory.SAFE


def test_a_category_that_is_none_is_no_verdict() -> None:
    with pytest.raises(UnparsedVerdict, match="'Boredom'"):
        Verdict(level=RiskLevel.SAFE, category="Boredom")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probabilities", "risk"),
    [
        (None, None),
        ({RiskLevel.SAFE: 1.0}, 0.0),
        ({RiskLevel.POTENTIAL: 1.0}, 0.5),
        ({RiskLevel.HARMFUL: 1.0}, 1.0),
        (SPREAD, 0.55),
    ],
)
def test_the_risk_is_the_expected_level(
    probabilities: dict[RiskLevel, float] | None, risk: float | None
) -> None:
    assert Verdict(level=RiskLevel.SAFE, probabilities=probabilities).risk == pytest.approx(risk)


def test_the_level_is_the_judges_own_whatever_the_probabilities() -> None:
    assert Verdict(level=RiskLevel.HARMFUL, probabilities=SPREAD).level is RiskLevel.HARMFUL


def test_a_verdict_counts_as_confirmed_unless_its_judge_says_otherwise() -> None:
    assert Verdict(level=RiskLevel.HARMFUL).confirmed
    assert not Verdict(level=RiskLevel.HARMFUL, confirmed=False).confirmed


def test_a_verdict_with_probabilities_can_be_written_to_an_audit_record() -> None:
    assert asdict(Verdict(level=RiskLevel.POTENTIAL, probabilities=SPREAD))["probabilities"] == SPREAD
