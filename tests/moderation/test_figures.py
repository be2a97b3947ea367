"""The figures, against counts by hand, scikit-learn, and bootstraps written plainly."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from shieldguard.evaluation.bootstrap import METRICS
from shieldguard.evaluation.metrics import Detection
from shieldguard.evaluation.moderation.figures import Figures, Judged, confusion, figures, ranked
from tests.moderation.judges import judged

GOLD = [0, 0, 0, 0, 0.5, 0.5, 1, 1, 1, 1]
SCORES = [0.1, 0.2, 0.6, None, 0.5, 0.3, 0.95, 0.7, None, 0.92]


def values(found: Figures) -> dict[str, float]:
    return {metric: found.estimates[metric].value for metric in METRICS}


def test_a_half_counts_as_harmful_and_no_verdict_as_wrong() -> None:
    found = figures(judged(GOLD, SCORES))
    # Harmful: hits 0.5, 0.95, 0.7, 0.92; misses 0.3 and none. Harmless: alarms 0.6 and none; passes 0.1, 0.2.
    assert found.table == Detection(hits=4, misses=2, false_alarms=2, passes=2)
    assert (found.rows, found.harmful, found.unparsed) == (10, 6, 0.2)
    assert values(found) == pytest.approx(
        {"accuracy": 0.6, "precision": 4 / 6, "recall": 4 / 6, "f1": 8 / 12, "false_positive_rate": 0.5}
    )
    assert all(one.deviation is None for one in found.estimates.values())


def test_the_levels_by_label_and_verdict() -> None:
    assert confusion(judged(GOLD, SCORES)) == [[2, 1, 0, 1], [1, 1, 0, 0], [0, 1, 2, 1]]


def test_runs_count_alike_and_their_deviation_is_told() -> None:
    gold = [0, 1, 1, 1]
    found = figures(judged(gold, [0.1, 0.9, 0.9, 0.9], [0.1, 0.9, 0.9, 0.1], [0.8, 0.9, 0.1, None]))
    recalls, accuracies = [1, 2 / 3, 1 / 3], [1, 0.75, 0.25]
    assert found.estimates["recall"].value == pytest.approx(2 / 3)
    assert found.estimates["recall"].deviation == pytest.approx(np.std(recalls, ddof=1))
    assert found.estimates["accuracy"].value == pytest.approx(np.mean(accuracies))
    assert found.estimates["accuracy"].deviation == pytest.approx(np.std(accuracies, ddof=1))
    assert found.table == Detection(hits=6, misses=3, false_alarms=1, passes=2)
    assert found.unparsed == pytest.approx(1 / 12)


def test_data_sets_count_alike_in_their_mean_and_by_rows_when_pooled() -> None:
    small = judged([0, 1], [0.1, 0.1])
    large = judged([0, 1] * 4, [0.1, 0.9] * 4)
    assert figures(small, large).estimates["accuracy"].value == pytest.approx((0.5 + 1) / 2)
    assert figures([*small, *large]).estimates["accuracy"].value == pytest.approx(9 / 10)


def test_of_what_there_is_none_there_is_no_figure() -> None:
    harmless = figures(judged([0, 0, 0], [0.1, 0.9, 0.1]))
    for metric in ("precision", "recall", "f1"):
        assert math.isnan(harmless.estimates[metric].value)
        assert math.isnan(harmless.estimates[metric].low)
    assert harmless.estimates["false_positive_rate"].value == pytest.approx(1 / 3)
    harmful = figures(judged([1, 1], [0.9, 0.1]))
    assert math.isnan(harmful.estimates["false_positive_rate"].value)
    # A set without harmful rows has no part in a mean of F1.
    together = figures(judged([0, 0], [0.1, 0.1]), judged([0, 1], [0.1, 0.9]))
    assert together.estimates["f1"].value == 1.0
    assert together.estimates["false_positive_rate"].value == 0.0


def test_a_judge_that_calls_nothing_harmful_has_the_precision_that_the_authors_give_it() -> None:
    found = figures(judged([0, 1], [0.1, 0.1]))
    assert found.estimates["precision"].value == 0.0
    assert found.estimates["f1"].value == 0.0


def drawn_at_random(seed: int, rows: int = 120) -> tuple[list[float], list[float | None]]:
    """Labels, and scores on a coarse grid, so that many are equal; some without a verdict."""
    rng = random.Random(seed)
    gold = [rng.choice([0, 0, 0.5, 1]) for _ in range(rows)]
    scores = [round(min(max(rng.gauss(0.3 + 0.35 * label, 0.25), 0), 1), 1) for label in gold]
    return gold, [None if rng.random() < 0.05 else score for score in scores]


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_agrees(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    gold, scores = drawn_at_random(seed)
    found = figures(judged(gold, scores))
    truth = [label > 0 for label in gold]
    guess = [not right if score is None else score >= 0.5 for right, score in zip(truth, scores, strict=True)]
    passes, alarms, _, _ = metrics.confusion_matrix(truth, guess).ravel()
    assert values(found) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(truth, guess),
            "precision": metrics.precision_score(truth, guess),
            "recall": metrics.recall_score(truth, guess),
            "f1": metrics.f1_score(truth, guess),
            "false_positive_rate": alarms / (alarms + passes),
        }
    )


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_draws_the_same_curves(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    gold, scores = drawn_at_random(seed)
    found = ranked(judged(gold, scores))
    assert found
    known = [(label > 0, score) for label, score in zip(gold, scores, strict=True) if score is not None]
    truth, known_scores = zip(*known, strict=True)
    assert (found.rows, found.left_out) == (len(known), scores.count(None))
    assert found.roc_area.value == pytest.approx(metrics.roc_auc_score(truth, known_scores))
    assert found.average_precision.value == pytest.approx(
        metrics.average_precision_score(truth, known_scores)
    )
    alarms, recalls, _ = metrics.roc_curve(truth, known_scores, drop_intermediate=False)
    assert np.allclose(found.roc, np.column_stack([alarms, recalls]))
    precision, recall, _ = metrics.precision_recall_curve(truth, known_scores)
    # It goes by rising thresholds, and ends in a point of its own.
    assert np.allclose(found.precision_recall, np.column_stack([recall, precision])[-2::-1])


def plainly(rows: Sequence[Judged], draws: int = 4000) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Rows drawn with replacement, and the metrics of each draw, the mean over runs."""
    rng = random.Random(1)
    found = []
    for _ in range(draws):
        drawn = rng.choices(rows, k=len(rows))
        runs = []
        for run in range(len(rows[0].answers)):
            levels = [one.answers[run].level for one in drawn]
            table = Detection.count(
                [one.harmful for one in drawn], [None if level is None else level > 0 for level in levels]
            )
            runs.append([getattr(table, metric) for metric in METRICS])
        found.append(np.mean(runs, axis=0))
    return np.array(found)


@pytest.mark.parametrize("runs", [1, 3])
def test_the_intervals_are_those_of_rows_drawn_anew(runs: int) -> None:
    gold, _ = drawn_at_random(7, rows=80)
    rng = random.Random(3)
    scores = [
        [None if rng.random() < 0.05 else min(0.99, 0.5 * rng.random() + 0.4 * label) for label in gold]
        for _ in range(runs)
    ]
    rows = judged(gold, *scores)
    low, high = np.percentile(plainly(rows), (2.5, 97.5), axis=0)
    found = figures(rows).estimates
    assert [found[metric].low for metric in METRICS] == pytest.approx(list(low), abs=0.02)
    assert [found[metric].high for metric in METRICS] == pytest.approx(list(high), abs=0.02)
    assert all(found[metric].low < found[metric].value < found[metric].high for metric in METRICS)


def test_the_interval_of_the_area_is_that_of_rows_drawn_anew() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    gold, scores = drawn_at_random(8)
    rows = [(label > 0, score) for label, score in zip(gold, scores, strict=True) if score is not None]
    rng = random.Random(1)
    drawn = [list(zip(*rng.choices(rows, k=len(rows)), strict=True)) for _ in range(1500)]
    found = ranked(judged(gold, scores))
    assert found
    for mine, theirs in (
        (found.roc_area, metrics.roc_auc_score),
        (found.average_precision, metrics.average_precision_score),
    ):
        low, high = np.percentile([theirs(*one) for one in drawn], (2.5, 97.5))
        assert (mine.low, mine.high) == pytest.approx((low, high), abs=0.015)


def test_the_score_of_a_row_is_the_mean_of_its_runs() -> None:
    found = ranked(judged([0, 1, 1], [0.4, 0.3, None], [0.0, 0.2, 0.1]))
    assert found  # 0.2, 0.25, and 0.1 of the one verdict that the last row got
    assert found.roc_area.value == pytest.approx(0.5)
    assert found.left_out == 0


def test_there_are_no_curves_without_scores_or_without_both_kinds() -> None:
    rows = judged([0, 1], [0.1, 0.9])
    object.__setattr__(rows[1].answers[0], "probabilities", None)
    assert ranked(rows) is None
    assert ranked(judged([1, 1], [0.1, 0.9])) is None
    assert ranked(judged([0, 1], [None, 0.9])) is None


def test_a_curve_of_many_points_is_drawn_with_fewer_and_keeps_its_ends() -> None:
    rng = random.Random(0)
    gold = [rng.choice([0, 1]) for _ in range(3000)]
    found = ranked(judged(gold, [rng.random() for _ in gold]))
    assert found
    assert 300 < len(found.roc) <= 401
    assert found.roc[0] == (0.0, 0.0)
    assert found.roc[-1] == (1.0, 1.0)
