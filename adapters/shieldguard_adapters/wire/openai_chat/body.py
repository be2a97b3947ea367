"""The codecs of what comes in one piece: a chat completion, or an error in its place."""

import json
from collections.abc import Sequence
from typing import Any

from shieldguard import Aborted, Answer, End, Passthrough, ReleasedEvent, SourceEvent, Thinking, WireError
from shieldguard_adapters.wire.codec import Termination
from shieldguard_adapters.wire.errors import ErrorBody
from shieldguard_adapters.wire.jsons import parse_json
from shieldguard_adapters.wire.openai_chat.ending import error, finish_reason, notice
from shieldguard_adapters.wire.openai_chat.frame import QUOTED, Frame
from shieldguard_adapters.wire.openai_chat.reader import Readers
from shieldguard_adapters.wire.openai_chat.writer import Writer
from shieldguard_adapters.wire.whole import MAX_BODY, WholeCodec


class ChatBody(WholeCodec):
    """The codec of a response in one piece."""

    def __init__(self, *, thinking: Thinking | str = Thinking.AUTO, **options: Any) -> None:
        super().__init__(**options)
        self._readers = Readers(Thinking(thinking), "message")
        self._frame: Frame | None = None

    def _read(self, data: bytes) -> list[SourceEvent]:
        frame = Frame(data, data)
        if (body := frame.without_repeats("message")) is not None:
            self._data = json.dumps(body).encode()
            frame = Frame(self._data, self._data)
        events, _ = self._readers.read(frame)
        self._frame = frame
        return events + self._readers.flush()

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        assert self._frame is not None
        return Writer("message").fragment(self._frame, released)

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        if self._termination is Termination.ERROR:
            return error(aborted)
        frame, reason = self._frame, finish_reason(self._termination)
        body: dict[str, Any] = {"id": "", "object": "chat.completion", "created": 0, "model": ""}
        body["usage"] = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
        body |= {k: v for k, v in (frame.body if frame else {}).items() if k not in ("choices", "error")}
        indexes = [choice.get("index", 0) for choice in frame.choices] if frame and frame.choices else [0]
        message = {"role": "assistant", "refusal": None, **notice(aborted, self._termination)}
        choices = [{"index": i, "message": message, "finish_reason": reason} for i in indexes]
        return {**body, "choices": choices}


class ChatError(ErrorBody):
    """The codec of an error in the place of a response. Groq's quotes what the model wrote, where that could
    not be parsed; anything else passes."""

    def __init__(self, *, max_body: int = MAX_BODY, **options: Any) -> None:
        super().__init__(max_body=max_body, **options)
        self._error = {}

    def _read(self, data: bytes) -> list[SourceEvent]:
        try:
            sent = parse_json(data).get("error")
        except WireError:
            return [Passthrough()]
        self._error = sent if isinstance(sent, dict) else {}
        text = self._error.get(QUOTED)
        return [Answer(text), End("error")] if isinstance(text, str) and text else [Passthrough()]

    def _saying(self, text: str) -> dict[str, Any]:
        return {"error": {**self._error, QUOTED: text}}
