"""Telling reasoning from answer where both come in one text, by markers such as `<think>`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shieldguard.errors import ConfigError
from shieldguard.events import Answer, Channel, Passthrough, Reasoning, Relabel


class Thinking(StrEnum):
    """How a text that may hold reasoning begins."""

    EXPLICIT = "explicit"  # with the answer; an opening tag begins reasoning
    PREOPENED = "preopened"  # with reasoning: the chat template has opened it, only the closing tag comes
    AUTO = "auto"  # not known: until a tag tells, the text is a tentative answer, which is always judged


@dataclass(frozen=True, slots=True)
class Marker:
    """`text`, once seen, switches the channel; None leaves it as it is. `implied`: the marker belongs to
    what follows and only implies that reasoning is over, so it is judged as part of the answer."""

    text: str
    to: Channel | None
    implied: bool = False


def tag_pair(opening: str, closing: str) -> tuple[Marker, Marker]:
    """The markers of a vocabulary with one tag to open reasoning and one to close it."""
    return Marker(opening, Channel.REASONING), Marker(closing, Channel.ANSWER)


THINK = tag_pair("<think>", "</think>")
THINKING = tag_pair("<thinking>", "</thinking>")
KIMI = tag_pair("◁think▷", "◁/think▷")
MINIMAX = tag_pair("<mm:think>", "</mm:think>")
COHERE = tag_pair("<|START_THINKING|>", "<|END_THINKING|>")
MISTRAL = tag_pair("[THINK]", "[/THINK]")
SEED = tag_pair("<seed:think>", "</seed:think>")
# Models that go over to a tool call without closing their thought (Qwen3.5; Kimi-K2).
IMPLIED = (
    Marker("<tool_call>", Channel.ANSWER, implied=True),
    Marker("<|tool_calls_section_begin|>", Channel.ANSWER, implied=True),
)
# gpt-oss. What is said in `commentary` (preambles, tool calls) counts as reasoning: it is not the answer.
HARMONY = (
    Marker("<|start|>assistant", None),
    Marker("<|channel|>analysis<|message|>", Channel.REASONING),
    Marker("<|channel|>commentary", Channel.REASONING),
    Marker("<|channel|>final<|message|>", Channel.ANSWER),
    Marker("<|channel|>final <|constrain|>json<|message|>", Channel.ANSWER),
    Marker("<|end|>", None),
    Marker("<|call|>", None),
    Marker("<|return|>", None),
)
DEFAULT_MARKERS = (*THINK, *THINKING, *KIMI, *MINIMAX, *COHERE, *MISTRAL, *SEED, *IMPLIED, *HARMONY)

# A quote with text right before it closes what it quotes: `he said "yes."</think>`.
_OPENING_QUOTE = re.compile(r"(?:^|[\s(\[{])[`'\"]$|[“‘]$")


class ThinkSplitter:
    """Splits one text, fed in pieces, into `Reasoning`, `Answer` and the markers (`Passthrough`).

    A marker may be split anywhere across pieces: what could become one is kept until the next piece or
    `flush()`. Quoted markers (right behind a quote or backtick) and reasoning markers in mid-line of an
    answer are text; what follows them in an answer is tentative. The first closing tag closes, nested
    openings or not. So a wrong guess changes which channel a text is judged on, never whether it is
    judged. The texts given out, joined, are the text fed in.
    """

    def __init__(
        self,
        mode: Thinking | str = Thinking.AUTO,
        *,
        markers: Sequence[Marker] = DEFAULT_MARKERS,
        choice: int = 0,
    ) -> None:
        try:
            self.mode = Thinking(mode)
        except ValueError:
            choices = ", ".join(repr(known.value) for known in Thinking)
            raise ConfigError(f"thinking={mode!r}; choose one of {choices}") from None
        if not markers or not all(marker.text for marker in markers):
            raise ConfigError(f"markers={markers!r}; give at least one, none of them empty")
        self.markers = tuple(markers)
        self._choice = choice
        self._channel = Channel.REASONING if self.mode is Thinking.PREOPENED else Channel.ANSWER
        self._tentative = self.mode is Thinking.AUTO
        self._markers = {marker.text: marker for marker in markers}
        longest_first = sorted(self._markers, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._first = re.compile("[" + re.escape("".join({text[0] for text in self._markers})) + "]")
        self._beginnings = {text[:n] for text in self._markers for n in range(1, len(text))}
        self._reach = max(map(len, self._markers)) - 1
        self._kept = ""
        self._line = ""  # what is known of the line before the kept text, as far as it matters

    def feed(self, text: str) -> list[Reasoning | Answer | Passthrough | Relabel]:
        """The events that `text` completes."""
        if self._kept or not text or self._first.search(text):
            return self._split(self._kept + text, final=False)
        self._line = self._line_before(text, 0, len(text))
        return [self._event(text)]

    def flush(self) -> list[Reasoning | Answer | Passthrough | Relabel]:
        """The rest, at the end of the text."""
        return self._split(self._kept, final=True)

    def settle(self) -> None:
        """Reasoning came some other way (a field of its own), so a text that begins now is the answer."""
        self._tentative = False

    def _split(self, text: str, *, final: bool) -> list[Reasoning | Answer | Passthrough | Relabel]:
        events: list[Reasoning | Answer | Passthrough | Relabel] = []
        done = past = line_start = 0
        for found in self._pattern.finditer(text):
            if not final and self._safe_end(text, past) <= found.start():
                break
            past = found.end()
            marker = self._markers[found.group()]
            if self._is_text(marker, text, line_start, found.start()):
                if marker.to is Channel.REASONING and self._channel is Channel.ANSWER and not self._tentative:
                    self._emit(events, text[done : found.start()])
                    done = found.start()
                    self._tentative = True
                continue
            self._emit(events, text[done : found.start()])
            self._switch(events, marker)
            if marker.implied:
                done = found.start()
            else:
                events.append(Passthrough(marker.text, choice=self._choice))
                done = line_start = found.end()
        kept_from = len(text) if final else self._safe_end(text, past)
        self._emit(events, text[done:kept_from])
        self._line = self._line_before(text, line_start, kept_from)
        self._kept = text[kept_from:]
        return events

    def _safe_end(self, text: str, past: int) -> int:
        """Where the longest tail behind `past` begins that may still become a marker."""
        for start in range(max(past, len(text) - self._reach), len(text)):
            if text[start:] in self._beginnings:
                return start
        return len(text)

    def _is_text(self, marker: Marker, text: str, line_start: int, at: int) -> bool:
        line = self._line_before(text, line_start, at)
        if _OPENING_QUOTE.search(line):
            return True
        opens_in_answer = marker.to is Channel.REASONING and self._channel is Channel.ANSWER
        return opens_in_answer and not marker.text.startswith("<|") and bool(line.strip())

    def _line_before(self, text: str, line_start: int, at: int) -> str:
        """The line up to `at`, or enough of it to tell whether it is blank and how it ends. A line
        begins anew behind a marker."""
        newline = text.rfind("\n", line_start, at)
        begins_here = newline >= 0 or line_start > 0
        line = text[max(newline + 1, line_start) : at] if begins_here else self._line + text[:at]
        return line if len(line) < 4 else line.strip()[:1] + line[-2:]

    def _switch(self, events: list[Reasoning | Answer | Passthrough | Relabel], marker: Marker) -> None:
        if marker.to is None or (marker.implied and self._channel is Channel.ANSWER):
            return
        if self._tentative and marker.to is Channel.ANSWER and not marker.implied:
            events.append(Relabel(choice=self._choice))
        self._tentative = False
        self._channel = marker.to

    def _emit(self, events: list[Reasoning | Answer | Passthrough | Relabel], text: str) -> None:
        if text:
            events.append(self._event(text))

    def _event(self, text: str) -> Reasoning | Answer:
        if self._channel is Channel.REASONING:
            return Reasoning(text, choice=self._choice)
        return Answer(text, choice=self._choice, tentative=self._tentative)
