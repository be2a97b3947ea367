"""What the frames of an Anthropic message say: a message is a list of blocks, one after the other, and each
frame is one event at most."""

import json
from collections.abc import Set
from typing import Any

from shieldguard import (
    Answer,
    End,
    Message,
    Opaque,
    OpaqueKind,
    Passthrough,
    QueryFrom,
    Reasoning,
    SourceEvent,
    ToolCall,
    WireError,
    last_user_turn,
)
from shieldguard_adapters.wire.codec import Request
from shieldguard_adapters.wire.framing import parse_sse
from shieldguard_adapters.wire.jsons import objects_at, parse_json, texts_in
from shieldguard_adapters.wire.requests import content_text
from shieldguard_adapters.wire.template import FrameTemplate

# Blocks of text: what holds it, in the block and in its delta, whose type it names.
TEXT_BLOCKS = {"thinking": "thinking", "text": "text"}
_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
# Not calls, and they go whole or not at all as calls do: a summary is signed, a listing is of use as it is.
_WHOLE = frozenset({"compaction", "mcp_tool_listing"})
_ERROR = -1  # no block has this index
_SUMMARY = ("compaction_delta", "compaction")
# Of what else a tool call or its result holds, nothing is text.
_NOT_TEXT = frozenset(
    {
        "type",
        "id",
        "caller",
        "toolset_name",
        "tool_use_id",
        "data",
        "signature",
        "encrypted_content",
        "encrypted_index",
    }
)
# What a frame holds beside its type and numbers.
_HELD = {
    "message_start": {"message"},
    "content_block_start": {"content_block"},
    "content_block_delta": {"delta"},
    "message_delta": {"delta", "usage", "context_management", "input_transformations"},
    "error": {"error", "request_id"},
}
# What a delta holds beside its type.
_OF_DELTA = {
    "thinking_delta": {"thinking"},
    "text_delta": {"text"},
    "signature_delta": {"signature"},
    "citations_delta": {"citation"},
}
# What a message holds beside its type.
_OF_MESSAGE = frozenset(
    {
        "id",
        "role",
        "model",
        "content",
        "container",
        "context_management",
        "diagnostics",
        "input_transformations",
        "stop_details",
        "stop_reason",
        "stop_sequence",
        "usage",
    }
)


class Frame:
    """One server-sent event, and the event made of it. It is the `origin` of that event. A body that is not
    given is parsed when it is first asked for."""

    __slots__ = ("_body", "block", "block_type", "event", "raw", "type")

    def __init__(
        self,
        raw: bytes,
        type_: Any,
        body: dict[str, Any] | None = None,
        *,
        block: int | None = None,
        block_type: str = "",
    ) -> None:
        self.raw = raw
        self.type = type_
        self.block = block  # its index
        self.block_type = block_type
        self.event: SourceEvent | None = None  # until it is written
        self._body = body

    @property
    def body(self) -> dict[str, Any]:
        if self._body is None:
            self._body = parse_json(parse_sse(self.raw).data or "{}")
        return self._body


class BlockReader:
    """Makes events of the frames of one message. Blocks that overlap, come twice, or hold what is not known
    raise `WireError`: nothing would tell what a client makes of them."""

    def __init__(self) -> None:
        self._open: tuple[int, str] | None = None
        self._seen: set[int] = set()
        self._with_text: set[int] = set()
        self._template = FrameTemplate()  # of the deltas with text in the open block

    def read(self, raw: bytes) -> SourceEvent:
        if (text := self._template.text_of(raw)) is not None and self._open is not None:
            index, type_ = self._open
            frame = Frame(raw, "content_block_delta", block=index, block_type=type_)
            kind = Reasoning if type_ == "thinking" else Answer
            frame.event = event = kind(text, block=index, origin=frame)
            return event
        sent = parse_sse(raw)
        body = parse_json(sent.data) if sent.data and sent.data.strip() else {}
        frame = Frame(raw, body.get("type"), body)
        if frame.body:
            sent.check_type(frame.type)
        frame.event = read = self._event(frame)
        if frame.type == "content_block_delta" and isinstance(read, Reasoning | Answer):
            self._template = self._template.learn(raw, read.text)
        return read

    def _event(self, frame: Frame) -> SourceEvent:
        no_other_text(frame.body, _HELD.get(str(frame.type), set()))
        match frame.type:
            case "content_block_start":
                return self._start(frame)
            case "content_block_delta":
                return self._delta(frame)
            case "content_block_stop":
                self._of_open(frame)
                self._open = None
                self._template = FrameTemplate()
                return Passthrough(choice=0, origin=frame)
            case "message_delta":
                delta = _object(frame.body, "delta")
                no_other_text(delta, _OF_MESSAGE - {"content"})
                reason = delta.get("stop_reason")
                return End(str(reason), origin=frame) if reason else Passthrough(choice=0, origin=frame)
            case "message_start":
                message = _object(frame.body, "message")
                no_other_text(message, _OF_MESSAGE)
                if message.get("content"):
                    raise WireError("a message should begin without content; this one's cannot be judged")
            case "error":
                if text := "\n".join(texts_in(frame.body.get("error"), _NOT_TEXT)):  # it may quote the model
                    return Answer(text, block=_ERROR, origin=frame)
            case "message_stop" | "ping":
                pass
            case _ if frame.body:
                raise WireError(f"an event of type {frame.type!r} is not known and was not passed on")
        return Passthrough(origin=frame)

    def _start(self, frame: Frame) -> SourceEvent:
        index, block = frame.body.get("index"), _object(frame.body, "content_block")
        if not isinstance(index, int) or index in self._seen or self._open is not None:
            raise WireError(f"block {index!r} begins while {self._open!r} is open, or for the second time")
        frame.block, frame.block_type = index, str(block.get("type"))
        self._seen.add(index)
        self._open = (index, frame.block_type)
        event = block_event(block, index, frame)
        if isinstance(event, Reasoning):
            self._with_text.add(index)
        return event

    def _delta(self, frame: Frame) -> SourceEvent:
        index, type_ = self._of_open(frame)
        delta = _object(frame.body, "delta")
        kind = delta.get("type")
        if (kind == "input_json_delta" and type_ in _CALLS) or (
            kind == "compaction_delta" and type_ in _WHOLE
        ):
            return ToolCall("\n".join(texts_in(delta, _NOT_TEXT)), block=index, origin=frame)
        no_other_text(delta, _OF_DELTA.get(str(kind), set()))
        if kind == "thinking_delta" and type_ == "thinking":
            if not (text := text_of(delta, "thinking")):
                return Passthrough(choice=0, origin=frame)
            self._with_text.add(index)
            return Reasoning(text, block=index, origin=frame)
        if kind == "text_delta" and type_ == "text":
            if not (text := text_of(delta, "text")):
                return Passthrough(choice=0, origin=frame)
            return Answer(text, block=index, origin=frame)
        if kind == "signature_delta" and type_ == "thinking":
            if index not in self._with_text:
                return Opaque(OpaqueKind.HIDDEN, origin=frame)
            return Passthrough(choice=0, origin=frame)
        if kind == "citations_delta" and type_ == "text":
            return Passthrough(choice=0, origin=frame)  # it quotes a source, not the model
        raise WireError(f"a delta of type {kind!r} in a block of type {type_!r} is not known")

    def _of_open(self, frame: Frame) -> tuple[int, str]:
        if self._open is None or frame.body.get("index") != self._open[0]:
            raise WireError(f"{frame.type!r} is of block {frame.body.get('index')!r}, which is not open")
        frame.block, frame.block_type = self._open
        return self._open


def block_event(block: dict[str, Any], index: int, origin: object) -> SourceEvent:
    """The event of a block as it begins, or of a whole one."""
    type_ = str(block.get("type"))
    if type_ in _CALLS:
        given = block.get("input")
        text = json.dumps(given, ensure_ascii=False) if given else ""
        others = texts_in(
            {key: value for key, value in block.items() if key not in ("name", "input")}, _NOT_TEXT
        )
        return ToolCall(" ".join([str(block.get("name", "")), text, *others]), block=index, origin=origin)
    if type_ in _WHOLE or type_.endswith("_tool_result"):
        # What a tool of the server's brought goes with its call, or stays with it.
        return ToolCall("\n".join(texts_in(block, _NOT_TEXT)), block=index, origin=origin)
    if type_ == "thinking":
        no_other_text(block, {"thinking", "signature"})
        if text := text_of(block, "thinking"):
            return Reasoning(text, block=index, origin=origin)
        if block.get("signature"):
            return Opaque(OpaqueKind.HIDDEN, origin=origin)
        return Passthrough(choice=0, origin=origin)
    if type_ == "redacted_thinking":
        no_other_text(block, {"data"})
        return Opaque(OpaqueKind.ENCRYPTED, origin=origin)
    if type_ == "text":
        no_other_text(block, {"text", "citations"})
        if text := text_of(block, "text"):
            return Answer(text, block=index, origin=origin)
        return Passthrough(choice=0, origin=origin)
    if type_ == "container_upload":
        no_other_text(block, {"file_id"})
        return Passthrough(choice=0, origin=origin)
    if type_ == "fallback":  # where another model goes on
        no_other_text(block, {"from", "to", "trigger"})
        for key in block.keys() - {"type"}:
            no_other_text(_object(block, key), {"model", "category"})
        return Passthrough(choice=0, origin=origin)
    raise WireError(f"a block of type {type_!r} is not known and was not passed on")


def no_other_text(holder: dict[str, Any], known: Set[str] = _OF_MESSAGE) -> None:
    """Raise `WireError` for text under a name that is not known: nobody would judge it."""
    for key, value in holder.items():
        if key != "type" and key not in known and any(text.strip() for text in texts_in(value, _NOT_TEXT)):
            raise WireError(
                f"{key!r} of a {holder.get('type')!r} is not known and holds text; it was not passed on"
            )


def text_of(holder: dict[str, Any], key: str) -> str:
    text = holder.get(key, "")
    if not isinstance(text, str):
        raise WireError(f"{key!r} should be a string, not {text!r}")
    return text


def read_request(body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """What there is to know of a request for a message, from its JSON body."""
    request = parse_json(body)
    messages = objects_at(request, "messages")
    system = request.get("system")
    chat = [{"role": "system", "content": system}, *messages] if system else messages
    config = request.get("output_config")
    formats = {
        request.get("output_format") is not None,
        bool(isinstance(config, dict) and config.get("format")),
    }
    return Request(
        query=query_from([turn for one in chat for turn in _turns(one)]), redactable=True not in formats
    )


def _turns(message: dict[str, Any]) -> list[Message]:
    """What was thought in a turn has a role of its own."""
    role, content = str(message.get("role", "")), message.get("content")
    turns = []
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        if parts and all(part.get("type") == "tool_result" for part in parts):
            role = "tool"  # a turn that no user wrote
        thoughts = [part for part in parts if part.get("thinking") and isinstance(part["thinking"], str)]
        turns = [Message("reasoning", part["thinking"]) for part in thoughts]
        content = [part for part in parts if part not in thoughts]
    return [*turns, Message(role, content_text(content))]


def _object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key)
    if not isinstance(value, dict):
        raise WireError(f"{key!r} should be an object, not {value!r}")
    return value
