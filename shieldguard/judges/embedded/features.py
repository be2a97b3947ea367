"""Text to pieces, and pieces to hashed word and character n-grams, in numpy alone.

The same bytes give the same buckets on every platform and Python version: arithmetic is on unsigned
32-bit integers that wrap, and nothing depends on Python's `hash`. `tests/test_embedded.py` holds a slow
reference implementation of the same function.
"""

import unicodedata
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Buckets: TypeAlias = NDArray[np.uint32]

CHARACTER_ORDERS = (3, 4, 5)
WORD_ORDERS = (1, 2, 3)

# Odd multipliers, so that a polynomial hash has an inverse step modulo 2**32.
_CHARACTER_BASE = 0x01000193
_WORD_BASE = 0x9E3779B1
_GRAM_BASE = 0x85EBCA77
# One seed for each order keeps "the" the word apart from "the" the character n-gram.
_SEEDS = {("c", 3): 0x51ED270B, ("c", 4): 0xA0761D65, ("c", 5): 0xE7037ED1}
_SEEDS |= {("w", 1): 0x8EBC6AF0, ("w", 2): 0x589965CC, ("w", 3): 0x1D8E4E27}

# Typographic marks that NFKC leaves alone, and characters that show nothing.
_PLAIN: dict[int, str | None] = {
    ord(mark): plain for mark, plain in zip("‘’‛“”„‟‐‑‒–—―−", '\'\'\'""""-------', strict=True)
}
_PLAIN |= dict.fromkeys(
    [0xAD, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF]
)

_SPACE = 32
_WORD_BYTES = np.zeros(256, dtype=np.bool_)
_WORD_BYTES[[*range(48, 58), *range(97, 123), 39, *range(128, 256)]] = True
_DIGITS = np.arange(256, dtype=np.uint8)
_DIGITS[48:58] = 48


PIECE = 700
"""Bytes of folded text that are judged together."""
_WHOLE = 640  # new text up to here is judged as one piece, with what came before it
_STRIDE = 320
# Canonical ordering takes time quadratic in a run of combining marks, so a text is normalised in parts.
_PART = 1024


def fold(text: str) -> bytes:
    """The text as it is hashed: compatibility forms and case folded, in utf-8."""
    if text.isascii():
        return text.lower().encode()
    parts = (unicodedata.normalize("NFKC", text[at : at + _PART]) for at in range(0, len(text), _PART))
    return "".join(parts).translate(_PLAIN).casefold().encode("utf-8", "replace")


def pieces(text: str, start: int = 0) -> Iterator[bytes]:
    """What is judged together: folded text of at most PIECE bytes, each with what came before it.

    Every byte of the folded `text[start:]` is in a piece, and every stretch of PIECE - _STRIDE bytes of it
    is whole in one. Nothing where no new text is left after folding.
    """
    new = fold(text[start:])
    if not new:
        return
    # Some of what came before may be characters that fold to nothing.
    both = fold(text[max(0, start - 4 * PIECE) : start])[-PIECE:] + new
    end = len(both)
    if len(new) > _WHOLE:
        end -= len(new) - _STRIDE
    while True:
        yield both[max(0, end - PIECE) : end]
        if end == len(both):
            return
        end = min(end + _STRIDE, len(both))


def _mixed(values: Buckets) -> Buckets:
    """Murmur3's finaliser: spreads each input bit over all output bits."""
    values ^= values >> np.uint32(16)
    values *= np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values *= np.uint32(0xC2B2AE35)
    values ^= values >> np.uint32(16)
    return values


def _powers(base: int, count: int) -> Buckets:
    return np.cumprod(np.full(count, base, dtype=np.uint32), dtype=np.uint32)


_READY = 4096  # powers kept; longer lines compute theirs
_FORWARD = _powers(_WORD_BASE, _READY)
_WORD_INVERSE = pow(_WORD_BASE, -1, 2**32)
_BACKWARD = _powers(_WORD_INVERSE, _READY)


def hashes(piece: bytes) -> Buckets:
    """Every n-gram of folded text as a 32-bit hash, with repetitions, in no useful order.

    Digits count as one digit, and a run of bytes that belong to no word as one space.
    """
    raw = _DIGITS[np.frombuffer(piece, dtype=np.uint8)]
    word = _WORD_BYTES[raw]
    # Bytes outside words become spaces, of which only the first of a run is kept; one on either side.
    kept = word.copy()
    kept[1:] |= word[:-1]
    letters = np.where(word, raw, np.uint8(_SPACE))[kept]
    line = np.empty(len(letters) + 2, dtype=np.uint32)
    line[0] = line[-1] = _SPACE
    line[1:-1] = letters
    found = [np.empty(0, dtype=np.uint32)]

    gram = line
    for order in range(2, min(len(line), CHARACTER_ORDERS[-1]) + 1):
        gram = gram[:-1] * np.uint32(_CHARACTER_BASE) + line[order - 1 :]
        if order in CHARACTER_ORDERS:
            found.append(gram ^ np.uint32(_SEEDS["c", order]))

    inside = line != _SPACE
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[0::2], edges[1::2]
    forward, backward = _FORWARD, _BACKWARD
    if len(line) > _READY:
        forward, backward = _powers(_WORD_BASE, len(line)), _powers(_WORD_INVERSE, len(line))
    # The sum over a word of byte * base**place, moved to place 0: equal words are equal wherever they stand.
    sums = np.cumsum(line * forward[: len(line)], dtype=np.uint32)
    words = _mixed((sums[ends] - sums[starts]) * backward[starts])
    gram = words
    for order in WORD_ORDERS:
        if len(words) < order:
            break
        if order > 1:
            gram = gram[:-1] * np.uint32(_GRAM_BASE) + words[order - 1 :]
        found.append(gram ^ np.uint32(_SEEDS["w", order]))
    return _mixed(np.concatenate(found))


def buckets(piece: bytes, bits: int) -> Buckets:
    """The distinct buckets, of 2**bits, that the n-grams of folded text fall into; sorted."""
    found = hashes(piece) >> np.uint32(32 - bits)
    found.sort()
    first = np.empty(len(found), dtype=np.bool_)
    first[:1] = True
    np.not_equal(found[1:], found[:-1], out=first[1:])
    return found[first]
