"""The account a guard gives of each stream, and what its observers hear."""

import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import (
    AbortCause,
    Aborted,
    Action,
    Answer,
    BoundExceeded,
    Channel,
    CutBy,
    End,
    Ended,
    Guard,
    JudgeError,
    Opaque,
    OpaqueKind,
    OpaqueReasoning,
    Passthrough,
    Policy,
    Reasoning,
    Redacted,
    ReleasedEvent,
    RiskDetected,
    RiskLevel,
    Rule,
    SizeWindower,
    SourceEvent,
    StreamReport,
    Tally,
    ToolCall,
    Verdict,
    WindowJudged,
    WireError,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge, scripted_stream

MARKS = {"HARM": 1.0, "DOUBT": 0.5}
CALM = Reasoning("calm calm ")
DOUBT = Reasoning("DOUBT it, ")
HARM = Reasoning("HARM HARM ")
FINE = Answer("It is fine")
CALL = ToolCall("look_up(1)")


class Listener:
    """Keeps what it hears, in order, in a list it may share."""

    def __init__(self, heard: list[Any] | None = None, name: str = "") -> None:
        self.heard: list[Any] = [] if heard is None else heard
        self.name = name

    def window_judged(self, event: WindowJudged) -> None:
        self.heard.append((self.name, event))

    def stream_closed(self, report: StreamReport) -> None:
        self.heard.append((self.name, report))


def guard(judge: Any = None, observers: Any = (), **policy: Any) -> Guard:
    return Guard(
        judge=judge or InstantScriptedJudge(MARKS),
        policy=Policy(**policy),
        windower=SizeWindower(size=10),
        observers=observers,
    )


def read(by: Guard, *events: SourceEvent | Exception) -> tuple[list[ReleasedEvent], StreamReport]:
    def source() -> Iterator[SourceEvent]:
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event

    with by.stream_sync(source()) as stream:
        return list(stream), stream.final_report()


def reported(by: Guard, *events: SourceEvent | Exception) -> StreamReport:
    _, report = read(by, *events)
    return report


def counts(tally: Tally) -> dict[str, int]:
    """Those that are not 0."""
    named = {field.name: getattr(tally, field.name) for field in fields(tally) if field.name != "added"}
    return {name: count for name, count in named.items() if count}


# -- characters ------------------------------------------------------------------------------------


def test_what_is_released_is_counted_on_its_own_channel() -> None:
    report = reported(guard(), CALM, CALM, FINE, CALL, CALL, CALL, End("stop"))
    assert counts(report.reasoning) == {"seen": 20, "judged": 20, "released": 20}
    assert counts(report.answer) == {"seen": 10, "judged": 10, "released": 10}
    assert counts(report.tool_call) == {"seen": 30, "judged": 30, "released": 30}


def test_what_an_abort_holds_back_is_withheld() -> None:
    report = reported(guard(), CALM, CALL, HARM, FINE)
    assert counts(report.reasoning) == {"seen": 20, "judged": 20, "released": 10, "withheld": 10}
    assert counts(report.tool_call) == {"seen": 10, "judged": 10, "released": 10}
    assert counts(report.answer) == {}


def test_what_a_redaction_leaves_out_is_redacted() -> None:
    by = guard(reasoning=Rule(potential=Action.REDACT))
    report = reported(by, CALM, DOUBT, CALM, FINE, CALL)
    assert counts(report.reasoning) == {"seen": 30, "judged": 30, "released": 10, "redacted": 20}
    assert counts(report.answer) == {"seen": 10, "judged": 10, "released": 10}
    assert counts(report.tool_call) == {"seen": 10, "judged": 10, "redacted": 10}


def test_what_nobody_was_to_judge_is_exposed() -> None:
    report = reported(guard(answer=None, tool_call=None), CALM, FINE, CALL)
    assert counts(report.reasoning) == {"seen": 10, "judged": 10, "released": 10}
    assert counts(report.answer) == {"seen": 10, "released": 10, "exposed": 10}
    assert counts(report.tool_call) == {"seen": 10, "released": 10, "exposed": 10}


def test_what_left_though_its_judge_had_no_verdict_is_exposed() -> None:
    def second_fails(window: Any) -> Any:
        return JudgeError("no verdict today") if window.end == 20 else 0.0

    report = reported(guard(InstantScriptedJudge(second_fails), on_failure="flag"), CALM, CALM, CALM)
    assert (report.reasoning.released, report.reasoning.exposed) == (30, 10)
    assert report.failures == 1


def test_in_mode_shadow_all_is_exposed_and_judged() -> None:
    report = reported(guard(release="shadow"), CALM, HARM, FINE)
    assert counts(report.reasoning) == {"seen": 20, "judged": 20, "released": 20, "exposed": 20}
    assert counts(report.answer) == {"seen": 10, "judged": 10, "released": 10, "exposed": 10}
    assert (report.aborted, report.level) == (None, 1.0)


words = st.sampled_from(["calm ", "DOUBT ", "HARM ", "x" * 12])
texts = st.lists(words, max_size=4).map("".join)
sources = st.lists(
    st.one_of(
        *(
            st.builds(kind, texts, choice=st.integers(0, 1), block=st.integers(0, 1))
            for kind in (Reasoning, Answer, ToolCall)
        ),
        st.builds(Opaque, choice=st.integers(0, 1)),
        st.builds(Passthrough),
        st.builds(End, choice=st.integers(0, 1)),
    ),
    max_size=10,
)
rules = st.builds(Rule, potential=st.sampled_from(list(Action)), harmful=st.sampled_from(list(Action)))
policies = st.builds(
    Policy,
    reasoning=rules,
    answer=st.none() | rules,
    tool_call=st.none() | rules,
    release=st.sampled_from(["hold", "lag", "shadow"]),
    max_unjudged=st.integers(1, 30),
    on_opaque=st.sampled_from(list(OpaqueReasoning)),
)


@given(sources, policies, st.none() | st.integers(0, 5))
@settings(max_examples=300, deadline=None)
def test_every_character_is_accounted_for_once(
    source: list[SourceEvent], policy: Policy, leave_after: int | None
) -> None:
    by = Guard(judge=InstantScriptedJudge(MARKS), policy=policy, windower=SizeWindower(size=10))
    stream = by.stream_sync(source)
    taken: list[ReleasedEvent] = []
    while leave_after is None or len(taken) < leave_after:
        if not (batch := stream.next_batch()):
            break
        taken += batch
    report = stream.final_report()
    for kind, tally in (
        (Reasoning, report.reasoning),
        (Answer, report.answer),
        (ToolCall, report.tool_call),
    ):
        assert tally.seen == tally.released + tally.redacted + tally.withheld
        assert min(tally.released, tally.redacted, tally.withheld, tally.exposed) >= 0
        assert tally.judged <= tally.seen
        assert tally.exposed <= tally.released
        assert tally.released == sum(len(event.text) for event in taken if isinstance(event, kind))


def test_a_report_can_be_asked_for_while_the_stream_runs() -> None:
    stream = guard().stream_sync([CALM, CALM, FINE])
    assert stream.report.reasoning == Tally()
    next(stream)
    assert counts(stream.report.reasoning) == {"seen": 10, "judged": 10, "released": 10}
    list(stream)
    assert stream.report is stream.report
    assert stream.report.reasoning.released == 20


def test_the_time_added_is_from_the_first_character_to_its_release() -> None:
    report = reported(guard(ScriptedJudge(delay=0.05)), CALM, CALM)
    assert report.reasoning.added is not None
    assert 0.05 <= report.reasoning.added < 3
    assert report.answer.added is None


def test_text_that_waits_for_nobody_has_no_time_added() -> None:
    report = reported(guard(release="shadow"), CALM, FINE)
    assert report.reasoning.added == report.answer.added == 0


def test_what_was_never_released_has_no_time_added() -> None:
    assert reported(guard(), HARM).reasoning.added is None


# -- windows ---------------------------------------------------------------------------------------


def test_each_window_is_on_record_with_its_place_and_what_became_of_it() -> None:
    report = reported(guard(), CALM, DOUBT, Reasoning("tail", choice=1, block=2), FINE)
    assert [(w.channel, w.choice, w.block, w.start, w.end) for w in report.windows] == [
        (Channel.REASONING, 0, 0, 0, 10),
        (Channel.REASONING, 0, 0, 10, 20),
        (Channel.ANSWER, 0, 0, 0, 10),
        (Channel.REASONING, 1, 2, 0, 4),
    ]
    assert [window.action for window in report.windows] == ["release", "flag", "release", "release"]
    assert [window.cut_by for window in report.windows] == [CutBy.TEXT] * 3 + [CutBy.TAIL]
    assert all(window.latency >= 0 and window.error is None for window in report.windows)
    assert {window.stream for window in report.windows} == {report.stream}


@pytest.mark.parametrize(
    ("events", "level"),
    [([], None), ([Passthrough()], None), ([CALM], 0), ([DOUBT, CALM], 0.5), ([DOUBT, HARM, CALM], 1)],
)
def test_the_level_is_the_highest_of_all_windows(events: list[SourceEvent], level: float | None) -> None:
    assert reported(guard(release="shadow"), *events).level == level


def test_failures_are_the_windows_without_a_verdict() -> None:
    def every_other(window: Any) -> Any:
        return JudgeError("no verdict today") if window.end % 20 else 0.5

    by = guard(InstantScriptedJudge(every_other), on_failure="flag")
    report = reported(by, *[CALM] * 5)
    assert (report.failures, report.level) == (3, RiskLevel.POTENTIAL)
    assert [window.action for window in report.windows] == ["flag"] * 5


@pytest.mark.parametrize(
    ("events", "ended"),
    [
        ([CALM, FINE, End("stop")], Ended.COMPLETE),
        ([CALM, HARM], Ended.ABORTED),
        ([CALM, WireError("no such frame")], Ended.ABORTED),
    ],
)
def test_the_report_says_how_the_stream_ended(events: list[Any], ended: Ended) -> None:
    report = reported(guard(), *events)
    assert report.ended is ended
    assert (report.closed_after is not None) == (report.aborted is not None) == (ended is Ended.ABORTED)


def test_the_question_is_in_the_report_and_not_in_what_is_printed_of_it() -> None:
    stream = guard().stream_sync([CALM], query="my secret")
    list(stream)
    assert stream.report.query == "my secret"
    assert "my secret" not in repr(stream.report)


# -- reasoning that cannot be read -----------------------------------------------------------------


@pytest.mark.parametrize("kind", OpaqueKind)
def test_reasoning_that_cannot_be_read_passes_and_is_reported(kind: OpaqueKind) -> None:
    events, report = read(guard(answer=None), Opaque(kind), FINE)
    assert events == [Opaque(kind), FINE]
    assert report.unobservable == {kind}
    assert report.answer.judged == 0


@pytest.mark.parametrize("kind", OpaqueKind)
def test_where_reasoning_cannot_be_read_the_answer_may_be_judged(kind: OpaqueKind) -> None:
    by = guard(answer=None, tool_call=None, on_opaque="judge_answer")
    assert reported(by, FINE).answer.judged == 0
    report = reported(by, Opaque(kind), CALL, FINE)
    assert report.unobservable == {kind}
    assert (report.answer.judged, report.tool_call.judged) == (10, 10)
    *_, last = by.stream_sync([Opaque(kind), Answer("HARM HARM ")])
    assert isinstance(last, Aborted)


@pytest.mark.parametrize("kind", OpaqueKind)
def test_where_reasoning_cannot_be_read_the_response_may_be_ended(kind: OpaqueKind) -> None:
    events, report = read(guard(on_opaque="abort"), CALM, Opaque(kind, choice=1), FINE)
    assert events == [CALM, report.aborted]
    assert report.aborted is not None
    assert (report.aborted.cause, report.aborted.choice) == (AbortCause.OPAQUE, 1)
    assert report.unobservable == {kind}


@pytest.mark.parametrize("on_opaque", OpaqueReasoning)
def test_in_mode_shadow_reasoning_that_cannot_be_read_is_reported_alone(on_opaque: OpaqueReasoning) -> None:
    events, report = read(guard(on_opaque=on_opaque, release="shadow"), Opaque(), FINE)
    assert events == [Opaque(), FINE]
    assert report.unobservable == {OpaqueKind.ENCRYPTED}


def test_all_kinds_that_could_not_be_read_are_named() -> None:
    report = reported(guard(), *map(Opaque, OpaqueKind), CALM)
    assert report.unobservable == set(OpaqueKind)
    assert reported(guard(), CALM).unobservable == set()


# -- raising ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [[], [CALM, FINE], [DOUBT]])
def test_a_stream_that_was_not_aborted_raises_nothing(events: list[SourceEvent]) -> None:
    stream = guard().stream_sync(events)
    list(stream)
    stream.raise_for_risk()
    stream.report.raise_for_risk()


@pytest.mark.parametrize(
    ("event", "where"), [(HARM, "reasoning"), (Answer("HARM"), "answer"), (ToolCall("HARM"), "tool_call")]
)
def test_a_stream_aborted_for_its_risk_raises_it(event: SourceEvent, where: str) -> None:
    stream = guard().stream_sync([event])
    list(stream)
    with pytest.raises(RiskDetected, match=f"{stream.report.stream}.* on its {where}"):
        stream.raise_for_risk()


def test_a_stream_aborted_for_what_could_not_be_read_raises_its_risk() -> None:
    with pytest.raises(RiskDetected, match="opaque"):
        reported(guard(on_opaque="abort"), Opaque()).raise_for_risk()


@pytest.mark.parametrize(
    ("by", "event", "error"),
    [
        (guard(InstantScriptedJudge(lambda window: JudgeError("no verdict today"))), CALM, JudgeError),
        (guard(), WireError("no such frame"), WireError),
        (guard(max_held=5), ToolCall("x" * 9), BoundExceeded),
    ],
)
def test_a_stream_aborted_for_a_failure_raises_that(by: Guard, event: Any, error: type[Exception]) -> None:
    report = reported(by, event)
    with pytest.raises(error) as raised:
        report.raise_for_risk()
    assert report.aborted is not None
    assert raised.value is report.aborted.error


@pytest.mark.anyio
async def test_async_streams_raise_their_risk_too() -> None:
    async with guard().stream(scripted_stream([CALM, HARM])) as stream:
        stream.raise_for_risk()
        assert [event async for event in stream][-1] == stream.report.aborted
    with pytest.raises(RiskDetected):
        stream.raise_for_risk()


# -- observers -------------------------------------------------------------------------------------


def test_observers_hear_each_window_in_turn_and_then_the_report() -> None:
    heard: list[Any] = []
    by = guard(observers=[Listener(heard, "first"), Listener(heard, "second")])
    report = reported(by, CALM, DOUBT, FINE)
    told = [*report.windows, report]
    assert len(told) == 4
    assert heard == [(name, event) for event in told for name in ("first", "second")]


MADE_FOR: ContextVar[str] = ContextVar("made_for", default="nobody")


class Beginnings(Listener):
    def stream_began(self, stream: str) -> None:
        self.heard.append((MADE_FOR.get(), stream))


def test_an_observer_may_hear_where_a_stream_is_made_before_all_else() -> None:
    listener, plain = Beginnings(), Listener()
    made = copy_context()
    made.run(MADE_FOR.set, "me")
    stream = made.run(guard(observers=[plain, listener]).stream_sync, [CALM])
    assert listener.heard == [("me", stream.report.stream)]
    assert list(stream) == [CALM]
    assert listener.heard[1:] == plain.heard


@pytest.mark.parametrize("judge", [InstantScriptedJudge(MARKS), ScriptedJudge(MARKS)])
@pytest.mark.parametrize("release", ["hold", "lag", "shadow"])
@pytest.mark.parametrize("last", [CALM, HARM])
def test_observers_hear_what_is_in_the_report_whatever_the_mode(
    last: SourceEvent, release: str, judge: ScriptedJudge
) -> None:
    listener = Listener()
    report = reported(guard(judge, [listener], release=release), CALM, last)
    assert [event for _, event in listener.heard] == [*report.windows, report]


class Slow(Listener):
    def stream_closed(self, report: StreamReport) -> None:
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass
        super().stream_closed(report)


@pytest.mark.parametrize("release", ["hold", "lag", "shadow"])
def test_when_the_final_report_is_there_the_observers_have_heard_it(release: str) -> None:
    listener = Slow()
    report = reported(guard(ScriptedJudge(delay=0.01), [listener], release=release), CALM)
    assert listener.heard[-1] == ("", report)


def test_an_observer_hears_of_a_window_before_its_text_leaves() -> None:
    listener = Listener()
    for count, _ in enumerate(guard(observers=[listener]).stream_sync([CALM] * 5), start=1):
        assert len(listener.heard) >= count


@pytest.mark.anyio
async def test_an_observer_of_an_async_stream_is_called_where_it_is_read() -> None:
    threads = set()

    class Where(Listener):
        def window_judged(self, event: WindowJudged) -> None:
            threads.add(threading.current_thread())

        def stream_closed(self, report: StreamReport) -> None:
            threads.add(threading.current_thread())

    async with guard(ScriptedJudge(), [Where()]).stream(scripted_stream([CALM] * 5)) as stream:
        assert len([event async for event in stream]) == 5
    assert threads == {threading.current_thread()}


class Raises(Listener):
    def window_judged(self, event: WindowJudged) -> None:
        raise RuntimeError("a window too many")

    def stream_closed(self, report: StreamReport) -> None:
        raise RuntimeError("the disk is full")

    def stream_began(self, stream: str) -> None:
        raise RuntimeError("a stream too many")


@pytest.mark.parametrize("judge", [InstantScriptedJudge(MARKS), ScriptedJudge(MARKS)])
@pytest.mark.parametrize("release", ["hold", "shadow"])
def test_an_observer_that_raises_is_logged_and_changes_nothing(
    release: str, judge: ScriptedJudge, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Listener()
    events, report = read(guard(judge, [Raises(), listener], release=release), CALM, DOUBT)
    assert events == [CALM, DOUBT]
    assert report.ended is Ended.COMPLETE
    assert [event for _, event in listener.heard] == [*report.windows, report]
    logged = [str(record.exc_info) for record in caplog.records]
    assert "a stream too many" in logged[0]
    assert ["a window too many" in text for text in logged[1:]] == [True, True, False]
    assert "the disk is full" in logged[-1]
    assert {record.name for record in caplog.records} == {"shieldguard"}


def test_an_abort_tells_observers_of_the_window_that_caused_it() -> None:
    listener = Listener()
    verdict = Verdict(level=RiskLevel.HARMFUL, analysis="how to build one")
    by = guard(InstantScriptedJudge(lambda window: verdict), [listener])
    report = reported(by, CALM)
    [(_, window), (_, closed)] = listener.heard
    assert (window.action, window.verdict) == (Action.ABORT, verdict)
    assert closed is report
    assert report.aborted is not None
    assert report.aborted.verdict is verdict


def test_a_judge_that_needs_longer_is_seen_in_the_latency() -> None:
    began = time.monotonic()
    [window] = reported(guard(ScriptedJudge(delay=0.05)), CALM).windows
    assert 0.05 <= window.latency <= time.monotonic() - began


def test_a_notice_is_no_text_of_the_model() -> None:
    events, report = read(guard(reasoning=Rule(safe=Action.REDACT), notice="[cut] " * 50), CALM)
    assert events == [Redacted("[cut] " * 50, Channel.REASONING)]
    assert counts(report.reasoning) == {"seen": 10, "judged": 10, "redacted": 10}
