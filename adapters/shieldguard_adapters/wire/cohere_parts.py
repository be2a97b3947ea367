"""What the frames and the bodies of Cohere's chat (v2) say. Each frame is one event at most."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from shieldguard import (
    Answer,
    End,
    Passthrough,
    Reasoning,
    SourceEvent,
    ToolCall,
    WireError,
)
from shieldguard_adapters.wire.framing import parse_sse
from shieldguard_adapters.wire.jsons import objects_at, parse_json, sse, text_at, texts_in

#: Where an event of a whole body comes from: a key of the message, and the position in its list.
Place: TypeAlias = tuple[str, int]

PLAN = -1  # the block of the tool plan; content blocks have their index
_LOGPROBS = -2
_CITATIONS = -3  # of the first citation that is judged; the others follow downwards

_BODY = frozenset({"id", "finish_reason", "message", "usage", "logprobs", "meta"})
_MESSAGE = frozenset({"role", "content", "tool_plan", "tool_calls", "citations"})
_CONTENT = frozenset({"content-start", "content-delta"})
_END = frozenset({"type", "id"})
# `sources` quotes documents and tools, not the model.
_CITATION = frozenset({"text", "sources", "type"})


@dataclass(slots=True, eq=False)
class Frame:
    """One server-sent event, and the event made of it. It is the `origin` of that event."""

    raw: bytes
    body: dict[str, Any]
    event: SourceEvent | None = None

    @property
    def type(self) -> str:
        return str(self.body.get("type", ""))

    @property
    def index(self) -> int:
        index: int = self.body["index"]
        return index


@dataclass(slots=True)
class Said:
    """What the model said, by block: what a citation should be found in."""

    _texts: dict[int, list[str]] = field(default_factory=dict)
    _cited: int = 0

    def note(self, event: SourceEvent) -> SourceEvent:
        if isinstance(event, Reasoning | Answer):
            self._texts.setdefault(event.block, []).append(event.text)
        return event

    def holds(self, text: str) -> bool:
        for block, texts in self._texts.items():
            joined = "".join(texts)
            if text in joined:
                return True
            self._texts[block] = [joined]
        return not text

    def citation(self, citation: Any, origin: object) -> SourceEvent:
        """A citation repeats what was said before it, and leaves behind that. What it says beside is
        judged."""
        if not isinstance(citation, dict):
            raise WireError(f"a citation should be an object, not {citation!r:.80}")
        only(citation, _CITATION)
        text = text_at(citation, "text")
        if self.holds(text):
            return Passthrough(choice=0, origin=origin)
        self._cited += 1
        return Answer(text, block=_CITATIONS - self._cited, origin=origin)


class FrameReader:
    """Makes events of the frames of one message. Content that belongs to no block, or is not known, raises
    `WireError`: nothing would tell what a client makes of it."""

    def __init__(self) -> None:
        self._blocks: dict[int, str] = {}  # by index, their type; empty once ended
        self._said = Said()

    def read(self, raw: bytes) -> SourceEvent:
        sent = parse_sse(raw)
        data = (sent.data or "").strip()
        frame = Frame(raw, parse_json(data) if data not in ("", "[DONE]") else {})
        if frame.body:
            sent.check_type(frame.type)
        only(frame.body, _END | ({"delta", "logprobs"} if frame.type in _CONTENT else {"delta"}))
        frame.event = event = self._said.note(self._event(frame))
        return event

    def _event(self, frame: Frame) -> SourceEvent:
        match frame.type:
            case "message-start":
                only(_message(frame), frozenset({"role"}))
                return Passthrough(origin=frame)
            case "content-start" | "content-delta":
                return self._content(frame)
            case "content-end":
                only(frame.body, _END)
                self._of_open(frame)
                self._blocks[frame.index] = ""
            case "tool-plan-delta":
                message = _message(frame)
                only(message, frozenset({"tool_plan"}))
                if text := text_at(message, "tool_plan"):
                    return Reasoning(text, block=PLAN, origin=frame)
            case "tool-call-start" | "tool-call-delta":
                message = _message(frame)
                only(message, frozenset({"tool_calls"}))
                return call_event(message.get("tool_calls"), _index(frame), frame)
            case "tool-call-end" | "citation-end":
                only(frame.body, _END)
                _index(frame)
            case "citation-start":
                message = _message(frame)
                only(message, frozenset({"citations"}))
                _index(frame)
                return self._said.citation(message.get("citations"), frame)
            case "message-end":
                delta = _object(frame.body, "delta")
                only(delta, frozenset({"finish_reason", "error", "usage"}))
                return End(str(delta.get("finish_reason")), origin=frame)
            case _ if frame.body:
                raise WireError(f"an event of type {frame.type!r} is not known and was not passed on")
            case _:
                return Passthrough(origin=frame)
        return Passthrough(choice=0, origin=frame)

    def _content(self, frame: Frame) -> SourceEvent:
        message = _message(frame)
        only(message, frozenset({"content"}))
        content = _object(message, "content")
        if frame.type == "content-start":
            if (index := _index(frame)) in self._blocks:
                raise WireError(f"block {index!r} begins for the second time")
            self._blocks[index] = type_ = str(content.get("type"))
        else:
            type_ = self._of_open(frame)
        event = content_event({**content, "type": type_}, frame.index, frame)
        logprobs = frame.body.get("logprobs")
        if logprobs and _spelled([logprobs]) != getattr(event, "text", ""):
            # They spell something else than the text that is judged.
            frame.body = {key: value for key, value in frame.body.items() if key != "logprobs"}
            frame.raw = sse(frame.body, frame.type)
        return event

    def _of_open(self, frame: Frame) -> str:
        if not (type_ := self._blocks.get(_index(frame), "")):
            raise WireError(f"{frame.type!r} is of block {frame.index!r}, which is not open")
        return type_


def body_events(body: dict[str, Any]) -> Iterator[SourceEvent]:
    """The events of a message in one piece, with their `Place`: the reasoning first."""
    only(body, _BODY)
    message = _object(body, "message")
    only(message, _MESSAGE)
    said = Said()
    if text := text_at(message, "tool_plan"):
        yield said.note(Reasoning(text, block=PLAN, origin=("tool_plan", 0)))
    for index, block in enumerate(objects_at(message, "content")):
        yield said.note(content_event(block, index, ("content", index)))
    for index, call in enumerate(objects_at(message, "tool_calls")):
        yield call_event(call, index, ("tool_calls", index))
    for index, citation in enumerate(objects_at(message, "citations")):
        yield said.citation(citation, ("citations", index))
    if not said.holds(spelled := _spelled(objects_at(body, "logprobs"))):
        yield Answer(spelled, block=_LOGPROBS, origin=("logprobs", 0))
    yield End(str(body.get("finish_reason")))


def content_event(block: dict[str, Any], index: int, origin: object) -> SourceEvent:
    """The event of a block of content, or of a piece of one."""
    type_ = block.get("type")
    if type_ not in ("thinking", "text"):
        raise WireError(f"a block of type {type_!r} is not known and was not passed on")
    only(block, frozenset({"type", type_}))
    if not (text := text_at(block, type_)):
        return Passthrough(choice=0, origin=origin)
    kind = Reasoning if type_ == "thinking" else Answer
    return kind(text, block=index, origin=origin)


def call_event(call: Any, index: int, origin: object) -> ToolCall:
    if not isinstance(call, dict):
        raise WireError(f"a tool call should be an object, not {call!r:.80}")
    only(call, frozenset({"id", "type", "function"}))
    function = call.get("function") or {}
    if not isinstance(function, dict):
        raise WireError(f"a tool call's function should be an object, not {function!r:.80}")
    only(function, frozenset({"name", "arguments"}))
    name, arguments = text_at(function, "name"), text_at(function, "arguments")
    return ToolCall(f"{name} {arguments}" if name else arguments, block=index, origin=origin)


def only(holder: dict[str, Any], known: frozenset[str]) -> None:
    """Raise `WireError` where something that is not known holds text."""
    for key, value in holder.items():
        if key not in known and any(texts_in(value)):
            raise WireError(f"{key!r} is not known here, may hold text, and was not passed on: {value!r:.80}")


def _message(frame: Frame) -> dict[str, Any]:
    delta = _object(frame.body, "delta")
    only(delta, frozenset({"message"}))
    return _object(delta, "message")


def _index(frame: Frame) -> int:
    index = frame.body.get("index")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise WireError(f"an event of type {frame.type!r} has index {index!r}; it should be a number")
    return index


def _object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key)
    if not isinstance(value, dict):
        raise WireError(f"{key!r} should be an object, not {value!r:.80}")
    return value


def _spelled(logprobs: list[dict[str, Any]]) -> str:
    """The text that log-probabilities are of."""
    return "".join(" ".join(texts_in(item)) for item in logprobs)
