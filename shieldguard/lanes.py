"""One growing text of a stream: what was seen of it, cut, judged, cleared and let out.

Offsets are characters from the text's beginning and only grow:
`submitted <= cut <= seen`, `cleared <= judged <= submitted`, and `out <= cleared` where text is held.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from shieldguard.errors import JudgeError
from shieldguard.events import Channel
from shieldguard.observers import CutBy, Tally, WindowJudged
from shieldguard.policy import Action
from shieldguard.verdicts import Verdict
from shieldguard.windows import Window, Windower


@dataclass(slots=True)
class Submission:
    """A window that a judge has, and what the report will say of it."""

    window: Window
    at: float
    cut_by: CutBy
    joined: int


@dataclass(slots=True, eq=False)
class Lane:
    """The text of one block on one channel of one choice.

    `judged_on` stays what `channel` was at first: what a closing tag shows to have been reasoning is judged,
    and redacted, as the answer it was taken for, so that no verdict depends on how the chunks were cut.
    """

    channel: Channel
    choice: int
    block: int
    is_judged: bool
    judged_on: Channel = field(init=False)
    head: str = ""  # up to the last cut
    pending: str = ""  # behind it; bounded by the windower
    pending_since: float = 0.0
    cuts: deque[tuple[int, CutBy]] = field(default_factory=deque)  # ends of windows not yet submitted
    submission: Submission | None = None
    slow_judge: bool = False
    submitted: int = 0
    judged: int = 0
    cleared: int = 0
    out: int = 0
    redacted_from: int | None = None
    notified: bool = False
    closed: bool = False
    recent: deque[bool] = field(default_factory=deque)  # did the last windows call for an abort?
    doubtful: deque[tuple[int, bool]] = field(default_factory=deque)  # judged, not yet cleared
    judged_characters: int = 0
    released: int = 0
    redacted: int = 0
    exposed: int = 0
    first_seen: float | None = None
    first_out: float | None = None

    def __post_init__(self) -> None:
        self.judged_on = self.channel

    @property
    def cut(self) -> int:
        return len(self.head)

    @property
    def seen(self) -> int:
        return len(self.head) + len(self.pending)

    @property
    def is_ready(self) -> bool:
        """Whether it has a window to submit, and none at the judge."""
        return self.submission is None and bool(self.cuts) and self.is_judged

    @property
    def next_cut(self) -> int | None:
        """Where the next window ends that is to be judged; None where none is known."""
        if self.submission is not None:
            return self.submission.window.end
        return self.cuts[0][0] if self.cuts else None

    def add(self, text: str, windower: Windower, now: float) -> None:
        if not self.pending:
            self.pending_since = now
        if self.first_seen is None:
            self.first_seen = now
        self.closed = False
        pending = self.pending + text
        start = 0
        while end := windower.cut(pending, start):
            self.cuts.append((len(self.head) + end, CutBy.TEXT))
            start = end
        if start:
            self.head += pending[:start]
            pending = pending[start:]
            self.pending_since = now
        self.pending = pending

    def cut_tail(self, by: CutBy) -> None:
        """Make a window of what is pending, however short."""
        self.head += self.pending
        self.pending = ""
        last = self.cuts[-1][0] if self.cuts else self.submitted
        if self.cut > last:
            self.cuts.append((self.cut, by))

    def submit(self, query: str, stream: str, deadline: float, now: float) -> Window:
        """The next window for a judge; all that wait, as one, where the judge is slow."""
        joined = len(self.cuts) if self.slow_judge else 1
        for _ in range(joined):
            end, cut_by = self.cuts.popleft()
        window = Window(
            query=query,
            text=self.head[:end],
            start=self.submitted,
            channel=self.judged_on,
            choice=self.choice,
            block=self.block,
            stream=stream,
            deadline=deadline,
        )
        self.submission = Submission(window, now, cut_by, joined)
        self.submitted = end
        return window

    def record(self, stream: str, action: Action, now: float, outcome: Verdict | JudgeError) -> WindowJudged:
        """The window that was at the judge has come back."""
        submission = self.submission
        assert submission is not None
        self.submission = None
        return WindowJudged(
            stream=stream,
            channel=self.judged_on,
            choice=self.choice,
            block=self.block,
            start=submission.window.start,
            end=submission.window.end,
            action=action,
            latency=now - submission.at,
            cut_by=submission.cut_by,
            joined=submission.joined,
            verdict=outcome if isinstance(outcome, Verdict) else None,
            error=outcome if isinstance(outcome, JudgeError) else None,
        )

    def skip(self) -> None:
        """Give up on the windows that wait: they stay unjudged."""
        self.submitted = self.cuts[-1][0]
        self.cuts.clear()

    def start_judging(self) -> None:
        """Judge a lane from here on, if it was not judged so far."""
        if self.is_judged:
            return
        self.is_judged = True
        self.submitted = self.judged = self.cleared = self.out
        while self.cuts and self.cuts[0][0] <= self.out:
            self.cuts.popleft()

    def hits(self, hit: bool, within: int) -> int:
        """How many of the last `within` windows called for an abort, this one with them."""
        self.recent.append(hit)
        if len(self.recent) > within:
            self.recent.popleft()
        return sum(self.recent)

    def settle(self, end: int, hit: bool, within: int) -> None:
        """Take in a judgement that does not abort. A hit stays in doubt, and with it all behind it,
        until the `within - 1` windows that follow have been judged."""
        self.judged = end
        self.doubtful.append((end, hit))
        while self.doubtful and (not self.doubtful[0][1] or len(self.doubtful) >= within):
            self.cleared = self.doubtful.popleft()[0]
        self._resolve()

    def close(self) -> None:
        """No text follows, unless the choice comes back to this lane."""
        self.closed = True
        self._resolve()

    def _resolve(self) -> None:
        """Clear what is in doubt once no window can follow that would confirm it."""
        if self.closed and self.judged == self.seen:
            self.doubtful.clear()
            self.cleared = self.judged

    def redact_from(self, start: int) -> None:
        """Leave out what comes from there on, or from where it began already, if that is earlier."""
        self.redacted_from = start if self.redacted_from is None else min(self.redacted_from, start)

    def move_out(self, end: int, *, released: bool, now: float) -> None:
        """Account for the characters up to `end` leaving, or being left out."""
        if released:
            if self.first_out is None:
                self.first_out = now
            self.released += end - self.out
            self.exposed += max(0, end - max(self.out, self.judged))
        else:
            self.redacted += end - self.out
        self.out = end


def tally(lanes: Iterable[Lane], channel: Channel) -> Tally:
    """What became of the characters of one channel."""
    own = [lane for lane in lanes if lane.channel is channel]
    seen = sum(lane.seen for lane in own)
    released = sum(lane.released for lane in own)
    redacted = sum(lane.redacted for lane in own)
    arrivals = [lane.first_seen for lane in own if lane.first_seen is not None]
    releases = [lane.first_out for lane in own if lane.first_out is not None]
    return Tally(
        seen=seen,
        judged=sum(lane.judged_characters for lane in own),
        released=released,
        redacted=redacted,
        withheld=seen - released - redacted,
        exposed=sum(lane.exposed for lane in own),
        added=min(releases) - min(arrivals) if releases else None,
    )
