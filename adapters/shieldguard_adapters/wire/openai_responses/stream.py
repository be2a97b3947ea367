"""The codec of a streamed response."""

from collections.abc import Sequence
from typing import Any

from shieldguard import Aborted, Answer, Channel, Reasoning, Redacted, ReleasedEvent, SourceEvent
from shieldguard_adapters.wire.codec import Termination
from shieldguard_adapters.wire.framing import SseFramer
from shieldguard_adapters.wire.jsons import comment
from shieldguard_adapters.wire.openai_responses.edits import edits_of, edits_of_whole, let_out
from shieldguard_adapters.wire.openai_responses.ending import ended, head, last_part, text_part
from shieldguard_adapters.wire.openai_responses.frame import Frame, Item, Piece
from shieldguard_adapters.wire.openai_responses.names import ADDED, DONE, LIFECYCLE, TERMINAL
from shieldguard_adapters.wire.openai_responses.reader import ResponseReader
from shieldguard_adapters.wire.openai_responses.sent import Sent
from shieldguard_adapters.wire.released import origin_of, said_by

# The last event says all of the response again, with the request's tools.
MAX_FRAME = 1 << 24


class ResponseStream:
    """The codec of a streamed response.

    `whole_thoughts`: a thought that comes with its encrypted form leaves when all of it was released, so that
    it can be left out whole; needless where the policy never redacts. `strict_output`: the caller parses the
    text, so an ending takes back what there is of it.
    """

    def __init__(
        self,
        *,
        termination: Termination | str = Termination.REFUSAL,
        whole_thoughts: bool = True,
        strict_output: bool = False,
    ) -> None:
        self._termination = Termination(termination)
        self._framer = SseFramer(max_frame=MAX_FRAME)
        self._reader = ResponseReader()
        self._writer = _Writer(whole_thoughts)
        self._strict_output = strict_output

    def decode(self, data: bytes) -> list[SourceEvent]:
        return [event for raw in self._framer.feed(data) for event in self._reader.read(raw)]

    def flush(self) -> list[SourceEvent]:
        return [event for raw in self._framer.flush() for event in self._reader.read(raw)]

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        return b"".join(
            self._writer.end(event, self._termination, strict_output=self._strict_output)
            if isinstance(event, Aborted)
            else self._writer.write(event)
            for event in events
        )

    def keep_alive(self) -> bytes:
        return b": \n\n"

    def close(self) -> bytes:
        return self._writer.kept()

    def aside(self, lines: Sequence[str]) -> bytes:
        return comment(lines)


class _Writer:
    """Writes the frame of an event where its last one is let out."""

    def __init__(self, whole_thoughts: bool) -> None:
        self._whole_thoughts = whole_thoughts
        self._sent = Sent()
        self._begun = self._ended = self._notified = False
        self._response: dict[str, Any] = {}  # as the client has it
        self._thought: Item | None = None  # one that is kept until all of it was released
        self._kept: list[ReleasedEvent] = []

    def write(self, event: ReleasedEvent) -> bytes:
        piece = origin_of(event, Piece)
        frame, item = piece.frame, piece.item
        if self._thought is None and self._keeps(frame):
            self._thought = item
        if self._thought is None:
            return self._write(event)
        self._kept.append(event)
        if item is not self._thought:
            return b""
        if isinstance(event, Redacted):
            item.left_out = True
        return self.kept() if item.left_out or (frame.type == DONE and _is_last(event)) else b""

    def kept(self) -> bytes:
        """What was kept of a thought."""
        kept, self._kept, self._thought = self._kept, [], None
        return b"".join(map(self._write, kept))

    def end(self, aborted: Aborted, termination: Termination, *, strict_output: bool) -> bytes:
        """End the response, in whatever state it is."""
        out = []
        if self._thought is not None:
            self._thought.left_out = True
            out.append(self.kept())
        if self._ended:
            return b"".join(out)
        self._ended = True
        if termination is Termination.ERROR:
            error = {"code": aborted.cause.value, "message": aborted.notice, "param": None}
            out.append(self._sent.event("error", **error, error={**error, "type": "shieldguard"}))
            return b"".join(out)
        response = head(self._response)
        if not self._begun:
            out.append(self._sent.event("response.created", response={**response, "status": "in_progress"}))
        notice, refuses = last_part(aborted.notice, termination), termination is Termination.REFUSAL
        adds_notice = refuses or not strict_output
        for item in [one for one in self._sent.items if not one.done]:
            if strict_output and item.type == "message":
                # The text would be parsed, and is no whole text.
                out.append(self._sent.done(item, {**item.body, "content": [notice] if refuses else []}))
                adds_notice = False
            else:
                out.append(self._sent.close(item))
        if adds_notice:
            out.append(self._sent.message(notice))
        response |= {"output": [item.body for item in self._sent.items], **ended(termination)}
        return b"".join([*out, self._sent.event(f"response.{response['status']}", response=response)])

    def _keeps(self, frame: Frame) -> bool:
        """Whether a thought begins that can only be shown as it is."""
        if not (self._whole_thoughts and frame.type == ADDED and frame.item is not None):
            return False
        return frame.item.type == "reasoning" and bool(frame.body["item"].get("encrypted_content"))

    def _write(self, event: ReleasedEvent) -> bytes:
        piece = origin_of(event, Piece)
        frame, item = piece.frame, piece.item
        left_out = item is not None and item.left_out
        if isinstance(event, Redacted) and (left_out or event.channel is Channel.TOOL_CALL):
            if self._notified:
                return b""
            self._notified = True
            return self._sent.message(text_part(event.notice))
        let_out(event)
        if not _is_last(event):
            return b""
        if frame.type in LIFECYCLE:
            return self._lifecycle(frame)
        if frame.item is None:
            return self._sent.frame(frame, edits_of(frame))[0]
        is_part = isinstance(event, Reasoning | Answer | Redacted) and event is not frame.event
        return self._of_item(frame, frame.item, said_by(event) if is_part else None)

    def _of_item(self, frame: Frame, item: Item, delta: str | None) -> bytes:
        """A frame of an item, with this delta in the place of its own where one is given."""
        if item.left_out or (item.is_call and not item.let_out):
            return b""
        edits = edits_of(frame)
        if delta is not None:
            edits["delta",] = delta
        if edits and item.is_call:
            return b""  # it says what was refused
        if item.redacted and (frame.body.get("item") or {}).get("encrypted_content"):
            edits["item", "encrypted_content"] = None
        return self._sent.of_item(item, frame, edits)

    def _lifecycle(self, frame: Frame) -> bytes:
        is_end = frame.type in TERMINAL
        edits = edits_of_whole(frame, self._sent.items if is_end else ())
        raw, body = self._sent.frame(frame, edits)
        self._response, self._begun = body["response"], True
        self._ended = self._ended or is_end
        return raw


def _is_last(event: ReleasedEvent) -> bool:
    """Whether this event, or one that it was cut from, is the one its frame is written with."""
    piece = origin_of(event, Piece)
    own = piece.frame.event
    return own is not None and getattr(own, "origin", None) is piece
