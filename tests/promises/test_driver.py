"""The promises that a driver keeps: leaving, closing, deadlines, and the event loop's freedom. Each check is
run on drivers in which it is broken on purpose, too, and has to fail there."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import anyio
import anyio.lowlevel
import pytest

from shieldguard import (
    AbortCause,
    Answer,
    Ended,
    Guard,
    GuardedStream,
    JudgeTimeout,
    Policy,
    Reasoning,
    RiskLevel,
    SourceEvent,
    Thinking,
    UnparsedVerdict,
    Verdict,
    Window,
    driving,
    judging,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge

HARMFUL = "HARM, and so on to the end of a window."
HARMLESS = "Nothing to see here, and so on to the end of a window. "


@dataclass
class Source:
    """Gives its events a millisecond apart, then stays silent; notes when it was closed."""

    events: list[SourceEvent]
    closed_at: float | None = None

    def __aiter__(self) -> AsyncIterator[SourceEvent]:
        return self

    async def __anext__(self) -> SourceEvent:
        if not self.events:
            await anyio.sleep_forever()
        await anyio.sleep(0.001)
        return self.events.pop(0)

    async def aclose(self) -> None:
        self.closed_at = time.monotonic()


def stream_of(kind: type[GuardedStream], guard: Guard, source: Any) -> GuardedStream:
    return kind(guard._drive("", Thinking.AUTO, True), source)


# -- abort: the source is closed at once ----------------------------------------------------------------


async def closes_its_source(kind: type[GuardedStream], *, entered: bool) -> None:
    judge = ScriptedJudge({"HARM": 1.0}, delay=0.02)
    source = Source([Reasoning(HARMFUL), Answer("The answer.")])
    stream = stream_of(kind, Guard(judge=judge), source)
    with anyio.fail_after(5):
        if entered:
            async with stream:
                events = [event async for event in stream]
        else:
            events = [event async for event in stream]
    assert not any(isinstance(event, Answer) for event in events)
    assert stream.report.ended is Ended.ABORTED
    assert source.closed_at is not None
    assert stream.report.closed_after is not None
    assert stream.report.closed_after < 3


class LeavesItsSourceOpen(GuardedStream):
    async def _close_source(self) -> None:
        self._source_open = False
        self._drive.source_closed()


class WaitsForTheNextChunk(GuardedStream):
    """A verdict does not cancel the read."""

    def _advance(self) -> bool:
        return self._drive.advance()


# -- coverage: who leaves has the rest judged ------------------------------------------------------------


async def judges_the_tail(kind: type[GuardedStream]) -> None:
    judge = ScriptedJudge({}, delay=0.01)
    source = Source([*[Reasoning(HARMLESS)] * 90, Reasoning("an unfinished tail")])
    stream = stream_of(kind, Guard(judge=judge), source)
    async for _ in stream:
        break
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stream.aclose()
    report = stream.report
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.judged == report.reasoning.seen > 0
    assert source.closed_at is not None


class LeavesTheTail(GuardedStream):
    async def aclose(self) -> None:
        self._drive.session.leave(time.monotonic())
        await self._close_source()
        self._drive.finish()


class CanBeCancelledWhileLeaving(GuardedStream):
    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        await super().aclose()


# -- failure: a judge that hangs or talks nonsense -------------------------------------------------------


async def gives_up_a_judge_that_hangs(kind: type[GuardedStream]) -> None:
    judge = ScriptedJudge({}, delay=30)
    guard = Guard(judge=judge, policy=Policy(judge_timeout=0.05))
    with anyio.move_on_after(6) as limit:
        async with stream_of(kind, guard, Source([Reasoning(HARMLESS), Answer("The answer.")])) as stream:
            events = [event async for event in stream]
    assert not limit.cancelled_caught
    assert not any(isinstance(event, Answer) for event in events)
    assert stream.report.aborted is not None
    assert stream.report.aborted.cause is AbortCause.JUDGE_FAILURE
    assert isinstance(stream.report.aborted.error, JudgeTimeout)


class Nonsense:
    name = "nonsense"

    async def judge(self, window: Window) -> Verdict:
        return 0  # type: ignore[return-value]


async def takes_nonsense_for_a_failure(kind: type[GuardedStream]) -> None:
    async with stream_of(kind, Guard(judge=Nonsense()), Source([Reasoning(HARMLESS), Answer("A")])) as stream:
        with anyio.move_on_after(10):
            async for event in stream:
                assert not isinstance(event, Answer | Reasoning)
    assert stream.report.aborted is not None
    assert isinstance(stream.report.aborted.error, UnparsedVerdict)


def _never_overdue() -> Any:
    async def ask(self: judging.JudgeLoop, window: Window) -> judging.Outcome:
        return await self._judge.judge(window), time.monotonic()

    return patch.multiple(judging.JudgeLoop, _ask=ask), patch.object(driving, "_GRACE", 1000.0)


# -- loop: nothing holds it up ---------------------------------------------------------------------------


@dataclass
class Thorough(InstantScriptedJudge):
    """Computes for two milliseconds."""

    rule: dict[str, float] = field(default_factory=dict)

    def judge_now(self, window: Window) -> Verdict:
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass
        return Verdict(level=RiskLevel.SAFE)


async def leaves_the_loop_free(kind: type[GuardedStream]) -> None:
    """The best of five runs, as a garbage collection may fall into one."""
    assert min([await _longest_gap(kind) for _ in range(5)]) < 0.02


async def _longest_gap(kind: type[GuardedStream]) -> float:
    gaps = [0.0]
    events: list[SourceEvent] = [Reasoning(HARMLESS * 200), Answer(HARMLESS * 3)]
    stream = stream_of(kind, Guard(judge=Thorough()), events_of(events))

    async def beat() -> None:
        last = time.thread_time()  # as other programs run on this machine too
        while True:
            await anyio.lowlevel.checkpoint()
            now = time.thread_time()
            gaps.append(now - last)
            last = now

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(beat)
        await anyio.sleep(0.01)
        async with stream:
            async for _ in stream:
                pass
        tasks.cancel_scope.cancel()
    assert stream.report.ended is Ended.COMPLETE
    return max(gaps)


async def events_of(events: list[SourceEvent]) -> AsyncIterator[SourceEvent]:
    for event in events:
        yield event


# -- the checks, and where they must fail ----------------------------------------------------------------

Check = Callable[[type[GuardedStream]], Awaitable[None]]
CHECKS: dict[str, Check] = {
    "closes its source": partial(closes_its_source, entered=False),
    "closes its source inside async with": partial(closes_its_source, entered=True),
    "judges the tail": judges_the_tail,
    "gives up a judge that hangs": gives_up_a_judge_that_hangs,
    "takes nonsense for a failure": takes_nonsense_for_a_failure,
    "leaves the loop free": leaves_the_loop_free,
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("promise", CHECKS)
def test_a_stream_keeps(promise: str, backend: str) -> None:
    anyio.run(CHECKS[promise], GuardedStream, backend=backend)


@pytest.mark.parametrize(
    ("promise", "mutant"),
    [
        ("closes its source", LeavesItsSourceOpen),
        ("closes its source inside async with", LeavesItsSourceOpen),
        ("closes its source", WaitsForTheNextChunk),
        ("judges the tail", LeavesTheTail),
        ("judges the tail", CanBeCancelledWhileLeaving),
    ],
)
def test_stream_mutants_are_found(promise: str, mutant: type[GuardedStream]) -> None:
    with pytest.raises((AssertionError, TimeoutError)):
        anyio.run(CHECKS[promise], mutant)


def test_mutants_that_wait_for_ever_are_found() -> None:
    no_deadline, no_grace = _never_overdue()
    with no_deadline, no_grace, pytest.raises(AssertionError):
        anyio.run(gives_up_a_judge_that_hangs, GuardedStream)


def test_mutants_that_take_nonsense_are_found() -> None:
    def believed(reply: object) -> Verdict:
        return Verdict(level=RiskLevel.SAFE)

    with patch.object(judging, "checked", believed), pytest.raises(AssertionError):
        anyio.run(takes_nonsense_for_a_failure, GuardedStream)


def test_mutants_that_never_give_a_turn_are_found() -> None:
    with patch.object(driving, "TURN", 1000.0), pytest.raises(AssertionError):
        anyio.run(leaves_the_loop_free, GuardedStream)
