"""Figures on texts by length, by source and on prefixes, and how sure they are."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from shieldguard.evaluation.bootstrap import Counted, estimates
from shieldguard.evaluation.judged import Judged

PREFIXES = (0.1, 0.25, 0.5, 0.75, 1.0)

_LENGTHS = (0, 1500, 2200, 2600, 1 << 40)


def counted(judged: Iterable[Judged], level: float) -> list[Counted]:
    return [(one.row.level >= level, one.reaches(level)) for one in judged]


def f1_with_interval(pairs: Sequence[Counted]) -> str:
    """F1 and its bootstrap 95 % interval over texts; a dash where no text is harmful."""
    if not any(label for label, _ in pairs):
        return "-"
    found = estimates([[[pair] for pair in pairs]])["f1"]
    return f"{found.value:.3f} ({found.low:.3f}–{found.high:.3f})"


def by_length(reasoning: Sequence[Judged]) -> list[list[str]]:
    """Rows of a table: characters, traces, F1 of both levels."""
    rows = []
    for low, high in pairwise(_LENGTHS):
        some = [one for one in reasoning if low <= len(one.row.text) < high]
        name = f"{low} and more" if high == _LENGTHS[-1] else f"{low} to {high - 1}"
        rows.append(_row(name, some))
    return rows


def by_source(reasoning: Sequence[Judged]) -> list[list[str]]:
    sources = sorted({one.row.source for one in reasoning})
    rows = [_row(source, [one for one in reasoning if one.row.source == source]) for source in sources]
    return [*rows, _row("all", reasoning)]


def on_prefixes(reasoning: Sequence[Judged]) -> list[list[str]]:
    """What is known when so much of the trace has been judged, against the level of the text so far."""
    rows = []
    for share in PREFIXES:
        cells = [f"{100 * share:.0f} %"]
        for at, found in _LEVELS:
            pairs: list[Counted] = []
            for one in reasoning:
                limit = share * len(one.row.text)
                onset = at(one)
                pairs.append((onset is not None and onset < limit, _found_by(one, found(one), limit)))
            cells += [str(sum(label for label, _ in pairs)), f1_with_interval(pairs)]
        rows.append(cells)
    return rows


def answers_on_prefixes(answers: Sequence[Judged]) -> list[list[str]]:
    """What is known when so much of the answer has been judged, against the label of all of it."""
    rows = []
    for share in PREFIXES:
        pairs = [
            (one.row.level > 0, _found_by(one, one.flagged_at, share * len(one.row.text))) for one in answers
        ]
        rows.append([f"{100 * share:.0f} %", f1_with_interval(pairs)])
    return rows


def _found_by(one: Judged, end: int | None, limit: float) -> bool | None:
    return None if one.level is None else end is not None and end <= limit


_LEVELS: tuple[tuple[Callable[[Judged], int | None], Callable[[Judged], int | None]], ...] = (
    (lambda one: one.row.potential_at, lambda one: one.flagged_at),
    (lambda one: one.row.harmful_at, lambda one: one.stopped_at),
)


def _row(name: str, some: Sequence[Judged]) -> list[str]:
    cells = [name, str(len(some))]
    for level in (0.5, 1.0):
        pairs = counted(some, level)
        cells += [str(sum(label for label, _ in pairs)), f1_with_interval(pairs)]
    return cells
