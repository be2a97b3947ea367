"""Anthropic messages, streaming (server-sent events) and whole (JSON).

A thought is signed as a whole, and a client that gives it back changed is refused: where some of it may not
be shown, its block is left out with its signature, and the blocks behind it are numbered anew.
"""

from collections.abc import Sequence
from typing import Any

from shieldguard import (
    Aborted,
    Answer,
    Channel,
    End,
    Reasoning,
    Redacted,
    ReleasedEvent,
    SourceEvent,
    WireError,
)
from shieldguard_adapters.wire.anthropic_parts import (
    TEXT_BLOCKS,
    BlockReader,
    Frame,
    block_event,
    no_other_text,
)
from shieldguard_adapters.wire.codec import Termination
from shieldguard_adapters.wire.errors import saying
from shieldguard_adapters.wire.framing import SseFramer
from shieldguard_adapters.wire.jsons import comment, parse_json, sse
from shieldguard_adapters.wire.released import by_block, origin_of, said_by
from shieldguard_adapters.wire.whole import WholeCodec


class MessageStream:
    """The codec of a streamed message.

    `whole_thoughts`: a thinking block leaves when all of it was released, so that it can be left out whole;
    needless where the policy never redacts. `strict_output`: the caller parses the text, so an ending adds
    none. Both `REFUSAL` and `CONTENT_FILTER` end with stop reason "refusal", this provider's word for either.
    """

    def __init__(
        self,
        *,
        termination: Termination | str = Termination.REFUSAL,
        whole_thoughts: bool = True,
        strict_output: bool = False,
    ) -> None:
        self._termination = Termination(termination)
        self._framer = SseFramer()
        self._reader = BlockReader()
        self._writer = _Writer(whole_thoughts)
        self._strict_output = strict_output

    def decode(self, data: bytes) -> list[SourceEvent]:
        return [self._reader.read(raw) for raw in self._framer.feed(data)]

    def flush(self) -> list[SourceEvent]:
        return [self._reader.read(raw) for raw in self._framer.flush()]

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        return b"".join(
            self._ending(event) if isinstance(event, Aborted) else self._writer.write(event)
            for event in events
        )

    def close(self) -> bytes:
        return self._writer.kept()

    def aside(self, lines: Sequence[str]) -> bytes:
        return comment(lines)

    def keep_alive(self) -> bytes:
        return sse({"type": "ping"}, "ping") if self._writer.begun else b": \n\n"

    def _ending(self, aborted: Aborted) -> bytes:
        if self._termination is Termination.ERROR:
            self._writer.forget()
            return sse(_error(aborted), "error")
        return self._writer.refuse(aborted.notice, strict_output=self._strict_output)


class _Writer:
    """Writes frames, and knows what the client has been sent of the message."""

    def __init__(self, whole_thoughts: bool) -> None:
        self._whole_thoughts = whole_thoughts
        self.begun = self._ended = self._stopped = False
        self._usage: dict[str, Any] = {"output_tokens": 0}
        self._count = 0  # blocks sent
        self._index: dict[int, int] = {}  # of a block, where the client has it
        self._open: Frame | None = None  # the start of the block that is
        self._left_out: set[int] = set()
        self._thought: list[bytes] | None = None  # the frames of a thinking block, until it is complete
        self._notified = self._called = self._refused = False

    def write(self, event: ReleasedEvent) -> bytes:
        frame = origin_of(event, Frame)
        if frame.block is None:
            # What ends the message ends the block that is open, too.
            kept = self.kept() if frame.type in ("message_delta", "message_stop", "error") else b""
            return kept + self._message(event, frame)
        if isinstance(event, Redacted) and event.channel is not Channel.ANSWER:
            return self._leave_out(event, frame.block)
        return self._block(event, frame, frame.block)

    def kept(self) -> bytes:
        """The beginning of a thinking block whose end never came."""
        kept, self._thought = b"".join(self._thought or ()), None
        return kept

    def forget(self) -> None:
        self._thought = None

    def refuse(self, notice: str, *, strict_output: bool) -> bytes:
        """End the message, in whatever state it is."""
        out = []
        if not self.begun:
            out.append(sse({"type": "message_start", "message": _EMPTY}, "message_start"))
        if not self._ended:
            # A helper parses a text when its block is closed, so one that is to be parsed stays open.
            is_text = self._open is not None and self._open.block_type == "text"
            if not (strict_output and is_text):
                out.append(self._close())
            if not strict_output:
                out.append(self._notice(notice))
            elif not self._count:
                # The SDK's fallback asks another model where a refusal comes before any block.
                out.append(_block_start(0))
            delta = {"stop_reason": "refusal", "stop_sequence": None, "stop_details": _details(notice)}
            out.append(sse({"type": "message_delta", "delta": delta, "usage": self._usage}, "message_delta"))
        if not self._stopped:
            out.append(sse({"type": "message_stop"}, "message_stop"))
        self.begun = self._ended = self._stopped = True
        return b"".join(out)

    def _message(self, event: ReleasedEvent, frame: Frame) -> bytes:
        if frame.type == "message_start":
            self.begun = True
            usage = frame.body["message"].get("usage")
            if isinstance(usage, dict):
                self._usage = {"output_tokens": usage.get("output_tokens") or 0}
        self._stopped = self._stopped or frame.type == "message_stop"
        if frame.type == "error" and isinstance(event, Answer | Redacted) and event is not frame.event:
            said = {"type": "error", "error": saying(frame.body["error"], said_by(event))}
            return sse(said, "error")
        if isinstance(event, End):
            self._ended = True
            if event.reason == "tool_use" and self._refused and not self._called:
                delta = {**frame.body["delta"], "stop_reason": "end_turn"}
                return sse({**frame.body, "delta": delta}, "message_delta")
        return frame.raw

    def _block(self, event: ReleasedEvent, frame: Frame, index: int) -> bytes:
        begins = frame.type == "content_block_start" and index not in self._index
        if index in self._left_out or not (begins or index in self._index):
            return b""  # the rest of what was left out
        if begins:
            self._begin(frame, index)
        if event is frame.event and self._index[index] == index:
            data = frame.raw
            frame.event = None  # which knows the frame: spare the garbage collector the circle
        else:
            data = self._rewritten(event, frame, self._index[index], begins)
        if frame.type == "content_block_stop":
            self._open = None
        if self._thought is None:
            return data
        self._thought.append(data)
        return self.kept() if self._open is None else b""

    def _begin(self, frame: Frame, index: int) -> None:
        self._index[index] = self._count
        self._count += 1
        self._open = frame
        self._called = self._called or frame.block_type == "tool_use"
        if frame.block_type == "thinking" and self._whole_thoughts:
            self._thought = []

    def _rewritten(self, event: ReleasedEvent, frame: Frame, index: int, begins: bool) -> bytes:
        """The frame with this index, and the text of this event where it has any."""
        body = {**frame.body, "index": index}
        key = TEXT_BLOCKS.get(frame.block_type)
        if key is not None and isinstance(event, Reasoning | Answer | Redacted):
            text = said_by(event)
            if frame.type == "content_block_start" and begins:
                body["content_block"] = {**body["content_block"], key: text}
            else:
                is_delta = frame.type == "content_block_delta"
                delta = body["delta"] if is_delta else {"type": f"{key}_delta"}
                body = {"type": "content_block_delta", "index": index, "delta": {**delta, key: text}}
        return sse(body, body["type"])

    def _leave_out(self, redacted: Redacted, index: int) -> bytes:
        """A block of which some may not be shown, or the calls of a turn."""
        out = b""
        if redacted.channel is Channel.TOOL_CALL:
            self._refused = True
        elif self._thought is not None:
            self._thought = self._open = None
            self._count = self._index.pop(index)
        else:
            out = self._close()
        self._left_out.add(index)
        if self._notified:
            return out
        self._notified = True
        return out + self._notice(redacted.notice)

    def _close(self) -> bytes:
        if self._thought is not None:
            self._thought = None
            self._count -= 1
            self._open = None
        if self._open is None or self._open.block is None:
            return b""
        index, self._open = self._index[self._open.block], None
        return sse({"type": "content_block_stop", "index": index}, "content_block_stop")

    def _notice(self, notice: str) -> bytes:
        """The notice, as a text block of its own."""
        index = self._count
        self._count += 1
        parts: list[dict[str, Any]] = [
            {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": notice}},
            {"type": "content_block_stop", "index": index},
        ]
        return _block_start(index) + b"".join(sse(part, part["type"]) for part in parts)


class MessageBody(WholeCodec):
    """The codec of a message in one piece. The options are those of `MessageStream`."""

    def __init__(self, *, strict_output: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._strict_output = strict_output
        self._body: dict[str, Any] = {}

    def _read(self, data: bytes) -> list[SourceEvent]:
        body = parse_json(data)
        content = body.get("content")
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            raise WireError(f"'content' should be a list of blocks, not {content!r:.80}")
        no_other_text(body)
        events: list[SourceEvent] = [block_event(block, index, index) for index, block in enumerate(content)]
        self._body = body
        return [*events, End(str(body.get("stop_reason")))]

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        kept, notices = by_block(released)
        blocks: dict[int, dict[str, Any]] = {
            index: {"type": "text", "text": notice} for index, notice in notices.items()
        }
        for index, events in kept.items():
            blocks[index] = dict(self._body["content"][index])
            key = TEXT_BLOCKS.get(str(blocks[index].get("type")))
            texts = [said_by(event) for event in events if isinstance(event, Reasoning | Answer | Redacted)]
            if key is not None and texts:
                blocks[index][key] = "".join(texts)
        body = {**self._body, "content": [blocks[index] for index in sorted(blocks)]}
        called = any(block.get("type") == "tool_use" for block in body["content"])
        if body.get("stop_reason") == "tool_use" and not called:
            body["stop_reason"] = "end_turn"
        return body

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        if self._termination is Termination.ERROR:
            return _error(aborted)
        content = [] if self._strict_output else [{"type": "text", "text": aborted.notice}]
        ending = {"content": content, "stop_reason": "refusal", "stop_details": _details(aborted.notice)}
        return {**_EMPTY, **self._body, **ending, "stop_sequence": None}


_EMPTY: dict[str, Any] = {
    "id": "",
    "type": "message",
    "role": "assistant",
    "model": "",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 0, "output_tokens": 0},
}


def _block_start(index: int) -> bytes:
    block = {"type": "text", "text": ""}
    start = {"type": "content_block_start", "index": index, "content_block": block}
    return sse(start, "content_block_start")


def _details(notice: str) -> dict[str, Any]:
    return {"type": "refusal", "category": None, "explanation": notice}


def _error(aborted: Aborted) -> dict[str, Any]:
    error = {"type": "shieldguard", "message": aborted.notice, "code": aborted.cause.value}
    return {"type": "error", "error": error}
