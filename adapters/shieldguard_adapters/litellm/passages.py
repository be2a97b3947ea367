"""LiteLLM's objects, through the codecs of the wire formats and back."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from litellm.exceptions import GuardrailRaisedException
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.llms.base import BaseLiteLLMOpenAIResponseObject
from litellm.types.llms.openai import GenericEvent, ResponsesAPIResponse
from litellm.types.utils import ModelResponse, ModelResponseStream

from shieldguard import Received, ReleasedEvent, SourceEvent, UnguardedClient
from shieldguard_adapters.sources import raise_if_told, tells
from shieldguard_adapters.wire import Codec
from shieldguard_adapters.wire.apis import FORMATS
from shieldguard_adapters.wire.codec import Request
from shieldguard_adapters.wire.endpoints import Endpoint
from shieldguard_adapters.wire.framing import parse_sse
from shieldguard_adapters.wire.jsons import parse_json, sse

# Responses that hold no text of a model's.
_HARMLESS = frozenset({"EmbeddingResponse", "RerankResponse", "OpenAIModerationResponse"})


@dataclass(frozen=True, slots=True)
class Format:
    """How LiteLLM gives a response of one of the wire formats: what comes as bytes, and comes back."""

    endpoint: Endpoint
    dump: Callable[[Any], bytes]
    load: Callable[[bytes], Any]


def _dumped(item: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = item.model_dump(mode="json", exclude_none=True)
    return dumped


def _event(event: Any) -> bytes:
    body = _dumped(event)
    return sse(body, str(body["type"]))


def _loaded(data: bytes) -> dict[str, Any]:
    body = parse_json(data)
    if error := body.get("error"):
        raise GuardrailRaisedException(None, str(error.get("message")), False, blocked_content=True)
    return body


def _of_frame(frame: bytes) -> dict[str, Any]:
    return _loaded((parse_sse(frame).data or "").encode())


def _new_event(frame: bytes) -> Any:
    body = _of_frame(frame)
    # Others look for the response in the classes of LiteLLM's own; the rest of those do not fit all events.
    if "response" in body:
        return OpenAIResponsesAPIConfig.get_event_model_class(body["type"])(**body)
    return GenericEvent(**body)


CHUNKS = Format(
    FORMATS["openai_chat"],
    lambda chunk: sse(_dumped(chunk)),
    lambda frame: ModelResponseStream(**_of_frame(frame)),
)
_EVENTS = Format(FORMATS["openai_responses"], _event, _new_event)
_BYTES = Format(FORMATS["anthropic_messages"], bytes, bytes)
COMPLETION = Format(
    FORMATS["openai_chat"],
    lambda response: json.dumps(_dumped(response)).encode(),
    lambda body: ModelResponse(**_loaded(body)),
)
_RESPONSE = Format(
    FORMATS["openai_responses"],
    lambda response: json.dumps(_dumped(response)).encode(),
    lambda body: ResponsesAPIResponse(**_loaded(body)),
)
_MESSAGE = Format(
    FORMATS["anthropic_messages"],
    # `_hidden_params` are LiteLLM's own, and go to its headers and logs.
    lambda response: json.dumps({key: one for key, one in response.items() if key[0] != "_"}).encode(),
    _loaded,
)


def format_in_stream(item: Any) -> Format:
    if isinstance(item, ModelResponseStream):
        return CHUNKS
    if isinstance(item, bytes):
        return _BYTES
    if isinstance(item, BaseLiteLLMOpenAIResponseObject):
        return _EVENTS
    raise _unguarded(f"a stream of {type(item).__name__!r}")


def format_of(response: Any) -> Format | None:
    """None for a response without a model's text."""
    if isinstance(response, ModelResponse):
        return COMPLETION
    if isinstance(response, ResponsesAPIResponse):
        return _RESPONSE
    if isinstance(response, dict) and response.get("type") == "message":
        return _MESSAGE
    if type(response).__name__ in _HARMLESS:
        return None
    raise _unguarded(f"a {type(response).__name__!r}")


def _unguarded(what: str) -> UnguardedClient:
    return UnguardedClient(
        f"{what} cannot be guarded and was not passed on; ask for a chat completion, a message or a response"
    )


class Passage:
    """One response, through the codec of its wire format and back. `options` are for the guard's stream."""

    def __init__(self, format_: Format, request: Request, codec: Codec) -> None:
        self.codec = codec
        self.options: dict[str, Any] = {"query": request.query, "redactable": request.redactable}
        self._format = format_
        self._came: dict[bytes, Any] = {}  # by its bytes

    def events(self, item: Any) -> list[SourceEvent]:
        data = self._format.dump(item)
        if self._format is not _BYTES:
            self._came[data] = item
        return Received(self.codec.decode(data), len(data))

    def given(self, batch: Sequence[ReleasedEvent]) -> Iterator[Any]:
        """The items that these events make. Raises the error of a model that failed, after those."""
        yield from self._items(self.codec.encode([event for event in batch if not tells(event)]))
        for event in batch:
            raise_if_told(event)

    def last(self) -> list[Any]:
        return self._items(self.codec.close())

    def whole(self, response: Any) -> Any:
        data = self.codec.close()
        if data in self._came:
            return response
        changed = self._format.load(data)
        if isinstance(response, dict):
            return {**changed, **{key: one for key, one in response.items() if key[0] == "_"}}
        if hidden := getattr(response, "_hidden_params", None):
            changed._hidden_params = hidden
        return changed

    def _items(self, data: bytes) -> list[Any]:
        """The items of these bytes: the very ones that came, where nothing changed them."""
        if self._format is _BYTES:
            return [data] if data else []
        frames = [frame + b"\n\n" for frame in data.split(b"\n\n") if frame and not frame.endswith(b"[DONE]")]
        return [self._came.pop(frame, None) or self._format.load(frame) for frame in frames]
