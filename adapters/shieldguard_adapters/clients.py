"""Guard an SDK client that sits on httpx or httpx2, by hooks on the HTTP client it already has.

The hooks keep the client's proxies, mounts, timeouts and retries. Guarded so far, streaming and not: OpenAI
chat completions (`openai` 2 on httpx, 3 on httpx2) and Anthropic messages (`anthropic`). What such a client
would fetch unguarded (responses, legacy completions, batches) is refused before it is sent.
"""

import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from shieldguard import (
    Action,
    Channel,
    Guard,
    GuardedStream,
    Policy,
    QueryFrom,
    RiskLevel,
    ShieldguardError,
    StreamReport,
    SyncGuardedStream,
    Thinking,
    UnguardedClient,
    WireError,
    last_user_turn,
)
from shieldguard_adapters.wire import Codec, Request, Termination
from shieldguard_adapters.wire.apis import ANTHROPIC, OPENAI, Api, Options

C = TypeVar("C")

_MARK = "_shieldguard"
_EXTENSION = "shieldguard"


def guard_client(
    client: C,
    guard: Guard,
    *,
    query_from: QueryFrom = last_user_turn,
    thinking: Thinking | str = Thinking.AUTO,
    termination: Termination | str = Termination.REFUSAL,
) -> C:
    """Guard all chat completions of `client` (`openai.OpenAI`, `openai.AsyncOpenAI` and the Azure ones) or
    all its messages (`anthropic.Anthropic`, `anthropic.AsyncAnthropic`), and of what `copy()` or
    `with_options()` makes of it. Returns the same client.

    `query_from` makes the judge's query of the request's messages, `thinking` says how inline reasoning
    begins, `termination` how an aborted response ends. Raises `UnguardedClient` for a client that this
    cannot guard, or that another guard guards already.
    """
    http = _http_client(client)
    options = Options(
        thinking=Thinking(thinking), termination=Termination(termination), redacts=_redacts(guard.policy)
    )
    hooks = _Hooks(guard, _library(http), _api(client), query_from, options)
    before = getattr(http, _MARK, None)
    if before is not None:
        if before == hooks:
            return client
        raise UnguardedClient(f"{client!r} is guarded already, by {before.guard!r}; make a client of its own")
    asynchronous = isinstance(http, hooks.library.AsyncClient)
    # Run last on the way out and first on the way back, so that other hooks see guarded text alone.
    request, response = (
        (hooks.async_request, hooks.async_response) if asynchronous else (hooks.request, hooks.response)
    )
    events = http.event_hooks
    http.event_hooks = {
        "request": [*events["request"], request],
        "response": [response, *events["response"]],
    }
    setattr(http, _MARK, hooks)
    return client


def assert_guarded(client: object) -> None:
    """Raise `UnguardedClient` unless `guard_client` has guarded this client."""
    if not hasattr(_http_client(client), _MARK):
        raise UnguardedClient(f"{client!r} is not guarded; pass it through guard_client()")


def report_of(response: Any) -> StreamReport:
    """The report of a guarded response: an `openai.Stream`, a raw response or an httpx response."""
    response = getattr(response, "response", None) or getattr(response, "http_response", None) or response
    stream = getattr(response, "extensions", {}).get(_EXTENSION)
    if stream is None:
        raise UnguardedClient(f"{response!r} did not come through a guarded client")
    report: StreamReport = stream.report
    return report


def _http_client(client: object) -> Any:
    http = getattr(client, "_client", None)
    if http is None or not hasattr(http, "event_hooks"):
        raise UnguardedClient(
            f"{client!r} has no httpx or httpx2 client underneath; guard_client() takes openai.OpenAI, "
            "openai.AsyncOpenAI and their Azure forms, anthropic.Anthropic and anthropic.AsyncAnthropic"
        )
    return http


def _library(http: object) -> ModuleType:
    """httpx or httpx2: whichever the object at hand is made of."""
    for base in type(http).__mro__:
        if base.__module__.partition(".")[0] in ("httpx", "httpx2"):
            return import_module(base.__module__.partition(".")[0])
    raise UnguardedClient(f"{http!r} is neither an httpx nor an httpx2 client")


def _api(client: object) -> Api:
    packages = {base.__module__.partition(".")[0] for base in type(client).__mro__}
    return ANTHROPIC if ANTHROPIC.sdk in packages else OPENAI


def _redacts(policy: Policy) -> bool:
    rules = [rule for channel in Channel if (rule := policy.rule(channel)) is not None]
    return any(rule.action(level) is Action.REDACT for rule in rules for level in RiskLevel)


@contextmanager
def _final(api: Api) -> Iterator[None]:
    """Raise our errors as the SDK's own, too: openai 2 takes all others for connections that broke, and
    sends the request again."""
    try:
        yield
    except ShieldguardError as error:
        if (sdk := sys.modules.get(api.sdk)) is None:
            raise
        kind: type[Exception] = type(error)
        both = (kind, getattr(sdk, api.sdk_error))
        final = type(kind.__name__, both, {"__module__": kind.__module__})
        raise final(*error.args) from None


class _Hooks:
    """The event hooks of one HTTP client."""

    def __init__(
        self,
        guard: Guard,
        library: ModuleType,
        api: Api,
        query_from: QueryFrom,
        options: Options,
    ) -> None:
        self.guard = guard
        self.library = library
        self._api = api
        self._settings = (api, query_from, options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hooks) and self.guard is other.guard and self._settings == other._settings

    __hash__ = None  # type: ignore[assignment]

    def request(self, request: Any) -> None:
        path = request.url.path.rstrip("/")
        if self._api.is_guarded(request.method, path):
            # So that the frames come as text and not compressed.
            request.headers["accept-encoding"] = "identity"
        elif not self._api.is_harmless(path):
            with _final(self._api):
                raise UnguardedClient(
                    f"{request.method} {path!r} is not guarded by shieldguard yet and was not sent; "
                    f"use {self._api.guarded[0]!r}, or a client without a guard"
                )

    def response(self, response: Any) -> None:
        with _final(self._api):
            if (made := self._codec(response)) is not None:
                codec, request = made
                stream = self.guard.stream_sync(
                    _Decoded(response, codec), query=request.query, redactable=request.redactable
                )
                self._replace(response, _byte_streams(self.library)[0](stream, codec), stream)

    async def async_request(self, request: Any) -> None:
        self.request(request)

    async def async_response(self, response: Any) -> None:
        with _final(self._api):
            if (made := self._codec(response)) is not None:
                codec, request = made
                stream = self.guard.stream(
                    _AsyncDecoded(response, codec), query=request.query, redactable=request.redactable
                )
                self._replace(response, _byte_streams(self.library)[1](stream, codec), stream)

    def _codec(self, response: Any) -> tuple[Codec, Request] | None:
        sent = response.request
        if not self._api.is_guarded(sent.method, sent.url.path) or not response.is_success:
            return None
        _, query_from, options = self._settings
        request = self._api.read_request(sent.content, query_from)
        return self._api.codec(response.headers.get("content-type", ""), request, options), request

    def _replace(self, response: Any, data: object, stream: GuardedStream | SyncGuardedStream) -> None:
        response.stream = data
        response.extensions[_EXTENSION] = stream
        for name in ("content-encoding", "content-length"):
            response.headers.pop(name, None)


def _inflater(response: Any) -> Callable[[bytes], bytes]:
    """What undoes the content encoding, for servers that compress though asked not to."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return bytes
    if encoding in ("gzip", "deflate"):
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress

        def inflated(data: bytes) -> bytes:
            try:
                return inflate(data)
            except zlib.error as error:
                raise WireError(f"the response is not {encoding!r} as it says: {error}") from None

        return inflated
    raise WireError(f"content encoding {encoding!r} cannot be read, so the response cannot be guarded")


class _Decoded:
    """The events of a response's body."""

    def __init__(self, response: Any, codec: Codec) -> None:
        self._inner = response.stream
        self._inflate = _inflater(response)
        self._codec = codec
        self._data: Iterator[bytes] = iter(self._inner)
        self._ended = False

    def __iter__(self) -> Iterator[list[Any]]:
        return self

    def __next__(self) -> list[Any]:
        if self._ended:
            raise StopIteration
        try:
            return self._codec.decode(self._inflate(next(self._data)))
        except StopIteration:
            self._ended = True
            return self._codec.flush()

    def close(self) -> None:
        self._inner.close()


class _AsyncDecoded:
    def __init__(self, response: Any, codec: Codec) -> None:
        self._inner = response.stream
        self._inflate = _inflater(response)
        self._codec = codec
        self._data: AsyncIterator[bytes] = aiter(self._inner)
        self._ended = False

    def __aiter__(self) -> AsyncIterator[list[Any]]:
        return self

    async def __anext__(self) -> list[Any]:
        if self._ended:
            raise StopAsyncIteration
        try:
            return self._codec.decode(self._inflate(await anext(self._data)))
        except StopAsyncIteration:
            self._ended = True
            return self._codec.flush()

    async def aclose(self) -> None:
        await self._inner.aclose()


@cache
def _byte_streams(library: ModuleType) -> tuple[type[Any], type[Any]]:
    """The byte streams of guarded responses, sync and async, for one of the two libraries: the base
    classes of one are nothing to the other."""

    class GuardedBytes(library.SyncByteStream):  # type: ignore[name-defined,misc]
        def __init__(self, stream: SyncGuardedStream, codec: Codec) -> None:
            self._stream = stream
            self._codec = codec
            self._closed = False

        def __iter__(self) -> Iterator[bytes]:
            # openai 3 iterates a second time, to drain the connection: it must not start anew.
            return self

        def __next__(self) -> bytes:
            while not self._closed:
                if batch := self._stream.next_batch():
                    data = self._codec.encode(batch)
                else:
                    self._closed = True
                    data = self._codec.close()
                if data:
                    return data
            raise StopIteration

        def close(self) -> None:
            self._stream.close()

    class AsyncGuardedBytes(library.AsyncByteStream):  # type: ignore[name-defined,misc]
        def __init__(self, stream: GuardedStream, codec: Codec) -> None:
            self._stream = stream
            self._codec = codec
            self._closed = False

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            while not self._closed:
                if batch := await self._stream.next_batch():
                    data = self._codec.encode(batch)
                else:
                    self._closed = True
                    data = self._codec.close()
                if data:
                    return data
            raise StopAsyncIteration

        async def aclose(self) -> None:
            await self._stream.aclose()

    return GuardedBytes, AsyncGuardedBytes
