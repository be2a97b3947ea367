"""Ollama's own API: a chat and a text to go on from, streaming (one JSON object a line) and whole (JSON)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from shieldguard import (
    Aborted,
    Answer,
    Channel,
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
from shieldguard_adapters.wire.framing import LineFramer
from shieldguard_adapters.wire.jsons import objects_at, parse_json, text_at
from shieldguard_adapters.wire.openai_chat.delta import Part
from shieldguard_adapters.wire.openai_chat.frame import Frame, Piece, frame_of
from shieldguard_adapters.wire.openai_chat.reader import ChoiceReader
from shieldguard_adapters.wire.whole import WholeCodec

MAX_FRAME = 1 << 23  # the last line may hold all of the context, a number for each token

_HEAD = frozenset({"model", "created_at", "remote_model", "remote_host"})
# What an object may hold beside numbers and text of the model's.
_NOT_TEXT = _HEAD | {"done_reason", "context", "logprobs", "_debug_info"}
_NOT_MESSAGE_TEXT = frozenset({"role", "tool_name", "tool_call_id"})


@dataclass(frozen=True, slots=True)
class Shape:
    """Where an object has its texts: in its `holder` or, where that is empty, in itself."""

    holder: str
    answer: str

    def texts(self, body: dict[str, Any]) -> dict[str, Any]:
        texts = body.get(self.holder) or {} if self.holder else body
        if not isinstance(texts, dict):
            raise WireError(f"{self.holder!r} should be an object, not {texts!r:.80}")
        return texts

    def with_texts(self, body: dict[str, Any], texts: dict[str, Any]) -> dict[str, Any]:
        if self.holder:
            return {**body, self.holder: texts}
        return {**_without(body, "thinking", self.answer, "tool_calls"), **texts}

    def saying(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", self.answer: text}} if self.holder else {self.answer: text}


CHAT = Shape("message", "content")
GENERATE = Shape("", "response")


def read_chat_request(body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """What there is to know of a request to `/api/chat`, from its JSON body."""
    request = parse_json(body)
    messages = objects_at(request, "messages")
    turns = [_turn(str(one.get("role", "")), one, "content") for one in messages]
    return Request(query=query_from(turns), redactable=not request.get("format"))


def read_generate_request(body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """What there is to know of a request to `/api/generate`, from its JSON body."""
    request = parse_json(body)
    turns = [_turn("system", {"system": request["system"]}, "system")] if request.get("system") else []
    turns.append(_turn("user", request, "prompt", "suffix"))
    return Request(query=query_from(turns), redactable=not request.get("format"))


def _turn(role: str, holder: dict[str, Any], *keys: str) -> Message:
    texts = [text for key in keys if isinstance(text := holder.get(key), str) and text]
    images = holder.get("images")
    texts += ["[image]"] * (len(images) if isinstance(images, list) else 0)
    return Message(role, "\n".join(texts))


class OllamaStream:
    """The codec of a streamed response. Both `REFUSAL` and `CONTENT_FILTER` end it with the done reason
    "content_filter", as the API has nothing else for either."""

    def __init__(
        self,
        shape: Shape,
        *,
        thinking: Thinking | str = Thinking.AUTO,
        termination: Termination | str = Termination.REFUSAL,
    ) -> None:
        self._shape = shape
        self._termination = Termination(termination)
        self._framer = LineFramer(max_frame=MAX_FRAME)
        self._reader = _Reader(shape, Thinking(thinking))
        self._last: dict[str, Any] = {}
        self._done = self._withheld = self._in_line = False

    def decode(self, data: bytes) -> list[SourceEvent]:
        return [event for raw in self._framer.feed(data) for event in self._read(raw)]

    def flush(self) -> list[SourceEvent]:
        events = [event for raw in self._framer.flush() for event in self._read(raw)]
        return events + self._reader.flush()

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        out = b""
        for frame, group in groupby(events, frame_of):
            released = list(group)
            out += self._frame(frame, released) if frame else self._ending(released[-1])
        return out

    def close(self) -> bytes:
        return b""

    def aside(self, lines: Sequence[str]) -> bytes:
        return b""

    def keep_alive(self) -> bytes:
        if self._done:
            return b""
        head = {key: value for key, value in self._last.items() if key in _HEAD}
        return self._line({**head, **self._shape.saying(""), "done": False})

    def _read(self, raw: bytes) -> list[SourceEvent]:
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise WireError(f"a line is not in UTF-8 ({error}); its bytes were not passed on") from None
        if not text.strip():
            return Frame(raw, "{}").passthrough(choice=0)
        frame = Frame(raw, text)
        if _has_unsaid_logprobs(frame.body, self._shape):
            frame = Frame(json.dumps(_without(frame.body, "logprobs")).encode() + b"\n")
        self._last = frame.body
        return self._reader.read(frame)

    def _frame(self, frame: Frame, released: Sequence[ReleasedEvent]) -> bytes:
        self._done = self._done or any(isinstance(event, End) for event in released)
        self._withheld = self._withheld or any(isinstance(event, Redacted) for event in released)
        if frame.is_whole(released) and not (self._withheld and "context" in frame.body):
            frame.events.clear()  # the events know the frame: spare the garbage collector the circle
            self._in_line = not frame.raw.endswith((b"\n", b"\r"))
            return frame.raw
        return self._line(_fragment(frame, released, self._shape, withheld=self._withheld))

    def _ending(self, aborted: ReleasedEvent) -> bytes:
        assert isinstance(aborted, Aborted)
        if self._termination is Termination.ERROR:
            return self._line({"error": aborted.notice})
        if self._done:
            return b""
        self._done = True
        return self._line(_refusal(self._last, aborted, self._shape))

    def _line(self, body: dict[str, Any]) -> bytes:
        begin, self._in_line = b"\n" if self._in_line else b"", False
        return begin + json.dumps(body).encode() + b"\n"


class OllamaBody(WholeCodec):
    """The codec of a response in one piece."""

    def __init__(self, shape: Shape, *, thinking: Thinking | str = Thinking.AUTO, **options: Any) -> None:
        super().__init__(**options)
        self._shape = shape
        self._thinking = Thinking(thinking)
        self._frame: Frame | None = None

    def _read(self, data: bytes) -> list[SourceEvent]:
        frame = Frame(data, data)
        if _has_unsaid_logprobs(frame.body, self._shape):
            self._data = json.dumps(_without(frame.body, "logprobs")).encode()
            frame = Frame(self._data, self._data)
        reader = _Reader(self._shape, self._thinking)
        events = reader.read(frame)
        self._frame = frame
        return events + reader.flush()

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        assert self._frame is not None
        withheld = any(isinstance(event, Redacted) for event in released)
        return _fragment(self._frame, released, self._shape, withheld=withheld)

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        if self._termination is Termination.ERROR:
            # The client does not look for an error here. It raises where a text is none.
            error = {"error": aborted.notice}
            return {**error, self._shape.holder or self._shape.answer: error}
        return _refusal(self._frame.body if self._frame else {}, aborted, self._shape)


class _Reader:
    """Makes events of the objects of one response."""

    def __init__(self, shape: Shape, thinking: Thinking) -> None:
        self._shape = shape
        self._texts = ChoiceReader(0, thinking)
        self._calls = 0

    def read(self, frame: Frame) -> list[SourceEvent]:
        events: list[SourceEvent] = []
        parts = list(self._parts(frame.body))
        for part in parts:
            events += self._texts.take(part, part.text, Piece(frame, 0, part.paths))
        if frame.body.get("done") or frame.body.get("error"):
            end = End(str(frame.body.get("done_reason") or "stop"), origin=Piece(frame, 0, ()))
            return events + self.flush() + frame.made(end)
        return events if parts else frame.passthrough(choice=0)

    def flush(self) -> list[SourceEvent]:
        """What might have become a tag and will not."""
        return self._texts.flush()

    def _parts(self, body: dict[str, Any]) -> Iterator[Part]:
        shape, texts = self._shape, self._shape.texts(body)
        if texts is not body:
            _check(body, _NOT_TEXT | {shape.holder, "error"})
        if texts.get("images") or texts.get("image"):
            raise WireError("the response holds an image, which cannot be judged; ask for text alone")
        own = {"thinking", shape.answer, "tool_calls"}
        _check(texts, own | (_NOT_TEXT | {"error"} if texts is body else _NOT_MESSAGE_TEXT))
        if text := text_at(body, "error"):  # it may quote a call that could not be read
            yield Part(Answer, text, (("error",),))
        if text := text_at(texts, "thinking"):
            yield Part(Reasoning, text, (("thinking",),))
        if text := text_at(texts, shape.answer):
            yield Part(Answer, text, ((shape.answer,),), inline=True)
        calls = texts.get("tool_calls") or []
        if not isinstance(calls, list):
            raise WireError(f"'tool_calls' should be a list, not {type(calls).__name__!r}")
        for position, call in enumerate(calls):
            if not isinstance(call, dict):
                raise WireError(f"'tool_calls' should hold objects, not {call!r}")
            text = json.dumps(_without(call, "id"), ensure_ascii=False)
            yield Part(ToolCall, text, (("tool_calls", position),), block=self._calls)
            self._calls += 1


def _check(holder: dict[str, Any], known: frozenset[str] | set[str]) -> None:
    for key, value in holder.items():
        if key not in known and isinstance(value, str | list | dict) and value:
            raise WireError(f"a field {key!r} is not known; it may hold text, and was not passed on")


def _without(holder: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in holder.items() if key not in keys}


def _has_unsaid_logprobs(body: dict[str, Any], shape: Shape) -> bool:
    """Whether there are log-probabilities that spell out something else than the texts beside them: the
    server sends them at once, and holds back the texts of what may become a tool call."""
    logprobs = body.get("logprobs")
    if not logprobs:
        return False
    texts = shape.texts(body)
    said = text_at(texts, "thinking") + text_at(texts, shape.answer)
    try:
        return "".join(one["token"] for one in logprobs) != said
    except (KeyError, TypeError):
        raise WireError(f"'logprobs' should hold tokens, not {logprobs!r:.80}") from None


def _fragment(
    frame: Frame, events: Sequence[ReleasedEvent], shape: Shape, *, withheld: bool
) -> dict[str, Any]:
    """The object with the texts of these events alone. Log-probabilities spell out all of its texts, and
    the context all of the response: they do not go with a part."""
    source = frame.body
    ends = any(isinstance(event, End) for event in events)
    body = _without(source, "logprobs", "error", *(("context",) if withheld or not ends else ()))
    if not ends:
        body = {key: value for key, value in body.items() if key in _HEAD or key == shape.holder}
    own = shape.texts(source)
    said = {"thinking": "", shape.answer: "", "error": ""}
    calls = []
    for event in events:
        piece = getattr(event, "origin", None)
        if not isinstance(piece, Piece) or not piece.paths:
            continue
        (key, *position), *_ = piece.paths
        if isinstance(event, ToolCall):
            calls.append(own["tool_calls"][position[0]])
        elif isinstance(event, Redacted):
            said[shape.answer if event.channel is Channel.TOOL_CALL else str(key)] += event.notice
        else:
            said[str(key)] += getattr(event, "text", "")
    error = said.pop("error")
    if error or source.get("error"):
        return {"error": error or "an error of the server's, which was withheld"}
    texts = {key: value for key, value in own.items() if key in _NOT_MESSAGE_TEXT}
    texts |= {key: text for key, text in said.items() if text or key == shape.answer}
    if calls:
        texts["tool_calls"] = calls
    return {**shape.with_texts(body, texts), "done": ends}


def _refusal(last: dict[str, Any], aborted: Aborted, shape: Shape) -> dict[str, Any]:
    """The last object of an aborted response. What is known of its costs goes with it."""
    head = {key: value for key, value in last.items() if key in _HEAD or type(value) is int}
    return {**head, **shape.saying(aborted.notice), "done": True, "done_reason": "content_filter"}
