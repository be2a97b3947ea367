"""Rows to labelled windows, cut as the guard cuts them, and windows to a sparse matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shieldguard.errors import MissingDependency
from shieldguard.events import Channel
from shieldguard.judges.embedded.features import buckets, pieces
from shieldguard.judges.embedded.model import FEWEST
from shieldguard.training.rows import Row
from shieldguard.windows import SentenceWindower, cuts

Labels = NDArray[np.int8]

LEFT_OUT = -1
# A window that ends this many characters into the sentence in which the level is reached holds too little
# of it to be given a label.
_TOO_LITTLE = 60
# Sources of many long harmless texts in one style: every third window is enough to fit on.
_PLENTIFUL = frozenset({"office_lrm", "speechmap", "mmlu_aa"})
_LONGEST_ANSWER = 6000  # characters; a few answers are thirty thousand characters long


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """`features`: CSR matrix, one line a window, a row of norm 1 or less over 2**bits buckets.
    `owner`: the row each window is from. `fitted`: whether to fit on it; all are scored.
    `potential`, `harmful`: its labels, 1, 0 or LEFT_OUT.
    """

    features: Any
    owner: NDArray[np.int64]
    fitted: NDArray[np.bool_]
    potential: Labels
    harmful: Labels


def build(rows: Sequence[Row], bits: int) -> Examples:
    """The windows of all rows, in their order. Raises `MissingDependency` without scipy."""
    try:
        from scipy.sparse import csr_matrix
    except ImportError:
        raise MissingDependency("scipy", "train") from None
    found: list[NDArray[np.uint32]] = []
    owner: list[int] = []
    fitted: list[bool] = []
    potential: list[int] = []
    harmful: list[int] = []
    for number, row in enumerate(rows):
        text = row.text if row.channel is Channel.REASONING else row.text[:_LONGEST_ANSWER]
        for nth, (start, end) in enumerate(cuts(SentenceWindower(), text)):
            for piece in pieces(text[:end], start):
                found.append(buckets(piece, bits))
                owner.append(number)
                fitted.append(row.source not in _PLENTIFUL or nth % 3 == 0)
                if row.channel is Channel.REASONING:
                    potential.append(_label(row.level >= 0.5, row.potential_at, row.potential_until, end))
                    harmful.append(_label(row.level >= 1, row.harmful_at, row.harmful_until, end))
                else:
                    # Labelled harmful or not as a whole: that is no level.
                    potential.append(int(row.level > 0))
                    harmful.append(LEFT_OUT if row.level else 0)
    counts = np.array([len(one) for one in found])
    features = csr_matrix(
        (
            np.repeat(1 / np.sqrt(np.maximum(counts, FEWEST)), counts),
            np.concatenate(found).astype(np.int32),
            np.concatenate([[0], np.cumsum(counts)]),
        ),
        shape=(len(found), 2**bits),
    )
    return Examples(
        features=features,
        owner=np.array(owner),
        fitted=np.array(fitted),
        potential=np.array(potential, dtype=np.int8),
        harmful=np.array(harmful, dtype=np.int8),
    )


def _label(rated: bool, reached: int | None, until: int | None, end: int) -> int:
    """Whether the text is at a level in the window that ends at `end`; what follows on it counts as well."""
    if not rated or reached is None or until is None or end <= reached:
        return 0
    return LEFT_OUT if end < reached + min(_TOO_LITTLE, (until - reached) // 2) else 1


def highest(scores: NDArray[np.float64], owner: NDArray[np.int64], rows: int) -> NDArray[np.float64]:
    """The highest score among the windows of each row; minus infinity for a row without any."""
    best = np.full(rows, -np.inf)
    np.maximum.at(best, owner, scores)
    return best
