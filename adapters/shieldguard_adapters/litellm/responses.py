"""LiteLLM's responses, streamed and whole, guarded."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import Any, NoReturn

from litellm.exceptions import GuardrailRaisedException, MidStreamFallbackError

from shieldguard import AbortCause, Aborted, Guard, QueryFrom, ReleasedEvent
from shieldguard_adapters.litellm.passages import (
    CHUNKS,
    COMPLETION,
    Format,
    Passage,
    format_in_stream,
    format_of,
)
from shieldguard_adapters.sources import Reading, raise_if_told, read, telling
from shieldguard_adapters.wire import Termination
from shieldguard_adapters.wire.endpoints import JSON, SSE, Options

# Of a request, what its response is judged by.
_ASKED = (
    *("messages", "response_format", "system", "output_config", "output_format"),
    *("input", "instructions", "text", "previous_response_id", "conversation"),
)
# What LiteLLM's streams call the stream below.
_LAYERS = (
    *("_source", "_source_iterator", "_async_generator", "litellm_custom_stream_wrapper"),
    *("completion_stream", "streaming_response", "response"),
)


def forget(details: dict[str, Any]) -> None:
    """Takes the response out of what callbacks are told, where LiteLLM's own switch leaves it."""
    details["original_response"] = ""


# What of a request keeps LiteLLM's callbacks from its texts.
UNTOLD: dict[str, Any] = {"turn_off_message_logging": True, "logger_fn": forget}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and how to guard the response to it."""

    guard: Guard
    data: Mapping[str, Any]
    query_from: QueryFrom
    termination: Termination

    def passage(self, format_: Format, kind: str) -> Passage:
        asked = {name: self.data[name] for name in _ASKED if self.data.get(name) is not None}
        if not isinstance(asked.get("response_format", {}), dict):  # a class, of which a schema is made
            asked["response_format"] = {"type": "json_schema"}
        request = format_.endpoint.read_request(json.dumps(asked, default=_plain).encode(), self.query_from)
        options = Options(termination=self.termination, redacts=self.guard.policy.redacts)
        return Passage(format_, request, format_.endpoint.codec(kind, request, options))

    def alone(self) -> dict[str, Any]:
        """Options for the guard's stream of an error, which is left out whole or not at all."""
        return {**self.passage(CHUNKS, SSE).options, "redactable": False}


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


async def judged(asked: Asked, answer: Awaitable[Any]) -> Any:
    """What is awaited. An error that came instead is judged."""
    try:
        with _errors_without_text():
            return await answer
    except Exception as error:
        failed = error
    return await raise_judged(asked, failed)


async def raise_judged(asked: Asked, error: Exception) -> NoReturn:
    """Raises the error as it is, or where it quotes harm, LiteLLM's own for what a guardrail blocks."""

    async def told() -> AsyncGenerator[Any]:
        yield telling(error)

    async with asked.guard.stream(told(), **asked.alone()) as stream:
        async for event in stream:
            _raise(event)
    raise AssertionError("the error's end was not let out")


def judged_sync(asked: Asked, answer: Callable[[], Any]) -> Any:
    """The same of what a call gives."""
    try:
        return answer()
    except Exception as error:
        failed = error
    with asked.guard.stream_sync(iter([telling(failed)]), **asked.alone()) as stream:
        for event in stream:
            _raise(event)
    raise AssertionError("the error's end was not let out")


def _raise(event: ReleasedEvent) -> None:
    if isinstance(event, Aborted):
        by_verdict = event.cause is AbortCause.RISK
        raise GuardrailRaisedException(None, event.notice, False, blocked_content=by_verdict)
    raise_if_told(event)


async def chunks_of(asked: Asked, response: Any) -> AsyncGenerator[Any]:
    """The chunks of a streamed response, which is closed behind them."""
    try:
        items = aiter(response)
        if (first := await judged(asked, anext(items, None))) is None:
            return
        passage = asked.passage(format_in_stream(first), SSE)
        source = Reading(
            items,
            passage.events,
            passage.codec.flush,
            within=_errors_without_text,
            first=[first],
            close=partial(_close, response),
        )
        stream = asked.guard.stream(source, **passage.options)
        try:
            while batch := await stream.next_batch():
                for item in passage.given(batch):
                    yield item
            for item in passage.last():
                yield item
        finally:
            await stream.aclose()
    finally:
        await _close(response)


def chunks_of_sync(asked: Asked, response: Any) -> Generator[Any]:
    """The same of a chat completion that is streamed to a plain `for`."""
    passage = asked.passage(CHUNKS, SSE)
    source = read(
        response,
        passage.events,
        passage.codec.flush,
        within=_errors_without_text,
        close=partial(_close_sync, response),
    )
    with asked.guard.stream_sync(source, **passage.options) as stream:
        while batch := stream.next_batch():
            yield from passage.given(batch)
        yield from passage.last()


async def whole(asked: Asked, response: Any) -> Any:
    """A response as far as it may leave."""
    if (format_ := format_of(response)) is None:
        return response
    passage = asked.passage(format_, JSON)

    async def answer() -> AsyncGenerator[Any]:
        yield response

    source = Reading(answer(), passage.events, passage.codec.flush)
    async with asked.guard.stream(source, **passage.options) as stream:
        while batch := await stream.next_batch():
            list(passage.given(batch))
    return passage.whole(response)


def whole_sync(asked: Asked, response: Any) -> Any:
    """The same of a chat completion."""
    passage = asked.passage(COMPLETION, JSON)
    source = read([response], passage.events, passage.codec.flush)
    with asked.guard.stream_sync(source, **passage.options) as stream:
        while batch := stream.next_batch():
            list(passage.given(batch))
    return passage.whole(response)


@contextmanager
def _errors_without_text() -> Iterator[None]:
    """LiteLLM's error for a stream that broke holds what had come, for another model to go on from."""
    try:
        yield
    except MidStreamFallbackError as error:
        error.generated_content = ""
        raise


async def _close(response: Any) -> None:
    for one in (*_http_responses(response, set()), response):
        if hasattr(one, "aclose"):
            await one.aclose()


def _close_sync(response: Any) -> None:
    for one in _http_responses(response, set()):
        one.close()


def _http_responses(stream: Any, seen: set[int]) -> Iterator[Any]:
    """The HTTP responses that a stream of LiteLLM's reads, through all of its layers: not all of these close
    what is below them."""
    if stream is None or id(stream) in seen:
        return
    seen.add(id(stream))
    if type(stream).__module__.partition(".")[0] in ("httpx", "httpx2"):
        if type(stream).__name__ == "Response":
            yield stream
    elif isinstance(stream, AsyncGeneratorType | GeneratorType):
        frame = stream.ag_frame if isinstance(stream, AsyncGeneratorType) else stream.gi_frame
        for value in frame.f_locals.values() if frame else ():
            yield from _http_responses(value, seen)
    else:
        for name in _LAYERS:
            yield from _http_responses(getattr(stream, name, None), seen)
