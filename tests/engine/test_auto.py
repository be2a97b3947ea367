"""Text of which nobody said whether it begins with reasoning: until a tag tells, it is a tentative answer."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shieldguard import (
    Action,
    Answer,
    Channel,
    Ended,
    Guard,
    Policy,
    Reasoning,
    Redacted,
    Relabel,
    ReleasedEvent,
    Rule,
    SizeWindower,
    SourceEvent,
    StreamReport,
    Window,
)
from shieldguard.testing import InstantScriptedJudge

THOUGHT = "The chain may be worn. The cassette, too. "
ANSWER = "Change both of them. "


REDACTING = Rule(potential=Action.REDACT)


def guarded(
    chunks: Sequence[str], *, rules: dict[str, float] | None = None, answer: Rule | None = REDACTING
) -> tuple[list[ReleasedEvent], StreamReport, list[Window]]:
    judge = InstantScriptedJudge(rules or {})
    policy = Policy(answer=answer, reasoning=REDACTING, max_wait=None)
    guard = Guard(judge=judge, policy=policy, windower=SizeWindower(size=16))
    with guard.stream_sync(chunks, thinking="auto") as stream:
        events = list(stream)
    return events, stream.report, judge.windows


def text(events: Sequence[ReleasedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Reasoning | Answer))


def shown(events: Sequence[ReleasedEvent]) -> list[tuple[str, str]]:
    """The released text by event type, and what became of the rest."""
    runs: list[tuple[str, str]] = []
    for event in events:
        kind, text = type(event).__name__, getattr(event, "text", "") or getattr(event, "notice", "")
        if runs and runs[-1][0] == kind:
            text = runs.pop()[1] + text
        runs.append((kind, text))
    return runs


def judged(report: StreamReport) -> list[tuple[Channel, int, int]]:
    return sorted((window.channel, window.start, window.end) for window in report.windows)


def by_characters(whole: str) -> list[str]:
    return list(whole)


@pytest.mark.parametrize("answer", [REDACTING, None])
def test_what_a_closing_tag_shows_to_have_been_reasoning_is_accounted_as_such(answer: Rule | None) -> None:
    events, report, windows = guarded([THOUGHT, "</think>", ANSWER], answer=answer)
    assert text(events) == THOUGHT + ANSWER
    assert (report.ended, report.reasoning.exposed) == (Ended.COMPLETE, 0)
    assert (report.reasoning.seen, report.reasoning.judged) == (len(THOUGHT), len(THOUGHT))
    assert (report.answer.seen, report.answer.judged) == (len(ANSWER), len(ANSWER) if answer else 0)
    assert "".join(window.new for window in windows) == THOUGHT + (ANSWER if answer else "")


def test_without_a_tag_it_was_the_answer_and_is_judged_even_where_answers_are_not() -> None:
    events, report, windows = guarded([THOUGHT], answer=None)
    assert text(events) == "".join(window.new for window in windows) == THOUGHT
    assert (report.reasoning.seen, report.answer.judged) == (0, len(THOUGHT))


@pytest.mark.parametrize("place", [0, 1])
def test_harm_before_the_closing_tag_aborts_before_the_answer(place: int) -> None:
    thought = (THOUGHT + "HARM. ") if place else ("HARM. " + THOUGHT)
    events, report, _ = guarded(by_characters(f"{thought}</think>{ANSWER}"), rules={"HARM": 1.0})
    assert report.ended is Ended.ABORTED
    assert "HARM" not in text(events)
    assert report.answer.released == 0 or report.reasoning.seen == 0


def test_a_redaction_before_the_tag_covers_the_rest_of_the_reasoning_alone() -> None:
    events, report, _ = guarded(
        by_characters(f"{THOUGHT}DOUBT. {THOUGHT}</think>{ANSWER}"), rules={"DOUBT": 0.5}
    )
    assert text(events).endswith(ANSWER)
    assert "DOUBT" not in text(events)
    assert report.reasoning.redacted + report.reasoning.released == report.reasoning.seen
    assert [event.channel for event in events if isinstance(event, Redacted)] == [Channel.ANSWER]


def test_the_answer_waits_for_the_verdict_on_all_before_the_tag() -> None:
    taken: list[ReleasedEvent] = []
    out_when_asked: list[str] = []

    def safe(_: Window) -> float:
        out_when_asked.append(text(taken))
        return 0.0

    guard = Guard(
        judge=InstantScriptedJudge(safe), policy=Policy(answer=None), windower=SizeWindower(size=64)
    )
    with guard.stream_sync(by_characters(f"{THOUGHT}</think>{ANSWER}"), thinking="auto") as stream:
        for event in stream:
            taken.append(event)  # one by one: the judge looks at them meanwhile
    assert out_when_asked == [""]
    assert text(taken) == THOUGHT + ANSWER


@given(
    words=st.lists(st.sampled_from(["so. ", "a bit ", "说。", "HARM. ", "DOUBT. ", "</think>"]), max_size=14),
    cuts=st.lists(st.integers(0, 80), max_size=9),
    answer=st.sampled_from([REDACTING, None]),
)
def test_chunks_change_nothing_and_nothing_leaves_unjudged(
    words: list[str], cuts: list[int], answer: Rule | None
) -> None:
    whole = "".join(words)
    rules = {"HARM": 1.0, "DOUBT": 0.5}
    at_once, report, _ = guarded([whole], rules=rules, answer=answer)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    chunks = [whole[begin:end] for begin, end in pairwise(places)]
    in_pieces, other_report, _ = guarded(chunks, rules=rules, answer=answer)
    assert other_report.ended is report.ended
    if report.ended is Ended.COMPLETE:
        assert shown(in_pieces) == shown(at_once)
        assert judged(other_report) == judged(report)
    else:  # what was judged by then has left
        short, long = sorted((text(at_once), text(in_pieces)), key=len)
        assert long.startswith(short)
    for account in (report, other_report):
        assert account.reasoning.exposed == 0
        assert account.answer.exposed == 0 or (answer is None and "</think>" in whole)
        if account.ended is Ended.COMPLETE:
            assert account.reasoning.judged == account.reasoning.seen


def test_each_block_that_turns_out_to_be_reasoning_is_accounted_for() -> None:
    source: list[SourceEvent] = [
        *(Reasoning(THOUGHT, block=block) for block in (0, 1)),
        *(Answer(THOUGHT, block=block, tentative=True) for block in (0, 1)),
        Relabel(),
        Answer(THOUGHT, block=0, tentative=True),
        Relabel(),
    ]
    guard = Guard(
        judge=InstantScriptedJudge({}), policy=Policy(max_wait=None), windower=SizeWindower(size=16)
    )
    stream = guard.stream_sync(source)
    assert text(list(stream)) == 5 * THOUGHT
    reasoning = stream.report.reasoning
    assert (reasoning.seen, reasoning.judged) == (5 * len(THOUGHT), 5 * len(THOUGHT))
    assert stream.report.answer.seen == 0
