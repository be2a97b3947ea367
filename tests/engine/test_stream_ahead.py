"""Reading ahead inside `async with`, backpressure, the clock, and the modes of release."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any, Self

import anyio
import pytest
from anyio.lowlevel import checkpoint

from shieldguard import (
    AbortCause,
    Aborted,
    Action,
    Answer,
    CutBy,
    End,
    Ended,
    Guard,
    GuardedStream,
    Passthrough,
    Policy,
    Reasoning,
    Received,
    ReleasedEvent,
    Rule,
    SizeWindower,
    SourceEvent,
    ToolCall,
    Verdict,
    Window,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge, scripted_stream

pytestmark = pytest.mark.anyio

CALM = Reasoning("calm calm ")
HARM = Reasoning("HARM HARM ")
bare_and_entered = pytest.mark.parametrize("entering", [False, True])


class GatedJudge(ScriptedJudge):
    """Answers once the test opens its gate."""

    def __init__(self) -> None:
        super().__init__({"HARM": 1.0})
        self.gate: Future[None] = Future()

    async def judge(self, window: Window) -> Verdict:
        await asyncio.shield(asyncio.wrap_future(self.gate))
        return self.answer(window)


class Source:
    """Gives its events, then is silent until told of more, or to end."""

    def __init__(self, *events: SourceEvent | Received, silent: bool = False) -> None:
        self.left = list(events)
        self.given = 0
        self.more = anyio.Event()
        if not silent:
            self.more.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SourceEvent | Received:
        await checkpoint()
        if not self.left:
            await self.more.wait()
        if not self.left:
            raise StopAsyncIteration
        self.given += 1
        return self.left.pop(0)


def guard(judge: ScriptedJudge, **policy: Any) -> Guard:
    return Guard(judge=judge, policy=Policy(**policy), windower=SizeWindower(size=10))


async def until(happened: Callable[[], object]) -> None:
    for _ in range(5000):
        if happened():
            return
        await anyio.sleep(0.001)
    pytest.fail("it did not happen")


async def all_of(stream: GuardedStream) -> list[ReleasedEvent]:
    return [event async for event in stream]


def thought(events: list[ReleasedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Reasoning))


# -- reading on ------------------------------------------------------------------------------------


async def test_inside_the_block_the_source_is_read_though_nobody_asks() -> None:
    source = Source(*[CALM] * 5, Answer("Fine."), End())
    async with guard(InstantScriptedJudge()).stream(source):
        await until(lambda: source.given == 7)


@bare_and_entered
async def test_the_source_is_read_on_while_a_judgement_is_in_flight(entering: bool) -> None:
    judge = GatedJudge()
    source = Source(*[CALM] * 20)
    stream = guard(judge).stream(source)
    events: list[ReleasedEvent] = []

    async def consume() -> None:
        events.extend(await all_of(stream))

    async with stream if entering else nullcontext(), anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await until(lambda: source.given == 20)
        assert events == []
        judge.gate.set_result(None)
    assert thought(events) == CALM.text * 20


@bare_and_entered
async def test_past_the_bound_the_source_is_not_read_until_text_has_left(entering: bool) -> None:
    judge = GatedJudge()
    source = Source(*[CALM] * 20)
    stream = guard(judge, max_held=40).stream(source)
    events: list[ReleasedEvent] = []

    async def consume() -> None:
        async for event in stream:
            events.append(event)

    async with stream if entering else nullcontext(), anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await until(lambda: source.given == 4)
        await anyio.wait_all_tasks_blocked()
        assert source.given == 4
        judge.gate.set_result(None)
    assert thought(events) == CALM.text * 20


@pytest.mark.parametrize("judge", [InstantScriptedJudge(), ScriptedJudge()])
async def test_inside_the_block_a_slow_client_holds_the_source_back(judge: ScriptedJudge) -> None:
    source = Source(*[CALM] * 100)
    async with guard(judge, max_held=40).stream(source) as stream:
        await anext(stream)
        await until(lambda: source.given == 5)
        await anyio.wait_all_tasks_blocked()
        assert source.given == 5
        assert len(await all_of(stream)) == 99


def frame(*events: SourceEvent) -> Received:
    return Received(events or [Passthrough("a frame without text")], size=1000)


@bare_and_entered
async def test_past_the_bound_of_bytes_the_source_is_not_read_until_text_has_left(entering: bool) -> None:
    judge = GatedJudge()
    source = Source(CALM, *[frame()] * 20, frame(CALM))
    stream = guard(judge, max_held_bytes=5000).stream(source)
    events: list[ReleasedEvent] = []

    async def consume() -> None:
        events.extend(await all_of(stream))

    async with stream if entering else nullcontext(), anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await until(lambda: source.given == 6)
        await anyio.wait_all_tasks_blocked()
        assert (source.given, events) == (6, [])
        judge.gate.set_result(None)
    assert thought(events) == CALM.text * 2
    assert len(events) == 22


@bare_and_entered
async def test_frames_in_a_tool_call_that_does_not_end_end_the_response(entering: bool) -> None:
    source = Source(frame(ToolCall("do")), *[frame(Passthrough(choice=0))] * 20)
    stream = guard(InstantScriptedJudge(), max_held_bytes=5000).stream(source)
    async with stream if entering else nullcontext():
        [event] = await all_of(stream)
    assert isinstance(event, Aborted)
    assert event.cause is AbortCause.BOUND
    assert "bytes of frames are held" in str(event.error)
    assert "over max_held_bytes=5000; raise max_held_bytes" in str(event.error)
    assert source.given < 8


def test_bytes_are_bounded_for_plain_iterables_too() -> None:
    given = 0

    def source() -> Iterator[Received]:
        nonlocal given
        yield frame(ToolCall("do"))
        for _ in range(20):
            given += 1
            yield frame(Passthrough(choice=0))

    [event] = guard(ScriptedJudge(), max_held_bytes=5000).stream_sync(source())
    assert isinstance(event, Aborted)
    assert event.cause is AbortCause.BOUND
    assert given < 8


async def test_what_has_left_no_longer_counts() -> None:
    source = Source(*[frame(CALM)] * 100, frame(ToolCall("do")), frame(End()))
    events = await all_of(guard(InstantScriptedJudge(), max_held_bytes=3000).stream(source))
    assert isinstance(events[-1], End)
    assert len(events) == 102


async def test_in_mode_shadow_bytes_hold_the_source_back_too() -> None:
    source = Source(*[frame()] * 100)
    async with guard(InstantScriptedJudge(), release="shadow", max_held_bytes=5000).stream(source) as stream:
        await anext(stream)
        await anyio.sleep(0.1)
        assert source.given < 10
        assert len(await all_of(stream)) == 99


async def test_in_mode_shadow_a_slow_client_holds_the_source_back_too() -> None:
    source = Source(*[CALM] * 1000)
    async with guard(InstantScriptedJudge(), release="shadow", max_held=40).stream(source) as stream:
        await anext(stream)
        await anyio.sleep(0.2)
        assert source.given < 100


# -- windows behind a slow judge -------------------------------------------------------------------


@bare_and_entered
async def test_windows_that_queue_up_behind_a_slow_judge_go_to_it_as_one(entering: bool) -> None:
    judge = GatedJudge()
    source = Source(*[CALM] * 20, silent=True)
    stream = guard(judge, join_after=0).stream(source)

    async def open_the_gate() -> None:
        await until(lambda: source.given == 20)
        judge.gate.set_result(None)
        await until(lambda: len(judge.windows) == 2)
        source.more.set()

    async with stream if entering else nullcontext(), anyio.create_task_group() as tasks:
        tasks.start_soon(open_the_gate)
        assert thought(await all_of(stream)) == CALM.text * 20
    assert [(window.start, window.end) for window in judge.windows] == [(0, 10), (10, 200)]
    assert [record.joined for record in stream.report.windows] == [1, 19]


async def test_a_slow_judge_lags_by_one_judgement() -> None:
    judge = ScriptedJudge(delay=0.05)
    stream = guard(judge).stream(scripted_stream([CALM] * 60, delay=0.002))
    began = time.monotonic()
    async with stream:
        assert thought(await all_of(stream)) == CALM.text * 60
    assert len(judge.windows) < 30
    assert time.monotonic() - began < 60 * 0.05


async def test_windows_behind_a_quick_judge_are_not_joined() -> None:
    judge = ScriptedJudge(delay=0.002)
    async with guard(judge, join_after=5).stream(Source(*[CALM] * 20)) as stream:
        await all_of(stream)
    assert [window.end for window in judge.windows] == list(range(10, 201, 10))


async def test_harm_in_joined_windows_is_not_released() -> None:
    judge = GatedJudge()
    source = Source(*[CALM] * 3, HARM, CALM)
    async with guard(judge, join_after=0).stream(source) as stream:
        await until(lambda: source.given == 5)
        judge.gate.set_result(None)
        *before, last = await all_of(stream)
    assert before == [CALM]
    assert isinstance(last, Aborted)


# -- verdicts and the clock ------------------------------------------------------------------------


async def test_inside_the_block_a_verdict_releases_at_once_though_the_source_is_silent() -> None:
    async with guard(ScriptedJudge(delay=0.02)).stream(Source(CALM, silent=True)) as stream:
        with anyio.fail_after(20):
            assert await anext(stream) == CALM


async def test_a_bare_iterator_releases_with_the_next_chunk() -> None:
    judge = ScriptedJudge()
    source = Source(CALM, silent=True)
    stream = guard(judge).stream(source)
    events: list[ReleasedEvent] = []

    async def consume() -> None:
        async for event in stream:
            events.append(event)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await until(lambda: stream.report.reasoning.judged == 10)
        await anyio.wait_all_tasks_blocked()
        assert events == []
        source.left.append(Answer("Fine."))
        source.more.set()
    assert events == [CALM, Answer("Fine.")]


async def test_inside_the_block_what_has_waited_too_long_is_judged_as_it_is() -> None:
    source = Source(Reasoning("short"), silent=True)
    async with guard(InstantScriptedJudge(), max_wait=0.05).stream(source) as stream:
        with anyio.fail_after(20):
            assert await anext(stream) == Reasoning("short")
    assert [record.cut_by for record in stream.report.windows] == [CutBy.CLOCK]


async def test_the_clock_begins_when_the_text_comes() -> None:
    source = Source(silent=True)
    async with guard(InstantScriptedJudge(), max_wait=0.1).stream(source) as stream:
        await anyio.sleep(0.15)
        source.left.append(Reasoning("short"))
        source.more.set()
        source.more = anyio.Event()
        began = time.monotonic()
        with anyio.fail_after(20):
            await anext(stream)
        assert time.monotonic() - began >= 0.099


async def test_a_bare_iterator_looks_at_the_clock_when_a_chunk_comes() -> None:
    source = Source(Reasoning("short"), silent=True)
    stream = guard(InstantScriptedJudge(), max_wait=0.05).stream(source)

    async def add_a_chunk() -> None:
        await until(lambda: source.given == 1)
        await anyio.sleep(0.1)
        assert stream.report.windows == ()
        source.left.append(Reasoning("er"))
        source.more.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(add_a_chunk)
        assert await all_of(stream) == [Reasoning("short"), Reasoning("er")]
    assert [(record.end, record.cut_by) for record in stream.report.windows] == [
        (5, CutBy.CLOCK),
        (7, CutBy.TAIL),
    ]


@pytest.mark.parametrize("policy", [{"max_wait": None}, {}])
async def test_text_waits_for_its_window_where_the_clock_does_not_cut(policy: dict[str, None]) -> None:
    source = Source(Reasoning("short"), silent=True)
    async with guard(InstantScriptedJudge(), **policy).stream(source) as stream:
        with anyio.move_on_after(0.1) as waited:
            await anext(stream)
    assert waited.cancelled_caught
    assert [record.cut_by for record in stream.report.windows] == [CutBy.TAIL]


async def test_a_client_that_takes_its_time_gets_what_a_quick_one_gets() -> None:
    by = guard(InstantScriptedJudge({"DOUBT": 0.5}), reasoning=Rule(potential=Action.REDACT))
    events: list[SourceEvent] = [ToolCall("look_up"), CALM, Reasoning("DOUBT it, "), CALM]
    quick = await all_of(by.stream(Source(*events)))
    source = Source(*events)
    async with by.stream(source) as stream:
        await until(lambda: source.given == 4)
        assert await all_of(stream) == quick


async def test_a_source_that_never_waits_does_not_keep_the_loop_to_itself() -> None:
    given = 0

    async def source() -> AsyncIterator[SourceEvent]:
        nonlocal given
        while given < 50_000:
            given += 1
            yield Passthrough()

    turns = 0
    async with guard(InstantScriptedJudge()).stream(source()):
        while given < 50_000:
            await checkpoint()
            turns += 1
    assert turns > 5


# -- mode lag --------------------------------------------------------------------------------------


@bare_and_entered
async def test_in_mode_lag_so_much_leaves_ahead_of_its_verdict_and_no_more(entering: bool) -> None:
    judge = GatedJudge()
    source = Source(*[CALM] * 10, Answer("Fine."))
    stream = guard(judge, release="lag", max_unjudged=35).stream(source)
    events: list[ReleasedEvent] = []
    ahead: list[int] = []

    async def consume() -> None:
        async for event in stream:
            events.append(event)
            ahead.append(stream.report.reasoning.released - stream.report.reasoning.judged)

    async with stream if entering else nullcontext(), anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        await until(lambda: source.given == 11)
        await anyio.wait_all_tasks_blocked()
        assert 30 <= len(thought(events)) <= 35
        judge.gate.set_result(None)
    assert thought(events) == CALM.text * 10
    assert events[-1] == Answer("Fine.")
    assert max(ahead) <= 35
    assert stream.report.answer.exposed == 0


@bare_and_entered
async def test_in_mode_lag_a_late_verdict_still_ends_the_response_before_its_answer(entering: bool) -> None:
    judge = GatedJudge()
    source = Source(HARM, *[CALM] * 10, Answer("Do this."))
    stream = guard(judge, release="lag", max_unjudged=35).stream(source)
    events: list[ReleasedEvent] = []
    async with stream if entering else nullcontext():
        while len(events) < 3:
            events += await stream.next_batch()
        judge.gate.set_result(None)
        events += await all_of(stream)
    assert isinstance(events[-1], Aborted)
    assert events[-1].cause is AbortCause.RISK
    assert 30 <= len(thought(events)) <= 35
    assert stream.report.answer.released == 0
    assert stream.report.reasoning.exposed == stream.report.reasoning.released == len(thought(events))


# -- mode shadow -----------------------------------------------------------------------------------


@bare_and_entered
async def test_in_mode_shadow_all_leaves_at_once_and_verdicts_are_recorded(entering: bool) -> None:
    judge = GatedJudge()
    source = Source(CALM, HARM, Answer("Do this."), End("stop"))
    stream = guard(judge, release="shadow").stream(source)
    async with stream if entering else nullcontext():
        assert await all_of(stream) == [CALM, HARM, Answer("Do this."), End("stop")]
    assert judge.windows == []
    judge.gate.set_result(None)
    with anyio.fail_after(5):
        report = await stream.final_report()
    assert (report.ended, report.aborted, report.level) == (Ended.COMPLETE, None, 1.0)
    assert [record.action for record in report.windows if record.verdict and record.verdict.level] == [
        Action.ABORT
    ]
    assert report.reasoning.judged == report.reasoning.seen == report.reasoning.exposed == 20


async def test_in_mode_shadow_the_final_report_waits_for_the_last_verdict() -> None:
    judge = GatedJudge()
    stream = guard(judge, release="shadow").stream(Source(CALM))
    await all_of(stream)
    with anyio.move_on_after(0.05) as too_early:
        await stream.final_report()
    assert too_early.cancelled_caught
    judge.gate.set_result(None)
    with anyio.fail_after(5):
        report = await stream.final_report()
    assert report is stream.report
    assert report.reasoning.judged == 10


async def test_in_mode_shadow_leaving_does_not_wait_for_verdicts() -> None:
    judge = GatedJudge()
    source = Source(*[CALM] * 5, silent=True)
    async with guard(judge, release="shadow").stream(source) as stream:
        assert await anext(stream) == CALM
        await until(lambda: source.given == 5)
    judge.gate.set_result(None)
    with anyio.fail_after(5):
        report = await stream.final_report()
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.judged == report.reasoning.seen == 50


async def test_in_mode_shadow_a_judge_that_fails_is_recorded() -> None:
    judge = GatedJudge()
    stream = guard(judge, release="shadow", judge_timeout=0.05).stream(Source(CALM, Answer("Fine.")))
    assert await all_of(stream) == [CALM, Answer("Fine.")]
    with anyio.fail_after(5):
        report = await stream.final_report()
    assert (report.failures, report.aborted, report.level) == (2, None, None)


@bare_and_entered
async def test_in_mode_shadow_what_overflows_the_queue_counts_as_unjudged(entering: bool) -> None:
    judge = GatedJudge()
    source = Source(*[CALM] * 50)
    stream = guard(judge, release="shadow", max_held=100).stream(source)
    async with stream if entering else nullcontext():
        assert await all_of(stream) == [CALM] * 50
    judge.gate.set_result(None)
    with anyio.fail_after(5):
        report = await stream.final_report()
    assert report.reasoning.seen == report.reasoning.released == 500
    assert 10 <= report.reasoning.judged <= 120
    assert report.reasoning.judged == sum(record.end - record.start for record in report.windows)
