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

    def tokens(self, text: str, encode: Encode) -> Sequence[int]:
        """The tokens of the whole text."""
        if not text.startswith(self._text):
            self._text, self._tokens = "", []
        border = len(self._text)
        for found in _BORDER.finditer(text, border + 1):
            border = found.start()
        self._tokens += encode(text[len(self._text) : border])
        self._text = text[:border]
        return self._tokens + encode(text[border:])
