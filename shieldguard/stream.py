"""Guarded streams for `async for`."""

import math
import time
import weakref
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, current_token

from shieldguard.driving import TURN, Drive, DrivenStream, SourceItem
from shieldguard.events import ReleasedEvent
from shieldguard.judging import logger
from shieldguard.observers import StreamReport
from shieldguard.policy import Release

_CLOSING = 5.0  # seconds that a source gets to close


class GuardedStream(DrivenStream):
    """The guarded events of a source.

    `async for event in stream` reads the source as it is read itself; a verdict that comes while the
    source is awaited can abort at once, but what it releases leaves with the next chunk. Inside
    `async with stream:` the source is read ahead, up to the policy's bound, and verdicts and the clock
    act at once. Close it (`aclose`, or `async with`) when leaving it early: what came is judged, within
    the judge's deadline, and the source closed. Raises what the source raised, after what was released.
    """

    def __init__(self, drive: Drive, source: AsyncIterable[SourceItem]) -> None:
        schedule = weakref.WeakMethod(self._schedule)  # so that an abandoned stream is freed at once
        drive.on_verdict = lambda: _call(schedule)
        self._drive = drive
        self._shadow = drive.session.policy.release is Release.SHADOW
        self._timeout = drive.session.policy.judge_timeout
        self._source: AsyncIterator[SourceItem] = aiter(source)
        self._source_open = True  # until somebody begins to close it
        self._source_closed = False
        self._events: deque[ReleasedEvent] = deque()
        self._call_soon: Callable[[Callable[[], Any]], Any] | None = None
        self._changed: anyio.Event | None = None  # while somebody waits for a change
        self._is_reading = False
        self._reading: anyio.CancelScope | None = None  # of a read that may be cancelled
        self._leaving = False
        self._tasks: TaskGroup | None = None
        self._turn_ends = time.monotonic() + TURN

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReleasedEvent:
        if not self._events:
            self._events.extend(await self._next(1))
        if not self._events:
            raise StopAsyncIteration
        return self._events.popleft()

    async def next_batch(self) -> list[ReleasedEvent]:
        """All events that may leave by now, at least one; empty at the end."""
        if self._events:
            batch = list(self._events)
            self._events.clear()
            return batch
        return await self._next(None)

    async def aclose(self) -> None:
        """Leave: judge what came, within the judge's deadline, and close the source. A task that awaits
        the source meanwhile has its read cancelled, or else closes the source when the read is done."""
        if self._drive.is_over:
            return
        self._bind()
        with anyio.CancelScope(shield=True):
            while self._leaving and not self._drive.is_over:
                await self._change()
            if not self._drive.is_over:
                await self._leave()

    async def _leave(self) -> None:
        self._leaving = True
        try:
            self._events.clear()
            self._drive.leave()
            if self._reading is not None or not self._is_reading:
                await self._close_source()
            if self._shadow:
                self._drive.finish_in_background()
                return
            with anyio.move_on_after(self._timeout):
                while self._drive.session.judging:
                    if self._drive.advance():
                        await checkpoint()
                    elif self._drive.session.judging:
                        await self._change()
            self._drive.finish()
        finally:
            self._leaving = False
            self._notify()

    async def final_report(self) -> StreamReport:
        """The account of a stream that has ended, in mode `shadow` after the last verdict."""
        await self.aclose()
        while self._drive.final is None:
            await self._change()
        return self._drive.final

    async def __aenter__(self) -> Self:
        self._bind()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._read_ahead)
        if self._drive.session.policy.max_wait is not None:
            self._tasks.start_soon(self._keep_time, self._drive.session.policy.max_wait)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()
        try:
            # The body's error stays out of the task group, which would wrap it in an ExceptionGroup.
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._tasks = None
            await self.aclose()

    # -- reading -------------------------------------------------------------------------------

    async def _next(self, limit: int | None) -> list[ReleasedEvent]:
        self._bind()
        drive, session = self._drive, self._drive.session
        while True:
            if time.monotonic() > self._turn_ends:
                await self._give_turn()
            if drive.is_over:
                return []
            more = self._advance()
            if session.aborted is not None:
                await self._close_source()
            events = drive.take(limit)
            if session.aborted is not None:  # at the bound, `take` aborts
                await self._close_source()
            if events:
                if session.aborted is not None and session.closed:
                    drive.finish()
                self._notify()
                return events
            if session.closed or (self._shadow and not session.wants_data):
                await self._end()
                return []
            if more or session.has_windows:
                await checkpoint()
            elif self._tasks is None and session.wants_data:
                await self._read()
            else:
                await self._change()

    async def _end(self) -> None:
        await self._close_source()
        if self._drive.session.judging:
            self._drive.finish_in_background()
        else:
            self._drive.finish()
        if self._drive.source_error is not None:
            raise self._drive.source_error

    async def _read(self) -> None:
        """Read one item, or more where nothing comes of it. A verdict that aborts cancels the read."""
        drive, session = self._drive, self._drive.session
        self._is_reading = True
        try:
            if self._tasks is None and not drive.asked:
                drive.receive(await anext(self._source))
                while not session.stirred and time.monotonic() < self._turn_ends:
                    drive.receive(await anext(self._source))
                return
            with anyio.CancelScope() as self._reading:
                drive.receive(await anext(self._source))
                while session.wants_data and not session.has_windows and time.monotonic() < self._turn_ends:
                    self._notify()
                    drive.receive(await anext(self._source))
        except StopAsyncIteration:
            self._drive.end_of_source()
        except Exception as error:
            self._drive.end_of_source(error)
        finally:
            self._reading = None
            self._is_reading = False
            self._notify()
            if drive.is_over:
                await self._close_source()  # which was left to us

    async def _read_ahead(self) -> None:
        session = self._drive.session
        while not session.finished and session.aborted is None:
            if session.wants_data:
                await self._read()
                while self._advance():
                    await checkpoint()
                if time.monotonic() > self._turn_ends:
                    await self._give_turn()
            else:
                await self._change()
        await self._close_source()

    async def _give_turn(self) -> None:
        """Let others run: neither the source nor a judge may have made us wait."""
        await checkpoint()
        self._turn_ends = time.monotonic() + TURN

    async def _keep_time(self, max_wait: float) -> None:
        session = self._drive.session
        while not session.finished and session.aborted is None:
            deadline = session.deadline
            # Text that comes while we sleep has `max_wait` left, so no deadline passes meanwhile.
            await anyio.sleep(max_wait if deadline is None else max(0.0, deadline - time.monotonic()))
            self._drive.tick()
            self._on_verdict()

    async def _close_source(self) -> None:
        """Close the source, or wait for whoever does."""
        if not self._source_open:
            while not self._source_closed:
                await self._change()
            return
        self._source_open = False
        aclose = getattr(self._source, "aclose", None)
        try:
            if self._reading is not None:
                self._reading.cancel()
            while self._is_reading:
                await self._change()
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _CLOSING):
                if aclose is not None:
                    await aclose()
        except Exception:
            logger.exception("shieldguard: closing the source %r failed", self._source)
        finally:
            self._drive.source_closed()
            self._source_closed = True
            self._notify()

    # -- verdicts ------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Remember the loop that reads this stream, for the judge's thread to call."""
        if self._call_soon is None:
            native: Any = current_token().native_token
            self._call_soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon

    def _schedule(self) -> None:
        try:
            assert self._call_soon is not None
            self._call_soon(self._on_verdict)
        except RuntimeError:
            pass  # the loop has ended, and the stream with it

    def _on_verdict(self) -> None:
        if not self._drive.is_over:
            self._advance()
        self._notify()

    def _advance(self) -> bool:
        more = self._drive.advance()
        if self._drive.session.aborted is not None and not self._source_closed:
            if self._reading is not None:
                self._reading.cancel()
            self._notify()
        return more

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = anyio.Event()
        patience = self._drive.patience
        with anyio.move_on_after(patience if patience is not None else math.inf):
            await self._changed.wait()


def _call(method: "weakref.WeakMethod[Callable[[], None]]") -> None:
    if (bound := method()) is not None:
        bound()
