"""What so few streams can tell: exact intervals for a share."""

import math
from collections.abc import Callable


def clopper_pearson(hits: int, of: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided interval for a share of `hits` in `of`; (0, 1) of nothing."""
    if not of:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _solve(lambda p: 1 - _at_most(hits - 1, of, p), tail)
    high = 1.0 if hits == of else _solve(lambda p: -_at_most(hits, of, p), -tail)
    return low, high


def upper_bound(hits: int, of: int, *, confidence: float = 0.95) -> float:
    """The share is below this, one-sided. Without any hits it is about 3 / `of` (the rule of three)."""
    if hits >= of:
        return 1.0
    return _solve(lambda p: -_at_most(hits, of, p), confidence - 1)


def streams_needed(share: float, *, hits: int = 0, confidence: float = 0.95) -> int:
    """How many streams, with so many hits among them, show that a share is at most this."""
    low, high = hits, max(hits + 1, 2)
    while upper_bound(hits, high, confidence=confidence) > share:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if upper_bound(hits, middle, confidence=confidence) > share:
            low = middle
        else:
            high = middle
    return high


def _at_most(hits: int, of: int, p: float) -> float:
    """P(X <= hits) of a binomial."""
    if p <= 0:
        return 1.0
    if p >= 1:
        return 1.0 if hits >= of else 0.0
    logs = [
        math.lgamma(of + 1)
        - math.lgamma(k + 1)
        - math.lgamma(of - k + 1)
        + k * math.log(p)
        + (of - k) * math.log1p(-p)
        for k in range(hits + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))


def _solve(rising: Callable[[float], float], value: float) -> float:
    """Where a function that rises in [0, 1] takes the value."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < value:
            low = middle
        else:
            high = middle
    return (low + high) / 2
