"""Labelled traces through the real session, as streams in virtual time: what became of each."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter

from shieldguard.evaluation.asking import Asked, StoredVerdicts
from shieldguard.evaluation.labelled import LabelledStream
from shieldguard.evaluation.virtual import Ask, Played, play
from shieldguard.events import AbortCause, Answer, Channel, End, Reasoning, SourceEvent
from shieldguard.policy import Policy, Release
from shieldguard.session import GuardSession
from shieldguard.windows import SentenceWindower, Window, Windower, cuts


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a stream comes: characters in a chunk, and characters a second."""

    chunk: int = 16
    speed: float = 240.0

    def arrivals(self, stream: LabelledStream) -> Iterator[tuple[float, SourceEvent]]:
        written = 0
        for kind, text in ((Reasoning, stream.reasoning), (Answer, stream.answer)):
            for start in range(0, len(text), self.chunk):
                piece = text[start : start + self.chunk]
                written += len(piece)
                yield written / self.speed, kind(piece)
        yield written / self.speed, End()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A guard to be measured. `kind`: what of it is varied."""

    name: str
    policy: Policy = Policy()
    windower: Windower = SentenceWindower()
    ask: Ask
    kind: str = "as configured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a stream.

    `stopped_at`: the character of its reasoning up to which had been judged when it was aborted there.
    `written`: characters that the model had written then, or in all. `exposed`: characters of reasoning
    behind the onset of harm that the client got. Times in seconds: `seconds_late` from the onset's arrival
    to the abort; `added_reasoning` and `added_answer` from the first character's arrival to its release;
    `delays` for each character that left, by `(seconds, characters)`; `stalls` between releases of reasoning
    that do not come at once; `lags` from the arrival of a window's last character to its verdict.
    `levels`: of the windows of its reasoning, in order, None without a verdict; `ends`: where they end.
    """

    stream: LabelledStream = field(repr=False)
    aborted: bool
    for_risk: bool
    stopped_at: int | None
    written: int
    exposed: int
    seconds_late: float | None
    added_reasoning: float | None
    added_answer: float | None
    delays: Sequence[tuple[float, int]] = field(repr=False)
    stalls: Sequence[float] = field(repr=False)
    lags: Sequence[float] = field(repr=False)
    levels: Sequence[float | None] = field(repr=False)
    ends: Sequence[int] = field(repr=False)

    @property
    def length(self) -> int:
        return len(self.stream.reasoning) + len(self.stream.answer)

    @property
    def saved(self) -> float:
        """The share of the text that the model was spared."""
        return 1 - self.written / self.length

    @property
    def premature(self) -> bool:
        """Whether it was stopped before the sentence that made it harmful had begun."""
        at, harm = self.stopped_at, self.stream.harm_at
        return at is not None and harm is not None and at <= harm

    @property
    def late(self) -> int | None:
        """Characters judged from the onset of harm to the abort; None for never and for premature ones."""
        if self.stopped_at is None or self.stream.harm_at is None or self.premature:
            return None
        return self.stopped_at - self.stream.harm_at


def run(
    streams: Sequence[LabelledStream], setting: Setting, pace: Pace, told: Callable[[], None] = lambda: None
) -> list[Outcome]:
    """Play every stream under a setting."""
    found = []
    for stream in streams:
        session = GuardSession(
            stream.query, policy=setting.policy, windower=setting.windower, stream=stream.id
        )
        found.append(outcome(stream, play(pace.arrivals(stream), session, setting.ask)))
        told()
    return found


def all_windows(streams: Sequence[LabelledStream], windower: Windower) -> list[Window]:
    """The windows of every stream, cut by the text alone."""
    found = []
    for stream in streams:
        for channel, text in ((Channel.REASONING, stream.reasoning), (Channel.ANSWER, stream.answer)):
            for start, end in cuts(windower, text):
                found.append(
                    Window(
                        query=stream.query, text=text[:end], start=start, channel=channel, stream=stream.id
                    )
                )
    return found


def everything_judged(setting: Setting) -> Setting:
    """The same guard, which only looks on: every window of every stream is judged."""
    shadow = Policy(release=Release.SHADOW, answer=setting.policy.answer, max_wait=None, join_after=1e9)
    return Setting(name="shadow", policy=shadow, windower=setting.windower, ask=setting.ask)


def outcome(stream: LabelledStream, played: Played) -> Outcome:
    """The account of one stream."""
    aborted = played.report.aborted
    stopped_at = None
    if aborted is not None and aborted.channel is Channel.REASONING:
        stopped_at = played.report.windows[-1].end
    arrivals = list(_offsets(played))
    out = sum(count for _, count in played.out(Channel.REASONING))
    harm = stream.harm_at
    late = None
    if played.aborted_at is not None and harm is not None and (came := _when(arrivals, harm)) is not None:
        late = played.aborted_at - came
    windows = [one for one in played.judged if one.window.channel is Channel.REASONING]
    records = [one for one in played.report.windows if one.channel is Channel.REASONING]
    return Outcome(
        stream=stream,
        aborted=aborted is not None,
        for_risk=aborted is not None and aborted.cause is AbortCause.RISK,
        stopped_at=stopped_at,
        written=sum(len(e.text) for _, e in played.received if isinstance(e, Reasoning | Answer)),
        exposed=0 if harm is None else max(0, out - harm),
        seconds_late=late,
        added_reasoning=played.report.reasoning.added,
        added_answer=played.report.answer.added,
        delays=_delays(played),
        stalls=_gaps([at for at, _ in played.out(Channel.REASONING)]),
        lags=[
            one.answered - came
            for one in windows
            if (came := _when(arrivals, one.window.end - 1)) is not None
        ],
        levels=[None if one.verdict is None else one.verdict.level.value for one in records],
        ends=[one.end for one in records],
    )


def _offsets(played: Played, kind: type[Reasoning] | type[Answer] = Reasoning) -> Iterator[tuple[float, int]]:
    """When the text of a channel had come up to where."""
    end = 0
    for at, event in played.received:
        if isinstance(event, kind):
            end += len(event.text)
            yield at, end


def _when(arrivals: Sequence[tuple[float, int]], character: int) -> float | None:
    at = bisect_right(arrivals, character, key=itemgetter(1))
    return arrivals[at][0] if at < len(arrivals) else None


def _delays(played: Played) -> list[tuple[float, int]]:
    found = []
    for kind, channel in ((Reasoning, Channel.REASONING), (Answer, Channel.ANSWER)):
        came = iter(_offsets(played, kind))
        at, end = next(came, (0.0, 0))
        gone = 0
        for left, count in played.out(channel):
            rest = count
            while rest > 0:
                while end <= gone:
                    at, end = next(came)
                step = min(rest, end - gone)
                found.append((left - at, step))
                gone += step
                rest -= step
    return found


def _gaps(times: Sequence[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise(times) if later > sooner]


def as_configured(
    verdicts: StoredVerdicts, policy: Policy, windower: Windower, *, latency: float | None
) -> Setting:
    """The guard as its configuration has it."""
    return Setting(
        name="as configured", policy=policy, windower=windower, ask=Asked(verdicts, latency=latency)
    )
