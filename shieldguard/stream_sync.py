"""Guarded streams for a plain `for`."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent import futures
from types import TracebackType
from typing import Self

from shieldguard.driving import Drive, DrivenStream, SourceItem
from shieldguard.events import ReleasedEvent
from shieldguard.judging import logger
from shieldguard.observers import StreamReport
from shieldguard.policy import Release


class SyncGuardedStream(DrivenStream):
    """The guarded events of a plain iterable; see `GuardedStream`. Verdicts act between two chunks."""

    def __init__(self, drive: Drive, source: Iterable[SourceItem]) -> None:
        self._drive = drive
        self._shadow = drive.session.policy.release is Release.SHADOW
        self._timeout = drive.session.policy.judge_timeout
        self._source: Iterator[SourceItem] = iter(source)
        self._source_open = True
        self._events: deque[ReleasedEvent] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ReleasedEvent:
        if not self._events:
            self._events.extend(self._next(1))
        if not self._events:
            raise StopIteration
        return self._events.popleft()

    def next_batch(self) -> list[ReleasedEvent]:
        """All events that may leave by now, at least one; empty at the end."""
        if self._events:
            batch = list(self._events)
            self._events.clear()
            return batch
        return self._next(None)

    def close(self) -> None:
        """Leave: close the source, judge what came, within the judge's deadline."""
        if self._drive.is_over:
            return
        self._close_source()
        self._events.clear()
        self._drive.leave()
        if self._shadow:
            self._drive.finish_in_background()
            return
        until = time.monotonic() + self._timeout
        while self._drive.session.judging and (left := until - time.monotonic()) > 0:
            if not self._drive.advance():
                futures.wait(self._drive.asked, timeout=left, return_when=futures.FIRST_COMPLETED)
        self._drive.finish()

    def final_report(self) -> StreamReport:
        """The account of a stream that has ended, in mode `shadow` after the last verdict."""
        self.close()
        while self._drive.final is None:
            time.sleep(0.005)
        return self._drive.final

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, limit: int | None) -> list[ReleasedEvent]:
        drive, session = self._drive, self._drive.session
        while True:
            if drive.is_over:
                return []
            while drive.advance():
                pass
            if session.aborted is not None:
                self._close_source()
            if events := drive.take(limit):
                if session.aborted is not None and session.closed:
                    drive.finish()
                return events
            if session.closed or (self._shadow and not session.wants_data):
                self._end()
                return []
            if session.has_windows:
                continue
            if session.wants_data:
                self._read()
            else:
                futures.wait(drive.asked, timeout=drive.patience, return_when=futures.FIRST_COMPLETED)

    def _end(self) -> None:
        self._close_source()
        if self._drive.session.judging:
            self._drive.finish_in_background()
        else:
            self._drive.finish()
        if self._drive.source_error is not None:
            raise self._drive.source_error

    def _read(self) -> None:
        """Read one item, or more where nothing comes of it."""
        try:
            self._drive.receive(next(self._source))
            while not (self._drive.session.stirred or self._drive.asked):
                self._drive.receive(next(self._source))
        except StopIteration:
            self._drive.end_of_source()
        except Exception as error:
            self._drive.end_of_source(error)

    def _close_source(self) -> None:
        if not self._source_open:
            return
        self._source_open = False
        close = getattr(self._source, "close", None)
        try:
            if close is not None:
                close()
        except Exception:
            logger.exception("shieldguard: closing the source %r failed", self._source)
        self._drive.source_closed()
