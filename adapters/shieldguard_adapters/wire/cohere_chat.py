"""Cohere's chat, version 2: streaming (server-sent events) and whole (JSON).

The tool plan is reasoning, as thinking is. A citation says where in the text it belongs, so none leaves
behind a text of which some was left out. The SDK raises for nothing that a stream holds: `Termination.ERROR`
is finish reason "ERROR", and a notice in its `error` alone.
"""

from collections.abc import Sequence
from typing import Any

from shieldguard import (
    Aborted,
    Answer,
    End,
    Reasoning,
    Redacted,
    ReleasedEvent,
    SourceEvent,
    ToolCall,
)
from shieldguard_adapters.wire.codec import Termination
from shieldguard_adapters.wire.cohere_parts import Frame, FrameReader, body_events
from shieldguard_adapters.wire.framing import SseFramer
from shieldguard_adapters.wire.jsons import comment, parse_json, sse
from shieldguard_adapters.wire.released import origin_of, said_by
from shieldguard_adapters.wire.whole import WholeCodec


class MessageStream:
    """The codec of a streamed message. `strict_output`: the caller parses the text, so an ending adds none
    and is an error."""

    def __init__(
        self, *, termination: Termination | str = Termination.REFUSAL, strict_output: bool = False
    ) -> None:
        self._termination = _termination(termination, strict_output)
        self._framer = SseFramer()
        self._reader = FrameReader()
        self._writer = _Writer()

    def decode(self, data: bytes) -> list[SourceEvent]:
        return [self._reader.read(raw) for raw in self._framer.feed(data)]

    def flush(self) -> list[SourceEvent]:
        return [self._reader.read(raw) for raw in self._framer.flush()]

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        return b"".join(
            self._writer.end(event.notice, self._termination)
            if isinstance(event, Aborted)
            else self._writer.write(event)
            for event in events
        )

    def close(self) -> bytes:
        return b""

    def aside(self, lines: Sequence[str]) -> bytes:
        return comment(lines)

    def keep_alive(self) -> bytes:
        return b": \n\n"


class _Writer:
    """Writes frames, and knows what the client has been sent of the message."""

    def __init__(self) -> None:
        self._begun = self._ended = False
        self._index: dict[int, int] = {}  # of a block of content, where the client has it
        self._count = 0  # the index of the next block that has none of its own
        self._open: list[int] = []  # blocks of content, as the client has them
        self._calls: set[int] = set()  # those that the client has
        self._refused = self._left_out = False
        self._cited = 0  # characters that left of the citation that is being judged

    def write(self, event: ReleasedEvent) -> bytes:
        frame = origin_of(event, Frame)
        self._left_out = self._left_out or isinstance(event, Redacted)
        self._begun = self._begun or bool(frame.body)
        match frame.type:
            case "content-start" | "content-delta" | "content-end":
                return self._content(event, frame)
            case "tool-plan-delta" if event is not frame.event:
                return _sse("tool-plan-delta", {"delta": {"message": {"tool_plan": said_by(event)}}})
            case "tool-call-start" | "tool-call-delta" | "tool-call-end":
                return self._call(event, frame)
            case "citation-start" | "citation-end":
                return self._citation(event, frame)
            case "message-end":
                self._ended = True
                if isinstance(event, End) and event.reason == "TOOL_CALL" and self._refused:
                    delta = {**frame.body["delta"], "finish_reason": "COMPLETE"}
                    return frame.raw if self._calls else _sse("message-end", {**frame.body, "delta": delta})
        return frame.raw

    def end(self, notice: str, termination: Termination) -> bytes:
        """End the message, in whatever state it is."""
        out = []
        if not self._begun:
            delta = {"message": {"role": "assistant"}}
            out.append(_sse("message-start", {"id": "", "delta": delta}))
        if not self._ended:
            out += [_sse("content-end", {"index": index}) for index in self._open]
            if termination is not Termination.ERROR:
                out.append(self._notice(notice))
            out.append(_sse("message-end", {"id": "", "delta": _finish(notice, termination)}))
        self._begun = self._ended = True
        return b"".join(out)

    def _content(self, event: ReleasedEvent, frame: Frame) -> bytes:
        begins = frame.type == "content-start" and frame.index not in self._index
        if begins:
            self._index[frame.index] = index = max(frame.index, self._count)
            self._count = index + 1
            self._open.append(index)
        index = self._index[frame.index]
        if frame.type == "content-end":
            self._open.remove(index)
        if event is frame.event and index == frame.index:
            return frame.raw
        if not isinstance(event, Reasoning | Answer | Redacted):
            return _sse(frame.type, {**frame.body, "index": index})
        kind = "thinking" if isinstance(frame.event, Reasoning) else "text"
        content = {kind: said_by(event)}
        if begins:
            content = {"type": kind, **content}
        return _sse(
            "content-start" if begins else "content-delta",
            {"index": index, "delta": {"message": {"content": content}}},
        )

    def _call(self, event: ReleasedEvent, frame: Frame) -> bytes:
        if isinstance(event, Redacted):
            self._refused = True
            return self._notice(event.notice)
        if isinstance(event, ToolCall):
            self._calls.add(frame.index)
        return frame.raw if frame.index in self._calls else b""

    def _citation(self, event: ReleasedEvent, frame: Frame) -> bytes:
        if self._left_out:
            return b""
        if isinstance(event, Answer) and isinstance(frame.event, Answer):
            self._cited += len(event.text)
            if self._cited < len(frame.event.text):
                return b""
            self._cited = 0
        return frame.raw

    def _notice(self, notice: str) -> bytes:
        """The notice, as a block of text of its own."""
        index = self._count
        self._count += 1
        start = {"message": {"content": {"type": "text", "text": ""}}}
        delta = {"message": {"content": {"text": notice}}}
        return b"".join(
            (
                _sse("content-start", {"index": index, "delta": start}),
                _sse("content-delta", {"index": index, "delta": delta}),
                _sse("content-end", {"index": index}),
            )
        )


class MessageBody(WholeCodec):
    """The codec of a message in one piece. The options are those of `MessageStream`."""

    def __init__(
        self,
        *,
        termination: Termination | str = Termination.REFUSAL,
        strict_output: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(termination=_termination(termination, strict_output), **options)
        self._body: dict[str, Any] = {}

    def _read(self, data: bytes) -> list[SourceEvent]:
        self._body = parse_json(data)
        return list(body_events(self._body))

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        source = self._body["message"]
        blocks: dict[int, dict[str, Any]] = {}
        calls: list[dict[str, Any]] = []
        notices: list[str] = []
        plan = ""
        for event in released:
            key, index = getattr(event, "origin", None) or ("", 0)
            if key == "tool_plan":
                plan += said_by(event)
            elif key == "tool_calls" and isinstance(event, Redacted):
                notices.append(event.notice)
            elif key == "tool_calls":
                calls.append(source[key][index])
            elif key == "content":
                type_ = source[key][index]["type"]
                block = blocks.setdefault(index, {"type": type_, type_: ""})
                block[type_] += said_by(event)
        content = [blocks[index] for index in sorted(blocks)]
        content += [{"type": "text", "text": notice} for notice in notices]
        message = {"role": source.get("role", "assistant"), "content": content}
        message |= {"tool_plan": plan} if plan else {}
        message |= {"tool_calls": calls} if calls else {}
        body = {key: value for key, value in self._body.items() if key != "logprobs"}
        if notices and not calls and body.get("finish_reason") == "TOOL_CALL":
            body["finish_reason"] = "COMPLETE"
        return {**body, "message": message}

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        is_error = self._termination is Termination.ERROR
        content = [] if is_error else [{"type": "text", "text": aborted.notice}]
        kept = {key: value for key, value in self._body.items() if key in ("id", "usage", "meta")}
        message = {"role": "assistant", "content": content}
        return {"id": "", **kept, **_finish(aborted.notice, self._termination), "message": message}


def _termination(termination: Termination | str, strict_output: bool) -> Termination:
    return Termination.ERROR if strict_output else Termination(termination)


def _finish(notice: str, termination: Termination) -> dict[str, Any]:
    if termination is Termination.REFUSAL:
        return {"finish_reason": "COMPLETE"}
    return {"finish_reason": "ERROR", "error": notice}


def _sse(type_: str, body: dict[str, Any]) -> bytes:
    return sse({"type": type_, **body}, type_)
