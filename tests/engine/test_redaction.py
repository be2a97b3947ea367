"""What a redaction leaves out, and what it says of it."""

import pytest

from shieldguard import (
    Action,
    Answer,
    End,
    Guard,
    Policy,
    Reasoning,
    Redacted,
    ReleasedEvent,
    RiskLevel,
    Rule,
    SourceEvent,
    StreamReport,
    ToolCall,
    Verdict,
)
from shieldguard.session import GuardSession
from shieldguard.testing import InstantScriptedJudge


def test_an_empty_text_in_an_earlier_block_is_no_redaction() -> None:
    source: list[SourceEvent] = [Reasoning("Fine."), Reasoning(""), Reasoning("A HARM.", block=1), End()]
    by = Guard(
        judge=InstantScriptedJudge({"HARM": 1.0}), policy=Policy(reasoning=Rule(harmful=Action.REDACT))
    )
    with by.stream_sync([source]) as stream:
        redacted = [event for event in stream if isinstance(event, Redacted)]
    assert [event.block for event in redacted] == [1]


def thought_after(*before: SourceEvent) -> tuple[str, StreamReport]:
    """What leaves of a thought with harm in its second half, behind these events; all come at once."""
    source = [*before, Reasoning("Fine. " * 30, block=5), Reasoning("A HARM.", block=5), End()]
    redact = Rule(harmful=Action.REDACT)
    by = Guard(
        judge=InstantScriptedJudge({"HARM": 1.0}),
        policy=Policy(reasoning=redact, answer=redact, tool_call=redact, max_wait=None),
    )
    with by.stream_sync([source]) as stream:
        text = "".join(event.text for event in stream if isinstance(event, Reasoning) and event.block == 5)
    return text, stream.report


@pytest.mark.parametrize(
    "before",
    [
        [ToolCall("HARM")],
        [Answer("HARM")],
        [Answer("Fine. " * 60), Answer("HARM."), Reasoning("Well.", block=4)],
        [Reasoning("HARM", block=4)],
    ],
)
def test_a_redaction_covers_the_reasoning_behind_it_though_that_is_redacted_later_on(
    before: list[SourceEvent],
) -> None:
    text, report = thought_after(*before)
    assert text == ""
    assert report.aborted is None


def test_reasoning_behind_a_redacted_call_is_redacted_however_it_came() -> None:
    redact = Rule(harmful=Action.REDACT)
    source: list[SourceEvent] = [
        Reasoning("Fine."),
        ToolCall("HARM"),
        Reasoning("More."),
        Answer("Well."),
        End(),
    ]
    by = Guard(judge=InstantScriptedJudge({"HARM": 1.0}), policy=Policy(tool_call=redact))
    for batches in ([source], [[event] for event in source]):
        with by.stream_sync(batches) as stream:
            events: list[ReleasedEvent] = list(stream)
        texts = [
            event.notice if isinstance(event, Redacted) else getattr(event, "text", "") for event in events
        ]
        assert texts == ["Fine.", by.policy.notice, by.policy.notice, "Well.", ""]


@pytest.mark.parametrize("first", ["A HARM.", "HARM", "More HARM."])
def test_a_redaction_holds_whatever_verdict_comes_first(first: str) -> None:
    redact = Rule(harmful=Action.REDACT)
    policy = Policy(reasoning=redact, tool_call=redact)
    session = GuardSession(policy=policy)
    source: list[SourceEvent] = [
        Reasoning("Fine."),
        Answer("So."),
        Reasoning("A HARM."),
        ToolCall("HARM"),
        Reasoning("More HARM.", block=1),
        End(),
    ]
    for event in source:
        session.receive(event, 0.0)
    session.finish(0.0)
    shown: list[ReleasedEvent] = []
    waiting = session.windows(0.0)
    while waiting:
        window = next((one for one in waiting if one.text.endswith(first)), waiting[0])
        waiting.remove(window)
        level = RiskLevel.HARMFUL if "HARM" in window.text[window.start :] else RiskLevel.SAFE
        session.judged(window, Verdict(level=level), 0.0)
        waiting += session.windows(0.0)
        shown += session.take(0.0)
    assert session.closed
    assert [event for event in shown if "HARM" in getattr(event, "text", "")] == []


def test_a_thought_behind_a_redacted_call_is_left_out_however_it_came() -> None:
    source: list[SourceEvent] = [ToolCall("HARM."), Reasoning("More."), Reasoning(" And more."), End()]
    by = Guard(
        judge=InstantScriptedJudge({"HARM": 1.0}), policy=Policy(tool_call=Rule(harmful=Action.REDACT))
    )
    for chunks in ([source], [source[:2], source[2:]], [[event] for event in source]):
        with by.stream_sync(chunks) as stream:
            assert not any(isinstance(event, Reasoning) for event in stream)


@pytest.mark.parametrize("read_at_once", [1, 2, 3, 4])
def test_a_redacted_call_redacts_the_thoughts_behind_it_however_they_come(read_at_once: int) -> None:
    source: list[SourceEvent] = [
        ToolCall("A HARM."),
        Reasoning("On", block=1),
        Reasoning("ward.", block=1),
        End(),
    ]
    rule = Rule(harmful=Action.REDACT)
    by = Guard(judge=InstantScriptedJudge({"HARM": 1.0}), policy=Policy(reasoning=rule, tool_call=rule))
    batches = [source[at : at + read_at_once] for at in range(0, len(source), read_at_once)]
    with by.stream_sync(batches) as stream:
        out = [type(event) for event in stream]
    assert out == [Redacted, Redacted, End]
