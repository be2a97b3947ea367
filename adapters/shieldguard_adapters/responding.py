"""A guarded stream as the response of an ASGI application."""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Self, TypeAlias

import anyio
from anyio.abc import TaskGroup

from shieldguard import Aborted, GuardedStream
from shieldguard_adapters.wire import Codec

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Headers: TypeAlias = list[tuple[bytes, bytes]]


class Paced:
    """A source that is not read on while the client takes nothing. The guard's own bound is of text, and
    there are frames without any."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._sent: anyio.Event | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while self._sent is not None:
            await self._sent.wait()
        return await anext(self._source)

    async def aclose(self) -> None:
        await self._source.aclose()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Something is being sent in here."""
        self._sent = sent = anyio.Event()
        try:
            yield
        finally:
            self._sent = None
            sent.set()


class GuardedResponse:
    """Sends what a guarded stream of `source` lets out. The start of the response is withheld until there
    is something to send, so that its headers tell what is known by then; `keep_alive` seconds without
    anything are filled with what the format's clients make nothing of (None: never). `outcome_at_end`: how it
    ended is said once more behind all else, in the formats whose clients leave that out."""

    def __init__(
        self,
        stream: GuardedStream,
        source: Paced,
        codec: Codec,
        *,
        status: int = 200,
        headers: Iterable[tuple[bytes, bytes]] = (),
        keep_alive: float | None = None,
        outcome_at_end: bool = True,
    ) -> None:
        self._stream = stream
        self._source = source
        self._codec = codec
        self._status = status
        self._headers = list(headers)
        self._keep_alive = keep_alive
        self._outcome_at_end = outcome_at_end
        self._sending = anyio.Lock()
        self._started = False
        self._sent_at = time.monotonic()

    async def __call__(self, send: Send) -> None:
        """Raises what the stream's source raised: a response that has begun must then not end well."""

        async def respond(tasks: TaskGroup) -> None:
            if self._keep_alive is not None:
                tasks.start_soon(self._fill, send, self._keep_alive)
            async with self._stream:
                await self._body(send)

        await _in_group(respond)

    async def _body(self, send: Send) -> None:
        while batch := await self._stream.next_batch():
            async with self._sending:
                if data := self._codec.encode(batch):
                    await self._send(send, data)
            if isinstance(batch[-1], Aborted):
                break
        await self._stream.aclose()
        data = self._codec.close()
        if self._outcome_at_end:
            facts = told(self._stream, final=True)
            data += self._codec.aside([f"{name.decode()}: {value.decode()}" for name, value in facts])
        async with self._sending:
            await self._send(send, data, more=False)

    async def _fill(self, send: Send, interval: float) -> None:
        while True:
            await anyio.sleep(max(0.0, self._sent_at + interval - time.monotonic()))
            async with self._sending:
                if time.monotonic() >= self._sent_at + interval:
                    await self._send(send, self._codec.keep_alive())

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        if not self._started:
            self._started = True
            headers = [*self._headers, *told(self._stream, final=not more)]
            await send({"type": "http.response.start", "status": self._status, "headers": headers})
        with self._source.sending():
            await send({"type": "http.response.body", "body": data, "more_body": more})
        self._sent_at = time.monotonic()


async def unless_left(receive: Receive, respond: Callable[[], Awaitable[None]]) -> None:
    """Respond to a request whose body was read, and be cancelled when the client goes away."""

    async def leave(scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def watched(tasks: TaskGroup) -> None:
        tasks.start_soon(leave, tasks.cancel_scope)
        await respond()

    await _in_group(watched)


async def _in_group(body: Callable[[TaskGroup], Awaitable[None]]) -> None:
    """Run `body` with tasks beside it that end with it. Its error comes as it is, in no group."""
    failed: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            try:
                await body(tasks)
            except Exception as error:
                failed = error
            tasks.cancel_scope.cancel()
    except ExceptionGroup as group:
        failed = failed or group.exceptions[0]
    if failed is not None:
        raise failed


def told(stream: GuardedStream, *, final: bool) -> Headers:
    """What is known of a stream, as headers. `final`: it has ended. A level is that of all windows, so it is
    not told where verdicts are still to come, in mode `shadow`."""
    report = stream.report
    facts: dict[str, object] = {"id": report.stream}
    if report.aborted is not None:
        facts["aborted"] = report.aborted.cause.value
    if final:
        facts["ended"] = report.ended.value
        if report.failures:
            facts["failures"] = report.failures
        if report.level is not None and not stream.waiting:
            facts["level"] = format(report.level.value, "g")
    return [(f"x-shieldguard-{name}".encode(), str(value).encode()) for name, value in facts.items()]
