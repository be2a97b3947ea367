"""Generated streams, and a driver without I/O that keeps its own account of what a session does.

The account is independent of the session's: it knows the source, sees the windows that were judged and the
events that were taken, and when.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TypeAlias

from hypothesis import strategies as st

from shieldguard import (
    Aborted,
    Action,
    Answer,
    Channel,
    End,
    GuardSession,
    JudgeError,
    Opaque,
    Passthrough,
    Policy,
    Reasoning,
    Release,
    ReleasedEvent,
    RiskLevel,
    Rule,
    SentenceWindower,
    SizeWindower,
    SourceEvent,
    StreamReport,
    ToolCall,
    Verdict,
    Window,
    Windower,
)

LaneKey: TypeAlias = tuple[int, Channel, int]
"""Choice, channel, block."""

CHANNELS: dict[type[SourceEvent], Channel] = {
    Reasoning: Channel.REASONING,
    Answer: Channel.ANSWER,
    ToolCall: Channel.TOOL_CALL,
}
STALLED = 3000


def lane_of(event: object) -> LaneKey | None:
    """None for what has no text to judge."""
    if isinstance(event, Reasoning | Answer | ToolCall):
        return event.choice, CHANNELS[type(event)], event.block
    return None


def lane_at(window: Window) -> LaneKey:
    return window.choice, window.channel, window.block


def verdict_on(window: Window) -> Verdict | JudgeError:
    """By the words of the new text."""
    if "FAIL" in window.new:
        return JudgeError("no verdict today")
    level = 1.0 if "HARM" in window.new else 0.5 if "DOUBT" in window.new else 0.0
    return Verdict(level=RiskLevel(level))


@dataclass(frozen=True, kw_only=True)
class Play:
    """A source, a guard, and how slow the judge is: steps until each verdict, in turn."""

    source: tuple[SourceEvent, ...]
    policy: Policy
    windower: Windower
    delays: tuple[int, ...] = (0,)
    step: float = 0.001  # seconds
    leaves_after: int | None = None  # source events

    def texts(self) -> dict[LaneKey, str]:
        """All text of each lane."""
        found: dict[LaneKey, str] = {}
        for event in self.source:
            if isinstance(event, Reasoning | Answer | ToolCall) and (lane := lane_of(event)):
                found[lane] = found.get(lane, "") + event.text
        return found


@dataclass(frozen=True)
class Taken:
    """An event that left; how much of each lane was out then, this event with it, and how much had been
    judged; and the step in which it left."""

    event: ReleasedEvent
    out: dict[LaneKey, int]
    judged: dict[LaneKey, int]
    step: int


@dataclass
class Outcome:
    play: Play
    session: GuardSession
    read: int = 0
    taken: list[Taken] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    answers: list[tuple[Window, Verdict | JudgeError]] = field(default_factory=list)
    judged: dict[LaneKey, int] = field(default_factory=dict)
    most_held: int = 0
    stalled: bool = False
    overlooked: bool = False  # something could be done where the session said that nothing had stirred

    @property
    def events(self) -> list[ReleasedEvent]:
        return [taken.event for taken in self.taken]

    @property
    def aborted(self) -> Aborted | None:
        return next((event for event in self.events if isinstance(event, Aborted)), None)

    @property
    def report(self) -> StreamReport:
        return self.session.report()

    def released(self) -> dict[LaneKey, str]:
        """The text of each lane that left."""
        found: dict[LaneKey, str] = {}
        for event in self.events:
            if isinstance(event, Reasoning | Answer | ToolCall) and (lane := lane_of(event)):
                found[lane] = found.get(lane, "") + event.text
        return found


Session: TypeAlias = Callable[..., GuardSession]


def perform(play: Play, session: Session = GuardSession) -> Outcome:
    """Play it to its end, or until it stalls."""
    guarded = session("a question", policy=play.policy, windower=play.windower)
    outcome = Outcome(play, guarded)
    at_judge: list[tuple[int, Window]] = []
    delays = cycle(play.delays)
    source = list(play.source)
    for step in range(STALLED):
        now = step * play.step
        if play.leaves_after is not None and outcome.read >= play.leaves_after and not guarded.finished:
            guarded.leave(now)
        elif guarded.wants_data and source:
            guarded.receive(source.pop(0), now)
            outcome.read += 1
        elif guarded.wants_data:
            guarded.finish(now)
        before = len(outcome.windows), len(outcome.taken)
        quiet = not (guarded.stirred or at_judge)
        _judge(outcome, at_judge, delays, step, now)
        _take(outcome, step, now)
        outcome.overlooked |= quiet and before != (len(outcome.windows), len(outcome.taken))
        if guarded.deadline is not None and guarded.deadline <= now:
            guarded.tick(now)
        if guarded.aborted is not None:
            for event in source[:2]:  # a driver may have had them in hand
                guarded.receive(event, now)
            _take(outcome, step, now)
        if guarded.closed:
            return outcome
    outcome.stalled = True
    return outcome


def _judge(
    outcome: Outcome, at_judge: list[tuple[int, Window]], delays: Iterable[int], step: int, now: float
) -> None:
    """Hand out all windows that there are, and bring back the verdicts that are due."""
    slow = iter(delays)
    while True:
        new = outcome.session.windows(now)
        outcome.windows += new
        at_judge += [(step + next(slow), window) for window in new]
        due = [entry for entry in at_judge if entry[0] <= step]
        if not due:
            return
        for entry in due:
            at_judge.remove(entry)
            if outcome.session.aborted is None:
                _answer(outcome, entry[1], now)


def _answer(outcome: Outcome, window: Window, now: float) -> None:
    answer = verdict_on(window)
    outcome.answers.append((window, answer))
    lane = lane_at(window)
    failed_open = outcome.play.policy.on_failure is Action.FLAG
    if isinstance(answer, Verdict) or failed_open:
        outcome.judged[lane] = max(outcome.judged.get(lane, 0), window.end)
    if isinstance(answer, Verdict):
        outcome.session.judged(window, answer, now)
    else:
        outcome.session.failed(window, answer, now)


def _take(outcome: Outcome, step: int, now: float) -> None:
    out = {lane: len(text) for lane, text in outcome.released().items()}
    for event in outcome.session.take(now):
        if isinstance(event, Reasoning | Answer | ToolCall) and (lane := lane_of(event)):
            out[lane] = out.get(lane, 0) + len(event.text)
        outcome.taken.append(Taken(event, dict(out), dict(outcome.judged), step))
    arrived = sum(
        len(event.text)
        for event in outcome.play.source[: outcome.read]
        if isinstance(event, Reasoning | Answer | ToolCall)
    )
    outcome.most_held = max(outcome.most_held, arrived - sum(out.values()))


# -- what is generated ---------------------------------------------------------------------------------

_WORDS = ["a", "bit", "so. ", "then, ", "why? ", "no\n", "说。", "12.5", " ", "and so on"]
_MARKS = ["HARM. ", "DOUBT ", "FAIL. "]


def texts(*, marked: bool = True) -> st.SearchStrategy[str]:
    """Short texts, in which a word in some thirty is a mark."""
    words = _WORDS * 9 + _MARKS if marked else _WORDS
    return st.lists(st.sampled_from(words), min_size=1, max_size=6).map("".join)


def _event(place: int, kind: str, choice: int, block: int, text: str) -> SourceEvent:
    match kind:
        case "reasoning":
            return Reasoning(text, choice=choice, block=block, origin=place)
        case "answer":
            return Answer(text, choice=choice, origin=place)
        case "tool call":
            return ToolCall(text, choice=choice, block=block, origin=place)
        case "opaque":
            return Opaque(choice=choice, origin=place)
        case "other":
            return Passthrough("", choice=choice, origin=place)
    return End("stop", choice=choice, origin=place)


_KINDS = ["reasoning"] * 10 + ["answer"] * 6 + ["tool call"] * 4 + ["other", "opaque", "end"]


def sources(
    *, choices: int = 2, marked: bool = True, size: int = 14
) -> st.SearchStrategy[tuple[SourceEvent, ...]]:
    """Events of some choices, interleaved; each knows its place as its origin."""
    event = st.tuples(
        st.sampled_from(_KINDS), st.integers(0, choices - 1), st.integers(0, 1), texts(marked=marked)
    )
    return st.lists(event, min_size=1, max_size=size).map(
        lambda found: tuple(_event(place, *parts) for place, parts in enumerate(found))
    )


windowers: st.SearchStrategy[Windower] = st.sampled_from(
    [SentenceWindower(shortest=6, longest=18), SentenceWindower(shortest=1, longest=4), SizeWindower(size=5)]
)
rules = st.sampled_from([Rule(), Rule(potential=Action.REDACT), Rule(harmful=Action.REDACT)])
delays = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)


def policies(*releases: Release, failing_open: bool = False) -> st.SearchStrategy[Policy]:
    return st.builds(
        Policy,
        reasoning=rules,
        answer=st.sampled_from([Rule(), Rule(harmful=Action.REDACT), None]),
        tool_call=st.sampled_from([Rule(), None]),
        release=st.sampled_from(releases or [Release.HOLD]),
        max_unjudged=st.integers(1, 30),
        on_failure=st.sampled_from([Action.ABORT, Action.FLAG] if failing_open else [Action.ABORT]),
        max_wait=st.none(),
        join_after=st.sampled_from([0.0, 0.002, 9.0]),
    )


def plays(
    *releases: Release, marked: bool = True, failing_open: bool = False, leaving: bool = False
) -> st.SearchStrategy[Play]:
    return st.builds(
        Play,
        source=sources(marked=marked),
        policy=policies(*releases, failing_open=failing_open),
        windower=windowers,
        delays=delays,
        leaves_after=st.integers(1, 9) if leaving else st.none(),
    )


def before(source: Sequence[SourceEvent], place: int, choice: int) -> dict[LaneKey, int]:
    """How much reasoning of a choice came before a place in the source, by lane."""
    found: dict[LaneKey, int] = {}
    for event in source[:place]:
        if isinstance(event, Reasoning) and event.choice == choice and (lane := lane_of(event)):
            found[lane] = found.get(lane, 0) + len(event.text)
    return found
