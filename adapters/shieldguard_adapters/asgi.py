"""A guard in front of a chat back end's own responses, as ASGI middleware."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from shieldguard import ConfigError, Guard, QueryFrom, Thinking, WireError, last_user_turn
from shieldguard_adapters.bodies import AsyncDecoded
from shieldguard_adapters.responding import GuardedResponse, Message, Paced, Receive, Send, unless_left
from shieldguard_adapters.wire import Request, Termination
from shieldguard_adapters.wire.apis import FORMATS
from shieldguard_adapters.wire.endpoints import Endpoint, Options

App: TypeAlias = Callable[[Any, Receive, Send], Awaitable[None]]


class GuardMiddleware:
    """Guards what the application answers on some paths.

    `paths` says in which format each is answered: one of `FORMATS`, such as "openai_chat", or "text" for
    plain text with think tags. "/chat" is guarded whatever the method, "POST /chat" for one alone; in an
    application that is mounted somewhere, paths may begin there. `query`, of a request's body, gives what
    the model was asked, where the request does not have its format's own shape. The other options are those
    of `guard_client` and of the proxy. What comes on these paths in another content type is not let through,
    and neither is a WebSocket.

    Put it inside whatever compresses responses: `app.add_middleware(GuardMiddleware, guard=Guard(),
    paths={"/chat": "text"})` before the compressing one is added.
    """

    def __init__(
        self,
        app: App,
        guard: Guard,
        *,
        paths: Mapping[str, str],
        query: Callable[[bytes], str] | None = None,
        query_from: QueryFrom = last_user_turn,
        thinking: Thinking | str = Thinking.AUTO,
        termination: Termination | str = Termination.REFUSAL,
        keep_alive: float | None = 15,
        outcome_at_end: bool = True,
        max_body: int = 1 << 24,
    ) -> None:
        if unknown := set(paths.values()) - set(FORMATS):
            raise ConfigError(f"paths has the formats {sorted(unknown)!r}; there are {sorted(FORMATS)!r}")
        self._app = app
        self._guard = guard
        self._endpoints = {_named(path): FORMATS[name] for path, name in paths.items()}
        self._query = query
        self._query_from = query_from
        self._options = Options(
            thinking=Thinking(thinking), termination=Termination(termination), redacts=guard.policy.redacts
        )
        self._keep_alive = keep_alive
        self._outcome_at_end = outcome_at_end
        self._max_body = max_body

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        endpoint = self._endpoint(scope)
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        body = await self._body(receive)
        if body is None:
            return
        if len(body) > self._max_body:
            await _refuse(send, 413, f"the request is over {self._max_body} bytes")
            return
        try:
            request = self._request(endpoint, scope["method"], body)
        except (WireError, ValueError, LookupError, TypeError) as error:
            await _refuse(send, 400, f"the request cannot be read: {error!r}")
            return

        async def respond() -> None:
            await self._guarded(endpoint, request, scope, body, send)

        await unless_left(receive, respond)

    async def _body(self, receive: Receive) -> bytes | None:
        """The body, a little more than the limit of it at most; None where the client went away."""
        body = b""
        while len(body) <= self._max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        return body

    def _endpoint(self, scope: Any) -> Endpoint | None:
        if scope["type"] not in ("http", "websocket"):
            return None
        path, method = scope["path"], scope.get("method", "")
        if method in ("HEAD", "OPTIONS"):
            return None  # which have no text of a model's in their answers
        root = scope.get("root_path", "").rstrip("/")
        at = {path.rstrip("/"), path.removeprefix(root).rstrip("/")}
        for (only, named), endpoint in self._endpoints.items():
            if named in at and (only in ("", method) or scope["type"] == "websocket"):
                return endpoint
        return None

    def _request(self, endpoint: Endpoint, method: str, body: bytes) -> Request:
        if self._query is not None:
            return Request(query=self._query(body))
        if method == "GET" and not body:
            return Request()
        return endpoint.read_request(body, self._query_from)

    async def _guarded(
        self, endpoint: Endpoint, request: Request, scope: Any, body: bytes, send: Send
    ) -> None:
        """The application runs beside us, so that it can be stopped in the middle."""
        outgoing, incoming = anyio.create_memory_object_stream[Message](0)
        failed: list[Exception] = []
        running = anyio.CancelScope()

        async def run() -> None:
            with outgoing, running:
                try:
                    await self._app(scope, _given(body), outgoing.send)
                except anyio.BrokenResourceError:
                    pass  # nobody reads any more
                except Exception as error:
                    failed.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            answer = _Answer(incoming, running, failed)
            try:
                with incoming:
                    if (start := await answer.start()) is not None:
                        await self._pass(endpoint, request, start, answer, send)
            except Exception as error:
                failed.append(error)
                tasks.cancel_scope.cancel()
        if failed:
            raise failed[0]

    async def _pass(
        self, endpoint: Endpoint, request: Request, start: Message, answer: "_Answer", send: Send
    ) -> None:
        headers = {name.lower(): value for name, value in start.get("headers", [])}
        if not 200 <= start["status"] < 300:
            await send(start)
            async for data in answer:
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        try:
            codec = endpoint.codec(
                headers.get(b"content-type", b"").decode("latin-1"), request, self._options
            )
            encoding = headers.get(b"content-encoding", b"").decode("latin-1")
            source = Paced(AsyncDecoded(answer, codec, encoding))
        except WireError as error:
            await answer.aclose()
            await _refuse(send, 500, str(error))
            return
        kept = [
            (name, value)
            for name, value in start.get("headers", [])
            if name.lower() not in (b"content-length", b"content-encoding")
        ]
        stream = self._guard.stream(source, query=request.query, redactable=request.redactable)
        respond = GuardedResponse(
            stream,
            source,
            codec,
            status=start["status"],
            headers=kept,
            keep_alive=self._keep_alive,
            outcome_at_end=self._outcome_at_end,
        )
        await respond(send)


def _named(path: str) -> tuple[str, str]:
    """The method, "" for all, and the path. Raises `ConfigError` where it is none."""
    found = re.fullmatch(r"(?:([A-Z]+) )?(/.*)", path)
    if found is None:
        raise ConfigError(f"paths has {path!r}; a path is written as '/chat' or 'POST /chat'")
    return found[1] or "", found[2].rstrip("/")


class _Answer:
    """What the application sends, as a stream of bytes. Closing it stops the application."""

    def __init__(
        self,
        messages: MemoryObjectReceiveStream[Message],
        running: anyio.CancelScope,
        failed: list[Exception],
    ) -> None:
        self._messages = messages
        self._running = running
        self._failed = failed
        self._ended = False

    async def start(self) -> Message | None:
        """The start of the response; None where there is none."""
        try:
            while (message := await self._messages.receive())["type"] != "http.response.start":
                pass
        except anyio.EndOfStream:
            return None
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._ended:
            try:
                message = await self._messages.receive()
            except anyio.EndOfStream:
                if self._failed:
                    raise self._failed[0] from None
                raise StopAsyncIteration from None
            if message["type"] == "http.response.body":
                self._ended = not message.get("more_body", False)
                data: bytes = message.get("body", b"")
                return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if not self._ended:
            self._running.cancel()
        self._messages.close()


def _given(body: bytes) -> Receive:
    """The body, once; then nothing more, until the application is stopped."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await anyio.sleep_forever()
        raise AssertionError

    return receive


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"type": "error", "error": {"type": "shieldguard", "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
