"""Bedrock's Converse, streaming and whole: what leaves of its blocks, and the codecs of its two HTTP forms,
a binary event stream and a JSON body. boto3 has read either already; `shieldguard_adapters.bedrock` guards
what it gives.

A thought is signed as a whole, and a model that is given it back changed refuses it: where some of it may
not be shown, its block is left out, and the blocks behind it are numbered anew.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from shieldguard import (
    Aborted,
    Answer,
    Channel,
    End,
    Passthrough,
    Reasoning,
    Redacted,
    ReleasedEvent,
    SourceEvent,
    ToolCall,
    WireError,
)
from shieldguard_adapters.wire.bedrock_parts import (
    BODY,
    CALLS,
    REASONING,
    TEXT,
    BlockReader,
    Frame,
    blocks_of,
    body_events,
    known_metadata,
)
from shieldguard_adapters.wire.codec import Termination
from shieldguard_adapters.wire.eventstream import EventStreamFramer, message_bytes, parse_message
from shieldguard_adapters.wire.jsons import parse_json
from shieldguard_adapters.wire.released import by_block, origin_of, said_by
from shieldguard_adapters.wire.whole import WholeCodec

T = TypeVar("T")

STOP_REASONS = {
    Termination.REFUSAL: "guardrail_intervened",
    Termination.CONTENT_FILTER: "content_filtered",
    Termination.ERROR: "content_filtered",
}
_NO_USAGE: dict[str, Any] = {
    "usage": {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0},
    "metrics": {"latencyMs": 0},
}


class BlockWriter(Generic[T]):
    """Writes events, and knows what the client has been sent of the response. `make` writes one of this type
    and with this body; what did not change leaves as what it came as.

    `whole_thoughts`: a block of reasoning leaves when all of it was released, so that it can be left out
    whole; needless where the policy never redacts. `strict_output`: the caller parses the text, so an ending
    adds none.
    """

    def __init__(
        self,
        make: Callable[[str, dict[str, Any]], T],
        *,
        termination: Termination,
        whole_thoughts: bool,
        strict_output: bool,
    ) -> None:
        self._make = make
        self._termination = termination
        self._whole_thoughts = whole_thoughts
        self._strict_output = strict_output
        self._begun = self._ended = self._described = False
        self._count = 0  # the index of the next block
        self._renumbered = False  # a block has the index that it came with until one was left out, or put in
        self._index: dict[int, int] = {}  # of a block, where the client has it
        self._open: list[int] = []
        self._left_out: set[int] = set()
        self._thoughts: dict[int, list[T]] = {}  # of blocks of reasoning, until they are complete
        self._notified = self._called = self._refused = False

    def write(self, event: ReleasedEvent) -> list[T]:
        if isinstance(event, Aborted):
            return self._end(event.notice)
        frame = origin_of(event, Frame)
        self._begun = True
        if frame.block is None:
            return [self._message(event, frame)]
        if isinstance(event, Redacted) and event.channel is not Channel.ANSWER:
            return self._leave_out(event, frame.block)
        return self._block(event, frame, frame.block)

    def kept(self) -> list[T]:
        """The beginnings of blocks of reasoning whose end never came."""
        kept = [one for thought in self._thoughts.values() for one in thought]
        self._thoughts.clear()
        return kept

    def _message(self, event: ReleasedEvent, frame: Frame) -> T:
        self._described = self._described or frame.type == "metadata"
        if isinstance(event, End):
            self._ended = True
            if event.reason == "tool_use" and self._refused and not self._called:
                return self._make(frame.type, {**frame.body, "stopReason": "end_turn"})
        return self._make(frame.type, frame.body) if frame.edited else self._raw(frame)

    def _block(self, event: ReleasedEvent, frame: Frame, block: int) -> list[T]:
        begins = block not in self._index
        is_call = frame.kind in CALLS
        if block in self._left_out or (begins and is_call and not isinstance(event, ToolCall)):
            return []  # the rest of what was left out
        if begins:
            self._index[block] = index = self._count if self._renumbered else block
            self._count = index + 1
            self._open.append(block)
            self._called = self._called or frame.kind == "toolUse"
            if frame.kind == REASONING and self._whole_thoughts:
                self._thoughts[block] = []
        index = self._index[block]
        changed = event is not frame.event or index != block
        sent = self._make(frame.type, _rewritten(event, frame, index)) if changed else self._raw(frame)
        if frame.type == "contentBlockStop":
            self._open.remove(block)
            return [*self._thoughts.pop(block, ()), sent]
        if block in self._thoughts:
            self._thoughts[block].append(sent)
            return []
        return [sent]

    def _leave_out(self, redacted: Redacted, block: int) -> list[T]:
        """A block of which some may not be shown, or the calls of a turn."""
        out: list[T] = []
        if redacted.channel is Channel.TOOL_CALL:
            self._refused = True
        else:
            out = self._close(block)
        self._left_out.add(block)
        self._renumbered = True
        if self._notified:
            return out
        self._notified = True
        return out + self._notice(redacted.notice)

    def _close(self, block: int) -> list[T]:
        if block not in self._open:
            return []
        self._open.remove(block)
        index = self._index[block]
        if self._thoughts.pop(block, None) is None:
            return [self._make("contentBlockStop", {"contentBlockIndex": index})]
        if index == self._count - 1:
            self._count = index
        return []

    def _end(self, notice: str) -> list[T]:
        """End the response, in whatever state it is."""
        if self._termination is Termination.ERROR:
            self._thoughts.clear()
            return [self._make("modelStreamErrorException", {"message": notice})]
        out = []
        if not self._begun:
            out.append(self._make("messageStart", {"role": "assistant"}))
        if not self._ended:
            for block in list(self._open):
                out += self._close(block)
            if not self._strict_output:
                out += self._notice(notice)
            out.append(self._make("messageStop", {"stopReason": STOP_REASONS[self._termination]}))
        if not self._described:
            out.append(self._make("metadata", _NO_USAGE))
        return out

    def _notice(self, notice: str) -> list[T]:
        """The notice, as a block of text of its own."""
        index = self._count
        self._count += 1
        return [
            self._make("contentBlockDelta", {"delta": {TEXT: notice}, "contentBlockIndex": index}),
            self._make("contentBlockStop", {"contentBlockIndex": index}),
        ]

    @staticmethod
    def _raw(frame: Frame) -> T:
        raw: T = frame.raw
        return raw


def _rewritten(event: ReleasedEvent, frame: Frame, index: int) -> dict[str, Any]:
    """The body with this index, and the text of this event where it has any."""
    body = {key: value for key, value in frame.body.items() if key != "p"}
    body["contentBlockIndex"] = index
    if isinstance(event, Reasoning):
        body["delta"] = {REASONING: {"text": event.text}}
    elif isinstance(event, Answer | Redacted):
        body["delta"] = {TEXT: said_by(event)}
    return body


class ConverseStream:
    """The codec of a response as a binary event stream. The options are those of `BlockWriter`."""

    def __init__(
        self,
        *,
        termination: Termination | str = Termination.REFUSAL,
        whole_thoughts: bool = True,
        strict_output: bool = False,
    ) -> None:
        self._framer = EventStreamFramer()
        self._reader = BlockReader()
        self._writer = BlockWriter(
            _event_bytes,
            termination=Termination(termination),
            whole_thoughts=whole_thoughts,
            strict_output=strict_output,
        )

    def decode(self, data: bytes) -> list[SourceEvent]:
        return [self._read(raw) for raw in self._framer.feed(data)]

    def flush(self) -> list[SourceEvent]:
        self._framer.flush()
        return []

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        return b"".join(written for event in events for written in self._writer.write(event))

    def close(self) -> bytes:
        return b"".join(self._writer.kept())

    def aside(self, lines: Sequence[str]) -> bytes:
        return b""

    def keep_alive(self) -> bytes:
        return _event_bytes("keepAlive", {})  # of a type that is not known, which botocore leaves out

    def _read(self, raw: bytes) -> SourceEvent:
        message = parse_message(raw)
        headers = message.headers
        if any(not name.startswith(":") for name in headers):
            raise WireError(f"a message with headers {[*headers]!r} is not known and was not passed on")
        if (type_ := headers.get(":message-type")) in ("exception", "error"):
            return Passthrough(origin=Frame(type_, {}, raw))
        if type_ != "event":  # botocore takes it for an event
            raise WireError(f"a message of type {type_!r} is not known and was not passed on")
        return self._reader.read(headers.get(":event-type", ""), parse_json(message.payload), raw)


def _event_bytes(type_: str, body: dict[str, Any]) -> bytes:
    kind = "exception" if type_.endswith("Exception") else "event"
    headers = {f":{kind}-type": type_, ":content-type": "application/json", ":message-type": kind}
    return message_bytes(headers, json.dumps(body, separators=(",", ":")).encode())


class ConverseBody(WholeCodec):
    """The codec of a response in one piece. The options are those of `BlockWriter`."""

    def __init__(self, *, strict_output: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._strict_output = strict_output
        self._body: dict[str, Any] = {}

    def _read(self, data: bytes) -> list[SourceEvent]:
        body = parse_json(data)
        events = list(body_events(body))
        self._body = known_metadata(body, BODY)
        if self._body != body:
            self._data = json.dumps(self._body).encode()
        return events

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        return rewritten(self._body, released)

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        return ending(self._body, aborted, self._termination, strict_output=self._strict_output)


def rewritten(body: dict[str, Any], released: Sequence[ReleasedEvent]) -> dict[str, Any]:
    """A response in one piece, with what these events hold."""
    source = blocks_of(body)
    kept, notices = by_block(released)
    blocks: dict[int, dict[str, Any]] = {index: {TEXT: notice} for index, notice in notices.items()}
    for index, events in kept.items():
        texts = [said_by(event) for event in events if isinstance(event, Answer | Redacted)]
        is_whole = not texts or "".join(texts) == _answer(source[index])
        blocks[index] = source[index] if is_whole else {TEXT: "".join(texts)}
    content = [blocks[index] for index in sorted(blocks)]
    message = {**body["output"]["message"], "content": content}
    called = any("toolUse" in block for block in content)
    ends_called = body.get("stopReason") == "tool_use" and not called
    return {
        **body,
        "output": {"message": message},
        "stopReason": "end_turn" if ends_called else body.get("stopReason"),
    }


def ending(
    body: dict[str, Any], aborted: Aborted, termination: Termination, *, strict_output: bool
) -> dict[str, Any]:
    """What is sent in place of a response in one piece."""
    if termination is Termination.ERROR:
        return {"message": aborted.notice}
    content = [] if strict_output else [{TEXT: aborted.notice}]
    kept = {key: value for key, value in body.items() if key != "additionalModelResponseFields"}
    message = {"role": "assistant", "content": content}
    stop = STOP_REASONS[termination]
    return {**_NO_USAGE, **kept, "output": {"message": message}, "stopReason": stop}


def _answer(block: dict[str, Any]) -> str:
    """The text of a block that is an answer."""
    event = next(iter(body_events({"output": {"message": {"content": [block]}}})))
    return event.text if isinstance(event, Answer) else ""
