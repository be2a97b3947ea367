"""How many streams one judge keeps up with, and what it computes for them."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from shieldguard.evaluation.asking import StoredVerdicts
from shieldguard.evaluation.labelled import LabelledStream
from shieldguard.evaluation.metrics import share
from shieldguard.evaluation.stream_figures import Spread
from shieldguard.evaluation.streams import Pace
from shieldguard.events import Channel
from shieldguard.judges.protocol import Metered
from shieldguard.windows import Window

PROMPT = 95
"""The percentage of verdicts that are to come within the lag."""

MOST = 4096
"""Streams at once that are tried."""

_SPAN = 30.0, 5.0  # seconds that are played, of few streams and of many
_ENOUGH = 8000  # stream-seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """`computed`: tokens that the judge computed for each token of the text that it protected. `hits`: of the
    tokens that its verdicts were read from, the share that it knew from windows before."""

    computed: float
    hits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """`judge`: seconds of a verdict, as measured. `per_core`: streams, at their pace, whose windows one such
    judge can rate in the time that they last. `at_once`: streams, no more than that, of which it gives
    PROMPT % of the verdicts within `lag` seconds of the window's last character, where they wait for each
    other; MOST where it could be more. `whole`: characters of all that is in the windows, which a judge
    without a prefix cache reads, by characters of text. `tokens`: None from a judge that does not count them,
    and where verdicts were known from before."""

    judge: Spread
    per_core: float
    lag: float
    at_once: int
    whole: float
    windows: int
    tokens: Tokens | None


def measure(
    streams: Sequence[LabelledStream],
    windows: Sequence[Window],
    verdicts: StoredVerdicts,
    *,
    pace: Pace,
    lag: float,
    at_once: int,
    told: Callable[[], None],
) -> Capacity:
    """Ask for the verdicts on the windows of all streams, so many at a time."""
    judge = verdicts.judge
    before = (judge.usage.tokens, judge.usage.read) if isinstance(judge, Metered) else (0, 0)
    begun = time.perf_counter()
    asked = verdicts.prepare(windows, at_once=at_once, told=told)
    took = time.perf_counter() - begun
    tokens = None
    if isinstance(judge, Metered) and len(asked) == len(windows):
        computed, read = judge.usage.tokens - before[0], judge.usage.read - before[1]
        protected = sum(judge.count(text) for one in streams for text in (one.reasoning, one.answer) if text)
        tokens = Tokens(computed=share(computed, protected), hits=1 - share(computed, read))
    seconds = verdicts.seconds
    # What is asked for together is not waited for one after the other.
    busy = min(1.0, took / sum(seconds)) if asked and len(asked) == len(seconds) else 1.0
    written = sum(len(one.reasoning) + len(one.answer) for one in streams)
    per_core = written / pace.speed / (busy * sum(seconds)) if sum(seconds) else math.inf
    jobs = _jobs(streams, windows, verdicts, pace)
    return Capacity(
        judge=Spread.over(seconds),
        per_core=per_core,
        lag=lag,
        at_once=_most_at_once(jobs, lag=lag, busy=busy, most=int(min(MOST, per_core))),
        whole=share(sum(len(window.text) for window in windows), written),
        windows=len(windows),
        tokens=tokens,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """The windows of one stream: `(when it is complete, seconds of its verdict)`. `length`: its seconds."""

    windows: Sequence[tuple[float, float]]
    length: float


def _jobs(
    streams: Sequence[LabelledStream], windows: Sequence[Window], verdicts: StoredVerdicts, pace: Pace
) -> list[Jobs]:
    of_stream: dict[str, list[Window]] = {}
    for window in windows:
        of_stream.setdefault(window.stream, []).append(window)
    found = []
    for stream in streams:
        before = {Channel.REASONING: 0, Channel.ANSWER: len(stream.reasoning)}
        whole = {Channel.REASONING: len(stream.reasoning), Channel.ANSWER: len(stream.answer)}
        timed = []
        for window in of_stream.get(stream.id, []):
            # Its last character comes with the rest of its chunk.
            chunks = math.ceil(window.end / pace.chunk) * pace.chunk
            came = before[window.channel] + min(chunks, whole[window.channel])
            timed.append((came / pace.speed, verdicts.ask(window)[1]))
        found.append(Jobs(windows=timed, length=sum(whole.values()) / pace.speed))
    return found


def _most_at_once(jobs: Sequence[Jobs], *, lag: float, busy: float, most: int) -> int:
    """`busy`: of a verdict's seconds, those in which no other can be worked on."""
    low, high = 0, most + 1
    while high - low > 1:
        # Few are quickly tried, so doubled first.
        middle = min(2 * low or 1, (low + high) // 2)
        found = list(lags(jobs, middle, busy))
        if 100 * sum(one <= lag for one in found) >= PROMPT * len(found):
            low = middle
        else:
            high = middle
    return low


def lags(jobs: Sequence[Jobs], count: int, busy: float) -> Iterator[float]:
    """Of the windows of so many streams at once, drawn one after the other, each begun at a moment of its
    own; the judge takes windows in the order in which they are complete."""
    draw = random.Random(count)
    span = max(min(_ENOUGH / count, _SPAN[0]), _SPAN[1])
    arrivals = []
    for _ in range(count):
        at: float | None = None
        while at is None or at < span:
            one = draw.choice(jobs)
            at = -draw.random() * one.length if at is None else at
            arrivals += [(at + came, took) for came, took in one.windows if 0 <= at + came < span]
            at += one.length
    free = 0.0
    for came, took in sorted(arrivals):
        free = max(free, came) + busy * took
        yield free + (1 - busy) * took - came
