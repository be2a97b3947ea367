"""The codec of a streamed chat completion."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from shieldguard import Aborted, Answer, Reasoning, ReleasedEvent, SourceEvent, Thinking, ToolCall
from shieldguard_adapters.wire.codec import Termination
from shieldguard_adapters.wire.framing import SseFramer, parse_sse
from shieldguard_adapters.wire.jsons import Path, comment, sse
from shieldguard_adapters.wire.openai_chat.delta import Part
from shieldguard_adapters.wire.openai_chat.ending import error, finish_reason, notice
from shieldguard_adapters.wire.openai_chat.frame import Frame, Piece, frame_of
from shieldguard_adapters.wire.openai_chat.reader import ChoiceReader, Readers
from shieldguard_adapters.wire.openai_chat.writer import Writer
from shieldguard_adapters.wire.template import FrameTemplate

_DONE = b"data: [DONE]\n\n"


class ChatStream:
    """The codec of a streamed response."""

    def __init__(
        self,
        *,
        thinking: Thinking | str = Thinking.AUTO,
        termination: Termination | str = Termination.REFUSAL,
    ) -> None:
        self._termination = Termination(termination)
        self._framer = SseFramer()
        self._readers = Readers(Thinking(thinking), "delta")
        self._writer = Writer("delta")
        self._last: dict[str, Any] = {}
        self._template = FrameTemplate()
        self._alike: tuple[ChoiceReader, Part, Sequence[tuple[int, Path]]] | None = None

    def decode(self, data: bytes) -> list[SourceEvent]:
        return [event for raw in self._framer.feed(data) for event in self._read(raw)]

    def flush(self) -> list[SourceEvent]:
        events = [event for raw in self._framer.flush() for event in self._read(raw)]
        return events + self._readers.flush()

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        out = []
        for frame, group in groupby(events, frame_of):
            released = list(group)
            if frame is None:
                out += [self._ending(event) for event in released if isinstance(event, Aborted)]
            elif frame.template is not None and len(released) == 1:
                out.append(self._text_frame(frame, frame.template, released[0]))
            else:
                out.append(self._frame(frame, released))
        return b"".join(out)

    def close(self) -> bytes:
        return b""

    def aside(self, lines: Sequence[str]) -> bytes:
        return comment(lines)

    def keep_alive(self) -> bytes:
        if not self._last or self._writer.finished:
            return b": \n\n"
        choice = {"index": 0, "delta": {}, "finish_reason": None}
        return sse({**self._last, "object": "chat.completion.chunk", "choices": [choice]})

    def _text_frame(self, frame: Frame, template: FrameTemplate, event: ReleasedEvent) -> bytes:
        """A frame of one text, which begins no choice and ends none."""
        if frame.is_whole((event,)):
            frame.events.clear()  # the events know the frame: spare the garbage collector the circle
            return frame.raw
        if isinstance(event, Reasoning | Answer):
            return template.with_text(event.text)
        return self._frame(frame, (event,))

    def _frame(self, frame: Frame, released: Sequence[ReleasedEvent]) -> bytes:
        body = self._writer.write(frame, released)
        return frame.raw if body is None else sse(body)

    def _read(self, raw: bytes) -> list[SourceEvent]:
        text = self._template.text_of(raw)
        if text is not None and self._alike is not None:
            reader, part, paths = self._alike
            frame = Frame(raw, template=self._template, paths=paths)
            return reader.take(part, text, Piece(frame, 0, part.paths))
        data = parse_sse(raw).data
        if data is None or data.strip() in ("", "[DONE]"):
            # What comes behind "[DONE]" would not be read.
            return (self._readers.flush() if data else []) + Frame(raw, "{}").passthrough()
        frame = Frame(raw, data)
        if (body := frame.without_repeats("delta")) is not None:
            frame = Frame(sse(body))
        if frame.choices:
            self._last = {k: v for k, v in frame.body.items() if k in ("id", "created", "model")}
        events, parts = self._readers.read(frame)
        if len(frame.choices) == len(parts) == len(events) == 1 and len(parts[0].paths) == 1:
            self._learn(frame, parts[0])
        return events

    def _learn(self, frame: Frame, part: Part) -> None:
        """Know the next frame that differs in its text alone."""
        if part.kind is ToolCall or part.opaque is not None:
            return
        reader = self._readers.choices[frame.choices[0].get("index", 0)]
        if self._alike is None or self._alike[0] is not reader or self._alike[1].paths != part.paths:
            self._template = FrameTemplate()
            self._alike = (reader, part, frame.paths)
        self._template = self._template.learn(frame.raw, part.text)

    def _ending(self, aborted: Aborted) -> bytes:
        if self._termination is Termination.ERROR:
            return sse(error(aborted))
        head = {"id": "", "created": 0, "model": "", **self._last, "object": "chat.completion.chunk"}
        reason = finish_reason(self._termination)
        out = []
        for index in sorted({0, *self._readers.choices} - self._writer.finished):
            delta = {"role": "assistant"} if index not in self._writer.begun else {}
            delta |= notice(aborted, self._termination)
            for choice in ({"delta": delta, "finish_reason": None}, {"delta": {}, "finish_reason": reason}):
                out.append(sse({**head, "choices": [{"index": index, **choice}]}))
        return b"".join([*out, _DONE])
