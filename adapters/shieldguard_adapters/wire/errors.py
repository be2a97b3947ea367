"""Errors that quote the model: servers that could not parse what it wrote say so with its text."""

from collections.abc import Sequence
from typing import Any

from shieldguard import Aborted, Answer, End, Passthrough, ReleasedEvent, SourceEvent, WireError
from shieldguard_adapters.wire.jsons import parse_json, texts_in
from shieldguard_adapters.wire.released import said_by
from shieldguard_adapters.wire.whole import WholeCodec


class ErrorBody(WholeCodec):
    """The codec of an error in the place of a response, as of Ollama and llama.cpp. All of it is judged."""

    def __init__(self, *, max_body: int = 1 << 20, **options: Any) -> None:
        super().__init__(max_body=max_body, **options)
        self._error: Any = None

    def _read(self, data: bytes) -> list[SourceEvent]:
        try:
            body = parse_json(data)
            self._error = body.get("error")
            text = "\n".join(texts_in(body))
        except WireError:
            text = data.decode(errors="replace")
        return [Answer(text), End("error")] if text else [Passthrough()]

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        return self._saying("".join(map(said_by, released)))

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        return self._saying(aborted.notice)

    def _saying(self, text: str) -> dict[str, Any]:
        return {"error": saying(self._error, text)}


def saying(error: Any, text: str) -> Any:
    """An error like this one, with another text."""
    return text if isinstance(error, str) else {"message": text, "type": "shieldguard"}
