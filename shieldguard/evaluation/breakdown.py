"""Figures on reasoning by length, by source and on prefixes, and how sure they are."""

import random
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from shieldguard.evaluation.judged import Judged
from shieldguard.evaluation.metrics import Detection

Counted = tuple[bool, bool | None]  # label and prediction

_LENGTHS = (0, 1500, 2200, 2600, 1 << 40)
_PREFIXES = (0.1, 0.25, 0.5, 0.75, 1.0)


def counted(judged: Iterable[Judged], level: float) -> list[Counted]:
    return [(one.row.level >= level, one.reaches(level)) for one in judged]


def f1_with_interval(pairs: Sequence[Counted], *, resamples: int = 1000, seed: int = 0) -> str:
    """F1 and its bootstrap 95 % interval over texts; a dash where no text is harmful."""
    if not any(label for label, _ in pairs):
        return "-"
    rng = random.Random(seed)
    drawn = sorted(_f1(rng.choices(pairs, k=len(pairs))) for _ in range(resamples))
    low, high = drawn[round(0.025 * resamples)], drawn[round(0.975 * resamples) - 1]
    return f"{_f1(pairs):.3f} ({low:.3f}–{high:.3f})"


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
    return [_row(source, [one for one in reasoning if one.row.source == source]) for source in sources]


def on_prefixes(reasoning: Sequence[Judged]) -> list[list[str]]:
    """What is known when so much of the trace has been judged, against the level of the text so far."""
    rows = []
    for share in _PREFIXES:
        cells = [f"{100 * share:.0f} %"]
        for at, found in _LEVELS:
            pairs: list[Counted] = []
            for one in reasoning:
                limit = share * len(one.row.text)
                onset, end = at(one), found(one)
                label = onset is not None and onset < limit
                pairs.append((label, None if one.level is None else end is not None and end <= limit))
            cells += [str(sum(label for label, _ in pairs)), f1_with_interval(pairs)]
        rows.append(cells)
    return rows


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


def _f1(pairs: Sequence[Counted]) -> float:
    return Detection.count([label for label, _ in pairs], [guess for _, guess in pairs]).f1
