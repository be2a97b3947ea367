"""A result as Markdown, for a terminal, a README or a model card."""

from collections.abc import Iterable

from shieldguard.evaluation.bootstrap import METRICS, Estimate
from shieldguard.evaluation.document import grid
from shieldguard.evaluation.moderation.card import NOTE
from shieldguard.evaluation.moderation.figures import Figures
from shieldguard.evaluation.moderation.result import Result
from shieldguard.evaluation.moderation.wording import (
    HEADS,
    INTERVALS,
    alike,
    area,
    counted,
    explained,
    left_out,
    percent,
    share,
    unjudged,
)

_LEVELS = ("0", "0.5", "1")


def summary(result: Result) -> str:
    """The figures alone."""
    return "\n\n".join([counted(result), _table(result), *alike(result)])


def markdown(result: Result) -> str:
    """All of it but the curves' points."""
    parts = [f"# {result.task.title}: {result.judge}", summary(result), explained(result)]
    if result.baselines:
        parts += ["## Beside the model card", NOTE, _card(result)]
    parts += ["## Levels", _levels(result)]
    if result.curves:
        parts += ["## The score", _scores(result)]
    for column, rows in result.groups.items():
        parts += [f"## By {column}", _rows(column, rows)]
    parts += ["## How", INTERVALS, *unjudged(result), *left_out(result)]
    return "\n\n".join(parts) + "\n"


def _table(result: Result) -> str:
    rows = list(result.sets)
    if result.mean:
        rows += [("mean of the data sets", result.mean), ("all rows", result.overall)]
    return _rows("data", rows)


def _rows(head: str, rows: Iterable[tuple[str, Figures]]) -> str:
    return grid(
        [head, "rows", "harmful", *HEADS.values(), "no verdict"],
        [
            [
                name,
                str(one.rows),
                str(one.harmful),
                *(_estimate(one.estimates[metric]) for metric in METRICS),
                share(one.unparsed),
            ]
            for name, one in rows
        ],
    )


def _estimate(found: Estimate) -> str:
    if found.value != found.value:
        return "–"
    deviation = "" if found.deviation is None else f" ±{100 * found.deviation:.1f}"
    return f"{percent(found.value)}{deviation} ({percent(found.low)}–{percent(found.high)})"


def _card(result: Result) -> str:
    measured = [
        result.overall.estimates[metric].value for metric in ("accuracy", "precision", "recall", "f1")
    ]
    rows = [[f"**{result.judge}**", "measured", *(f"**{percent(value)}**" for value in measured)]]
    rows += [
        [
            one.name,
            "the card's",
            *(f"{value:.1f}" for value in (one.accuracy, one.precision, one.recall, one.f1)),
        ]
        for one in result.baselines
    ]
    return grid(["judge", "whose figures", "accuracy", "precision", "recall", "F1"], rows)


def _levels(result: Result) -> str:
    return grid(
        ["labelled", *(f"judged {level}" for level in _LEVELS), "no verdict"],
        [[level, *map(str, counts)] for level, counts in zip(_LEVELS, result.levels, strict=True)],
    )


def _scores(result: Result) -> str:
    assert result.curves
    return grid(
        ["rows", "area under ROC", "average precision", "without a score"],
        [
            [
                str(result.curves.rows),
                area(result.curves.roc_area),
                area(result.curves.average_precision),
                str(result.curves.left_out),
            ]
        ],
    )
