"""OpenAI chat completions, streaming (server-sent events) and whole (JSON), with the reasoning fields
of those who speak the same format: DeepSeek, vLLM, SGLang, Groq, OpenRouter, LiteLLM, Mistral."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from shieldguard import (
    Aborted,
    Answer,
    End,
    Message,
    QueryFrom,
    Reasoning,
    Redacted,
    ReleasedEvent,
    SourceEvent,
    Thinking,
    ToolCall,
    WireError,
    last_user_turn,
)
from shieldguard_adapters.wire.codec import Request, Termination
from shieldguard_adapters.wire.framing import SseFramer, WholeBody, parse_sse
from shieldguard_adapters.wire.jsons import parse_json, sse
from shieldguard_adapters.wire.openai_chat_parts import (
    ChoiceReader,
    Frame,
    Part,
    Path,
    Piece,
    fragment,
)
from shieldguard_adapters.wire.template import FrameTemplate

_DONE = b"data: [DONE]\n\n"


def read_request(body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """What there is to know of a chat completion request, from its JSON body."""
    request = parse_json(body)
    messages = request.get("messages") or []
    if not isinstance(messages, list):
        raise WireError(f"'messages' should be a list, not {type(messages).__name__!r}")
    format_ = request.get("response_format") or {}
    return Request(
        query=query_from([_message(message) for message in messages]),
        redactable=not isinstance(format_, dict) or format_.get("type", "text") == "text",
    )


class ChatStream:
    """The codec of a streamed response."""

    def __init__(
        self,
        *,
        thinking: Thinking | str = Thinking.AUTO,
        termination: Termination | str = Termination.REFUSAL,
    ) -> None:
        self._thinking = Thinking(thinking)
        self._termination = Termination(termination)
        self._framer = SseFramer()
        self._readers: dict[int, ChoiceReader] = {}
        self._writer = _ChoiceStates()
        self._last: dict[str, Any] = {}
        self._template = FrameTemplate()
        self._alike: tuple[ChoiceReader, Part, Sequence[tuple[int, Path]]] | None = None

    def decode(self, data: bytes) -> list[SourceEvent]:
        return [event for raw in self._framer.feed(data) for event in self._read(raw)]

    def flush(self) -> list[SourceEvent]:
        events = [event for raw in self._framer.flush() for event in self._read(raw)]
        return events + self._kept()

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        out = []
        for frame, released in _by_frame(events):
            if frame is None:
                out += [self._ending(event) for event in released if isinstance(event, Aborted)]
            elif frame.template is not None and len(released) == 1:
                out.append(self._text_frame(frame, frame.template, released[0]))
            else:
                out.append(self._frame(frame, released))
        return b"".join(out)

    def close(self) -> bytes:
        return b""

    def _text_frame(self, frame: Frame, template: FrameTemplate, event: ReleasedEvent) -> bytes:
        """A frame of one text, which begins no choice and ends none."""
        if frame.is_whole((event,)):
            frame.events.clear()  # the events know the frame: spare the garbage collector the circle
            return frame.raw
        if isinstance(event, Reasoning | Answer):
            return template.with_text(event.text)
        return self._frame(frame, (event,))

    def _frame(self, frame: Frame, released: Sequence[ReleasedEvent]) -> bytes:
        if frame.is_whole(released) and not self._writer.rewrites(released):
            self._writer.note(frame, released)
            return frame.raw
        return sse(self._writer.fragment(frame, released, "delta"))

    def _read(self, raw: bytes) -> list[SourceEvent]:
        text = self._template.text_of(raw)
        if text is not None and self._alike is not None:
            reader, part, paths = self._alike
            frame = Frame(raw, template=self._template, paths=paths)
            return reader.take(part, text, Piece(frame, 0, part.paths))
        data = parse_sse(raw).data
        if data is None or data.strip() in ("", "[DONE]"):
            # What comes behind "[DONE]" would not be read.
            return (self._kept() if data else []) + Frame(raw, "{}").passthrough()
        frame = Frame(raw, data)
        if (body := frame.without_repeats("delta")) is not None:
            frame = Frame(sse(body))
        if frame.choices:
            self._last = {k: v for k, v in frame.body.items() if k in ("id", "created", "model")}
        events, parts = _read_choices(frame, self._readers, self._thinking, "delta")
        if len(frame.choices) == len(parts) == len(events) == 1 and len(parts[0].paths) == 1:
            self._learn(frame, parts[0])
        return events

    def _kept(self) -> list[SourceEvent]:
        """What might have become a tag and will not."""
        return [event for reader in self._readers.values() for event in reader.flush()]

    def _learn(self, frame: Frame, part: Part) -> None:
        """Know the next frame that differs in its text alone."""
        if part.kind is ToolCall or part.opaque is not None:
            return
        reader = self._readers[frame.choices[0].get("index", 0)]
        if self._alike is None or self._alike[0] is not reader or self._alike[1].paths != part.paths:
            self._template = FrameTemplate()
            self._alike = (reader, part, frame.paths)
        self._template = self._template.learn(frame.raw, part.text)

    def _ending(self, aborted: Aborted) -> bytes:
        if self._termination is Termination.ERROR:
            return sse({"error": _error(aborted)})
        head = {"id": "", "created": 0, "model": "", **self._last, "object": "chat.completion.chunk"}
        reason = "stop" if self._termination is Termination.REFUSAL else "content_filter"
        out = []
        for index in sorted({0, *self._readers} - self._writer.finished):
            delta = {"role": "assistant"} if index not in self._writer.begun else {}
            delta |= _notice(aborted, self._termination)
            for choice in ({"delta": delta, "finish_reason": None}, {"delta": {}, "finish_reason": reason}):
                out.append(sse({**head, "choices": [{"index": index, **choice}]}))
        return b"".join([*out, _DONE])


class ChatBody:
    """The codec of a response in one piece. It is written when all of it has been released."""

    def __init__(
        self,
        *,
        thinking: Thinking | str = Thinking.AUTO,
        termination: Termination | str = Termination.REFUSAL,
        max_body: int = 1 << 26,
    ) -> None:
        self._thinking = Thinking(thinking)
        self._termination = Termination(termination)
        self._whole = WholeBody(max_body)
        self._frame: Frame | None = None
        self._released: list[ReleasedEvent] = []

    def decode(self, data: bytes) -> list[SourceEvent]:
        self._whole.feed(data)
        return []

    def flush(self) -> list[SourceEvent]:
        readers: dict[int, ChoiceReader] = {}
        frame = Frame(self._whole.data, self._whole.data)
        if (body := frame.without_repeats("message")) is not None:
            data = json.dumps(body).encode()
            frame = Frame(data, data)
        events, _ = _read_choices(frame, readers, self._thinking, "message")
        self._frame = frame
        for reader in readers.values():
            events += reader.flush()
        return events

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        self._released += events
        return b""

    def close(self) -> bytes:
        frame, released = self._frame, self._released
        aborted = next((event for event in released if isinstance(event, Aborted)), None)
        if aborted is not None:
            return self._ending(frame, aborted)
        writer = _ChoiceStates()
        if frame is None:
            return b""
        if frame.is_whole(released) and not writer.rewrites(released):
            return frame.raw
        return json.dumps(writer.fragment(frame, released, "message")).encode()

    def _ending(self, frame: Frame | None, aborted: Aborted) -> bytes:
        if self._termination is Termination.ERROR:
            return json.dumps({"error": _error(aborted)}).encode()
        reason = "stop" if self._termination is Termination.REFUSAL else "content_filter"
        body = {"id": "", "object": "chat.completion", "created": 0, "model": ""}
        body |= {k: v for k, v in (frame.body if frame else {}).items() if k != "choices"}
        indexes = [choice.get("index", 0) for choice in frame.choices] if frame else [0]
        message = {"role": "assistant", "refusal": None, **_notice(aborted, self._termination)}
        choices = [{"index": i, "message": message, "finish_reason": reason} for i in indexes]
        return json.dumps({**body, "choices": choices}).encode()


class _ChoiceStates:
    """What the client has been sent of each choice."""

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.finished: set[int] = set()
        self._refused_calls: set[int] = set()

    def rewrites(self, events: Iterable[ReleasedEvent]) -> bool:
        """Whether an end among the events has to say something else than it does."""
        return any(isinstance(event, End) and event.choice in self._refused_calls for event in events)

    def note(self, frame: Frame, events: Iterable[ReleasedEvent]) -> None:
        self.begun.update(choice.get("index", 0) for choice in frame.choices)
        self.finished.update(event.choice for event in events if isinstance(event, End))

    def fragment(self, frame: Frame, events: Sequence[ReleasedEvent], key: str) -> dict[str, Any]:
        """The part of a frame that these events are."""
        self._refused_calls.update(
            event.choice for event in events if isinstance(event, Redacted) and event.channel == "tool_call"
        )
        body = fragment(frame, events, key, begun=self.begun)
        for choice in body["choices"]:
            if choice.get("finish_reason") is not None and choice["index"] in self._refused_calls:
                choice["finish_reason"] = "stop"
        self.note(frame, events)
        return body


def _read_choices(
    frame: Frame, readers: dict[int, ChoiceReader], thinking: Thinking, key: str
) -> tuple[list[SourceEvent], list[Part]]:
    if not frame.choices:
        return frame.passthrough(), []
    events: list[SourceEvent] = []
    parts: list[Part] = []
    for position, choice in enumerate(frame.choices):
        index = choice.get("index", 0)
        if not isinstance(index, int):
            raise WireError(f"a choice has index {index!r}; it should be a number")
        if index not in readers:
            readers[index] = ChoiceReader(index, thinking)
        made, found = readers[index].read(frame, position, key)
        events += made
        parts += found
    return events, parts


def _by_frame(events: Iterable[ReleasedEvent]) -> Iterator[tuple[Frame | None, list[ReleasedEvent]]]:
    """Neighbours that come from the same frame, together."""
    frame: Frame | None = None
    group: list[ReleasedEvent] = []
    for event in events:
        origin = None if isinstance(event, Aborted) else event.origin
        own = origin.frame if isinstance(origin, Piece) else None
        if group and own is not frame:
            yield frame, group
            group = []
        frame = own
        group.append(event)
    if group:
        yield frame, group


def _message(message: Any) -> Message:
    if not isinstance(message, dict):
        raise WireError(f"a message should be an object, not {type(message).__name__!r}")
    content = message.get("content")
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, dict))
        content = "\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts)
    return Message(str(message.get("role", "")), content if isinstance(content, str) else "")


def _notice(aborted: Aborted, termination: Termination) -> dict[str, str]:
    if termination is Termination.REFUSAL:
        return {"refusal": aborted.notice, "content": aborted.notice}
    return {"content": aborted.notice}


def _error(aborted: Aborted) -> dict[str, str]:
    return {"message": aborted.notice, "type": "shieldguard", "code": aborted.cause.value}
