"""The state machine of one guarded stream. It does no I/O, reads no clock and never waits.

Its driver feeds it (`receive`, `finish`), hands the windows it names to a judge (`windows`), tells it
what came back (`judged`, `failed`) and passes on what it gives out (`take`). `now` is any clock in
seconds that never runs backwards.

The rules:

*   What came first leaves first. Events wait in one queue, in the order of the source, and only its
    head may leave. So an answer never overtakes the reasoning before it, nor one choice another.
*   Text belongs to a lane: one block, on one channel, of one choice. A lane is cut into windows as it
    grows; its tail is cut when its choice turns to another lane, ends, or waits longer than `max_wait`.
    Each lane has at most one window at the judge.
*   Text leaves when its lane is cleared that far: judged, and found fit to leave. An event leaves whole
    where it can. In mode `lag` up to `max_unjudged` characters leave before; in mode `shadow` everything
    leaves as it comes.
*   Answers and tool calls also wait until all reasoning that came before them is cleared, in mode
    `lag` too. The tool calls of one turn leave together, complete and cleared.
*   A redaction begins at its window and lasts: the rest of that text and all later reasoning of its
    choice are left out, its tool calls are refused, and its answers must be judged safe.
*   An abort lets out what is cleared and drops all else, of all choices. `Aborted` is the last event.
"""

import math
import secrets
from collections import defaultdict
from collections.abc import Iterator

from shieldguard.choices import Choice
from shieldguard.errors import BoundExceeded, JudgeError, SourceError
from shieldguard.events import (
    AbortCause,
    Aborted,
    Answer,
    Channel,
    End,
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    Relabel,
    ReleasedEvent,
    SourceEvent,
    TextEvent,
    ToolCall,
)
from shieldguard.held import HeldEvents
from shieldguard.lanes import Lane, tally
from shieldguard.observers import CutBy, Ended, StreamReport, WindowJudged
from shieldguard.policy import Action, OpaqueReasoning, Policy, Release
from shieldguard.verdicts import RiskLevel, Verdict
from shieldguard.windows import SentenceWindower, Window, Windower


class GuardSession:
    """Holds events, cuts windows, takes verdicts in, gives released events out.

    `redactable=False`: the protocol cannot carry a notice (strict JSON), so a redaction aborts.
    """

    def __init__(
        self,
        query: str = "",
        *,
        policy: Policy | None = None,
        windower: Windower | None = None,
        redactable: bool = True,
        stream: str | None = None,
    ) -> None:
        self.query = query
        self.policy = policy or Policy()
        self.windower = windower or SentenceWindower()
        self.stream = stream or secrets.token_hex(8)
        self.redactable = redactable
        self.records: list[WindowJudged] = []
        self.aborted: Aborted | None = None
        self.aborted_at: float | None = None
        self._holding = self.policy.release is Release.HOLD
        self._shadow = self.policy.release is Release.SHADOW
        self._choices: defaultdict[int, Choice] = defaultdict(Choice)
        self._held = HeldEvents(self.policy)
        self._waiting: dict[Lane, None] = {}  # with windows to submit, in the order in which they were cut
        self._at_judge: dict[int, Lane] = {}  # by id() of the window, which its submission keeps alive
        self._unobservable: set[OpaqueKind] = set()
        self._next_tick = 0.0  # before then no text has waited too long
        self._stirred = True  # until `take` has taken all that there was
        self._finished = False
        self._left: Ended | None = None  # set once nobody takes events any more

    # -- what the driver asks ------------------------------------------------------------------

    @property
    def wants_data(self) -> bool:
        """Whether to read on from the source; False past the bound (backpressure) and at the end."""
        return not self._finished and self.aborted is None and not self._held.is_full

    @property
    def held(self) -> int:
        """Characters that wait to leave, and one more for each event."""
        return self._held.size

    @property
    def finished(self) -> bool:
        """Whether the source has ended, or nobody reads any more."""
        return self._finished

    @property
    def stirred(self) -> bool:
        """Whether windows or events may have come of what was received since all were taken. While not,
        there is nothing to do but to receive more."""
        return self._stirred

    @property
    def has_windows(self) -> bool:
        """Whether `windows` would name any."""
        return self.aborted is None and any(lane.is_ready for lane in self._waiting)

    @property
    def judging(self) -> bool:
        """Whether a verdict is still to come, for a window submitted or waiting."""
        return bool(self._at_judge) or any(lane.cuts and lane.is_judged for lane in self._lanes())

    @property
    def closed(self) -> bool:
        """Whether all is done: nothing to read, to judge or to take."""
        return not self._held and (self.aborted is not None or (self._finished and not self.judging))

    @property
    def deadline(self) -> float | None:
        """When to call `tick`, on the driver's clock; None where nothing waits for the clock."""
        if self.policy.max_wait is None or self._shadow or self.aborted is not None:
            return None
        waiting = [lane.pending_since for lane in self._lanes() if lane.pending and lane.is_judged]
        return min(waiting) + self.policy.max_wait if waiting else None

    # -- what comes in -------------------------------------------------------------------------

    def receive(self, event: SourceEvent, now: float) -> None:
        """Take in the source's next event."""
        if self._finished or self.aborted is not None:
            return
        if now >= self._next_tick:
            self.tick(now)
        match event:
            case Reasoning() | Answer() | ToolCall():
                self._receive_text(event, now)
            case Relabel():
                self._relabel(event.choice)
            case Opaque() | Passthrough() | End():
                self._receive_other(event, now)
            case _:
                raise TypeError(f"the source gave {event!r}, which is no event; give text, or events")

    def weigh(self, size: int) -> None:
        """What was received last came in that many bytes."""
        self._held.weigh(size)
        if self._held.is_full:
            self._stirred = True

    def tick(self, now: float) -> None:
        """Cut what has waited for `max_wait`."""
        max_wait = self.policy.max_wait
        if max_wait is None:
            self._next_tick = math.inf
            return
        if self.deadline is not None:
            for lane in self._lanes():
                if lane.pending and lane.pending_since + max_wait <= now:
                    self._cut_tail(lane, CutBy.CLOCK)
        deadline = self.deadline
        # Text that comes after now has all of `max_wait` left.
        self._next_tick = now + max_wait if deadline is None else min(now + max_wait, deadline)

    def finish(self, now: float) -> None:
        """The source has ended: cut what is pending."""
        if not self._finished and self.aborted is None:
            self._finished = self._stirred = True
            for choice in self._choices.values():
                self._turn(choice, None)

    def _receive_text(self, event: TextEvent, now: float) -> None:
        choice = self._choices[event.choice]
        lane = choice.lane(event, self.policy)
        if choice.active is not lane:
            self._turn(choice, lane)
            choice.ended = False
        lane.add(event.text, self.windower, now)
        if lane.cuts:
            self._waiting[lane] = None
        self._held.hold_text(event, lane, choice, now)
        if self._shadow and lane.cut - lane.submitted > self.policy.max_held:
            lane.skip()
        if lane.cuts or not (self._holding and lane.is_judged) or self._held.is_full:
            self._stirred = True

    def _receive_other(self, event: Opaque | Passthrough | End, now: float) -> None:
        self._stirred = True
        choice = None if event.choice is None else self._choices[event.choice]
        if choice is not None and isinstance(event, End):
            self._turn(choice, None)
            choice.ended = True
        elif choice is not None and isinstance(event, Opaque):
            self._unobservable.add(event.kind)
            if self.policy.on_opaque is OpaqueReasoning.ABORT and not self._shadow:
                self._abort(AbortCause.OPAQUE, now, choice=event.choice)
                return
            if self.policy.on_opaque is OpaqueReasoning.JUDGE_ANSWER:
                choice.be_strict()
        self._held.hold_other(event, choice)

    def _relabel(self, index: int) -> None:
        self._stirred = True
        choice = self._choices[index]
        lane = choice.active
        if lane is not None and lane.channel is Channel.ANSWER:
            self._turn(choice, None)
            choice.relabel(lane)

    def _turn(self, choice: Choice, to: Lane | None) -> None:
        """The choice goes on in another lane, or ends."""
        if choice.active is not None and choice.active is not to:
            self._cut_tail(choice.active, CutBy.TAIL)
            choice.active.close()
        if to is None or to.channel is not Channel.TOOL_CALL:
            self._held.complete_calls(choice)
        choice.active = to

    def _cut_tail(self, lane: Lane, by: CutBy) -> None:
        self._stirred = True
        lane.cut_tail(by)
        if lane.cuts:
            self._waiting[lane] = None

    def _lanes(self) -> Iterator[Lane]:
        for choice in self._choices.values():
            yield from choice.lanes.values()

    # -- what is judged ------------------------------------------------------------------------

    def windows(self, now: float) -> list[Window]:
        """The windows to be judged now, each named once."""
        ready: list[Window] = []
        if not self._waiting or self.aborted is not None:
            return ready
        for lane in self._waiting:
            if lane.is_ready:
                window = lane.submit(self.query, self.stream, now + self.policy.judge_timeout, now)
                self._at_judge[id(window)] = lane
                ready.append(window)
        self._waiting = {lane: None for lane in self._waiting if lane.cuts}
        return ready

    def judged(self, window: Window, verdict: Verdict, now: float) -> None:
        """A judge has answered."""
        lane = self._lane_of(window)
        if lane is None:
            return
        action = self._action(lane, verdict)
        self._record(lane, action, now, verdict)
        lane.judged_characters += window.end - window.start
        hit = action is Action.ABORT and not self._shadow
        hits = lane.hits(hit, self.policy.abort_within)
        if hit and hits >= self.policy.abort_hits:
            self._abort(AbortCause.RISK, now, lane=lane, verdict=verdict)
            return
        if action is Action.REDACT and not self._shadow:
            self._redact(lane, window.start)
        lane.settle(window.end, hit, self.policy.abort_within)

    def failed(self, window: Window, error: JudgeError, now: float) -> None:
        """A judge had no verdict."""
        lane = self._lane_of(window)
        if lane is None:
            return
        self._record(lane, self.policy.on_failure, now, error)
        if self.policy.on_failure is Action.ABORT and not self._shadow:
            self._abort(AbortCause.JUDGE_FAILURE, now, lane=lane, error=error)
        else:
            lane.exposed += max(0, window.end - max(window.start, lane.out))
            lane.settle(window.end, False, self.policy.abort_within)

    def _lane_of(self, window: Window) -> Lane | None:
        """The lane a verdict is for; None where the stream no longer waits for it."""
        return self._at_judge.pop(id(window), None)

    def _action(self, lane: Lane, verdict: Verdict) -> Action:
        rule = self.policy.rule(lane.judged_on) or self.policy.reasoning
        action = rule.action(verdict.level)
        must_be_safe = lane.judged_on is Channel.ANSWER and self._choices[lane.choice].redacted
        if must_be_safe and action is not Action.ABORT and verdict.level is not RiskLevel.SAFE:
            action = Action.REDACT
        if action is Action.REDACT and not self.redactable:
            return Action.ABORT
        return action

    def _record(self, lane: Lane, action: Action, now: float, outcome: Verdict | JudgeError) -> None:
        self._stirred = True
        record = lane.record(self.stream, action, now, outcome)
        lane.slow_judge = record.latency > self.policy.join_after
        self.records.append(record)

    def _redact(self, lane: Lane, start: int) -> None:
        choice = self._choices[lane.choice]
        choice.redact(lane, start)
        self._held.redact_behind(lane, start, choice)

    def _forget_windows(self) -> None:
        self._at_judge.clear()
        for lane in self._lanes():
            lane.cuts.clear()

    # -- what goes out -------------------------------------------------------------------------

    def take(self, now: float, limit: int | None = None) -> list[ReleasedEvent]:
        """The events that may leave now, in order; about `limit` of them (tool calls are not parted)."""
        taken = self._held.take(self._lanes, now, limit)
        if not taken and self._held.is_full and not self.judging:
            self._relieve(now)
            taken = self._held.take(self._lanes, now, limit)
        self._stirred = bool(taken or self._waiting)
        return taken

    def _relieve(self, now: float) -> None:
        """The bound is reached and no verdict is to come: cut what can be cut, or give up."""
        for lane in self._lanes():
            if lane.pending and lane.is_judged:
                self._cut_tail(lane, CutBy.BOUND)
        if self.judging:
            return
        held, bound = f"{self._held.size} characters", "max_held"
        if self._held.size < self.policy.max_held:
            held, bound = f"{self._held.weight} bytes of frames", "max_held_bytes"
        error = BoundExceeded(
            f"{held} are held that may not be cut (a tool call?), over "
            f"{bound}={getattr(self.policy, bound)!r}; raise {bound} to let more through"
        )
        self._abort(AbortCause.BOUND, now, error=error)

    # -- how it ends ---------------------------------------------------------------------------

    def fail(self, error: SourceError, now: float) -> None:
        """The source gave something that cannot be guarded: abort (in mode `shadow`, do nothing)."""
        if self.aborted is None and not self._finished and not self._shadow:
            self._abort(AbortCause.SOURCE, now, error=error)

    def leave(self, now: float) -> None:
        """The consumer has gone: nothing leaves any more, but what came is still to be judged."""
        all_ended = bool(self._choices) and all(choice.ended for choice in self._choices.values())
        everything_left = all_ended and not self.held
        self.finish(now)
        self._left = Ended.COMPLETE if everything_left else Ended.CLIENT_LEFT
        self._held.clear()

    def abandon(self) -> None:
        """Nobody drives this session any more: what is not judged stays so."""
        self._finished = True
        self._left = Ended.ABANDONED
        self._held.clear()
        self._forget_windows()

    def _abort(
        self,
        cause: AbortCause,
        now: float,
        *,
        lane: Lane | None = None,
        choice: int = 0,
        verdict: Verdict | None = None,
        error: JudgeError | SourceError | None = None,
    ) -> None:
        self.aborted = Aborted(
            cause=cause,
            notice=self.policy.notice if cause is AbortCause.RISK else self.policy.failure_notice,
            choice=lane.choice if lane else choice,
            channel=lane.judged_on if lane else None,
            verdict=verdict,
            error=error,
        )
        self.aborted_at = now
        self._stirred = True
        if self._left is None:
            self._held.drain(now, self.aborted)
        self._forget_windows()

    def report(self, *, closed_after: float | None = None, source_failed: bool = False) -> StreamReport:
        """The account of the stream so far."""
        if self.aborted is not None:
            ended = Ended.ABORTED
        elif source_failed:
            ended = Ended.SOURCE_FAILED
        else:
            ended = self._left or Ended.COMPLETE
        return StreamReport(
            stream=self.stream,
            query=self.query,
            ended=ended,
            aborted=self.aborted,
            windows=tuple(self.records),
            reasoning=tally(self._lanes(), Channel.REASONING),
            answer=tally(self._lanes(), Channel.ANSWER),
            tool_call=tally(self._lanes(), Channel.TOOL_CALL),
            unobservable=frozenset(self._unobservable),
            closed_after=closed_after,
        )
