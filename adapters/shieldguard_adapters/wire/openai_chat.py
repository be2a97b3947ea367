"""OpenAI chat completions, streaming (server-sent events) and whole (JSON), with the reasoning fields
of those who speak the same format: DeepSeek, vLLM, SGLang, Groq, OpenRouter, LiteLLM, Mistral."""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from shieldguard import (
    Aborted,
    Answer,
    Channel,
    End,
    Message,
    Passthrough,
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
from shieldguard_adapters.wire.framing import SseFramer, parse_sse
from shieldguard_adapters.wire.jsons import comment, parse_json, sse
from shieldguard_adapters.wire.openai_chat_parts import (
    QUOTED,
    ChoiceReader,
    Frame,
    Part,
    Path,
    Piece,
    fragment,
    frame_of,
)
from shieldguard_adapters.wire.released import said_by
from shieldguard_adapters.wire.requests import asks_for_text, content_text
from shieldguard_adapters.wire.template import FrameTemplate
from shieldguard_adapters.wire.whole import WholeCodec

_DONE = b"data: [DONE]\n\n"


def read_request(body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """What there is to know of a chat completion request, from its JSON body."""
    request = parse_json(body)
    messages = request.get("messages") or []
    if not isinstance(messages, list):
        raise WireError(f"'messages' should be a list, not {type(messages).__name__!r}")
    turns = [turn for message in messages for turn in _turns(message)]
    if not turns and request.get("prompt"):  # Mistral's, to fill in the middle
        turns = _turns({"role": "user", "content": request["prompt"]})
    return Request(query=query_from(turns), redactable=asks_for_text(request.get("response_format")))


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
        if frame.is_whole(released) and not self._writer.rewrites(frame, released):
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


class ChatBody(WholeCodec):
    """The codec of a response in one piece."""

    def __init__(self, *, thinking: Thinking | str = Thinking.AUTO, **options: Any) -> None:
        super().__init__(**options)
        self._thinking = Thinking(thinking)
        self._frame: Frame | None = None

    def _read(self, data: bytes) -> list[SourceEvent]:
        readers: dict[int, ChoiceReader] = {}
        frame = Frame(data, data)
        if (body := frame.without_repeats("message")) is not None:
            self._data = json.dumps(body).encode()
            frame = Frame(self._data, self._data)
        events, _ = _read_choices(frame, readers, self._thinking, "message")
        self._frame = frame
        for reader in readers.values():
            events += reader.flush()
        return events

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        assert self._frame is not None
        return _ChoiceStates().fragment(self._frame, released, "message")

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        if self._termination is Termination.ERROR:
            return {"error": _error(aborted)}
        frame = self._frame
        reason = "stop" if self._termination is Termination.REFUSAL else "content_filter"
        body: dict[str, Any] = {"id": "", "object": "chat.completion", "created": 0, "model": ""}
        body["usage"] = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
        body |= {k: v for k, v in (frame.body if frame else {}).items() if k not in ("choices", "error")}
        indexes = [choice.get("index", 0) for choice in frame.choices] if frame and frame.choices else [0]
        message = {"role": "assistant", "refusal": None, **_notice(aborted, self._termination)}
        choices = [{"index": i, "message": message, "finish_reason": reason} for i in indexes]
        return {**body, "choices": choices}


class ChatError(WholeCodec):
    """The codec of an error in the place of a response. Groq's quotes what the model wrote, where that could
    not be parsed; anything else passes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._error: dict[str, Any] = {}

    def _read(self, data: bytes) -> list[SourceEvent]:
        try:
            error = parse_json(data).get("error")
        except WireError:
            return [Passthrough()]
        self._error = error if isinstance(error, dict) else {}
        text = self._error.get(QUOTED)
        return [Answer(text), End("error")] if isinstance(text, str) and text else [Passthrough()]

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        return {"error": {**self._error, QUOTED: "".join(map(said_by, released))}}

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        return {"error": {**self._error, QUOTED: aborted.notice}}


class _ChoiceStates:
    """What the client has been sent of each choice."""

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.finished: set[int] = set()
        self._refused_calls: set[int] = set()
        self._edited: set[int] = set()

    def rewrites(self, frame: Frame, events: Iterable[ReleasedEvent]) -> bool:
        """Whether an end among the events has to say something else than it does, or a signature is of a
        thought that was edited."""
        if self._edited and b'"signature"' in frame.raw:
            return True
        return any(isinstance(event, End) and event.choice in self._refused_calls for event in events)

    def note(self, frame: Frame, events: Iterable[ReleasedEvent]) -> None:
        self.begun.update(choice.get("index", 0) for choice in frame.choices)
        self.finished.update(event.choice for event in events if isinstance(event, End))

    def fragment(self, frame: Frame, events: Sequence[ReleasedEvent], key: str) -> dict[str, Any]:
        """The part of a frame that these events are."""
        for event in events:
            if isinstance(event, Redacted) and event.channel is Channel.TOOL_CALL:
                self._refused_calls.add(event.choice)
            elif isinstance(event, Redacted) and event.channel is Channel.REASONING:
                self._edited.add(event.choice)
        body = fragment(frame, events, key, begun=self.begun, edited=self._edited)
        for choice in body["choices"]:
            if choice.get("finish_reason") is not None and choice["index"] in self._refused_calls:
                choice["finish_reason"] = "stop"
        self.note(frame, events)
        return body


def _read_choices(
    frame: Frame, readers: dict[int, ChoiceReader], thinking: Thinking, key: str
) -> tuple[list[SourceEvent], list[Part]]:
    events: list[SourceEvent] = []
    parts: list[Part] = []
    if error := frame.error():
        events = [*(kept for reader in readers.values() for kept in reader.flush()), *error]
    if not frame.choices:
        return events or frame.passthrough(), []
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


def _turns(message: Any) -> list[Message]:
    """What was thought in a turn has a role of its own."""
    if not isinstance(message, dict):
        raise WireError(f"a message should be an object, not {type(message).__name__!r}")
    said = Message(str(message.get("role", "")), content_text(message.get("content")))
    thought = message.get("reasoning_content") or message.get("reasoning")
    return [Message("reasoning", thought), said] if isinstance(thought, str) else [said]


def _notice(aborted: Aborted, termination: Termination) -> dict[str, str]:
    if termination is Termination.REFUSAL:
        return {"refusal": aborted.notice, "content": aborted.notice}
    return {"content": aborted.notice}


def _error(aborted: Aborted) -> dict[str, str]:
    return {"message": aborted.notice, "type": "shieldguard", "code": aborted.cause.value}
