"""Texts that are nearly the same, by the runs of words that they share."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

_RUN = 5  # words
_WORD = re.compile(r"\w+")


def likeness(texts: Sequence[str], others: Iterable[str]) -> list[float]:
    """For each text the Jaccard index of its runs of five words with those of the other that it is most
    like: 0 where they share none, 1 where they have the same. A shorter text is a run by itself."""
    runs = [_runs(text) for text in texts]
    sizes = np.array([len(one) for one in runs])
    best = np.zeros(len(texts))
    if not texts:
        return []
    owners = np.repeat(np.arange(len(texts)), sizes)
    hashes = np.concatenate(runs)
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    for other in dict.fromkeys(others):
        wanted = _runs(other)
        low, high = (np.searchsorted(hashes, wanted, side) for side in ("left", "right"))
        places = np.repeat(high - np.cumsum(high - low), high - low) + np.arange((high - low).sum())
        shared = np.bincount(owners[places], minlength=len(texts))
        np.maximum(best, shared / (sizes + len(wanted) - shared), out=best)
    return [float(one) for one in best]


def _runs(text: str) -> npt.NDArray[np.int64]:
    words = _WORD.findall(text.lower())
    found = {hash(tuple(words[at : at + _RUN])) for at in range(max(1, len(words) - _RUN + 1))}
    return np.fromiter(found, dtype=np.int64, count=len(found))
