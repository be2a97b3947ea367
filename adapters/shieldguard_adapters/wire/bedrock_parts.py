"""What the events of Bedrock's Converse say, be they dicts of boto3's or messages of a binary event stream.

A response is a list of blocks, and each event of a stream is one event of ours at most. A block of text or
of reasoning has no event to begin with: its first piece begins it.
"""

import json
import re
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
from shieldguard_adapters.wire.jsons import objects_at, parse_json, text_at

TEXT, REASONING = "text", "reasoningContent"
CALLS = frozenset({"toolUse", "toolResult"})
_CALL = frozenset({"toolUseId", "name", "type", "status", "input"})
_CITATION = frozenset({"title", "source", "sourceContent", "location"})
# What metadata may hold; what it holds beside is left out. A guardrail's trace repeats what the model said.
METADATA = frozenset({"usage", "metrics", "performanceConfig", "serviceTier", "p"})
BODY = METADATA | {"output", "stopReason", "additionalModelResponseFields", "ResponseMetadata"}


@dataclass(slots=True, eq=False)
class Frame:
    """One event of a stream: its type, its body, what it came as, and the event made of it. It is the
    `origin` of that event."""

    type: str
    body: dict[str, Any]
    raw: Any
    block: int | None = None  # its index
    kind: str = ""  # of the block
    event: SourceEvent | None = None
    edited: bool = False  # that `body` is not what `raw` says


class BlockReader:
    """Makes events of the events of one response. Blocks that come twice, or hold what is not known, raise
    `WireError`: nothing would tell what a client makes of them."""

    def __init__(self) -> None:
        self._kinds: dict[int, str] = {}
        self._ended: set[int] = set()
        self._with_text: set[int] = set()

    def read(self, type_: str, body: Any, raw: Any) -> SourceEvent:
        if not isinstance(body, dict):
            raise WireError(f"the body of {type_!r} should be an object, not {body!r:.80}")
        frame = Frame(type_, body, raw)
        frame.event = event = self._event(frame)
        return event

    def _event(self, frame: Frame) -> SourceEvent:
        body = frame.body
        if not re.fullmatch("[a-zA-Z0-9]*", str(body.get("p", ""))):  # padding, of the alphabet in turn
            raise WireError(f"padding should be letters and digits, not {body['p']!r:.80}")
        match frame.type:
            case "messageStart":
                only(body, {"role", "p"})
            case "contentBlockStart":
                only(body, {"contentBlockIndex", "start", "p"})
                return self._start(frame, *one_of(body.get("start"), "start"))
            case "contentBlockDelta":
                only(body, {"contentBlockIndex", "delta", "p"})
                return self._delta(frame, *one_of(body.get("delta"), "delta"))
            case "contentBlockStop":
                only(body, {"contentBlockIndex", "p"})
                frame.block = index = self._index(frame)
                frame.kind = self._kinds.get(index, TEXT)
                self._ended.add(index)
                return Passthrough(choice=0, origin=frame)
            case "messageStop":
                only(body, {"stopReason", "additionalModelResponseFields", "p"})
                check_fields(body)
                return End(str(body.get("stopReason")), origin=frame)
            case "metadata":
                frame.body = known_metadata(body, METADATA)
                frame.edited = frame.body != body
            case _ if not frame.type.endswith("Exception"):
                raise WireError(f"an event of type {frame.type!r} is not known and was not passed on")
        return Passthrough(origin=frame)

    def _start(self, frame: Frame, kind: str, start: Any) -> SourceEvent:
        frame.block = index = self._index(frame)
        frame.kind = kind
        if kind not in CALLS or not isinstance(start, dict):
            raise WireError(f"a block of {kind!r} cannot be judged and was not passed on")
        if index in self._kinds:
            raise WireError(f"block {index!r} begins for the second time")
        self._kinds[index] = kind
        only(start, _CALL - {"input"})
        return ToolCall(f"{text_at(start, 'name')} " if kind == "toolUse" else "", block=index, origin=frame)

    def _delta(self, frame: Frame, kind: str, delta: Any) -> SourceEvent:
        frame.block = index = self._index(frame)
        frame.kind = TEXT if kind == "citation" else kind
        if frame.kind not in CALLS:
            self._kinds.setdefault(index, frame.kind)
        if (begun := self._kinds.get(index)) != frame.kind:
            raise WireError(f"a piece of {kind!r} is in block {index!r}, which is of {begun!r}")
        if kind == TEXT:
            if text := text_at({kind: delta}, kind):
                return Answer(text, block=index, origin=frame)
        elif kind == "toolUse" and isinstance(delta, dict):
            only(delta, {"input"})
            return ToolCall(text_at(delta, "input"), block=index, origin=frame)
        elif kind == "toolResult":
            return ToolCall(_result(delta), block=index, origin=frame)
        elif kind == REASONING:
            return self._reasoning(frame, index, *one_of(delta, kind))
        elif kind == "citation" and isinstance(delta, dict):
            only(delta, _CITATION)  # it quotes a source, not the model
        else:
            raise WireError(f"a piece of {kind!r} cannot be judged and was not passed on: {delta!r:.80}")
        return Passthrough(choice=0, origin=frame)

    def _reasoning(self, frame: Frame, index: int, kind: str, value: Any) -> SourceEvent:
        if kind == "text":
            if text := text_at({kind: value}, kind):
                self._with_text.add(index)
                return Reasoning(text, block=index, origin=frame)
        elif kind == "redactedContent":
            return Opaque(OpaqueKind.ENCRYPTED, origin=frame)
        elif kind == "signature":
            if index not in self._with_text:
                return Opaque(OpaqueKind.HIDDEN, origin=frame)
        else:
            raise WireError(f"reasoning of {kind!r} is not known and was not passed on: {value!r:.80}")
        return Passthrough(choice=0, origin=frame)

    def _index(self, frame: Frame) -> int:
        index = frame.body.get("contentBlockIndex")
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            raise WireError(f"a block has index {index!r}; it should be a number")
        if index in self._ended:
            raise WireError(f"{frame.type!r} is of block {index!r}, which has ended")
        return index


def body_events(body: dict[str, Any]) -> Iterator[SourceEvent]:
    """The events of a response in one piece; the `origin` of each is the index of its block."""
    only(body, BODY | {"trace"})
    check_fields(body)
    for index, block in enumerate(blocks_of(body)):
        yield _block_event(index, *one_of(block, "a block"))
    yield End(str(body.get("stopReason")))


def blocks_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    kind, message = one_of(body.get("output"), "output")
    content = message.get("content") if kind == "message" and isinstance(message, dict) else None
    if not isinstance(content, list):
        raise WireError(f"'output' should be a message with a list of blocks, not {body['output']!r:.80}")
    only(message, {"role", "content"})
    return content


def _block_event(index: int, kind: str, value: Any) -> SourceEvent:
    if kind == TEXT:
        text = text_at({kind: value}, kind)
        return Answer(text, block=index, origin=index) if text else Passthrough(choice=0, origin=index)
    if not isinstance(value, dict):
        raise WireError(f"a block of {kind!r} should be an object, not {value!r:.80}")
    if kind == REASONING:
        kind, inner = one_of(value, kind)
        if kind == "redactedContent":
            return Opaque(OpaqueKind.ENCRYPTED, origin=index)
        if kind != "reasoningText" or not isinstance(inner, dict):
            raise WireError(f"reasoning of {kind!r} is not known and was not passed on")
        only(inner, {"text", "signature"})
        if text := text_at(inner, "text"):
            return Reasoning(text, block=index, origin=index)
        return Opaque(OpaqueKind.HIDDEN, origin=index)
    if kind == "toolUse":
        only(value, _CALL)
        given = value.get("input")
        text = json.dumps(given, ensure_ascii=False, default=str) if given else ""
        return ToolCall(f"{text_at(value, 'name')} {text}", block=index, origin=index)
    if kind == "toolResult":
        only(value, _CALL | {"content"})
        return ToolCall(_result(value.get("content")), block=index, origin=index)
    if kind == "citationsContent":
        only(value, {"content", "citations"})
        return Answer("".join(texts(value.get("content"))), block=index, origin=index)
    raise WireError(f"a block of {kind!r} cannot be judged and was not passed on")


def _result(content: Any) -> str:
    """The text of what a tool of the server's brought: it goes with its call, or stays with it."""
    for part in content if isinstance(content, list) else [content]:
        if (held := one_of(part, "toolResult")[0]) not in ("text", "json", "searchResult"):
            raise WireError(f"a tool's result holds {held!r}, which cannot be judged")
    return "\n".join(texts(content))


def known_metadata(body: dict[str, Any], known: Set[str]) -> dict[str, Any]:
    """What is `known` of metadata, without a trace that might repeat the model's text."""
    kept = {key: value for key, value in body.items() if key in known}
    trace = body.get("trace")
    router = trace.get("promptRouter") if isinstance(trace, dict) else None
    return {**kept, "trace": {"promptRouter": router}} if router else kept


def check_fields(body: dict[str, Any]) -> None:
    """Raise `WireError` for fields of the model's own that may hold text."""
    fields = body.get("additionalModelResponseFields") or {}
    if not isinstance(fields, dict) or fields.keys() - {"stop_sequence"}:
        raise WireError(
            f"additionalModelResponseFields {fields!r:.80} cannot be judged; ask for no such fields"
        )


def only(holder: dict[str, Any], known: Set[str]) -> None:
    """Raise `WireError` where something that is not known holds text."""
    for key, value in holder.items():
        if key not in known and any(texts(value)):
            raise WireError(f"{key!r} is not known here, may hold text, and was not passed on: {value!r:.80}")


def one_of(union: Any, name: str) -> tuple[str, Any]:
    """The one member that is set of a union."""
    given = union if isinstance(union, dict) else {}
    members = [(key, value) for key, value in given.items() if value is not None]
    if len(members) != 1:
        raise WireError(f"{name!r} should hold one member, not {union!r:.80}")
    return members[0]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield repr(value)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)


def read_request(body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """What there is to know of a request to Converse, from its JSON body."""
    request = parse_json(body)
    messages = objects_at(request, "messages")
    system = request.get("system")
    chat = [{"role": "system", "content": system}, *messages] if system else messages
    config = request.get("outputConfig")
    is_parsed = isinstance(config, dict) and bool(config.get("textFormat"))
    return Request(query=query_from([_message(one) for one in chat]), redactable=not is_parsed)


def _message(message: dict[str, Any]) -> Message:
    role, content = str(message.get("role", "")), message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    kinds = [next(iter(part), "") for part in parts]
    if set(kinds) == {"toolResult"}:
        role = "tool"  # a turn that no user wrote
    return Message(
        role, "\n".join(str(part.get("text", f"[{kind}]")) for part, kind in zip(parts, kinds, strict=True))
    )
