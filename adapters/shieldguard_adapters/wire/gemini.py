"""Gemini's generateContent, streaming (server-sent events) and whole (JSON)."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from shieldguard import (
    Aborted,
    End,
    Message,
    QueryFrom,
    Redacted,
    ReleasedEvent,
    SourceEvent,
    last_user_turn,
)
from shieldguard_adapters.wire.codec import Request, Termination
from shieldguard_adapters.wire.framing import SseFramer
from shieldguard_adapters.wire.gemini_parts import (
    GOES_ON,
    Frame,
    Piece,
    Readers,
    body_of,
    error,
    fragment,
)
from shieldguard_adapters.wire.jsons import objects_at, parse_json, sse
from shieldguard_adapters.wire.whole import WholeCodec

_ROLES = {"model": "assistant", "function": "tool"}


def read_request(body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """What there is to know of a request to generate content, from its JSON body."""
    request = parse_json(body)
    contents = request.get("contents") or []
    contents = [contents] if isinstance(contents, dict) else objects_at(request, "contents")
    messages = [message for content in contents for message in _messages(content)]
    system = _field(request, "systemInstruction")
    if isinstance(system, dict):
        messages[:0] = _messages({**system, "role": "system"})
    if _field(request, "cachedContent"):
        messages.insert(0, Message("system", "", unseen=True))
    config = _field(request, "generationConfig")
    return Request(
        query=query_from(messages), redactable=not (isinstance(config, dict) and _is_strict(config))
    )


class ContentStream:
    """The codec of a streamed response.

    Both `REFUSAL` and `CONTENT_FILTER` end with finish reason "SAFETY", this provider's word for either.
    `strict_output`: the caller parses the text, so an ending adds none.
    """

    def __init__(
        self, *, termination: Termination | str = Termination.REFUSAL, strict_output: bool = False
    ) -> None:
        self._termination = Termination(termination)
        self._strict_output = strict_output
        self._framer = SseFramer()
        self._readers = Readers()
        self._writer = _Writer()
        self._head: dict[str, Any] = {}
        self._ragged = False  # the last frame had no blank line behind it

    def decode(self, data: bytes) -> list[SourceEvent]:
        return [event for raw in self._framer.feed(data) for event in self._read(raw)]

    def flush(self) -> list[SourceEvent]:
        return [event for raw in self._framer.flush() for event in self._read(raw)]

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        out = []
        for frame, group in groupby(events, _frame_of):
            released = list(group)
            if frame is None:
                out += [self._ending(event) for event in released if isinstance(event, Aborted)]
            elif (body := self._writer.rewritten(frame, released)) is None:
                out.append(frame.raw)
                self._ragged = not frame.raw.endswith((b"\n\n", b"\r\r", b"\r\n\r\n"))
            elif body:
                out.append(sse(body))
        return b"".join(out)

    def keep_alive(self) -> bytes:
        return b"\n"  # the official client takes a comment, or an event's name, for a broken response

    def close(self) -> bytes:
        return b""

    def aside(self, lines: Sequence[str]) -> bytes:
        return b""

    def _read(self, raw: bytes) -> list[SourceEvent]:
        frame = Frame(raw, body_of(raw))
        head = ("modelVersion", "responseId", "usageMetadata")
        self._head |= {name: frame.body[name] for name in head if name in frame.body}
        return self._readers.read(frame)

    def _ending(self, aborted: Aborted) -> bytes:
        begin = b"\n\n" if self._ragged else b""
        indexes = sorted({0, *self._readers.indexes} - self._writer.finished)
        if self._termination is Termination.ERROR:
            # Where nothing has finished, the official client might go on from a token that it was given.
            finished = [{"finishReason": "SAFETY", "index": index} for index in indexes]
            return (
                begin
                + (sse({"candidates": finished}) if finished else b"")
                + sse({"error": error(aborted.notice)})
            )
        if not indexes:
            return b""
        return begin + sse({**_refused(aborted, indexes, self._strict_output), **self._head})


class ContentBody(WholeCodec):
    """The codec of a response in one piece. The options are those of `ContentStream`; after an ending in
    error the official client gives a response without candidates, and raises nothing."""

    def __init__(self, *, strict_output: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._strict_output = strict_output
        self._readers = Readers()
        self._frame: Frame | None = None

    def _read(self, data: bytes) -> list[SourceEvent]:
        self._frame = Frame(data, parse_json(data))
        return self._readers.read(self._frame)

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        assert self._frame is not None
        return _Writer().rewritten(self._frame, released) or {**self._frame.body, "candidates": []}

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        if self._termination is Termination.ERROR:
            return {"error": error(aborted.notice)}
        head = self._frame.body if self._frame else {}
        indexes = sorted(self._readers.indexes) or [0]
        return {**head, **_refused(aborted, indexes, self._strict_output)}


class _Writer:
    """Writes frames, and knows what the client has been sent of each choice."""

    def __init__(self) -> None:
        self.finished: set[int] = set()
        self._redacted: set[int] = set()

    def rewritten(self, frame: Frame, released: Sequence[ReleasedEvent]) -> dict[str, Any] | None:
        """The part of a frame that these events are, empty where there is nothing to send; None where it
        is the frame as it came."""
        self.finished.update(
            event.choice for event in released if isinstance(event, End) and event.reason != GOES_ON
        )
        self._redacted.update(event.choice for event in released if isinstance(event, Redacted))
        if frame.is_whole(released) and not (self._redacted and frame.holds_more(self._redacted)):
            return None
        return fragment(frame, released, self._redacted)


def _frame_of(event: ReleasedEvent) -> Frame | None:
    piece = None if isinstance(event, Aborted) else event.origin
    return piece.frame if isinstance(piece, Piece) else None


def _messages(content: dict[str, Any]) -> list[Message]:
    """What was thought in a turn has a role of its own."""
    role = str(content.get("role") or "user")
    parts = content.get("parts") or []
    parts = [parts] if isinstance(parts, dict) else objects_at(content, "parts")
    if parts and all(_field(part, "functionResponse") is not None for part in parts):
        role = "tool"  # a turn that no user wrote
    thoughts = [part for part in parts if part.get("thought") and isinstance(part.get("text"), str)]
    said = "\n".join(_part_text(part) for part in parts if part not in thoughts)
    turns = [Message("reasoning", part["text"]) for part in thoughts]
    return [*turns, Message(_ROLES.get(role, role), said)]


def _part_text(part: dict[str, Any]) -> str:
    if isinstance(text := part.get("text"), str) and not part.get("thought"):
        return text
    return f"[{'thought' if part.get('thought') else next(iter(part), 'part')}]"


def _is_strict(config: dict[str, Any]) -> bool:
    """Whether the answer is to be parsed."""
    schemas = ("responseSchema", "responseJsonSchema", "_responseJsonSchema", "responseFormat")
    if any(_field(config, name) is not None for name in schemas):
        return True
    return _field(config, "responseMimeType") not in (None, "", "text/plain")


def _field(holder: dict[str, Any], name: str) -> Any:
    """A field by its name, which this API takes in snake case, too."""
    if (value := holder.get(name)) is not None:
        return value
    return holder.get("".join(f"_{one.lower()}" if one.isupper() else one for one in name))


def _refused(aborted: Aborted, indexes: Sequence[int], strict_output: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"role": "model"}
    if not strict_output:
        content["parts"] = [{"text": aborted.notice}]
    ending = {"content": content, "finishReason": "SAFETY", "finishMessage": aborted.notice}
    return {"candidates": [{**ending, "index": index} for index in indexes]}
