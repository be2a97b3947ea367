"""Figures of merit and their bootstrap intervals: rows drawn anew, with replacement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shieldguard.evaluation.metrics import Detection

Floats: TypeAlias = npt.NDArray[np.float64]
Cells: TypeAlias = npt.NDArray[np.int64]
Counted: TypeAlias = tuple[bool, bool | None]
"""A label and a prediction; None is a reply that was no verdict, wrong whatever the label."""

METRICS = ("accuracy", "precision", "recall", "f1", "false_positive_rate")
DRAWS = 2000

_EDGES = (2.5, 97.5)  # percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A share, and what 95 % of the samples like this one would give. `deviation`: over runs, None for one.
    nan where there is nothing to count: no harmful row, or no harmless one."""

    value: float
    low: float
    high: float
    deviation: float | None = None


def estimates(sets: Sequence[Sequence[Sequence[Counted]]]) -> dict[str, Estimate]:
    """By the names of METRICS, for the label and the prediction of each row in each run; of several data
    sets their mean. Every set has at least one row, and all rows as many runs."""
    tables = [_cells(rows) for rows in sets]
    generator = np.random.default_rng(0)
    measured = _mean([_metrics(cells, np.ones((1, len(cells)), dtype=int))[0] for cells in tables])
    drawn = []
    for cells in tables:
        # Rows that came out alike in every run are the same draw: it is enough to draw how many of each.
        alike, counts = np.unique(cells, axis=0, return_counts=True)
        draws = generator.multinomial(len(cells), counts / len(cells), size=DRAWS)
        drawn.append(_mean(_metrics(alike, draws).transpose(1, 0, 2)))
    values = _mean(measured)
    intervals = interval(_mean(drawn))
    return {
        metric: Estimate(
            value=float(values[at]),
            low=intervals[at][0],
            high=intervals[at][1],
            deviation=float(np.std(measured[:, at], ddof=1)) if len(measured) > 1 else None,
        )
        for at, metric in enumerate(METRICS)
    }


def _cells(rows: Sequence[Sequence[Counted]]) -> Cells:
    """For each row and run the place in the two-way table: hit, miss, false alarm, pass."""
    places = {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}
    return np.array(
        [[places[gold, not gold if guess is None else guess] for gold, guess in runs] for runs in rows]
    )


def _metrics(cells: Cells, draws: npt.NDArray[np.int64]) -> Floats:
    """The metrics by draw and run, of the cells taken so many times.

    nan for what is about harmful rows where there are none. As the authors have it, the precision of a judge
    that calls nothing harmful is 0.
    """
    any_harmful = bool((cells < 2).any())
    by_run = []
    for run in range(cells.shape[1]):
        counts = draws @ np.eye(4, dtype=int)[cells[:, run]]
        by_run.append([_of(*cell, any_harmful=any_harmful) for cell in counts.tolist()])
    return np.array(by_run).transpose(1, 0, 2)


def _of(hits: int, misses: int, alarms: int, passes: int, *, any_harmful: bool) -> list[float]:
    table = Detection(hits=hits, misses=misses, false_alarms=alarms, passes=passes)
    nan = float("nan")
    return [
        table.accuracy,
        (table.precision if hits + alarms else 0.0) if any_harmful else nan,
        table.recall,
        table.f1 if any_harmful else nan,
        table.false_positive_rate,
    ]


def _mean(values: Sequence[Floats] | Floats) -> Floats:
    """Along the first axis, of those that are no nan."""
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    total: Floats = np.where(known, values, 0.0).sum(axis=0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def interval(draws: Floats) -> list[tuple[float, float]]:
    """The middle 95 % of each column; draws in which there was nothing to count are left out."""
    found = []
    for column in draws.T:
        known = column[~np.isnan(column)]
        low, high = np.percentile(known, _EDGES) if len(known) else (float("nan"), float("nan"))
        found.append((float(low), float(high)))
    return found
