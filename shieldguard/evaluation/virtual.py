"""The guard's own session in virtual time: a source with given arrivals, a judge with given latencies.

It does what a stream inside `async with` does, read by a client that takes what it can get at once: the
source is read ahead up to the bound, and verdicts and the clock act at once. Nothing waits and no clock is
read, so the same input gives the same output.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from shieldguard.errors import JudgeError, JudgeTimeout
from shieldguard.events import CHANNELS, Channel, ReleasedEvent, SourceEvent, TextEvent
from shieldguard.observers import StreamReport
from shieldguard.session import GuardSession
from shieldguard.verdicts import Verdict
from shieldguard.windows import Window

Answered: TypeAlias = tuple[Verdict | JudgeError, float]
"""What a judge says of a window, and after how many seconds."""

Ask: TypeAlias = Callable[[Window], Answered | None]
"""None where nobody knows: there the playing ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A window, when it was asked for and when the verdict came, in seconds from the beginning."""

    window: Window
    asked: float
    answered: float
    outcome: Verdict | JudgeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of a stream. `received`, `taken`: events with their times, in seconds from the beginning.
    `judged`: in the order of the verdicts. `unknown`: the window for which nobody had a verdict; what would
    have followed is not known."""

    received: Sequence[tuple[float, SourceEvent]]
    judged: Sequence[Judged]
    taken: Sequence[tuple[float, ReleasedEvent]]
    report: StreamReport
    aborted_at: float | None
    unknown: Window | None = None

    @property
    def events(self) -> list[ReleasedEvent]:
        return [event for _, event in self.taken]

    def out(self, channel: Channel) -> list[tuple[float, int]]:
        """When how many characters of a channel left, in order."""
        return [
            (at, len(event.text))
            for at, event in self.taken
            if isinstance(event, TextEvent) and CHANNELS[type(event)] is channel
        ]


def play(source: Iterable[tuple[float, SourceEvent]], session: GuardSession, ask: Ask) -> Played:
    """Guard `source`, whose events come at these seconds, by a session at its beginning.

    A verdict that takes longer than the policy's `judge_timeout` is a `JudgeTimeout` at that time. Where the
    session holds as much as it may, the source waits.
    """
    return _Playing(session, ask).to_the_end(iter(source))


class _Playing:
    def __init__(self, session: GuardSession, ask: Ask) -> None:
        self.session = session
        self.ask = ask
        self.now = 0.0
        self.to_come: list[tuple[float, int, float, Window, Verdict | JudgeError]] = []
        self.asked = 0
        self.received: list[tuple[float, SourceEvent]] = []
        self.judged: list[Judged] = []
        self.taken: list[tuple[float, ReleasedEvent]] = []
        self.unknown: Window | None = None

    def to_the_end(self, source: "Iterable[tuple[float, SourceEvent]]") -> Played:
        arriving = iter(source)
        coming = next(arriving, None)
        while self.unknown is None and not self.session.closed:
            arrival = None
            if not self.session.finished and self.session.wants_data:
                arrival = self.now if coming is None else max(self.now, coming[0])
            verdict = self.to_come[0][0] if self.to_come else None
            deadline = self.session.deadline
            at = min(time for time in (verdict, deadline, arrival) if time is not None)
            self.now = max(self.now, at)
            if verdict is not None and verdict <= at:
                self._judge()
            elif deadline is not None and deadline <= at:
                self.session.tick(self.now)
            elif coming is None:
                self.session.finish(self.now)
            else:
                self.received.append((self.now, coming[1]))
                self.session.receive(coming[1], self.now)
                coming = next(arriving, None)
            self._go_on()
        return Played(
            received=self.received,
            judged=self.judged,
            taken=self.taken,
            report=self.session.report(),
            aborted_at=self.session.aborted_at,
            unknown=self.unknown,
        )

    def _judge(self) -> None:
        at, _, asked, window, outcome = heapq.heappop(self.to_come)
        self.judged.append(Judged(window=window, asked=asked, answered=at, outcome=outcome))
        if isinstance(outcome, JudgeError):
            self.session.failed(window, outcome, at)
        else:
            self.session.judged(window, outcome, at)

    def _go_on(self) -> None:
        """Hand windows out and take what is free, until nothing more comes of it."""
        if not self.session.stirred:
            return
        while True:
            while windows := self.session.windows(self.now):
                for window in windows:
                    answered = self.ask(window)
                    if answered is None:
                        self.unknown = self.unknown or window
                        continue
                    self._submit(window, *answered)
                # One that takes no time is there before anything else leaves.
                while self.to_come and self.to_come[0][0] <= self.now:
                    self._judge()
            events = self.session.take(self.now)
            self.taken += [(self.now, event) for event in events]
            if not events and not self.session.has_windows:
                return

    def _submit(self, window: Window, outcome: Verdict | JudgeError, seconds: float) -> None:
        timeout = self.session.policy.judge_timeout
        if seconds > timeout:
            outcome, seconds = JudgeTimeout(f"no verdict within {timeout:g} seconds"), timeout
        self.asked += 1
        heapq.heappush(self.to_come, (self.now + seconds, self.asked, self.now, window, outcome))
