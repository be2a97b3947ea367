"""What each promise says of one outcome. An outcome that breaks it is an AssertionError."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from shieldguard import (
    AbortCause,
    Aborted,
    Action,
    Answer,
    Channel,
    End,
    Ended,
    JudgeError,
    Reasoning,
    Redacted,
    Release,
    SourceEvent,
    ToolCall,
    Verdict,
    Window,
)
from tests.promises.rig import LaneKey, Outcome, before, lane_at, lane_of

Promise: TypeAlias = Callable[[Outcome], None]


def order(outcome: Outcome) -> None:
    """Events of a choice leave in the order in which they came, and nothing behind `Aborted`."""
    places: dict[int | None, int] = {}
    texts: dict[int, str] = {}
    for event in outcome.events:
        if isinstance(event, Aborted):
            continue
        place = event.origin
        assert place >= places.get(event.choice, 0)
        places[event.choice] = place
        if isinstance(event, Reasoning | Answer | ToolCall):
            texts[place] = texts.get(place, "") + event.text
    for place, text in texts.items():
        source = outcome.play.source[place]
        assert isinstance(source, Reasoning | Answer | ToolCall)
        assert source.text.startswith(text)
    assert not any(isinstance(event, Aborted) for event in outcome.events[:-1])


def hold(outcome: Outcome) -> None:
    """No character of reasoning leaves before a judged window covers it; in mode `lag` a few may."""
    policy = outcome.play.policy
    allowed = policy.max_unjudged if policy.release is Release.LAG else 0
    for taken in outcome.taken:
        unjudged = sum(
            max(0, out - taken.judged.get(lane, 0))
            for lane, out in taken.out.items()
            if lane[1] is Channel.REASONING
        )
        assert unjudged <= allowed
    for lane, text in outcome.released().items():
        assert outcome.play.texts()[lane].startswith(text)


def shadow(outcome: Outcome) -> None:
    """Everything leaves as it came, in the step in which it came."""
    assert outcome.events == list(outcome.play.source)
    assert [taken.step for taken in outcome.taken] == list(range(len(outcome.play.source)))
    judged = {channel for channel in Channel if outcome.play.policy.rule(channel) is not None}
    for lane, text in outcome.play.texts().items():
        if lane[1] in judged:
            assert outcome.judged[lane] == len(text)


def gate(outcome: Outcome) -> None:
    """Answers and tool calls wait for the reasoning before them; the tool calls of a turn leave as one."""
    source = outcome.play.source
    steps: dict[int, int] = {}
    for taken in outcome.taken:
        event = taken.event
        if isinstance(event, Answer | ToolCall):
            for reasoning, length in before(source, event.origin, event.choice).items():
                assert taken.judged.get(reasoning, 0) >= length
        if isinstance(event, ToolCall):
            steps[event.origin] = taken.step
            assert event is source[event.origin]
            if outcome.play.policy.tool_call is not None and (lane := lane_of(event)):
                assert taken.judged.get(lane, 0) >= taken.out[lane]
    for turn in _turns(source):
        assert len({steps.get(place) for place in turn}) == 1


def _turns(source: tuple[SourceEvent, ...]) -> Iterator[list[int]]:
    """The places of the tool calls of each turn."""
    open_turns: dict[int, list[int]] = {}
    for place, event in enumerate(source):
        if isinstance(event, ToolCall):
            open_turns.setdefault(event.choice, []).append(place)
        elif isinstance(event, Reasoning | Answer | End) and event.choice in open_turns:
            yield open_turns.pop(event.choice)
    yield from open_turns.values()


def coverage(outcome: Outcome) -> None:
    """Every character of reasoning that came is in a judged window, once, unless the stream was aborted."""
    assert not outcome.stalled
    if outcome.session.aborted is not None:
        return
    came: dict[LaneKey, int] = {}
    for event in outcome.play.source[: outcome.read]:
        if isinstance(event, Reasoning) and (lane := lane_of(event)):
            came[lane] = came.get(lane, 0) + len(event.text)
    for lane, length in came.items():
        spans = [(w.start, w.end) for w, answer in _answers(outcome, lane) if isinstance(answer, Verdict)]
        assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
        assert spans[-1][1] == length
    assert outcome.report.reasoning.judged == sum(came.values())


def _answers(outcome: Outcome, lane: LaneKey) -> list[tuple[Window, Verdict | JudgeError]]:
    return [pair for pair in outcome.answers if lane_at(pair[0]) == lane]


def passes(outcome: Outcome) -> None:
    """What nobody objects to comes out whole, and as soon as it can."""
    assert not outcome.stalled
    assert not outcome.overlooked
    assert outcome.report.ended is Ended.COMPLETE
    assert outcome.released() == outcome.play.texts()
    left = {id(event) for event in outcome.events}
    assert all(id(event) in left for event in outcome.play.source if lane_of(event) is None)


def abort(outcome: Outcome) -> None:
    """A harmful window ends the whole response before it leaves, and so does a judge without a verdict."""
    assert not outcome.stalled
    policy = outcome.play.policy
    for window, answer in outcome.answers:
        rule = policy.rule(window.channel) or policy.reasoning
        if isinstance(answer, JudgeError) or rule.action(answer.level) is Action.ABORT:
            assert outcome.aborted is not None
            last = outcome.taken[-1]
            assert isinstance(last.event, Aborted)
            lane = lane_at(window)
            assert last.out.get(lane, 0) <= window.start
            assert all(
                out <= last.judged.get(other, 0)
                for other, out in last.out.items()
                if policy.rule(other[1]) is not None
            )
            expected = AbortCause.RISK if isinstance(answer, Verdict) else AbortCause.JUDGE_FAILURE
            assert last.event.cause is expected
            return
    assert outcome.aborted is None


def redaction(outcome: Outcome) -> None:
    """From a redacted window on no text of its lane leaves, no later reasoning, no tool call that follows."""
    redacted_at: dict[int, int] = {}
    for place, taken in enumerate(outcome.taken):
        if isinstance(taken.event, Redacted) and taken.event.channel is Channel.REASONING:
            redacted_at.setdefault(taken.event.choice, place)
    for choice, place in redacted_at.items():
        later = [taken.event for taken in outcome.taken[place:]]
        assert not any(isinstance(event, Reasoning | ToolCall) and event.choice == choice for event in later)
    for window, answer in outcome.answers:
        rule = outcome.play.policy.rule(window.channel) or outcome.play.policy.reasoning
        if isinstance(answer, Verdict) and rule.action(answer.level) is Action.REDACT:
            lane = lane_at(window)
            assert len(outcome.released().get(lane, "")) <= window.start
            if outcome.aborted is None and lane[1] is Channel.REASONING:
                assert lane[0] in redacted_at


def bounds(outcome: Outcome) -> None:
    """What is held is bounded by the bound and the event that passed it, and the stream comes to its end."""
    assert not outcome.stalled
    largest = max(map(len, (getattr(event, "text", "") for event in outcome.play.source)))
    assert outcome.most_held <= outcome.play.policy.max_held + largest


def failure(outcome: Outcome) -> None:
    """A judge without a verdict is no pass: an abort, or on request recorded as exposed."""
    failed = [window for window, answer in outcome.answers if isinstance(answer, JudgeError)]
    recorded = [record for record in outcome.session.records if record.error is not None]
    assert len(recorded) == len(failed)
    assert outcome.report.failures == len(failed)
    if failed and outcome.play.policy.on_failure is Action.ABORT:
        assert outcome.report.ended is Ended.ABORTED
    report = outcome.report
    exposed = report.reasoning.exposed + report.answer.exposed + report.tool_call.exposed
    if outcome.aborted is None:
        assert exposed >= sum(len(window.new) for window in failed)


def invariance(outcome: Outcome, other: Outcome) -> None:
    """Two chunkings of one source: the same windows, verdicts and texts."""
    assert _judgements(outcome) == _judgements(other)
    assert outcome.released() == other.released()
    assert outcome.report.ended is other.report.ended


def _judgements(outcome: Outcome) -> list[object]:
    return [(w.choice, w.channel, w.block, w.start, w.text, repr(answer)) for w, answer in outcome.answers]


def debounce(outcome: Outcome) -> None:
    """An abort takes `abort_hits` of a lane's last `abort_within` windows; doubt is held till settled."""
    policy = outcome.play.policy
    lanes: dict[LaneKey, list[tuple[int, bool]]] = {}
    confirmed = False
    for window, answer in outcome.answers:
        assert isinstance(answer, Verdict)
        lane = lanes.setdefault(lane_at(window), [])
        rule = policy.rule(window.channel) or policy.reasoning
        lane.append((window.start, rule.action(answer.level) is Action.ABORT))
        confirmed = lane[-1][1] and sum(hit for _, hit in lane[-policy.abort_within :]) >= policy.abort_hits
        if confirmed:
            break
    assert (outcome.aborted is not None) is confirmed
    if confirmed:
        doubtful = next(start for start, hit in lane[-policy.abort_within :] if hit)
        key = lane_at(window)
        assert outcome.taken[-1].out.get(key, 0) <= doubtful


def isolation(outcome: Outcome) -> None:
    """Windows hold text of their own lane alone, and so does what leaves."""
    texts = outcome.play.texts()
    for window in outcome.windows:
        text = texts[lane_at(window)]
        assert text.startswith(window.text)
        assert window.start < window.end
    for lane, text in outcome.released().items():
        assert texts[lane].startswith(text)


def accounts(outcome: Outcome) -> None:
    """The report's sums are true."""
    report = outcome.report
    for channel, tally in (
        (Channel.REASONING, report.reasoning),
        (Channel.ANSWER, report.answer),
        (Channel.TOOL_CALL, report.tool_call),
    ):
        left = sum(len(text) for lane, text in outcome.released().items() if lane[1] is channel)
        assert tally.released == left
        assert tally.seen == tally.released + tally.redacted + tally.withheld
        judged = sum(
            len(window.new)
            for window, answer in outcome.answers
            if window.channel is channel and isinstance(answer, Verdict)
        )
        assert tally.judged == judged
