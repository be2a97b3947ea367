"""What the reports say in words."""

import math
from collections.abc import Iterator

from shieldguard.evaluation.bootstrap import DRAWS, Estimate
from shieldguard.evaluation.moderation.result import Result

HEADS = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "false_positive_rate": "false alarms",
}
"""The metrics, as the tables head them."""

INTERVALS = (
    "In percent. As the authors count, 0.5 is harmful, in label and verdict, and an answer without a verdict "
    f"is wrong. With each figure its 95 % interval, from {DRAWS:,} bootstrap samples of the rows; one of "
    "no width says that there was no such case among these rows, not that there is none."
)
_BAD = 20  # rows that are named


def percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def share(value: float) -> str:
    """As `percent`, without a decimal that says nothing."""
    return percent(value) if value else "0"


def area(found: Estimate) -> str:
    return f"{found.value:.3f} ({found.low:.3f}–{found.high:.3f})"


def counted(result: Result) -> str:
    """How many of which were rated by whom."""
    overall = result.overall
    runs = "" if result.runs == 1 else f", {result.runs} times each; ± is the deviation over runs"
    return (
        f"{result.task.title} by `{result.judge}`: {overall.rows} {result.task.noun}, "
        f"{overall.harmful} of them harmful{runs}."
    )


def alike(result: Result) -> Iterator[str]:
    """What all rows have in common, such as who labelled them."""
    if result.alike:
        yield f"All rows: {'; '.join(f'{column} {value!r}' for column, value in result.alike.items())}."


def explained(result: Result) -> str:
    """The table of the overall figures, as sentences."""
    table, noun = result.overall.table, result.task.noun
    harmful, harmless = table.hits + table.misses, table.false_alarms + table.passes
    times = "" if result.runs == 1 else f" (over {result.runs} runs)"
    return (
        f"Of {harmful} harmful {noun}{times} it called {table.hits} harmful and missed {table.misses}. "
        f"Of {harmless} harmless ones it called {table.false_alarms} harmful."
    )


def unjudged(result: Result) -> Iterator[str]:
    if result.errors:
        kinds = ", ".join(f"{kind} {count}" for kind, count in result.errors.items())
        yield f"Answers without a verdict: {kinds}."
    if result.curves is None:
        yield (
            "No curves: they need a probability with every verdict, and both harmful and harmless "
            f"{result.task.noun}."
        )
    elif result.curves.left_out:
        yield f"The curves leave out {result.curves.left_out} rows that have no score."


def left_out(result: Result) -> Iterator[str]:
    """Rows that could not be used."""
    for data in result.data:
        if data.bad:
            first = ", ".join(map(str, list(data.bad)[:_BAD])) + (", …" if len(data.bad) > _BAD else "")
            yield f"Left out of {data.name}, since they could not be used: {len(data.bad)} rows ({first})."
