"""Leaving a guarded stream: early, cancelled, abandoned, in an error; and how an abort closes the source."""

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any, Self, TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

from shieldguard import (
    Aborted,
    Answer,
    End,
    Ended,
    Guard,
    GuardedStream,
    Policy,
    Reasoning,
    ReleasedEvent,
    SizeWindower,
    SourceEvent,
    StreamReport,
    Verdict,
    Window,
    WindowJudged,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge

pytestmark = pytest.mark.anyio

MARKS = {"HARM": 1.0}
CALM = Reasoning("calm calm ")
HARM = Reasoning("HARM HARM ")

Read: TypeAlias = Callable[[GuardedStream], Coroutine[Any, Any, list[ReleasedEvent]]]


async def bare(stream: GuardedStream) -> list[ReleasedEvent]:
    return [event async for event in stream]


async def entered(stream: GuardedStream) -> list[ReleasedEvent]:
    async with stream:
        return [event async for event in stream]


each_way = pytest.mark.parametrize("read", [bare, entered])
each_judge = pytest.mark.parametrize("judge", [InstantScriptedJudge, ScriptedJudge])
on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Source:
    """Gives its events, raises its errors, then is silent for ever."""

    def __init__(self, *events: SourceEvent | Exception) -> None:
        self.left = list(events)
        self.closed = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SourceEvent:
        await checkpoint()
        if not self.left:
            await anyio.sleep_forever()
        event = self.left.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    async def aclose(self) -> None:
        for _ in range(5):  # a connection takes some turns of the loop to close
            await checkpoint()
        self.closed += 1


class EndlessSource(Source):
    async def __anext__(self) -> SourceEvent:
        await anyio.sleep(0.001)
        return Reasoning("calm so ")


class SlowSource(Source):
    """Takes its time to close."""

    def __init__(self, *events: SourceEvent) -> None:
        super().__init__(*events)
        self.closing, self.may_close = anyio.Event(), anyio.Event()

    async def aclose(self) -> None:
        self.closing.set()
        await self.may_close.wait()
        await super().aclose()


class GatedJudge(ScriptedJudge):
    """Answers once the test opens its gate."""

    def __init__(self, rule: dict[str, float] | None = None) -> None:
        super().__init__(rule or {})
        self.gate: Future[None] = Future()
        self.running = 0

    async def judge(self, window: Window) -> Verdict:
        self.running += 1
        try:
            await asyncio.shield(asyncio.wrap_future(self.gate))
        finally:
            self.running -= 1
        return self.answer(window)


class Reports(list[StreamReport]):
    """An observer that keeps the final reports."""

    def window_judged(self, event: WindowJudged) -> None:
        pass

    def stream_closed(self, report: StreamReport) -> None:
        self.append(report)


def guard(judge: ScriptedJudge, *observers: Reports, **policy: Any) -> Guard:
    return Guard(judge=judge, policy=Policy(**policy), windower=SizeWindower(size=10), observers=observers)


async def until(happened: Callable[[], object]) -> None:
    for _ in range(5000):
        if happened():
            return
        await anyio.sleep(0.001)
    pytest.fail("it did not happen")


async def give_up_reading(stream: GuardedStream, *, when: Callable[[], object]) -> None:
    """The task that reads is cancelled, whatever it waits for."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anext, stream)
        await until(when)
        tasks.cancel_scope.cancel()


def thought(windows: int) -> list[SourceEvent]:
    """Events that lie athwart the windows, and a tail too short for one."""
    return [*[Reasoning("calm "), Reasoning("calm calm ")] * windows, Reasoning("tail")]


# -- leaving early ---------------------------------------------------------------------------------


@each_judge
@pytest.mark.parametrize("entering", [False, True])
async def test_a_stream_left_early_is_judged_to_its_tail_and_its_source_closed(
    entering: bool, judge: type[ScriptedJudge]
) -> None:
    reports = Reports()
    source = EndlessSource()
    stream = guard(judge(), reports).stream(source)
    async with stream if entering else nullcontext():
        async for _ in stream:
            break
    await stream.aclose()
    assert source.closed == 1
    assert reports == [stream.report]
    assert stream.report.ended is Ended.CLIENT_LEFT
    assert stream.report.reasoning.judged == stream.report.reasoning.seen > 0
    assert stream.report.windows[-1].end == stream.report.reasoning.seen


@each_way
async def test_what_comes_to_light_after_the_client_left_is_in_the_report(read: Read) -> None:
    judge = GatedJudge(MARKS)
    source = Source(CALM, CALM, HARM)
    stream = guard(judge).stream(source)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, stream)
        await until(lambda: not source.left)
        await until(lambda: judge.running)
        tasks.cancel_scope.cancel()
        judge.gate.set_result(None)
    await stream.aclose()
    assert stream.report.ended is Ended.ABORTED
    assert stream.report.level == 1.0
    assert await bare(stream) == []


@pytest.mark.parametrize("entering", [False, True])
async def test_leaving_waits_for_a_judge_that_hangs_only_until_the_deadline(entering: bool) -> None:
    source = Source(*thought(20))
    judge = GatedJudge()
    stream = guard(judge, judge_timeout=0.5, on_failure="flag", join_after=60).stream(source)
    began = time.monotonic()
    async with stream if entering else nullcontext():
        await give_up_reading(stream, when=lambda: judge.running)
    await stream.aclose()
    assert time.monotonic() - began < 5  # twenty windows would take twice that
    assert source.closed == 1
    assert stream.report.reasoning.judged == 0
    assert stream.report.reasoning.withheld == stream.report.reasoning.seen > 0
    await until(lambda: judge.running == 0)


async def test_the_source_is_closed_before_the_tail_is_judged() -> None:
    source = Source(*thought(2))
    judge = GatedJudge()
    stream = guard(judge).stream(source)
    await give_up_reading(stream, when=lambda: judge.running)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.aclose)
        await until(lambda: source.closed)
        assert stream.report.reasoning.judged == 0
        judge.gate.set_result(None)
    assert stream.report.reasoning.judged == stream.report.reasoning.seen > 0


@each_judge
async def test_whoever_has_taken_all_has_not_left_early(judge: type[ScriptedJudge]) -> None:
    async with guard(judge()).stream(Source(CALM, Answer("Fine."), End("stop"))) as stream:
        assert [await anext(stream) for _ in range(3)] == [CALM, Answer("Fine."), End("stop")]
    assert stream.report.ended is Ended.COMPLETE


async def test_a_stream_that_was_never_read_closes_its_source() -> None:
    source = Source(CALM)
    stream = guard(ScriptedJudge()).stream(source)
    await stream.aclose()
    assert source.closed == 1
    assert stream.report.ended is Ended.CLIENT_LEFT


@each_way
async def test_a_stream_closed_twice_is_closed_once(read: Read) -> None:
    reports = Reports()
    source = Source(CALM, HARM)
    stream = guard(ScriptedJudge(MARKS), reports).stream(source)
    await read(stream)
    await stream.aclose()
    await stream.aclose()
    assert await stream.final_report() is stream.report
    assert (source.closed, len(reports)) == (1, 1)


async def test_a_stream_closed_by_two_tasks_at_once_is_closed_once() -> None:
    judge = GatedJudge()
    source = Source(*thought(2))
    stream = guard(judge).stream(source)
    await give_up_reading(stream, when=lambda: judge.running)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.aclose)
        tasks.start_soon(stream.aclose)
        await until(lambda: source.closed)
        await anyio.wait_all_tasks_blocked()
        judge.gate.set_result(None)
    assert stream.report.ended is Ended.CLIENT_LEFT


@pytest.mark.parametrize("read", [bare, entered, GuardedStream.next_batch])
async def test_a_closed_stream_gives_nothing_more(read: Read) -> None:
    stream = guard(InstantScriptedJudge()).stream(Source(*thought(3)))
    await anext(stream)
    await stream.aclose()
    assert await read(stream) == []


# -- errors in the block ---------------------------------------------------------------------------


class Oops(Exception):
    pass


@each_judge
async def test_an_error_in_the_block_comes_out_bare_and_closes_the_source(judge: type[ScriptedJudge]) -> None:
    source = EndlessSource()
    stream = guard(judge()).stream(source)
    oops = Oops("mine")

    async def consume() -> None:
        async with stream:
            async for _ in stream:
                raise oops

    with pytest.raises(Oops) as raised:
        await consume()
    assert raised.value is oops
    assert source.closed == 1
    assert stream.report.ended is Ended.CLIENT_LEFT
    assert stream.report.reasoning.judged == stream.report.reasoning.seen


# -- cancelling ------------------------------------------------------------------------------------


async def and_close(stream: GuardedStream) -> list[ReleasedEvent]:
    try:
        return await bare(stream)
    finally:
        await stream.aclose()


@pytest.mark.parametrize("read", [and_close, entered])
async def test_a_cancelled_consumer_leaves_nothing_running(read: Read) -> None:
    source = Source(*thought(2))
    judge = GatedJudge()
    stream = guard(judge, judge_timeout=0.2).stream(source)
    running = len(anyio.get_running_tasks())
    with anyio.move_on_after(0.05) as scope:
        await read(stream)
    assert scope.cancelled_caught
    assert source.closed == 1
    assert len(anyio.get_running_tasks()) == running
    await until(lambda: judge.running == 0)


@pytest.mark.parametrize("read", [and_close, entered])
async def test_a_cancelled_consumer_has_its_tail_judged_all_the_same(read: Read) -> None:
    source = Source(*thought(2))
    stream = guard(ScriptedJudge(delay=0.05)).stream(source)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, stream)
        await until(lambda: not source.left)
        tasks.cancel_scope.cancel()
    assert source.closed == 1
    assert stream.report.ended is Ended.CLIENT_LEFT
    assert stream.report.reasoning.judged == stream.report.reasoning.seen == 34


@on_asyncio
@pytest.mark.parametrize("read", [and_close, entered])
async def test_a_cancelled_asyncio_task_has_its_tail_judged_too(read: Read, anyio_backend: str) -> None:
    source = Source(*thought(2))
    stream = guard(ScriptedJudge(delay=0.05)).stream(source)
    task = asyncio.ensure_future(read(stream))
    await until(lambda: not source.left)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed == 1
    assert stream.report.reasoning.judged == stream.report.reasoning.seen == 34


@on_asyncio
@pytest.mark.parametrize("read", [and_close, entered])
async def test_a_timeout_of_asyncio_remains_one(read: Read, anyio_backend: str) -> None:
    source = Source(*thought(2))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(guard(ScriptedJudge(delay=0.02)).stream(source)), 0.1)
    assert source.closed == 1


async def cancelled_twice(stream: GuardedStream, closing: Callable[[], object]) -> None:
    """Cancelled as asyncio does it, which no shield of anyio's holds off: once more while it closes."""
    task = asyncio.ensure_future(entered(stream))
    await asyncio.sleep(0.02)
    task.cancel()
    await until(closing)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@on_asyncio
async def test_a_stream_whose_closing_was_cancelled_can_be_closed(anyio_backend: str) -> None:
    source = Source(*thought(2))
    stream = guard(GatedJudge(), judge_timeout=0.2).stream(source)
    await cancelled_twice(stream, lambda: source.closed)
    async with asyncio.timeout(20):
        report = await stream.final_report()
    assert report.ended in (Ended.CLIENT_LEFT, Ended.ABORTED)  # which of two deadlines is the first


@on_asyncio
async def test_a_stream_whose_source_was_cancelled_while_it_closed_is_over(anyio_backend: str) -> None:
    source = SlowSource(CALM)
    stream = guard(InstantScriptedJudge()).stream(source)
    await cancelled_twice(stream, source.closing.is_set)
    async with asyncio.timeout(20):
        await stream.aclose()
        assert await bare(stream) == []


@each_judge
async def test_inside_the_block_a_wait_can_be_given_up_and_taken_up_again(judge: type[ScriptedJudge]) -> None:
    more = anyio.Event()

    async def source() -> AsyncIterator[SourceEvent]:
        yield CALM
        await more.wait()
        yield HARM

    async with guard(judge()).stream(source()) as stream:
        assert await anext(stream) == CALM
        with anyio.move_on_after(0.05) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        more.set()
        assert await bare(stream) == [HARM]
    assert stream.report.ended is Ended.COMPLETE


# -- abandoning ------------------------------------------------------------------------------------


@each_judge
async def test_an_abandoned_stream_says_that_its_tail_is_unjudged(judge: type[ScriptedJudge]) -> None:
    reports = Reports()
    stream = guard(judge(), reports).stream(EndlessSource())
    await anext(stream)
    stream_id = stream.report.stream
    del stream
    gc.collect()
    await until(lambda: reports)
    [report] = reports
    assert (report.stream, report.ended) == (stream_id, Ended.ABANDONED)
    assert 0 < report.reasoning.judged < report.reasoning.seen


async def test_abandoned_streams_leave_no_task_no_judgement_and_no_thread() -> None:
    judge = GatedJudge()
    by = guard(judge)
    running = len(anyio.get_running_tasks())
    streams = []
    for _ in range(20):
        streams.append(by.stream(Source(*thought(5))))
        await give_up_reading(streams[-1], when=lambda: judge.running == len(streams))
    assert judge.running == 20
    freed = [weakref.ref(stream) for stream in streams]
    streams.clear()
    gc.collect()
    await until(lambda: judge.running == 0)
    await until(lambda: all(stream() is None for stream in freed))
    assert len(anyio.get_running_tasks()) == running


# -- sources that misbehave ------------------------------------------------------------------------


@each_judge
@pytest.mark.parametrize("entering", [False, True])
async def test_a_source_that_raised_is_closed(entering: bool, judge: type[ScriptedJudge]) -> None:
    source = Source(CALM, OSError("gone"))
    stream = guard(judge()).stream(source)
    with pytest.raises(OSError, match="gone"):
        await (entered(stream) if entering else bare(stream))
    assert source.closed == 1
    assert stream.report.ended is Ended.SOURCE_FAILED


async def test_a_source_that_raised_behind_a_client_that_left_is_reported_alone() -> None:
    source = Source(CALM, OSError("gone"))
    judge = GatedJudge()
    async with guard(judge).stream(source) as stream:
        await until(lambda: source.closed)
        judge.gate.set_result(None)
    assert stream.report.ended is Ended.SOURCE_FAILED
    assert stream.report.reasoning.judged == 10


class StubbornSource(Source):
    async def aclose(self) -> None:
        await super().aclose()
        raise OSError("will not close")


@each_judge
@each_way
async def test_a_source_that_fails_to_close_is_logged_and_changes_nothing(
    read: Read, judge: type[ScriptedJudge], caplog: pytest.LogCaptureFixture
) -> None:
    source = StubbornSource(CALM, HARM)
    stream = guard(judge(MARKS)).stream(source)
    *before, last = await read(stream)
    assert before == [CALM]
    assert isinstance(last, Aborted)
    assert source.closed == 1
    assert ["will not close" in str(record.exc_info) for record in caplog.records] == [True]


class HangingSource(Source):
    async def aclose(self) -> None:
        await super().aclose()
        await anyio.sleep_forever()


@pytest.mark.parametrize("mark", [CALM, HARM])
async def test_a_source_that_never_closes_is_given_up(
    mark: SourceEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shieldguard.stream._CLOSING", 0.1)
    source = HangingSource(CALM, mark)
    stream = guard(InstantScriptedJudge(MARKS)).stream(source)
    with anyio.fail_after(20):
        async with stream:
            assert await anext(stream) == CALM
            await anext(stream)
    assert source.closed == 1
    assert (stream.report.aborted is not None) is (mark is HARM)


class PlainSource:
    """Only what an async iterator must have."""

    def __init__(self, *events: SourceEvent) -> None:
        self.left = list(events)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SourceEvent:
        await checkpoint()
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


@each_judge
@each_way
@pytest.mark.parametrize("end", [CALM, HARM])
async def test_a_source_need_not_know_how_to_close(
    end: SourceEvent, read: Read, judge: type[ScriptedJudge], caplog: pytest.LogCaptureFixture
) -> None:
    stream = guard(judge(MARKS)).stream(PlainSource(CALM, end))
    assert len(await read(stream)) == 2
    assert stream.report.ended is (Ended.ABORTED if end is HARM else Ended.COMPLETE)
    assert caplog.records == []


# -- an abort --------------------------------------------------------------------------------------


async def generator(closed: list[str]) -> AsyncIterator[SourceEvent]:
    try:
        yield CALM
        yield HARM
        await anyio.sleep_forever()
    finally:
        closed.append("by its end")


@each_way
@pytest.mark.parametrize("source", [lambda: Source(CALM, HARM), lambda: generator([])])
@pytest.mark.parametrize("judge", [InstantScriptedJudge(MARKS), ScriptedJudge(MARKS, delay=0.01)])
async def test_an_abort_closes_a_source_that_has_fallen_silent_within_ten_milliseconds(
    read: Read, source: Callable[[], AsyncIterator[SourceEvent]], judge: ScriptedJudge
) -> None:
    for _ in range(10):  # one of ten has to, as other programs run on this machine too
        stream = guard(judge).stream(source())
        with anyio.fail_after(5):
            *_, last = await read(stream)
        assert isinstance(last, Aborted)
        assert stream.report.closed_after is not None
        if stream.report.closed_after < 0.010:
            return
    pytest.fail("the source was closed too late each time")


@each_judge
@pytest.mark.parametrize("entering", [False, True])
async def test_the_source_is_closed_by_the_time_the_client_hears_of_the_abort(
    entering: bool, judge: type[ScriptedJudge]
) -> None:
    source = Source(CALM, HARM)
    stream = guard(judge(MARKS)).stream(source)
    async with stream if entering else nullcontext():
        async for event in stream:
            if isinstance(event, Aborted):
                break
        assert source.closed == 1


async def test_a_client_that_asks_while_the_source_is_being_closed_waits_for_it() -> None:
    source = SlowSource(HARM)
    async with guard(InstantScriptedJudge(MARKS)).stream(source) as stream:
        await source.closing.wait()
        with anyio.move_on_after(0.05) as too_early:
            await anext(stream)
        source.may_close.set()
        assert too_early.cancelled_caught
        assert isinstance(await anext(stream), Aborted)
    assert stream.report.closed_after is not None


@each_way
async def test_an_abort_inside_the_block_needs_nobody_who_reads(read: Read) -> None:
    source = Source(CALM, HARM)
    async with guard(ScriptedJudge(MARKS)).stream(source) as stream:
        await until(lambda: source.closed)
        assert await bare(stream) == [CALM, stream.report.aborted]


@each_judge
@each_way
async def test_an_abort_ends_a_generator_without_a_word(
    read: Read, judge: type[ScriptedJudge], caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []
    await read(guard(judge(MARKS)).stream(generator(closed)))
    assert closed == ["by its end"]
    assert caplog.records == []


@pytest.mark.parametrize("entering", [False, True])
async def test_a_generator_is_closed_without_a_word_while_another_task_reads_it(
    entering: bool, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []
    judge = GatedJudge()
    stream = guard(judge).stream(generator(closed))
    async with anyio.create_task_group() as tasks, stream if entering else nullcontext():
        tasks.start_soon(bare, stream)
        await until(lambda: judge.running)
        judge.gate.set_result(None)
        await stream.aclose()
        assert closed == ["by its end"]
    with caplog.at_level(logging.ERROR):
        assert caplog.records == []


async def test_a_stream_closed_by_one_task_ends_for_the_task_that_reads_it() -> None:
    source = Source(CALM)
    stream = guard(ScriptedJudge(delay=0.2)).stream(source)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bare, stream)
            await until(lambda: not source.left)
            await stream.aclose()
    assert source.closed == 1


async def test_where_no_verdict_is_awaited_the_reader_ends_with_the_next_item_and_closes_the_source() -> None:
    go_on = anyio.Event()
    closed: list[str] = []

    async def source() -> AsyncIterator[SourceEvent]:
        try:
            yield CALM
            await go_on.wait()
            yield HARM
        finally:
            closed.append("by its reader")

    stream = guard(InstantScriptedJudge()).stream(source())
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bare, stream)
            await until(lambda: stream.report.reasoning.seen)
            await stream.aclose()
            assert stream.report.ended is Ended.CLIENT_LEFT
            assert not closed
            go_on.set()
    assert closed == ["by its reader"]
    assert stream.report.reasoning.seen == len(CALM.text)


async def test_where_no_verdict_is_awaited_a_reader_that_is_cancelled_closes_the_source_too() -> None:
    source = Source(CALM)
    stream = guard(InstantScriptedJudge()).stream(source)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(and_close, stream)
        await until(lambda: stream.report.reasoning.seen)
        await anyio.wait_all_tasks_blocked()
        await stream.aclose()
        tasks.cancel_scope.cancel()
    assert source.closed == 1
