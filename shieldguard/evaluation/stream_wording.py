"""How figures are written in reports of streams."""

import math
from collections.abc import Mapping
from typing import TypeVar

from shieldguard.evaluation.labelled import CODE, HARMFUL, ORDINARY, REFUSED, SENSITIVE
from shieldguard.evaluation.stream_figures import Share

T = TypeVar("T")

STRATA = {
    ORDINARY: "ordinary: maths, medicine, office work",
    SENSITIVE: "sensitive: political criticism (level 0 by construction, arguable)",
    REFUSED: "harmful question, thought at level 0",
    CODE: "reasoning about code, our own",
}


def in_order(strata: Mapping[str, T]) -> list[tuple[str, T]]:
    """Those that are known first, as above."""
    known = [HARMFUL, *STRATA]
    return sorted(strata.items(), key=lambda item: known.index(item[0]) if item[0] in known else len(known))


def percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f} %"


def shared(one: Share) -> str:
    if not one.of:
        return "–"
    return f"{100 * one.value:.1f} % ({one.hits} of {one.of}; {100 * one.low:.1f}–{100 * one.high:.1f})"


def per_thousand(one: Share) -> str:
    return f"{1000 * one.value:.1f} ({1000 * one.low:.1f}–{1000 * one.high:.1f})" if one.of else "–"


def tenths(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def milliseconds(value: float) -> str:
    return "–" if math.isnan(value) else "never" if math.isinf(value) else f"{1000 * value:.1f} ms"


def characters(value: float) -> str:
    return "–" if math.isnan(value) else "never" if math.isinf(value) else f"{value:.0f}"


def rate(value: float) -> str:
    """A share that may be very small, to two digits."""
    return "–" if math.isnan(value) else f"{float(f'{100 * value:.2g}'):g} %"


def seconds(value: float) -> str:
    return "–" if math.isnan(value) else "never" if math.isinf(value) else f"{value:.2f} s"
