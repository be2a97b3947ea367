"""Thresholds for so many false aborts, and what so few streams can show."""

from dataclasses import replace
from typing import Any

import pytest

from shieldguard import ConfigError, Policy, SizeWindower
from shieldguard.evaluation.asking import Asked, StoredVerdicts
from shieldguard.evaluation.calibration import Calibration, calibrate, threshold_for, window_scores
from shieldguard.evaluation.calibration_report import plain, report, settings, verdict
from shieldguard.evaluation.intervals import clopper_pearson, streams_needed, upper_bound
from shieldguard.evaluation.labelled import LabelledStream
from shieldguard.evaluation.streams import all_windows
from shieldguard.testing import InstantScriptedJudge
from tests.streams.traces import SPAN, WordJudge, harmful, many

CUT = SizeWindower(size=SPAN)


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        (0, 10, 0.0, 0.3085),
        (10, 10, 0.6915, 1.0),
        (5, 10, 0.1871, 0.8129),
        (8, 776, 0.0045, 0.0202),
    ],
)
def test_exact_intervals(hits: int, of: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, of) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_is_that_of_the_beta_distribution() -> None:
    beta = pytest.importorskip("scipy.stats").beta
    for hits, of in ((1, 20), (7, 331), (250, 1000), (999, 1000)):
        low, high = clopper_pearson(hits, of)
        assert low == pytest.approx(beta.ppf(0.025, hits, of - hits + 1), abs=1e-9)
        assert high == pytest.approx(beta.ppf(0.975, hits + 1, of - hits), abs=1e-9)


def test_the_rule_of_three() -> None:
    assert upper_bound(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    assert streams_needed(0.005) == 598
    assert upper_bound(0, 598) <= 0.005 < upper_bound(0, 597)
    assert streams_needed(0.02, hits=2) > streams_needed(0.02)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_the_lowest_threshold_that_keeps_the_target() -> None:
    scores = [0.91, 0.72, 0.72, *[0.1] * 997]
    assert threshold_for(scores, 1) == (0.7201, 1)
    assert threshold_for(scores, 0) == (0.9101, 0)
    assert threshold_for(scores, 3) == (0.1001, 3)
    assert threshold_for([1.0, 1.0], 0) == (1.0, 2)


def test_a_debounced_stream_scores_as_its_policy_aborts() -> None:
    stream = harmful("a", onset=1, word_at=1)  # one window of 0.9 among those of 0.1
    windows = all_windows([stream], CUT)
    asked = Asked(StoredVerdicts(WordJudge()))
    assert window_scores(asked, windows, Policy()) == {"a": 0.9}
    assert window_scores(asked, windows, Policy(abort_hits=2, abort_within=3)) == {"a": 0.1}
    assert window_scores(Asked(StoredVerdicts(InstantScriptedJudge({}))), windows, Policy()) is None


def calibrated(target: float, fit_alarms: int, verify_alarms: int) -> Calibration:
    """Chosen on 100 streams, verified on 200."""
    return calibrate(
        StoredVerdicts(WordJudge()),
        many("ordinary", 100, fit_alarms),
        [*others(verify_alarms), harmful("h", onset=1, word_at=1)],
        target=target,
        stratum="ordinary",
        policy=Policy(),
        windower=CUT,
    )


def others(alarms: int) -> list[LabelledStream]:
    """200 more."""
    streams = many("ordinary", 200, alarms)
    return [replace(one, id=f"other {one.id}", query=f"other {one.query}") for one in streams]


def test_a_target_that_is_kept_but_cannot_be_shown() -> None:
    found = calibrated(20, fit_alarms=5, verify_alarms=3)
    # Five of a hundred score 0.6, and two of a hundred may abort: the threshold is above that.
    assert found.threshold == 0.6001
    assert (found.fitted.aborted, found.verified.aborted, found.verified.streams) == (0, 0, 200)
    assert found.kept
    assert found.shown == (found.verified.bound <= 20)
    assert found.verified.bound == pytest.approx(14.9, abs=0.1)
    assert "shown with 95 %" in verdict(found)
    tighter = calibrated(5, fit_alarms=5, verify_alarms=3)
    assert tighter.kept
    assert not tighter.shown
    assert "it takes 598 of them" in verdict(tighter)


def test_a_target_that_is_not_kept() -> None:
    found = calibrated(50, fit_alarms=5, verify_alarms=30)
    assert found.threshold == 0.1001
    assert found.fitted.rate == 50
    assert (found.verified.aborted, found.verified.streams) == (30, 200)
    assert not found.kept
    assert "not kept: 30 of 200" in verdict(found)
    assert '"threshold": 0.1001' in plain(found)


def test_the_report_shows_what_other_thresholds_give() -> None:
    found = calibrated(20, fit_alarms=5, verify_alarms=3)
    assert {name: len(scores) for name, scores in found.scores.items()} == {
        "chosen": 100,
        "verified": 200,
        "harmful": 1,
    }
    section = next(one for one in report(found).sections if one.title == "At other thresholds")
    # Five of a hundred may abort: all that score 0.6 do, of the others three of 200.
    assert section.tables[0].rows[0] == ["50", "0.1001", "50.0", "15.0", "100.0 %"]
    assert section.tables[0].rows[-1] == ["1", "0.6001", "0.0", "0.0", "100.0 %"]
    harmless, harmful_too = section.charts
    chosen = harmless.series[0].points
    assert (chosen[0], chosen[-1]) == ((0.0, 1000), (1.0, 0.0))
    assert min(height for threshold, height in chosen if threshold < 0.6) == 50
    assert harmful_too.series[0].points == [(0.0, 100), (0.9, 0.0), (1.0, 0.0)]


def test_what_cannot_be_calibrated_is_refused() -> None:
    streams = many("ordinary", 5, 0)
    common: dict[str, Any] = {"target": 5, "policy": Policy(), "windower": CUT}
    with pytest.raises(ConfigError, match="5 streams are both"):
        calibrate(StoredVerdicts(WordJudge()), streams, streams, stratum="ordinary", **common)
    with pytest.raises(ConfigError, match=r"'none' to choose on; choose one of \['ordinary'\]"):
        calibrate(StoredVerdicts(WordJudge()), streams, streams, stratum="none", **common)
    levels_alone = StoredVerdicts(InstantScriptedJudge({}))
    with pytest.raises(ConfigError, match="gives no probabilities"):
        calibrate(levels_alone, streams, others(0), stratum="ordinary", **common)


def test_settings_that_are_written_leave_keys_out() -> None:
    found = calibrated(20, fit_alarms=0, verify_alarms=0)
    text = settings(found, "remote", {"urls": ["u"], "model": "m", "api_key": "secret"})
    assert "secret" not in text
    assert 'urls = ["u"]' in text
    assert f"harmful = {found.threshold}" in text
    with pytest.raises(ConfigError, match="cannot be written"):
        settings(found, "cascade", {"screen": {"judge": "embedded"}})
