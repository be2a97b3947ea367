"""Makes events of the frames of a chat completion, choice by choice."""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from shieldguard import (
    Answer,
    End,
    Opaque,
    Passthrough,
    Reasoning,
    SourceEvent,
    Thinking,
    ThinkSplitter,
    WireError,
)
from shieldguard_adapters.wire.openai_chat.delta import Part, parts_of
from shieldguard_adapters.wire.openai_chat.frame import Frame, Piece


class Readers:
    """Makes the events of a response's frames. `key` is what a choice has its texts in: "delta" or
    "message"."""

    def __init__(self, thinking: Thinking, key: str) -> None:
        self._thinking = thinking
        self._key = key
        self.choices: dict[int, ChoiceReader] = {}  # those that have begun

    def read(self, frame: Frame) -> tuple[list[SourceEvent], list[Part]]:
        """The events of a frame, and the parts that those of its choices are of."""
        events: list[SourceEvent] = []
        parts: list[Part] = []
        if error := frame.error():
            events = [*self.flush(), *error]
        if not frame.choices:
            return events or frame.passthrough(), []
        for position, choice in enumerate(frame.choices):
            index = choice.get("index", 0)
            if not isinstance(index, int):
                raise WireError(f"a choice has index {index!r}; it should be a number")
            if index not in self.choices:
                self.choices[index] = ChoiceReader(index, self._thinking)
            made, found = self.choices[index].read(frame, position, self._key)
            events += made
            parts += found
        return events, parts

    def flush(self) -> list[SourceEvent]:
        """What might have become a tag and will not."""
        return [event for reader in self.choices.values() for event in reader.flush()]


class ChoiceReader:
    """Makes events of one choice's deltas, over the whole of a response."""

    def __init__(self, index: int, thinking: Thinking) -> None:
        self._index = index
        self._splitter = ThinkSplitter(thinking, choice=index)
        self._fed: deque[tuple[Piece, int]] = deque()  # what the splitter keeps, and of which pieces

    def read(self, frame: Frame, position: int, key: str) -> tuple[list[SourceEvent], list[Part]]:
        """The events of `frame.choices[position]`, and the parts they are of. `key` is "delta" or
        "message"."""
        choice = frame.choices[position]
        delta = choice.get(key) or {}
        if not isinstance(delta, dict):
            raise WireError(f"a {key!r} should be an object, not {type(delta).__name__!r}")
        parts = list(parts_of(delta))
        events: list[SourceEvent] = []
        for part in parts:
            frame.paths = [*frame.paths, *((position, path) for path in part.paths)]
            events += self.take(part, part.text, Piece(frame, position, part.paths))
        reason = choice.get("finish_reason")
        if reason is not None:
            events += self.flush()
            events += frame.made(End(str(reason), choice=self._index, origin=Piece(frame, position, ())))
        if not events and not any(part.inline for part in parts):
            events = frame.passthrough(position, self._index)
        return events, parts

    def take(self, part: Part, text: str, piece: Piece) -> list[SourceEvent]:
        """The events of one part, or of one alike with another text."""
        if part.inline:
            return self._split(piece, text)
        event: SourceEvent
        if part.opaque is not None:
            event = Opaque(part.opaque, choice=self._index, origin=piece)
        else:
            event = part.kind(text, choice=self._index, block=part.block, origin=piece)
        if part.kind is Reasoning:
            self._splitter.settle()
        return self.flush() + piece.frame.made(event)

    def flush(self) -> list[SourceEvent]:
        """What is kept because it might have become a tag."""
        return self._traced(self._splitter.flush()) if self._fed else []

    def _split(self, piece: Piece, text: str) -> list[SourceEvent]:
        self._fed.append((piece, len(text)))
        piece.frame.kept += len(text)
        return self._traced(self._splitter.feed(text))

    def _traced(self, split: Iterable[SourceEvent]) -> list[SourceEvent]:
        """The splitter's events with their origin, parted where the text came from different frames."""
        events: list[SourceEvent] = []
        for event in split:
            if not isinstance(event, Reasoning | Answer | Passthrough):
                events.append(event)
                continue
            rest = event.text
            while rest:
                piece, left = self._fed.popleft()
                text, rest = rest[:left], rest[left:]
                if len(text) < left:
                    self._fed.appendleft((piece, left - len(text)))
                piece.frame.kept -= len(text)
                events += piece.frame.made(replace(event, text=text, origin=piece))
        return events
