"""Where a growing text is cut into windows to be judged.

A windower looks at the text alone, never at how it was chunked: once it has named a cut, no later text
may move it. That makes the verdicts of a stream independent of the provider's chunking.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from shieldguard.errors import ConfigError
from shieldguard.events import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A piece of a growing text, with all that a stateless judge needs.

    `text` is the thought (or answer, or tool call) up to the window's end; `text[start:]` is new and
    has not been judged before. It may be longer than what the windower cuts: what queued up behind
    a slow judge comes joined. `stream` names the guarded stream; `channel`, `choice` and `block` the text
    within it, so that a judge can keep what it computed for `text[:start]`. `deadline` is a reading of
    `time.monotonic()`.
    """

    query: str
    text: str
    start: int = 0
    channel: Channel = Channel.REASONING
    choice: int = 0
    block: int = 0
    stream: str = ""
    deadline: float = float("inf")

    @property
    def new(self) -> str:
        """The characters that this window is there to judge."""
        return self.text[self.start :]

    @property
    def end(self) -> int:
        return len(self.text)

    def context(self, characters: int) -> str:
        """The new text with at most `characters` of what came before it."""
        return self.text[max(0, self.start - characters) :]


class Windower(Protocol):
    """Cuts a growing text."""

    def cut(self, text: str, start: int) -> int:
        """The end of the window that begins at `start`, or 0 while the text is too short to tell.

        Must be stable (a cut once named stays, whatever text follows) and bounded (for every text
        there is a length past which it names a cut). `start < result <= len(text)`.
        """
        ...


def cuts(windower: "Windower", text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each window of a whole text, the tail too."""
    start = 0
    while start < len(text):
        end = windower.cut(text, start) or len(text)
        yield start, end
        start = end


def _checked_bounds(shortest: int, longest: int) -> None:
    if not isinstance(shortest, int) or not isinstance(longest, int):
        raise ConfigError(f"shortest={shortest!r} and longest={longest!r}; give whole numbers")
    if shortest < 1 or longest < 2 * shortest:
        raise ConfigError(
            f"shortest={shortest!r} and longest={longest!r} leave no room to cut; "
            "take shortest >= 1 and longest >= 2 * shortest"
        )


# A sentence ends at a full stop, question or exclamation mark with a space behind it, at the marks of
# the scripts that put none, or at a line's end. The look-ahead makes the cut wait for the next
# character, so that "3.14" and "e.g.," do not depend on where a chunk ended.
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？；।॥။።؟۔]+(?=[^。！？；।॥။።؟۔])|\n+(?=[^\n])")
# Where there is none: a clause, then a word. Thai, Lao and Khmer put spaces between phrases.
_CLAUSE_END = re.compile(r"[,;:，、；：)\]}]")
_SPACE = re.compile(r"\s")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceWindower:
    """Cuts behind the first sentence end past `shortest` characters, at `longest` at the latest.

    A text that has reached `longest` without a sentence end (one endless line, code, a language
    without full stops) is cut behind its last clause mark or space past `shortest`, else at `longest`.
    """

    shortest: int = 160
    longest: int = 640

    def __post_init__(self) -> None:
        _checked_bounds(self.shortest, self.longest)

    def cut(self, text: str, start: int) -> int:
        begin, limit = start + self.shortest, start + self.longest
        if len(text) <= begin:
            return 0
        found = _SENTENCE_END.search(text, begin - 1, limit + 1)
        if found:
            return found.end()
        if len(text) <= limit:
            return 0
        for pattern in (_CLAUSE_END, _SPACE):
            last = 0
            for found in pattern.finditer(text, begin, limit):
                last = found.end()
            if last:
                return last
        return limit


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeWindower:
    """Cuts every `size` characters."""

    size: int = 400

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise ConfigError(f"size={self.size!r} cuts nothing; take 1 or more")

    def cut(self, text: str, start: int) -> int:
        return start + self.size if len(text) >= start + self.size else 0
