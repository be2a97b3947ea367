"""A guard in an HTTP client of httpx or httpx2: between the client and its user, or between it and its
transport. The two libraries are alike, and the classes of one are nothing to the other; which of them is
told by the object at hand."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import anyio

from shieldguard import (
    Guard,
    GuardedStream,
    QueryFrom,
    ShieldguardError,
    SyncGuardedStream,
    UnguardedClient,
    WireError,
)
from shieldguard_adapters.bodies import AsyncDecoded, Decoded
from shieldguard_adapters.wire import Codec, Request, Termination
from shieldguard_adapters.wire.endpoints import Api, Endpoint, Options
from shieldguard_adapters.wire.whole import WholeCodec

MARK = "_shieldguard"  # of what is guarded: its hooks
EXTENSION = "shieldguard"  # of a guarded response: its stream
HEADER = "x-shieldguard-id"  # and the stream's name


def library_of(http: object) -> ModuleType:
    """httpx or httpx2. Raises `UnguardedClient` for what is of neither."""
    for base in type(http).__mro__:
        if base.__module__.partition(".")[0] in ("httpx", "httpx2"):
            return import_module(base.__module__.partition(".")[0])
    # openai 3 calls a class of httpx2 its own.
    for name in {"httpx", "httpx2"} & sys.modules.keys():
        if isinstance(http, (sys.modules[name].BaseTransport, sys.modules[name].AsyncBaseTransport)):
            return sys.modules[name]
    raise UnguardedClient(f"{http!r} is neither an httpx nor an httpx2 client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What is done to each request and response of one HTTP client. `sdk_errors` is what the SDKs that may
    use it call the roots of their errors, as "package.Name"."""

    guard: Guard
    library: ModuleType
    api: Api
    query_from: QueryFrom
    options: Options
    sdk_errors: tuple[str, ...] = ()

    def on_request(self, request: Any) -> None:
        path = request.url.path.rstrip("/")
        if (endpoint := self.api.endpoint(request.method, path)) is not None:
            # So that the frames come as text and not compressed.
            request.headers["accept-encoding"] = "identity"
            with self._final():
                self._content(request)
                for name in set(endpoint.without).intersection(request.url.params):
                    raise UnguardedClient(
                        f"{endpoint.noun} with {name!r} was not sent: the judge would not see what came "
                        "before; ask for all of it"
                    )
        elif not self.api.is_harmless(request.method, path):
            with self._final():
                guarded = ", ".join(endpoint.noun for endpoint in self.api.endpoints)
                raise UnguardedClient(
                    f"{request.method} {path!r} is not guarded by shieldguard and was not sent; what is "
                    f"guarded here: {guarded}. Use one of these, or a client without a guard"
                )

    def on_response(self, request: Any, response: Any) -> None:
        with self._final():
            if (made := self._codec(request, response)) is not None:
                codec, asked = made
                stream = self.guard.stream_sync(
                    Decoded(response.stream, codec, _encoding(response)),
                    query=asked.query,
                    redactable=asked.redactable,
                )
                self._replace(response, _byte_streams(self.library)[0](stream, codec), stream)

    def on_async_response(self, request: Any, response: Any) -> None:
        with self._final():
            if (made := self._codec(request, response)) is not None:
                codec, asked = made
                stream = self.guard.stream(
                    AsyncDecoded(response.stream, codec, _encoding(response)),
                    query=asked.query,
                    redactable=asked.redactable,
                )
                self._replace(response, _byte_streams(self.library)[1](stream, codec), stream)

    def raise_later(self, response: Any, error: Exception) -> None:
        """Leave nothing of a response but an error, raised where an SDK looks at the status: behind the part
        that it tries again."""

        def raise_for_status() -> None:
            raise error

        response.raise_for_status = raise_for_status
        response.stream = self.library.ByteStream(b"")
        _unread(response)
        _forget_encoding(response)

    def read_whole(self, response: Any) -> None:
        """Read a body in one piece that may end as an error: an SDK looks at the status before it reads."""
        if self._may_be_error(response):
            response.read()
            self._set_status(response)

    async def aread_whole(self, response: Any) -> None:
        if self._may_be_error(response):
            await response.aread()
            self._set_status(response)

    def _may_be_error(self, response: Any) -> bool:
        is_whole = isinstance(getattr(response.stream, "codec", None), WholeCodec)
        return is_whole and self.options.termination is Termination.ERROR

    def _set_status(self, response: Any) -> None:
        if response.extensions[EXTENSION].report.aborted is not None:
            response.status_code = 400  # which no SDK tries again
            response.headers["x-should-retry"] = "false"

    def _content(self, request: Any) -> bytes:
        if isinstance(request.stream, self.library.ByteStream):
            request.read()  # of a redirect, which httpx leaves unread
        try:
            content: bytes = request.content
        except self.library.RequestNotRead:
            raise UnguardedClient(
                "the request's body is a stream, so the judge would not know what was asked; give it whole"
            ) from None
        return content

    def _codec(self, request: Any, response: Any) -> tuple[Codec, Request] | None:
        endpoint = self.api.endpoint(request.method, request.url.path)
        if endpoint is None:
            return None
        content_type = response.headers.get("content-type", "")
        if response.has_redirect_location:
            self._check_redirect(request, response, endpoint)
        if not response.is_success:
            codec = endpoint.error_codec(response.status_code, content_type, self.options)
            return None if codec is None else (codec, Request())
        asked = endpoint.read_request(self._content(request), self.query_from)
        return endpoint.codec(content_type, asked, self.options), asked

    def _check_redirect(self, request: Any, response: Any, endpoint: Endpoint) -> None:
        """Raise where it leads away from what is guarded, as to a path that is harmless with another body."""
        url = request.url.join(response.headers["location"])
        if self.api.endpoint(request.method, url.path) is not endpoint:
            raise WireError(
                f"{endpoint.noun} was redirected to {url.path!r}, where it is not guarded; not followed"
            )

    def _replace(self, response: Any, data: object, stream: GuardedStream | SyncGuardedStream) -> None:
        response.stream = data
        _unread(response)
        response.extensions[EXTENSION] = stream
        # For SDKs that keep nothing else of a response: the `stream` of the report that observers get.
        response.headers[HEADER] = stream.report.stream
        _forget_encoding(response)

    @contextmanager
    def _final(self) -> Iterator[None]:
        """Raise our errors as the SDK's own, too: openai 2 takes all others for connections that broke, and
        sends the request again."""
        try:
            yield
        except ShieldguardError as error:
            names = [name.rpartition(".") for name in self.sdk_errors]
            roots = [getattr(sys.modules[module], name) for module, _, name in names if module in sys.modules]
            if not roots:
                raise
            kind: type[Exception] = type(error)
            plain = {"__module__": kind.__module__, "__init__": kind.__init__, "__str__": kind.__str__}
            raise type(kind.__name__, (kind, *roots), plain)(*error.args) from None


def _unread(response: Any) -> None:
    """Forget the content of a response that was made with it (by a cache, or a double), which would be given
    instead of the stream."""
    if vars(response).pop("_content", None) is not None:
        for name in ("_decoder", "_text"):
            vars(response).pop(name, None)
        response.is_closed = response.is_stream_consumed = False


def _forget_encoding(response: Any) -> None:
    for name in ("content-encoding", "content-length"):
        response.headers.pop(name, None)


def _encoding(response: Any) -> str:
    encoding: str = response.headers.get("content-encoding", "identity")
    return encoding


@cache
def _byte_streams(library: ModuleType) -> tuple[type[Any], type[Any]]:
    """The byte streams of guarded responses, sync and async, for one of the two libraries: the base
    classes of one are nothing to the other."""

    class GuardedBytes(library.SyncByteStream):  # type: ignore[name-defined,misc]
        def __init__(self, stream: SyncGuardedStream, codec: Codec) -> None:
            self._stream = stream
            self.codec = codec
            self._closed = False

        def __iter__(self) -> Iterator[bytes]:
            # openai 3 iterates a second time, to drain the connection: it must not start anew.
            return self

        def __next__(self) -> bytes:
            while not self._closed:
                if batch := self._stream.next_batch():
                    data = self.codec.encode(batch)
                else:
                    self._closed = True
                    data = self.codec.close()
                if data:
                    return data
            raise StopIteration

        def close(self) -> None:
            self._stream.close()

    class AsyncGuardedBytes(library.AsyncByteStream):  # type: ignore[name-defined,misc]
        def __init__(self, stream: GuardedStream, codec: Codec) -> None:
            self._stream = stream
            self.codec = codec
            self._closed = False

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            while not self._closed:
                if batch := await self._stream.next_batch():
                    data = self.codec.encode(batch)
                else:
                    self._closed = True
                    data = self.codec.close()
                if data:
                    return data
            raise StopAsyncIteration

        async def aclose(self) -> None:
            await self._stream.aclose()

    return GuardedBytes, AsyncGuardedBytes


@cache
def guarded_transports(library: ModuleType) -> tuple[type[Any], type[Any]]:
    """The guarded transports of one of the two libraries, sync and async."""

    class GuardTransport(library.BaseTransport):  # type: ignore[name-defined,misc]
        def __init__(self, inner: Any, hooks: Hooks) -> None:
            self._inner = inner
            self._hooks = hooks
            setattr(self, MARK, hooks)

        def handle_request(self, request: Any) -> Any:
            self._hooks.on_request(request)
            response = self._inner.handle_request(request)
            try:
                self._hooks.on_response(request, response)
                self._hooks.read_whole(response)
            except BaseException:
                response.close()
                raise
            return response

        def close(self) -> None:
            self._inner.close()

    class AsyncGuardTransport(library.AsyncBaseTransport):  # type: ignore[name-defined,misc]
        def __init__(self, inner: Any, hooks: Hooks) -> None:
            self._inner = inner
            self._hooks = hooks
            setattr(self, MARK, hooks)

        async def handle_async_request(self, request: Any) -> Any:
            self._hooks.on_request(request)
            response = await self._inner.handle_async_request(request)
            try:
                self._hooks.on_async_response(request, response)
                await self._hooks.aread_whole(response)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
                raise
            return response

        async def aclose(self) -> None:
            await self._inner.aclose()

    return GuardTransport, AsyncGuardTransport
