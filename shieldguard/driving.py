"""What the async and the sync stream share: one session, and its judgements in flight."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from shieldguard.errors import JudgeError, JudgeTimeout, SourceError
from shieldguard.events import Received, ReleasedEvent, SourceEvent
from shieldguard.judging import JudgeLoop, Outcome, logged
from shieldguard.observers import Observer, Step, StepKind, StreamOpened, StreamReport
from shieldguard.session import GuardSession
from shieldguard.thinking import ThinkSplitter
from shieldguard.verdicts import Verdict
from shieldguard.windows import Window

SourceItem: TypeAlias = str | SourceEvent | Sequence[SourceEvent]
"""What a source gives: text with inline think tags, events, or several events at once."""

# How long past its deadline a judge may be that should have been cancelled. One that blocks its event loop
# cannot be; it is given up, so that no stream waits for it without end.
_GRACE = 0.25

# How long a stream may keep the caller's loop before others get a turn (promise 10).
TURN = 0.002


class Drive:
    """Feeds a session, asks the judge for what it names, and tells the observers.

    Everything here runs where the stream is read; only the judging does not. `on_verdict` is called
    from the judge's thread.
    """

    def __init__(
        self,
        session: GuardSession,
        judges: JudgeLoop,
        observers: Sequence[Observer],
        splitter: ThinkSplitter,
    ) -> None:
        self.session = session
        self.source_error: Exception | None = None
        self.closed_after: float | None = None
        self.final: StreamReport | None = None
        self.in_background = False
        self.on_verdict: Callable[[], None] = _nothing
        self._judges = judges
        self._observers = observers
        self._splitter = splitter
        self._asked: dict[Future[Outcome], Window] = {}
        self._told = 0
        self._hear_steps: list[Callable[[Step], None]] = [
            hear for observer in observers if (hear := getattr(observer, "stream_step", None)) is not None
        ]
        for observer in observers:
            if (began := getattr(observer, "stream_began", None)) is not None:
                logged(began, session.stream)
            if (opened := getattr(observer, "stream_opened", None)) is not None:
                logged(opened, self._opened())

    @property
    def is_over(self) -> bool:
        """Whether the books are closed, or somebody else closes them."""
        return self.final is not None or self.in_background

    @property
    def asked(self) -> Collection["Future[Outcome]"]:
        """The judgements in flight."""
        return self._asked.keys()

    @property
    def patience(self) -> float | None:
        """Seconds until a judgement in flight is overdue; None where none is in flight."""
        if self.in_background or not self._asked:
            return None
        first = min(window.deadline for window in self._asked.values())
        return max(0.0, first + _GRACE - time.monotonic())

    def receive(self, item: SourceItem) -> None:
        now = time.monotonic()
        for event in self._events(item):
            self._receive(event, now)
        if isinstance(item, Received):
            self._step(StepKind.WEIGHED, now, item.size)
            self.session.weigh(item.size)

    def _receive(self, event: SourceEvent, now: float) -> None:
        self._step(StepKind.RECEIVED, now, event)
        self.session.receive(event, now)

    def _events(self, item: SourceItem) -> Sequence[SourceEvent]:
        if isinstance(item, str):
            return self._splitter.feed(item)
        return item if isinstance(item, list | tuple) else (item,)

    def end_of_source(self, error: Exception | None = None) -> None:
        """The source is exhausted, or raised `error`, which is raised again once all is told."""
        now = time.monotonic()
        if isinstance(error, SourceError):
            self._step(StepKind.FAILED, now, error)
            self.session.fail(error, now)
            if self.session.aborted is not None:
                return
        self.source_error = error
        for event in self._splitter.flush():
            self._receive(event, now)
        self._step(StepKind.FINISHED, now, error)
        self.session.finish(now)

    def leave(self) -> None:
        """The consumer has gone: what came is still to be judged."""
        now = time.monotonic()
        for event in self._splitter.flush():
            self._receive(event, now)
        self._step(StepKind.LEFT, now)
        self.session.leave(now)

    def abandon(self) -> None:
        """Nobody drives this stream any more."""
        self._step(StepKind.ABANDONED, time.monotonic())
        self.session.abandon()
        self.finish()

    def tick(self) -> None:
        """Cut what has waited too long."""
        now = time.monotonic()
        self._step(StepKind.TICKED, now)
        self.session.tick(now)

    def advance(self) -> bool:
        """Take verdicts in and hand windows out. True where more could be done at once: give other
        tasks a turn, then call again."""
        begun = time.monotonic()
        if self._asked:
            for future in [future for future in self._asked if future.done()]:
                self._settle(self._asked.pop(future), *_outcome(future))
            overdue = [f for f, window in self._asked.items() if begun > window.deadline + _GRACE]
            for future in overdue:
                self._give_up(future, begun)
        while windows := self.session.windows(now := time.monotonic()):
            self._step(StepKind.ASKED, now, windows)
            for window in windows:
                if outcome := self._judges.ask_now(window):
                    self._settle(window, *outcome)
                else:
                    self._ask(window)
            if time.monotonic() > begun + TURN:
                return True
        return False

    def take(self, limit: int | None) -> list[ReleasedEvent]:
        now = time.monotonic()
        if not self._hear_steps:
            return self.session.take(now, limit)
        held = self.session.held
        events = self.session.take(now, limit)
        # What was redacted can also go without an event that tells of it.
        changed = events or self.session.held != held
        if changed or self.session.has_windows or self.session.aborted is not None:
            self._step(StepKind.TAKEN, now, (events, limit))
        return events

    def finish(self) -> StreamReport:
        """Close the books: what is still in flight is given up."""
        if self.final is None:
            for future in self._asked:
                future.cancel()
            self._asked.clear()
            report = self.report()
            self._judges.forget(self.session.stream)
            for observer in self._observers:
                logged(observer.stream_closed, report)
            self.final = report
        return self.final

    def report(self) -> StreamReport:
        return self.final or self.session.report(
            closed_after=self.closed_after, source_failed=self.source_error is not None
        )

    def source_closed(self) -> None:
        """Note the time, where an abort was the reason."""
        if self.session.aborted_at is not None and self.closed_after is None:
            self.closed_after = time.monotonic() - self.session.aborted_at

    def finish_in_background(self) -> None:
        """Judge the rest on the judge's loop. The caller must not touch the session any more."""
        self.in_background = True
        done, self.on_verdict = self.on_verdict, _nothing
        self._judges.run(self._drain()).add_done_callback(lambda _: done())

    async def _drain(self) -> None:
        while self.session.judging:
            self.advance()
            if self._asked:
                waiting = [asyncio.wrap_future(future) for future in self._asked]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0)
        self.finish()

    def _opened(self) -> StreamOpened:
        session = self.session
        return StreamOpened(
            stream=session.stream,
            query=session.query,
            policy=session.policy,
            windower=session.windower,
            redactable=session.redactable,
            at=time.monotonic(),
        )

    def _step(self, kind: StepKind, at: float, of: Any = None) -> None:
        if self._hear_steps:
            step = Step(stream=self.session.stream, kind=kind, at=at, of=of)
            for hear in self._hear_steps:
                logged(hear, step)

    def _ask(self, window: Window) -> None:
        future = self._judges.ask(window)
        self._asked[future] = window
        future.add_done_callback(lambda _: self.on_verdict())

    def _give_up(self, future: "Future[Outcome]", now: float) -> None:
        window = self._asked.pop(future)
        future.cancel()
        error = JudgeTimeout("no verdict, and the judge could not be cancelled: it blocks its event loop")
        self._settle(window, error, now)

    def _settle(self, window: Window, outcome: Verdict | JudgeError, at: float) -> None:
        self._step(StepKind.JUDGED, at, (window, outcome))
        if isinstance(outcome, JudgeError):
            self.session.failed(window, outcome, at)
        else:
            self.session.judged(window, outcome, at)
        for record in self.session.records[self._told :]:
            self._told += 1
            for observer in self._observers:
                logged(observer.window_judged, record)


class DrivenStream:
    """What is the same of a guarded stream with and without `await`."""

    _drive: Drive

    @property
    def report(self) -> StreamReport:
        """The account of the stream: so far, or once it has ended for good."""
        return self._drive.report()

    @property
    def waiting(self) -> int:
        """How many windows have been handed to the judge and have no verdict yet."""
        return len(self._drive.asked)

    def raise_for_risk(self) -> None:
        """Raise if the stream was aborted; see `StreamReport.raise_for_risk`."""
        self.report.raise_for_risk()

    def __del__(self) -> None:
        drive = getattr(self, "_drive", None)
        if drive is not None and not drive.is_over:
            drive.abandon()


def _outcome(future: "Future[Outcome]") -> Outcome:
    if future.cancelled():
        return JudgeError("the judgement was cancelled, and not by the guard"), time.monotonic()
    return future.result()


def _nothing() -> None:
    pass
