"""Training of the embedded judge.

Two logistic regressions over hashed n-grams, level >= 0.5 and level = 1, on windows cut as the guard cuts
them. Thresholds are set on whole streams: for each row the highest score over its windows, from models
that were fitted on the other questions' rows (cross-fitting), such that a given share of harmless streams
is at or above it.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shieldguard.errors import ConfigError, MissingDependency
from shieldguard.events import Channel
from shieldguard.judges.embedded.model import Model
from shieldguard.judges.thresholds import Thresholds
from shieldguard.training.examples import LEFT_OUT, Examples, Labels, build, highest
from shieldguard.training.rows import Row, read

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Of 1,000 harmless streams `false_aborts` may reach level 1 by their reasoning, `false_answer_aborts` by
    their answer, and `false_flags` 0.5 or more by either."""

    bits: int = 18
    folds: int = 5
    inverse_penalty: float = 10.0
    false_aborts: float = 5.0
    false_answer_aborts: float = 1.0
    false_flags: float = 22.0


def train(
    data: Path, out: Path, *, seed: int = 0, recipe: Recipe | None = None, leave_out: Sequence[str] = ()
) -> dict[str, Any]:
    """Train on the folder `data`, write the weights to `out`, and return what was measured on the way.

    The same data, seed and library versions give the same bytes. Reads no test split and no row under an
    NC licence, nor one of a source in `leave_out`, on which the outcome can then be measured.

    Raises `ConfigError` for data that cannot be read or hold no harmful trace, and `MissingDependency`
    without scikit-learn.
    """
    recipe = recipe or Recipe()
    rows, left_out = read(data)
    rows = [row for row in rows if row.source not in leave_out]
    examples = build(rows, recipe.bits)
    part = np.array([_part(row.question, recipe.folds) for row in rows])[examples.owner]
    weight = np.array([_SOURCE_WEIGHT.get(row.source, 1.0) for row in rows])[examples.owner]

    scores: list[Floats] = []
    columns: list[Floats] = []
    biases: list[float] = []
    for labels in (examples.potential, examples.harmful):
        held_out = np.full(len(labels), -np.inf)
        for number in range(recipe.folds):
            inside = part == number
            coefficients, bias = _fit(examples, labels, weight, ~inside, recipe, seed)
            held_out[inside] = examples.features[inside] @ coefficients + bias
        scores.append(highest(held_out, examples.owner, len(rows)))
        coefficients, bias = _fit(examples, labels, weight, np.full(len(labels), True), recipe, seed)
        columns.append(coefficients)
        biases.append(bias)

    scale = np.array([np.abs(column).max() / 127 for column in columns])
    thresholds = {channel: _thresholds(rows, scores, channel, recipe) for channel in _CHANNELS}
    figures = {
        "seed": seed,
        "rows": _counted(rows),
        "rows left out for an NC licence": left_out,
        "windows": len(examples.owner),
        "cross-fitted": _figures(rows, scores, thresholds[Channel.REASONING]),
        "thresholds": {
            channel.value: {"potential": found.potential, "harmful": found.harmful}
            for channel, found in thresholds.items()
        },
    }
    Model(
        weights=np.stack([np.round(c / s) for c, s in zip(columns, scale, strict=True)], axis=1).astype(
            np.int8
        ),
        scale=scale,
        bias=np.array(biases),
        reasoning=thresholds[Channel.REASONING],
        answer=thresholds[Channel.ANSWER],
        provenance=figures | ({"sources left out": sorted(leave_out)} if leave_out else {}),
    ).save(out)
    return figures


_CHANNELS = (Channel.REASONING, Channel.ANSWER)
# Harmful traces come mostly from distilled reasoning models, harmless ones mostly from office work. The few
# harmless traces of the former's style count for more, or the style itself would be learnt.
_ORDINARY = frozenset({"office_lrm", "cvenhoff", "mmlu_aa", "alpaca_r1_8b", "shieldguard"})
_SOURCE_WEIGHT = {"alpaca_r1_8b": 6.0, "cvenhoff": 3.0}


def _part(question: str, parts: int) -> int:
    """The same part for the same question, whatever else is in the data."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:8]) % parts


def _fit(
    examples: Examples, labels: Labels, weight: Floats, use: NDArray[np.bool_], recipe: Recipe, seed: int
) -> tuple[Floats, float]:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingDependency("scikit-learn", "train") from None
    use = use & examples.fitted & (labels != LEFT_OUT)
    if len(set(labels[use])) < 2:
        raise ConfigError(f"of {int(use.sum())} windows none is at a level, or all are; more data are needed")
    model = LogisticRegression(
        solver="liblinear", dual=True, C=recipe.inverse_penalty, tol=0.01, max_iter=1000, random_state=seed
    )
    model.fit(examples.features[use], labels[use], sample_weight=weight[use])
    return model.coef_[0], float(model.intercept_[0])


def _thresholds(
    rows: Sequence[Row], logits: Sequence[Floats], channel: Channel, recipe: Recipe
) -> Thresholds:
    harmless = np.array([row.channel is channel and row.source in _ORDINARY for row in rows])
    aborts = recipe.false_aborts if channel is Channel.REASONING else recipe.false_answer_aborts
    potential, harmful = (
        _limit(one[harmless], share) for one, share in zip(logits, (recipe.false_flags, aborts), strict=True)
    )
    return Thresholds(potential=potential, harmful=harmful)


def _limit(logits: Floats, share: float) -> float:
    """The probability that `share` of 1,000 of these streams reach; halfway to the next lower one."""
    if not len(logits):
        return 0.5
    ranked = np.sort(logits)[::-1]
    reach = int(len(ranked) * share / 1000)
    below = ranked[reach]
    above = ranked[reach - 1] if reach else below + 0.1
    return round(float(1 / (1 + np.exp(-(above + below) / 2))), 6)


def _counted(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Rows by channel and source, each with its level."""
    counts: dict[str, dict[str, int]] = {}
    for (channel, source, level), count in sorted(
        Counter((row.channel.value, row.source, row.level) for row in rows).items()
    ):
        counts.setdefault(channel, {})[f"{source}, level {level:g}"] = count
    return counts


def _figures(rows: Sequence[Row], logits: Sequence[Floats], thresholds: Thresholds) -> dict[str, float]:
    """What the thresholds give on the rows that they were chosen on: reasoning, models of other questions."""
    reasoning = np.array([row.channel is Channel.REASONING for row in rows])
    ordinary = reasoning & np.array([row.source in _ORDINARY for row in rows])
    levels = np.array([row.level for row in rows])
    probable, sure = (1 / (1 + np.exp(-one)) for one in logits)
    flagged = (probable >= thresholds.potential) | (sure >= thresholds.harmful)
    aborted = sure >= thresholds.harmful
    return {
        "ordinary streams aborted, of 1,000": _per_mille(aborted[ordinary]),
        "ordinary streams flagged, of 1,000": _per_mille(flagged[ordinary]),
        "level 1 traces aborted, of 1,000": _per_mille(aborted[reasoning & (levels == 1)]),
        "level 0.5 or 1 traces flagged, of 1,000": _per_mille(flagged[reasoning & (levels > 0)]),
    }


def _per_mille(hits: NDArray[np.bool_]) -> float:
    return round(1000 * float(hits.mean()), 1) if len(hits) else 0.0
