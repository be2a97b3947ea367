"""How well scores rank texts, at every threshold: ROC, and precision against recall."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shieldguard.evaluation.bootstrap import DRAWS, Estimate, Floats, interval

_AT_A_TIME = 50  # draws, for their memory
_POINTS = 400  # of a curve that is drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """`roc`: (false-positive rate, recall), `precision_recall`: (recall, precision), thresholds falling.
    `left_out`: rows without a score. `harmful`: the share of harmful ones."""

    rows: int
    left_out: int
    harmful: float
    roc: Sequence[tuple[float, float]]
    precision_recall: Sequence[tuple[float, float]]
    roc_area: Estimate
    average_precision: Estimate


def curves(labels: Sequence[bool], odds: Sequence[float | None]) -> Curves | None:
    """Of rows and their scores; equal ones rank alike. None where all rows are harmful, or none."""
    known = [(label, score) for label, score in zip(labels, odds, strict=True) if score is not None]
    if len({label for label, _ in known}) < 2:
        return None
    gold, scores = np.array([label for label, _ in known]), np.array([score for _, score in known])
    order = np.argsort(-scores, kind="stable")
    harmful = gold[order].astype(float)
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # of equal scores, which rank alike
    hits, alarms = _rising(harmful, starts), _rising(1 - harmful, starts)
    areas = _areas(hits, alarms)
    low_high = interval(_drawn(harmful, starts))
    roc = np.column_stack([alarms / alarms[-1], hits / hits[-1]])
    precision_recall = np.column_stack([hits / hits[-1], hits / (hits + alarms)])
    roc_area, average_precision = (
        Estimate(value=float(value), low=low, high=high)
        for value, (low, high) in zip(areas, low_high, strict=True)
    )
    return Curves(
        rows=len(gold),
        left_out=len(labels) - len(gold),
        harmful=float(gold.mean()),
        roc=[(0.0, 0.0), *_thinned(roc)],
        precision_recall=_thinned(precision_recall),
        roc_area=roc_area,
        average_precision=average_precision,
    )


def _rising(weights: Floats, starts: npt.NDArray[np.int64]) -> Floats:
    """The sum of the weights down to each threshold; of several draws, one a row."""
    return np.cumsum(np.add.reduceat(weights, starts, axis=-1), axis=-1)


def _areas(hits: Floats, alarms: Floats) -> Floats:
    """Under the ROC curve, by trapezoids; and the mean precision of the steps in recall. nan without both."""
    with np.errstate(invalid="ignore", divide="ignore"):
        before = np.concatenate([np.zeros_like(hits[..., :1]), hits[..., :-1]], axis=-1)
        widths = np.diff(alarms, prepend=0, axis=-1)
        trapezoids = (widths * (hits + before) / 2).sum(axis=-1) / (hits[..., -1] * alarms[..., -1])
        precision = np.nan_to_num(hits / (hits + alarms))
        steps = ((hits - before) * precision).sum(axis=-1) / hits[..., -1]
    return np.stack([trapezoids, steps], axis=-1)


def _drawn(harmful: Floats, starts: npt.NDArray[np.int64]) -> Floats:
    generator = np.random.default_rng(0)
    rows = len(harmful)
    found = []
    for _ in range(DRAWS // _AT_A_TIME):
        drawn = generator.integers(rows, size=(_AT_A_TIME, rows))
        times = np.stack([np.bincount(one, minlength=rows) for one in drawn]).astype(float)
        found.append(_areas(_rising(times * harmful, starts), _rising(times * (1 - harmful), starts)))
    return np.concatenate(found)


def _thinned(points: Floats) -> list[tuple[float, float]]:
    keep = np.unique(np.linspace(0, len(points) - 1, min(_POINTS, len(points))).astype(int))
    return [(float(x), float(y)) for x, y in points[keep]]
