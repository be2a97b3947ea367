"""Virtual time against the real guard, and against times counted by hand."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shieldguard import (
    Action,
    Answer,
    Channel,
    Ended,
    Guard,
    GuardSession,
    JudgeTimeout,
    Policy,
    Reasoning,
    Release,
    RiskLevel,
    Rule,
    SizeWindower,
    SourceEvent,
    ToolCall,
    Verdict,
    Window,
)
from shieldguard.evaluation.virtual import Answered, Ask, Played, play
from shieldguard.testing import InstantScriptedJudge
from tests.promises import rig

SAFE = Verdict(level=RiskLevel.SAFE)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_stream_in_virtual_time_is_the_guarded_stream(data: st.DataObject) -> None:
    """The text of each lane that leaves, the windows and the end, with a judge that answers at once."""
    drawn = data.draw(rig.plays(Release.HOLD, Release.SHADOW, failing_open=True))
    policy = replace(drawn.policy, join_after=9.0)  # a real judge may be slow by chance
    session = GuardSession(policy=policy, windower=drawn.windower)
    played = play(
        [(0.01 * n, event) for n, event in enumerate(drawn.source)],
        session,
        lambda window: (rig.verdict_on(window), 0.0),
    )
    guard = Guard(judge=InstantScriptedJudge(rule=rig.verdict_on), policy=policy, windower=drawn.windower)
    with guard.stream_sync(drawn.source) as stream:
        left = list(stream)
    report = stream.final_report()
    assert texts(played.events) == texts(left)
    assert played.report.ended is report.ended
    assert [replace(one, stream="", latency=0, error=None) for one in played.report.windows] == [
        replace(one, stream="", latency=0, error=None) for one in report.windows
    ]


def texts(events: object) -> dict[rig.LaneKey, str]:
    found: dict[rig.LaneKey, str] = {}
    for event in events:  # type: ignore[attr-defined]
        if isinstance(event, Reasoning | Answer | ToolCall) and (lane := rig.lane_of(event)):
            found[lane] = found.get(lane, "") + event.text
    return found


def slow(seconds: float) -> Ask:
    def ask(window: Window) -> Answered:
        level = RiskLevel.HARMFUL if "HARM" in window.new else RiskLevel.SAFE
        return Verdict(level=level), seconds

    return ask


def pieces(count: int, *, harm: int | None = None) -> list[tuple[float, Reasoning]]:
    """Ten characters each second, from second 1 on."""
    return [(float(n + 1), Reasoning("HARM......" if n == harm else "..........")) for n in range(count)]


def played(source: list[tuple[float, Reasoning]], seconds: float, **policy: object) -> Played:
    made = Policy(max_wait=None, **policy)  # type: ignore[arg-type]
    return play(
        source, GuardSession(policy=made, windower=SizeWindower(size=20), stream="one"), slow(seconds)
    )


def test_verdicts_come_when_they_say_and_let_the_text_out() -> None:
    found = played(pieces(4), 0.5)
    assert [(one.asked, one.answered) for one in found.judged] == [(2.0, 2.5), (4.0, 4.5)]
    assert found.out(Channel.REASONING) == [(2.5, 10), (2.5, 10), (4.5, 10), (4.5, 10)]
    assert found.report.reasoning.added == 1.5


def test_an_abort_closes_the_source_at_once() -> None:
    found = played(pieces(9, harm=2), 0.5)
    assert found.aborted_at == 4.5
    assert found.report.ended is Ended.ABORTED
    assert len(found.received) == 4  # the fifth piece comes at 5.0
    assert [count for _, count in found.out(Channel.REASONING)] == [10, 10]


def test_a_judge_over_its_time_is_a_timeout() -> None:
    found = played(pieces(2), 60.0, judge_timeout=5.0)
    assert isinstance(found.judged[0].outcome, JudgeTimeout)
    assert found.aborted_at == 7.0
    failing_open = played(pieces(2), 60.0, judge_timeout=5.0, on_failure=Action.FLAG)
    assert failing_open.report.ended is Ended.COMPLETE
    assert failing_open.report.reasoning.exposed == 20


def test_a_source_waits_at_the_bound() -> None:
    found = played(pieces(6), 10.0, max_held=24)
    # Three events of ten characters are over the bound; the first two leave at 12.0.
    assert [at for at, _ in found.received[:4]] == [1.0, 2.0, 3.0, 12.0]
    assert found.report.ended is Ended.COMPLETE


def test_the_clock_cuts_what_waits() -> None:
    policy = Policy(max_wait=2.5)
    session = GuardSession(policy=policy, windower=SizeWindower(size=20))
    found = play([(1.0, Reasoning("short")), (9.0, Reasoning(" rest"))], session, slow(0.1))
    assert [(one.window.new, one.asked) for one in found.judged] == [("short", 3.5), (" rest", 9.0)]


def test_where_nobody_knows_it_stops() -> None:
    session = GuardSession(windower=SizeWindower(size=20))
    found = play(pieces(4), session, lambda window: None if window.start else (SAFE, 0.0))
    assert found.unknown is not None
    assert (found.unknown.start, len(found.received)) == (20, 4)


@pytest.mark.parametrize("release", list(Release))
def test_the_same_input_gives_the_same_output(release: Release) -> None:
    first, second = (played(pieces(9, harm=7), 0.7, release=release) for _ in range(2))
    assert (first.taken, first.judged) == (second.taken, second.judged)


def test_a_verdict_that_takes_no_time_comes_before_what_could_leave_meanwhile() -> None:
    policy = Policy(answer=Rule(harmful=Action.REDACT), tool_call=None, max_wait=None)
    windower = SizeWindower(size=6)
    source: list[SourceEvent] = [ToolCall("HARM. "), Answer("aHARM. ")]
    session = GuardSession(policy=policy, windower=windower)
    played = play([(0.01, event) for event in source], session, lambda w: (rig.verdict_on(w), 0.0))
    guard = Guard(judge=InstantScriptedJudge(rule=rig.verdict_on), policy=policy, windower=windower)
    assert texts(played.events) == texts(guard.stream_sync(source)) == {}
    assert played.report.ended is Ended.ABORTED
