"""What the frames of an Anthropic message say: a message is a list of blocks, one after the other, and each
frame is one event at most."""

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
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
from shieldguard_adapters.wire.jsons import parse_json

# Blocks of text: what holds it, in the block and in its delta, whose type it names.
TEXT_BLOCKS = {"thinking": "thinking", "text": "text"}
_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
# Of what else a tool call or its result holds, nothing is text.
_NOT_TEXT = frozenset(
    {"type", "id", "tool_use_id", "data", "signature", "encrypted_content", "encrypted_index"}
)


@dataclass(slots=True, eq=False)
class Frame:
    """One server-sent event, and the event made of it. It is the `origin` of that event."""

    raw: bytes
    body: dict[str, Any]
    block: int | None = None  # its index
    block_type: str = ""
    event: SourceEvent | None = None

    @property
    def type(self) -> Any:
        return self.body.get("type")


class BlockReader:
    """Makes events of the frames of one message. Blocks that overlap, come twice, or hold what is not known
    raise `WireError`: nothing would tell what a client makes of them."""

    def __init__(self) -> None:
        self._open: tuple[int, str] | None = None
        self._seen: set[int] = set()
        self._with_text: set[int] = set()

    def read(self, raw: bytes) -> SourceEvent:
        sent = parse_sse(raw)
        frame = Frame(raw, parse_json(sent.data) if sent.data and sent.data.strip() else {})
        if sent.event and frame.body and sent.event != frame.type:
            raise WireError(
                f"an event is named {sent.event!r} and has type {frame.type!r}; they should agree"
            )
        frame.event = event = self._event(frame)
        return event

    def _event(self, frame: Frame) -> SourceEvent:
        match frame.type:
            case "content_block_start":
                return self._start(frame)
            case "content_block_delta":
                return self._delta(frame)
            case "content_block_stop":
                self._of_open(frame)
                self._open = None
                return Passthrough(choice=0, origin=frame)
            case "message_delta":
                reason = _object(frame.body, "delta").get("stop_reason")
                return End(str(reason), origin=frame) if reason else Passthrough(choice=0, origin=frame)
            case "message_start":
                if _object(frame.body, "message").get("content"):
                    raise WireError("a message should begin without content; this one's cannot be judged")
            case "message_stop" | "ping" | "error":
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
        if kind == "thinking_delta" and type_ == "thinking":
            if not (text := text_of(delta, "thinking")):
                return Passthrough(choice=0, origin=frame)
            self._with_text.add(index)
            return Reasoning(text, block=index, origin=frame)
        if kind == "text_delta" and type_ == "text":
            if not (text := text_of(delta, "text")):
                return Passthrough(choice=0, origin=frame)
            return Answer(text, block=index, origin=frame)
        if kind == "input_json_delta" and type_ in _CALLS:
            return ToolCall(text_of(delta, "partial_json"), block=index, origin=frame)
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
    type_ = block.get("type")
    if type_ == "thinking":
        if text := text_of(block, "thinking"):
            return Reasoning(text, block=index, origin=origin)
        if block.get("signature"):
            return Opaque(OpaqueKind.HIDDEN, origin=origin)
        return Passthrough(choice=0, origin=origin)
    if type_ == "redacted_thinking":
        return Opaque(OpaqueKind.ENCRYPTED, origin=origin)
    if type_ == "text":
        if text := text_of(block, "text"):
            return Answer(text, block=index, origin=origin)
        return Passthrough(choice=0, origin=origin)
    if type_ in _CALLS:
        given = block.get("input")
        text = json.dumps(given, ensure_ascii=False) if given else ""
        return ToolCall(f"{block.get('name', '')} {text}", block=index, origin=origin)
    if isinstance(type_, str) and type_.endswith("_tool_result"):
        # What a tool of the server's brought: it goes with its call, or stays with it.
        return ToolCall("\n".join(_texts(block)), block=index, origin=origin)
    raise WireError(f"a block of type {type_!r} is not known and was not passed on")


def text_of(holder: dict[str, Any], key: str) -> str:
    text = holder.get(key, "")
    if not isinstance(text, str):
        raise WireError(f"{key!r} should be a string, not {text!r}")
    return text


def read_request(body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """What there is to know of a request for a message, from its JSON body."""
    request = parse_json(body)
    messages = request.get("messages") or []
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise WireError(f"'messages' should be a list of objects, not {messages!r:.80}")
    system = request.get("system")
    chat = [{"role": "system", "content": system}, *messages] if system else messages
    config = request.get("output_config")
    formats = {
        request.get("output_format") is not None,
        bool(isinstance(config, dict) and config.get("format")),
    }
    return Request(query=query_from([_message(one) for one in chat]), redactable=True not in formats)


def _message(message: dict[str, Any]) -> Message:
    role, content = str(message.get("role", "")), message.get("content")
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        if parts and _types(parts) == {"tool_result"}:
            role = "tool"  # a turn that no user wrote
        content = "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts)
    return Message(role, content if isinstance(content, str) else "")


def _types(parts: list[dict[str, Any]]) -> Set[Any]:
    return {part.get("type") for part in parts}


def _object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key)
    if not isinstance(value, dict):
        raise WireError(f"{key!r} should be an object, not {value!r}")
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in _NOT_TEXT:
                yield from _texts(inner)
