"""The tokens of a text that grows, without tokenising all of it each time.

A piece tokenised by itself gives other tokens than the same piece within its text. But a space between two
letters is a border that no later text can move, wherever a tokenizer cuts words off before it merges. So
what stands before the last such space is settled, and the short rest is tokenised anew each time.
"""

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

Encode: TypeAlias = Callable[[str], list[int]]

_BORDER = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")


class GrowingText:
    """Remembers the settled part of one text, and starts anew when it is given another."""

    def __init__(self) -> None:
        self._text = ""
        self._tokens: list[int] = []

    def tokens(self, text: str, encode: Encode, behind: str = "") -> Sequence[int]:
        """The tokens of the whole text, and of one that follows it for now."""
        if not text.startswith(self._text):
            self._text, self._tokens = "", []
        begin = len(self._text)
        border = last_border(text, begin)
        self._tokens += encode(text[begin:border])
        self._text = text[:border]
        return self._tokens + encode(text[border:] + behind)


def last_border(text: str, begin: int = 0) -> int:
    """The last border in a text, behind `begin`, or that."""
    border = begin
    for found in _BORDER.finditer(text, begin + 1):
        border = found.start()
    return border
