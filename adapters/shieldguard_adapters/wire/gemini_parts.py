"""What a frame of Gemini's generateContent says, and how it is written with only some of that.

A frame, or a whole body, holds candidates (completions), and a candidate a list of parts: a text, which may
be the summary of a thought, or something of a tool. Where an event stands is its slot: the place of its part,
or the name of a field of the candidate. A part may carry a signature, which is the thought itself, encrypted;
it goes with its part, as long as that is whole.
"""

import json
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from operator import is_
from typing import Any, TypeAlias

from shieldguard import (
    Answer,
    Channel,
    End,
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    Redacted,
    ReleasedEvent,
    SourceEvent,
    ToolCall,
    WireError,
)
from shieldguard_adapters.wire.framing import parse_sse
from shieldguard_adapters.wire.jsons import objects_at, parse_json, texts_in
from shieldguard_adapters.wire.released import origin_of, said_by

Slot: TypeAlias = int | str | None

_SIGNATURE = "thoughtSignature"
_TOKEN = "continuationToken"  # of a turn that another request goes on with, as the official client does
GOES_ON = "CONTINUATION"  # how such a turn ends
_CALLS = frozenset({"functionCall", "executableCode", "codeExecutionResult", "toolCall", "toolResponse"})
_BESIDE = frozenset({"thought", _SIGNATURE, "mediaResolution", "videoMetadata"})  # of a part
_HEAD = frozenset(
    {
        "candidates",
        "usageMetadata",
        "modelVersion",
        "responseId",
        "createTime",
        "modelStatus",
        "promptFeedback",
        "error",
    }
)
_PARTED = frozenset({"candidates", "error"})  # of which a frame may leave in parts
_ERROR = -1  # the block of an error in the place of candidates
# What a candidate holds beside text. All else in it is judged.
_METADATA = frozenset(
    {
        "index",
        "tokenCount",
        "avgLogprobs",
        "safetyRatings",
        "citationMetadata",
        "urlContextMetadata",
        _TOKEN,
    }
)
_LOGPROBS = "logprobsResult"  # spells the text of the frame, and so does not go with a part of it
_READ_APART = frozenset({"content", "finishReason", "finishMessage", _LOGPROBS})
# In what was found to ground an answer: where it was found. `renderedContent` shows the queries as HTML.
_PLACES = frozenset(
    {"uri", "domain", "sourceId", "placeId", "renderedContent", "sdkBlob", "googleMapsWidgetContextToken"}
)
_FIELDS = frozenset({b"data", b"event", b"id", b"retry", b""})


@dataclass(slots=True, eq=False)
class Frame:
    """One server-sent event, or one whole body: its bytes, its JSON, and the events made of it."""

    raw: bytes
    body: dict[str, Any]
    candidates: list[dict[str, Any]] = field(init=False)
    events: list[SourceEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.candidates = objects_at(self.body, "candidates")
        for name, value in self.body.items():
            if name not in _HEAD and any(texts_in(value)):
                raise WireError(f"a response holds {name!r}, which is not known and was not passed on")

    def is_whole(self, events: Sequence[ReleasedEvent]) -> bool:
        """Whether these are all of the frame's events, unchanged."""
        return len(events) == len(self.events) and all(map(is_, events, self.events))

    def holds_more(self, choices: Set[int]) -> bool:
        """Whether it holds, of one of these choices, what says again or stands for text left out before, or
        goes on from it."""
        return any(
            not {_LOGPROBS, _TOKEN}.isdisjoint(candidate)
            or candidate.get("finishReason") == GOES_ON
            or any(_SIGNATURE in part for part in _parts_of(candidate))
            for position, candidate in enumerate(self.candidates)
            if index_of(candidate, position) in choices
        )


@dataclass(slots=True, eq=False)
class Piece:
    """Where an event stands: the `origin` of the events of this codec."""

    frame: Frame
    position: int = -1  # of its candidate in the frame; -1 for the frame itself
    slot: Slot = None


def body_of(raw: bytes) -> dict[str, Any]:
    """The JSON of a server-sent event; {} for one without. A client of this API reads lines that are no
    fields as JSON, too, and an error comes that way: nothing else may."""
    lines = raw.replace(b"\r", b"\n").split(b"\n")
    if all(not line or line.partition(b":")[0] in _FIELDS for line in lines):
        data = parse_sse(raw).data
        return parse_json(data) if data and data.strip() not in ("", "[DONE]") else {}
    body = parse_json(raw)
    if body.keys() != {"error"}:
        raise WireError(f"what is no server-sent event was not passed on: {raw[:80]!r}")
    return body


def index_of(candidate: dict[str, Any], position: int) -> int:
    index = candidate.get("index", position)
    if not isinstance(index, int):
        raise WireError(f"a candidate has index {index!r}; it should be a number")
    return index


class Readers:
    """Makes the events of a response's frames."""

    def __init__(self) -> None:
        self._readers: dict[int, _Reader] = {}

    @property
    def indexes(self) -> Set[int]:
        """The choices that have begun."""
        return self._readers.keys()

    def read(self, frame: Frame) -> list[SourceEvent]:
        for position, candidate in enumerate(frame.candidates):
            index = index_of(candidate, position)
            if index not in self._readers:
                self._readers[index] = _Reader(index)
            frame.events += self._readers[index].read(frame, position)
        if text := "\n".join(texts_in(frame.body.get("error"))):  # it may quote the model
            choice = min(self._readers, default=0)
            frame.events.append(Answer(text, choice=choice, block=_ERROR, origin=Piece(frame)))
        frame.events = frame.events or [Passthrough(origin=Piece(frame))]
        return frame.events


class _Reader:
    """Makes events of one choice's candidates, over the whole of a response."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._summarised = self._hidden = False
        self._calls = 0
        self._continues = False  # a call whose arguments are still coming
        self._path: Any = None  # of the argument that comes

    def read(self, frame: Frame, position: int) -> list[SourceEvent]:
        """The events of `frame.candidates[position]`, in its order."""
        candidate = frame.candidates[position]
        events: list[SourceEvent] = []
        for slot, part in enumerate(_parts_of(candidate)):
            events += self._part(part, Piece(frame, position, slot))
        events += self._fields(candidate, frame, position)
        own = Piece(frame, position)
        usage = frame.body.get("usageMetadata")
        thought = isinstance(usage, dict) and usage.get("thoughtsTokenCount")
        if thought and not self._summarised and not self._hidden:
            self._hidden = True
            events.append(Opaque(OpaqueKind.HIDDEN, choice=self._index, origin=own))
        if candidate.get("finishReason"):
            events.append(End(str(candidate["finishReason"]), choice=self._index, origin=own))
        return events or [Passthrough(choice=self._index, origin=own)]

    def _part(self, part: dict[str, Any], piece: Piece) -> Iterator[SourceEvent]:
        kinds = [name for name, value in part.items() if name not in _BESIDE and value is not None]
        kind = kinds[0] if kinds else "text"
        if len(kinds) > 1 or kind not in _CALLS | {"text"}:
            raise WireError(
                f"a part holds {', '.join(map(repr, kinds))}, which cannot be judged and was not passed on; "
                "ask for text alone"
            )
        if not isinstance(part.get("thought"), bool | None):
            raise WireError(f"'thought' of a part should be true or false, not {part['thought']!r:.80}")
        content = part.get(kind)
        whole = Piece(piece.frame, piece.position)  # no place of its own, where another event has it
        signed = piece
        if kind != "text":
            yield self._call(content, piece)
            signed = whole
        elif not isinstance(content, str | None):
            raise WireError(f"'text' of a part should be a string, not {content!r:.80}")
        elif content:
            event = Reasoning if part.get("thought") else Answer
            yield event(content, choice=self._index, origin=piece)
            signed = whole
            if event is Reasoning and not self._summarised:
                self._summarised = True
                yield Opaque(OpaqueKind.SUMMARISED, choice=self._index, origin=whole)
        if part.get(_SIGNATURE):
            yield Opaque(OpaqueKind.ENCRYPTED, choice=self._index, origin=signed)

    def _call(self, call: Any, piece: Piece) -> ToolCall:
        if not isinstance(call, dict):
            raise WireError(f"a call should be an object, not {call!r:.80}")
        if not self._continues:
            self._calls += 1
            self._path = None
        self._continues = bool(call.get("willContinue"))
        text = _call_text(call)
        for argument in objects_at(call, "partialArgs"):
            if (path := argument.get("jsonPath")) != self._path:
                self._path = path
                text += f"\n{path} "
            text += "".join(texts_in(argument, ("jsonPath",)))
        return ToolCall(text, choice=self._index, block=self._calls, origin=piece)

    def _fields(self, candidate: dict[str, Any], frame: Frame, position: int) -> Iterator[SourceEvent]:
        """Text beside the parts: a call that went wrong, a search that was made, what is not known yet."""
        if message := candidate.get("finishMessage"):
            piece = Piece(frame, position, "finishMessage")
            yield Answer(str(message), choice=self._index, block=1, origin=piece)
        for name, value in candidate.items():
            if name in _METADATA or name in _READ_APART:
                continue
            left_out = _PLACES if name == "groundingMetadata" else ()
            text = "\n".join(filter(None, texts_in(value, left_out)))
            if text:
                self._calls += 1
                piece = Piece(frame, position, name)
                yield ToolCall(text, choice=self._index, block=self._calls, origin=piece)


def fragment(frame: Frame, events: Sequence[ReleasedEvent], redacted: Set[int]) -> dict[str, Any]:
    """The frame with what these events hold alone; empty where that is nothing. `redacted`: choices of which
    something was left out."""
    candidates = []
    for position, source in enumerate(frame.candidates):
        own = [event for event in events if origin_of(event, Piece).position == position]
        index = index_of(source, position)
        if made := _candidate(source, own, index in redacted):
            if own[-1] is [one for one in frame.events if origin_of(one, Piece).position == position][-1]:
                left_out = {_TOKEN} if index in redacted else set()
                made |= {name: value for name, value in source.items() if name in _METADATA - left_out}
            made["index"] = index
            candidates.append({name: made[name] for name in (*source, *made) if name in made})
    parted: dict[str, Any] = {"candidates": candidates} if candidates else {}
    if said := "".join(said_by(event) for event in events if origin_of(event, Piece).position < 0):
        parted["error"] = error(said, frame.body["error"])
    if not parted:
        return {}
    kept = {name: value for name, value in frame.body.items() if name in parted or name not in _PARTED}
    body = {**kept, **parted}
    if events[-1] is not frame.events[-1]:
        body.pop("usageMetadata", None)
    return body


def error(message: str, like: Any = None) -> dict[str, Any]:
    """An error with this text, and the code of one like it."""
    code = like.get("code") if isinstance(like, dict) else None
    return {
        "code": code if isinstance(code, int) else 400,
        "message": message,
        "status": "FAILED_PRECONDITION",
    }


def _candidate(source: dict[str, Any], events: Sequence[ReleasedEvent], redacted: bool) -> dict[str, Any]:
    """A candidate with what these events hold; empty where that is nothing."""
    texts: dict[Slot, str] = {}
    kept: set[Slot] = set()  # slots that are as they came
    notices: dict[Slot, str] = {}  # of calls
    made: dict[str, Any] = {}
    for event in events:
        slot = origin_of(event, Piece).slot
        if isinstance(event, Redacted) and event.channel is Channel.TOOL_CALL:
            notices[slot] = event.notice
        elif isinstance(event, Reasoning | Answer):
            texts[slot] = texts.get(slot, "") + event.text
        elif isinstance(event, Redacted):
            texts[slot] = texts.get(slot, "") + event.notice
        elif isinstance(event, ToolCall | Opaque):
            kept.add(slot)
        elif isinstance(event, End):
            reason = source["finishReason"]
            made["finishReason"] = "SAFETY" if redacted and reason == GOES_ON else reason
    was = _parts_of(source)
    parts = []
    for slot, part in enumerate(was):
        if slot in texts and (redacted or texts[slot] != part["text"]):
            parts.append({**_unsigned(part), "text": texts[slot]})
        elif slot in texts or (slot in kept and not (redacted and _CALLS.isdisjoint(part))):
            parts.append(part)
        elif slot in notices:
            parts.append({"text": notices[slot]})
    parts += [{"text": notice} for slot, notice in notices.items() if isinstance(slot, str)]
    made |= {name: value for name, value in texts.items() if isinstance(name, str)}
    made |= {name: source[name] for name in kept if isinstance(name, str)}
    if parts or (was and "finishReason" in made):
        # A turn without parts is taken for a broken one; Gemini's own last frame has an empty text.
        made["content"] = {**(source.get("content") or {"role": "model"}), "parts": parts or [{"text": ""}]}
    elif "finishReason" in made and "content" in source:
        made["content"] = source["content"]
    return made


def _unsigned(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != _SIGNATURE}


def _parts_of(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    content = candidate.get("content") or {}
    if not isinstance(content, dict):
        raise WireError(f"'content' should be an object, not {content!r:.80}")
    for name, value in content.items():
        if name not in ("parts", "role") and any(texts_in(value)):
            raise WireError(f"a content holds {name!r}, which is not known and was not passed on")
    return objects_at(content, "parts")


def _call_text(call: dict[str, Any]) -> str:
    """What there is to judge of a call or of what came of it, but for arguments that come in pieces."""
    pieces: list[str] = []
    for name, value in call.items():
        if name == "name":
            pieces.append(f"{value} ")
        elif isinstance(value, str) and name != "id":
            pieces.append(f"{value}\n")
        elif isinstance(value, dict | list) and value and name != "partialArgs":
            pieces.append(json.dumps(value, ensure_ascii=False))
    return "".join(pieces)
