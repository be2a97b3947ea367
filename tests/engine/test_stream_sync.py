"""Guarded streams for a plain `for`, from plain threads; they give what the async ones give."""

import asyncio
import gc
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any, Self

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import (
    AbortCause,
    Aborted,
    Action,
    Answer,
    Channel,
    End,
    Ended,
    Guard,
    JudgeTimeout,
    Passthrough,
    Policy,
    Reasoning,
    Redacted,
    ReleasedEvent,
    Rule,
    SizeWindower,
    SourceEvent,
    StreamReport,
    ToolCall,
    Verdict,
    Window,
    WindowJudged,
    WireError,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge, scripted_stream

MARKS = {"HARM": 1.0, "DOUBT": 0.5}
CALM = Reasoning("calm calm ")
HARM = Reasoning("HARM HARM ")

each_judge = pytest.mark.parametrize("judge", [InstantScriptedJudge, ScriptedJudge])
each_entering = pytest.mark.parametrize("entering", [False, True])


class Source:
    """Gives its events, and raises its errors."""

    def __init__(self, *events: SourceEvent | Exception) -> None:
        self.left = list(events)
        self.given = 0
        self.closed = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SourceEvent:
        if not self.left:
            raise StopIteration
        self.given += 1
        event = self.left.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        self.closed += 1


class EndlessSource(Source):
    """Goes on for ever behind its events."""

    def __next__(self) -> SourceEvent:
        if self.left:
            return super().__next__()
        time.sleep(0.001)
        self.given += 1
        return Reasoning("calm so ")


class GatedJudge(ScriptedJudge):
    """Answers once the test opens its gate."""

    def __init__(self) -> None:
        super().__init__(MARKS)
        self.gate: Future[None] = Future()

    async def judge(self, window: Window) -> Verdict:
        await asyncio.shield(asyncio.wrap_future(self.gate))
        return self.answer(window)


class Reports(list[StreamReport]):
    """An observer that keeps the final reports."""

    def window_judged(self, event: WindowJudged) -> None:
        pass

    def stream_closed(self, report: StreamReport) -> None:
        self.append(report)


def guard(judge: ScriptedJudge, *observers: Reports, **policy: Any) -> Guard:
    return Guard(judge=judge, policy=Policy(**policy), windower=SizeWindower(size=10), observers=observers)


def thought(events: list[ReleasedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Reasoning))


# -- the same as the async one ---------------------------------------------------------------------

words = st.sampled_from(["calm ", "so ", "DOUBT ", "HARM ", "x" * 12])
texts = st.lists(words, max_size=4).map("".join)
choices = st.integers(0, 1)
events = st.one_of(
    st.builds(Reasoning, texts, choice=choices),
    st.builds(Answer, texts, choice=choices),
    st.builds(ToolCall, texts, choice=choices),
    st.just(Passthrough("keep-alive")),
    st.builds(End, st.just("stop"), choice=choices),
)
rules = st.builds(
    Rule, potential=st.sampled_from([Action.FLAG, Action.REDACT]), harmful=st.sampled_from(list(Action))
)
policies = st.builds(
    Policy,
    reasoning=rules,
    answer=st.none() | rules,
    max_wait=st.none(),
    join_after=st.just(60.0),  # as this machine may be slow
)


def account(report: StreamReport) -> Any:
    tallies = [
        (tally.seen, tally.judged, tally.released, tally.redacted, tally.exposed)
        for tally in (report.reasoning, report.answer, report.tool_call)
    ]
    return report.ended, report.aborted, tallies


def joined(events: Iterable[ReleasedEvent]) -> list[ReleasedEvent]:
    """Without the cuts in a text, which is released as far as it was judged when a turn of the loop ended."""
    whole: list[ReleasedEvent] = []
    for event in events:
        last = whole[-1] if whole else None
        if (
            isinstance(event, Reasoning | Answer | ToolCall)
            and isinstance(last, type(event))
            and replace(last, text="") == replace(event, text="")
        ):
            whole[-1] = replace(last, text=last.text + event.text)
        else:
            whole.append(event)
    return whole


@given(st.lists(events, max_size=8), policies)
@settings(max_examples=150, deadline=None)
def test_a_sync_stream_gives_what_an_async_one_gives(source: list[SourceEvent], policy: Policy) -> None:
    by = Guard(judge=InstantScriptedJudge(MARKS), policy=policy, windower=SizeWindower(size=10))

    async def read() -> tuple[list[ReleasedEvent], StreamReport]:
        stream = by.stream(scripted_stream(source))
        return [event async for event in stream], stream.report

    expected, report = anyio.run(read)
    stream = by.stream_sync(source)
    assert joined(stream) == joined(expected)
    assert account(stream.report) == account(report)


@each_judge
def test_where_the_judge_runs_changes_nothing_of_what_leaves(judge: type[ScriptedJudge]) -> None:
    pieces = ["<think>calm ", "calm DOUBT", "ful calm</think>", "All is ", "well."]
    stream = guard(judge(MARKS)).stream_sync(pieces)
    events = list(stream)
    assert thought(events) == "calm calm DOUBTful calm"
    assert "".join(event.text for event in events if isinstance(event, Answer)) == "All is well."
    assert stream.report.level == 0.5


# -- reading ---------------------------------------------------------------------------------------


@each_judge
@each_entering
def test_harmless_events_are_the_very_same(entering: bool, judge: type[ScriptedJudge]) -> None:
    events: list[SourceEvent] = [
        Passthrough("role"),
        CALM,
        ToolCall("look_up"),
        ToolCall("{}"),
        Answer("Fine."),
    ]
    stream = guard(judge()).stream_sync(events)
    with stream if entering else nullcontext():
        assert list(map(id, stream)) == list(map(id, events))
    assert stream.report.ended is Ended.COMPLETE
    assert list(stream) == []


def test_a_batch_is_all_that_may_leave_by_now() -> None:
    stream = guard(InstantScriptedJudge()).stream_sync(
        [[CALM, CALM, Reasoning("tail")], [Answer("Fine."), End()]]
    )
    assert stream.next_batch() == [CALM, CALM]
    assert stream.next_batch() == [Reasoning("tail"), Answer("Fine."), End()]
    assert stream.next_batch() == []


def test_events_and_batches_can_be_asked_for_in_turn() -> None:
    events: list[SourceEvent] = [ToolCall("look_up"), ToolCall("{}"), Answer("Fine.")]
    stream = guard(InstantScriptedJudge()).stream_sync(events)
    assert [next(stream), *stream.next_batch(), *stream] == events


@each_judge
def test_a_redaction_leaves_one_notice(judge: type[ScriptedJudge]) -> None:
    by = guard(judge(MARKS), reasoning=Rule(harmful=Action.REDACT), notice="[cut]")
    events = list(by.stream_sync([CALM, HARM, CALM, Answer("Fine."), ToolCall("do_harm")]))
    assert events == [
        CALM,
        Redacted("[cut]", Channel.REASONING),
        Answer("Fine."),
        Redacted("[cut]", Channel.TOOL_CALL),
    ]


@pytest.mark.parametrize("judge", [InstantScriptedJudge, ScriptedJudge])
def test_a_tool_call_over_the_bound_ends_the_response(judge: type[ScriptedJudge]) -> None:
    [event] = guard(judge(), max_held=50).stream_sync([ToolCall("x" * 60), Answer("Done.")])
    assert isinstance(event, Aborted)
    assert event.cause is AbortCause.BOUND


def test_the_source_is_read_on_while_a_judgement_is_in_flight_up_to_the_bound() -> None:
    source = Source(*[CALM] * 20)
    given_at_verdict: list[int] = []

    def note(window: Window) -> float:
        given_at_verdict.append(source.given)
        return 0

    stream = guard(ScriptedJudge(note, delay=0.02), max_held=40).stream_sync(source)
    assert thought(list(stream)) == CALM.text * 20
    assert given_at_verdict[0] == 4


def test_windows_that_queue_up_behind_a_slow_judge_go_to_it_as_one() -> None:
    judge = ScriptedJudge(delay=0.05)
    stream = guard(judge).stream_sync([CALM] * 20)
    assert thought(list(stream)) == CALM.text * 20
    assert [(window.start, window.end) for window in judge.windows] == [(0, 10), (10, 200)]


def test_a_verdict_acts_between_two_chunks() -> None:
    judge = GatedJudge()
    source = EndlessSource(HARM, Answer("Do this."))

    class OpensTheGate(Source):
        def __next__(self) -> SourceEvent:
            if source.given == 5:
                judge.gate.set_result(None)
            return next(source)

    [event] = guard(judge).stream_sync(OpensTheGate())
    assert isinstance(event, Aborted)
    assert event.cause is AbortCause.RISK


def test_in_mode_lag_so_much_leaves_ahead_of_its_verdict_and_no_more() -> None:
    judge = GatedJudge()

    def source() -> Iterator[SourceEvent]:
        yield from [CALM] * 10
        judge.gate.set_result(None)
        yield Answer("Fine.")

    stream = guard(judge, release="lag", max_unjudged=35).stream_sync(source())
    ahead = []
    events = []
    for event in stream:
        events.append(event)
        ahead.append(stream.report.reasoning.released - stream.report.reasoning.judged)
    assert thought(events) == CALM.text * 10
    assert 30 <= max(ahead) <= 35


@each_entering
def test_in_mode_shadow_all_leaves_at_once_and_the_final_report_has_all_verdicts(entering: bool) -> None:
    judge = GatedJudge()
    stream = guard(judge, release="shadow").stream_sync([CALM, HARM, Answer("Do this.")])
    with stream if entering else nullcontext():
        assert list(stream) == [CALM, HARM, Answer("Do this.")]
    assert judge.windows == []
    judge.gate.set_result(None)
    report = stream.final_report()
    assert (report.ended, report.aborted, report.level) == (Ended.COMPLETE, None, 1.0)
    assert report.reasoning.judged == 20


def test_in_mode_shadow_leaving_does_not_wait_for_verdicts() -> None:
    judge = GatedJudge()
    with guard(judge, release="shadow").stream_sync([CALM] * 5) as stream:
        next(stream)
    assert judge.windows == []
    judge.gate.set_result(None)
    report = stream.final_report()
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.judged == report.reasoning.seen > 0


def test_a_judge_that_hangs_ends_the_response_at_its_deadline() -> None:
    began = time.monotonic()
    [event] = guard(GatedJudge(), judge_timeout=0.1).stream_sync([CALM, Answer("Fine.")])
    assert time.monotonic() - began < 20
    assert isinstance(event, Aborted)
    assert isinstance(event.error, JudgeTimeout)


# -- leaving ---------------------------------------------------------------------------------------


def left(stream: Any, how: str) -> None:
    if how == "closing":
        for _ in stream:
            break
        stream.close()
    elif how == "the block":
        with stream:
            next(stream)
    else:
        with pytest.raises(KeyError), stream:
            raise KeyError(next(stream))


@each_judge
@pytest.mark.parametrize("how", ["closing", "the block", "an error"])
def test_a_stream_left_early_is_judged_to_its_tail_and_its_source_closed(
    how: str, judge: type[ScriptedJudge]
) -> None:
    reports = Reports()
    source = EndlessSource()
    stream = guard(judge(), reports).stream_sync(source)
    left(stream, how)
    assert source.closed == 1
    assert reports == [stream.report]
    assert stream.report.ended is Ended.CLIENT_LEFT
    assert stream.report.reasoning.judged == stream.report.reasoning.seen > 0
    assert list(stream) == stream.next_batch() == []


def test_leaving_waits_for_a_judge_that_hangs_only_until_the_deadline() -> None:
    source = Source(Reasoning("calm " * 40))
    by = guard(GatedJudge(), release="lag", judge_timeout=0.5, on_failure="flag", join_after=60)
    stream = by.stream_sync(source)
    next(stream)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 5  # twenty windows would take twice that
    assert source.closed == 1
    assert stream.report.reasoning.judged == 0


@each_judge
def test_a_stream_closed_twice_is_closed_once(judge: type[ScriptedJudge]) -> None:
    reports = Reports()
    source = Source(CALM, HARM)
    with guard(judge(MARKS), reports).stream_sync(source) as stream:
        list(stream)
    stream.close()
    assert stream.final_report() is stream.report
    assert (source.closed, len(reports)) == (1, 1)


@each_judge
def test_an_abandoned_stream_says_that_its_tail_is_unjudged(judge: type[ScriptedJudge]) -> None:
    reports = Reports()
    stream = guard(judge(), reports).stream_sync(EndlessSource())
    next(stream)
    del stream
    gc.collect()
    [report] = reports
    assert report.ended is Ended.ABANDONED
    assert 0 < report.reasoning.judged < report.reasoning.seen


@each_judge
@each_entering
def test_an_error_of_the_source_comes_after_what_was_released(
    entering: bool, judge: type[ScriptedJudge]
) -> None:
    gone = OSError("gone")
    source = Source(CALM, Reasoning("tail"), gone)
    stream = guard(judge()).stream_sync(source)
    events: list[ReleasedEvent] = []

    def consume() -> None:
        with stream if entering else nullcontext():
            events.extend(stream.next_batch())
            events.extend(stream)

    with pytest.raises(OSError, match="gone") as raised:
        consume()
    assert raised.value is gone
    assert thought(events) == "calm calm tail"
    assert (stream.report.ended, source.closed) == (Ended.SOURCE_FAILED, 1)


def test_a_source_that_cannot_be_guarded_is_an_abort_and_no_exception() -> None:
    *_, last = guard(InstantScriptedJudge()).stream_sync(Source(CALM, WireError("no such frame")))
    assert isinstance(last, Aborted)
    assert last.cause is AbortCause.SOURCE


@each_judge
@pytest.mark.parametrize("end", [CALM, HARM])
def test_a_source_that_fails_to_close_is_logged_and_changes_nothing(
    end: SourceEvent, judge: type[ScriptedJudge], caplog: pytest.LogCaptureFixture
) -> None:
    class StubbornSource(Source):
        def close(self) -> None:
            raise OSError("will not close")

    stream = guard(judge(MARKS)).stream_sync(StubbornSource(CALM, end))
    assert len(list(stream)) == 2
    assert ["will not close" in str(record.exc_info) for record in caplog.records] == [True]


@each_judge
@pytest.mark.parametrize("end", [CALM, HARM])
def test_a_source_need_not_know_how_to_close(end: SourceEvent, judge: type[ScriptedJudge]) -> None:
    stream = guard(judge(MARKS)).stream_sync(iter([CALM, end]))
    assert len(list(stream)) == 2
    assert stream.report.ended is (Ended.ABORTED if end is HARM else Ended.COMPLETE)


@each_judge
@each_entering
def test_an_abort_closes_the_source_at_once_and_before_the_client_hears_of_it(
    entering: bool, judge: type[ScriptedJudge]
) -> None:
    for _ in range(10):  # one of ten has to, as other programs run on this machine too
        source = EndlessSource(CALM, HARM)
        stream = guard(judge(MARKS)).stream_sync(source)
        with stream if entering else nullcontext():
            for event in stream:
                if isinstance(event, Aborted):
                    break
            assert source.closed == 1
        assert stream.report.closed_after is not None
        if stream.report.closed_after < 0.010:
            return
    pytest.fail("the source was closed too late each time")


def test_a_generator_is_closed_when_its_stream_is_left() -> None:
    closed = []

    def source() -> Iterator[SourceEvent]:
        try:
            yield from [CALM] * 1000
        finally:
            closed.append(True)

    with closing(guard(InstantScriptedJudge()).stream_sync(source())) as stream:
        next(stream)
    assert closed == [True]


# -- threads ---------------------------------------------------------------------------------------


@each_judge
def test_threads_share_a_guard_without_mixing_their_streams(judge: type[ScriptedJudge]) -> None:
    by = guard(judge(MARKS))

    def read(number: int) -> tuple[str, bool]:
        name = f"thread {number}; "
        source = [Reasoning(name)] * 20 + [Reasoning("HARM HARM ")] * (number % 2)
        stream = by.stream_sync(source, query=name)
        return thought(list(stream)), stream.report.aborted is not None

    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(read, range(50)))
    for number, (text, aborted) in enumerate(results):
        whole = f"thread {number}; " * 20
        assert whole.startswith(text) if number % 2 else text == whole
        assert aborted == bool(number % 2)
    asked: Any = by.judge
    assert all(window.query in window.text for window in asked.windows if window.end > 20)


def test_a_stream_may_go_from_thread_to_thread() -> None:
    stream = guard(ScriptedJudge()).stream_sync([CALM, CALM, Answer("Fine.")])
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        first = one.submit(next, stream).result()
        assert [first, *other.submit(list, stream).result()] == [CALM, CALM, Answer("Fine.")]
