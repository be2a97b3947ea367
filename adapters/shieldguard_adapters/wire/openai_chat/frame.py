"""A frame of chat completions: its bytes, its JSON, and the events made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

from shieldguard import Aborted, Answer, Passthrough, ReleasedEvent, SourceEvent, WireError
from shieldguard_adapters.wire.framing import parse_sse
from shieldguard_adapters.wire.jsons import Path, parse_json, texts_in
from shieldguard_adapters.wire.template import FrameTemplate

QUOTED = "failed_generation"  # in an error of Groq's: what could not be parsed
ERROR = -2  # the position, and the block, of an error in the place of a choice or beside it
_TEXTS = frozenset({"delta", "message", "text"})  # of a choice


class Frame:
    """One server-sent event, or one whole body: its bytes, and the events made of it. Its JSON is `data`,
    which is parsed when it is first asked for."""

    __slots__ = ("_body", "_choices", "_data", "events", "kept", "paths", "raw", "template")

    def __init__(
        self,
        raw: bytes,
        data: str | bytes | None = None,
        *,
        template: FrameTemplate | None = None,
        paths: Sequence[tuple[int, Path]] = (),
    ) -> None:
        self.raw = raw
        self.template = template  # that the frame was read by; its one text can be written by it, too
        self.events: list[SourceEvent] = []
        self.paths = paths  # of all texts, by position of the choice
        self.kept = 0  # characters that a splitter has not given out yet
        self._data = data
        self._body: dict[str, Any] | None = None
        self._choices: list[dict[str, Any]] = []

    @property
    def body(self) -> dict[str, Any]:
        if self._body is None:
            data = parse_sse(self.raw).data if self._data is None else self._data
            self._body = parse_json(data or "{}")
            choices = self._body.get("choices") or []
            if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
                raise WireError(f"'choices' should be a list of objects: {self.raw[:80]!r}")
            self._choices = choices
        return self._body

    @property
    def choices(self) -> list[dict[str, Any]]:
        return self._choices if self.body else []

    def without_repeats(self, key: str) -> dict[str, Any] | None:
        """The body without what some servers send beside a choice's `key`, "delta" or "message": the whole
        message again, in the last chunk; its tokens. None where there is nothing of the kind."""
        repeats = _TEXTS - {key}
        # Groq's: the tokens for debugging, and what could not be parsed.
        hidden = [
            (name, part)
            for name, part in (("x_groq", "debug"), ("error", QUOTED))
            if isinstance(holder := self.body.get(name), dict) and holder.get(part)
        ]
        if not hidden and all(repeats.isdisjoint(choice) for choice in self.choices):
            return None
        choices = [{k: v for k, v in choice.items() if k not in repeats} for choice in self.choices]
        body = {**self.body, "choices": choices} if choices else dict(self.body)
        for name, part in hidden:
            body[name] = {**body[name], part: None}
        return body

    def passthrough(self, position: int = -1, choice: int | None = None) -> list[SourceEvent]:
        return self.made(Passthrough(choice=choice, origin=Piece(self, position, ())))

    def error(self) -> list[SourceEvent]:
        """What went wrong, in words that may quote the model."""
        if not (text := "\n".join(texts_in(self.body.get("error")))):
            return []
        choice = self.choices[0].get("index", 0) if self.choices else 0
        return self.made(Answer(text, choice=choice, block=ERROR, origin=Piece(self, ERROR, ())))

    def made(self, event: SourceEvent) -> list[SourceEvent]:
        """This event, which is noted as one of the frame's."""
        self.events.append(event)
        return [event]

    def is_whole(self, events: Sequence[ReleasedEvent]) -> bool:
        """Whether these are all of the frame's events, unchanged."""
        own = self.events
        if self.kept or len(events) != len(own):
            return False
        return events[0] is own[0] if len(own) == 1 else all(map(is_, events, own))


@dataclass(slots=True, eq=False)
class Piece:
    """Where an event comes from: the `origin` of the events of this codec."""

    frame: Frame
    position: int  # in the frame's list of choices
    paths: tuple[Path, ...]  # in the choice's "delta" or "message"


def frame_of(event: ReleasedEvent) -> Frame | None:
    """The frame that an event is from; None for an end that the guard made."""
    piece = None if isinstance(event, Aborted) else event.origin
    return piece.frame if isinstance(piece, Piece) else None
