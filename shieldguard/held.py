"""What a session holds back, and when it may leave.

One queue, in the order of the source, of which only the head may leave. Text is held until its lane is
cleared that far; answers and tool calls also until the reasoning that came before them is. An event leaves
whole, so that its frame keeps its bytes, unless another window ends in it, or its rest must not leave.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from shieldguard.events import (
    Answer,
    Channel,
    End,
    Opaque,
    Passthrough,
    Reasoning,
    Redacted,
    ReleasedEvent,
    ToolCall,
    cut,
)
from shieldguard.lanes import Lane
from shieldguard.policy import Policy, Release


@dataclass(slots=True, eq=False)
class Choice:
    """One completion of the response: its lanes, and what holds for all of them."""

    lanes: dict[tuple[Channel, int], Lane] = field(default_factory=dict)
    active: Lane | None = None
    calls: "_Calls | None" = None  # while its tool calls are coming
    strict: bool = False  # judge its answers and tool calls whatever the policy says
    redacted: bool = False
    ended: bool = False

    def uncleared(self, channel: Channel | None = None) -> tuple[tuple[Lane, int], ...]:
        """The lanes (of a channel, or all) that are judged and not cleared yet, and how far they go."""
        return tuple(
            (lane, lane.seen)
            for lane in self.lanes.values()
            if lane.is_judged and lane.cleared < lane.seen and channel in (None, lane.channel)
        )


@dataclass(slots=True, eq=False)
class _Other:
    """An event without text to judge."""

    event: Opaque | Passthrough | End
    gate: tuple[tuple[Lane, int], ...] = ()
    size: int = 1
    weight: int = 0


@dataclass(slots=True, eq=False)
class _Text:
    event: Reasoning | Answer
    lane: Lane
    end: int  # offset in the lane
    gate: tuple[tuple[Lane, int], ...]
    weight: int = 0

    @property
    def size(self) -> int:
        return len(self.event.text) + 1


@dataclass(slots=True, eq=False)
class _Calls:
    """The tool calls of one turn of a choice, with what came in between. They leave together."""

    choice: Choice
    gate: tuple[tuple[Lane, int], ...]
    events: list[ToolCall | Passthrough | Opaque] = field(default_factory=list)
    ends: dict[Lane, int] = field(default_factory=dict)  # how far the calls go in their lanes
    complete: bool = False
    refused: bool = False
    size: int = 0
    weight: int = 0

    def add(self, event: ToolCall | Passthrough | Opaque) -> int:
        size = 1 + (len(event.text) if isinstance(event, ToolCall) else 0)
        self.events.append(event)
        self.size += size
        return size


class HeldEvents:
    """The queue. `size` is what it holds: characters, and one more for each event. `weight` are the bytes
    that these came in, as far as they are known."""

    def __init__(self, policy: Policy) -> None:
        self.size = 0
        self.weight = 0
        self._policy = policy
        self._lag = policy.release is Release.LAG
        self._queue: deque[_Other | _Text | _Calls] = deque()

    def __bool__(self) -> bool:
        return bool(self._queue)

    def clear(self) -> None:
        self._queue.clear()
        self.size = self.weight = 0

    def weigh(self, size: int) -> None:
        """Hold that many bytes with what came last."""
        if self._queue:
            self._queue[-1].weight += size
            self.weight += size

    def hold_text(self, event: Reasoning | Answer, lane: Lane, choice: Choice) -> None:
        gate = () if lane.channel is Channel.REASONING else choice.uncleared(Channel.REASONING)
        self._hold(_Text(event, lane, lane.seen, gate))

    def hold_call(self, event: ToolCall, lane: Lane, choice: Choice) -> None:
        if choice.calls is None:
            choice.calls = _Calls(choice, choice.uncleared(Channel.REASONING), refused=choice.redacted)
            self._hold(choice.calls)
        choice.calls.ends[lane] = lane.seen
        self.size += choice.calls.add(event)

    def hold_other(self, event: Opaque | Passthrough | End, choice: Choice | None) -> None:
        """Hold an event in its turn; where its choice's tool calls are coming, among them."""
        if choice is not None and choice.calls is not None and not isinstance(event, End):
            self.size += choice.calls.add(event)
        else:
            # An end that has left can no longer be told from a refusal, so it waits for the last verdict.
            gate = choice.uncleared() if choice is not None and isinstance(event, End) else ()
            self._hold(_Other(event, gate))

    def redact_behind(self, lane: Lane, start: int, choice: Choice) -> None:
        """Mark the reasoning and the tool calls of a choice that came behind `start` in `lane`."""
        open_lanes = [other for other in choice.lanes.values() if other.channel is Channel.REASONING]
        behind = lane.out > start
        for held in self._queue:
            if isinstance(held, _Calls):
                held.refused = held.refused or (behind and held.choice is choice)
                behind = behind or held.ends.get(lane, 0) > start
            elif isinstance(held, _Text) and held.lane is lane:
                behind = behind or held.end > start
            elif isinstance(held, _Text) and behind and held.lane in open_lanes:
                open_lanes.remove(held.lane)
                held.lane.redact_from(held.end - len(held.event.text))

    def drain(self, now: float) -> list[ReleasedEvent]:
        """All that is cleared, to the last character. What is left can never leave."""
        drained: list[ReleasedEvent] = []
        while released := self.release(tuple, now, last=True):
            drained += released
        self.clear()
        return drained

    def release(
        self, lanes: Callable[[], Iterable[Lane]], now: float, *, last: bool = False
    ) -> list[ReleasedEvent]:
        """What the head of the queue gives; empty where it has to wait. `lanes` gives all of the stream's.
        `last`: nothing that is not cleared by now will be."""
        while self._queue:
            head = self._queue[0]
            if head.gate and any(lane.cleared < seen for lane, seen in head.gate):
                return []
            if isinstance(head, _Other):
                self._drop_head()
                return [head.event]
            if isinstance(head, _Calls):
                return self._release_calls(head, now)
            ahead = self._allowance(head.lane, lanes()) if self._lag and not last else 0
            limit = _limit(head, ahead)
            if limit < head.end and (limit <= head.lane.out or not (last or _parts(head, limit))):
                return []
            if event := self._release_text(head, limit, now):
                return [event]
        return []

    def _allowance(self, lane: Lane, lanes: Iterable[Lane]) -> int:
        """How many characters past `lane.cleared` may be out, in mode `lag`."""
        ahead = sum(
            max(0, other.out - other.cleared) for other in lanes if other is not lane and other.is_judged
        )
        return max(0, self._policy.max_unjudged - ahead)

    def _release_text(self, head: _Text, limit: int, now: float) -> ReleasedEvent | None:
        """Let the head's text out, or leave it out, up to `limit`."""
        lane, event = head.lane, head.event
        if limit == head.end:
            self._drop_head()
        else:
            event, head.event = cut(event, limit - lane.out)
            self.size -= len(event.text)
        dropped = lane.redacted_from is not None and lane.out >= lane.redacted_from
        lane.move_out(limit, released=not dropped, now=now)
        if not dropped:
            return event
        if lane.notified or not event.text:
            return None  # of an empty text nothing is left out, so nothing is said of it
        lane.notified = True
        return Redacted(
            self._policy.notice, lane.judged_on, choice=lane.choice, block=lane.block, origin=event.origin
        )

    def _release_calls(self, head: _Calls, now: float) -> list[ReleasedEvent]:
        if not head.complete:
            return []
        if any(lane.is_judged and lane.cleared < end for lane, end in head.ends.items()):
            return []
        self._drop_head()
        refused = head.refused or any(lane.redacted_from is not None for lane in head.ends)
        for lane, end in head.ends.items():
            lane.move_out(end, released=not refused, now=now)
        if not refused:
            return list(head.events)
        first, *_ = (event for event in head.events if isinstance(event, ToolCall))
        notice = Redacted(
            self._policy.notice,
            Channel.TOOL_CALL,
            choice=first.choice,
            block=first.block,
            origin=first.origin,
        )
        return [notice, *(event for event in head.events if not isinstance(event, ToolCall))]

    def _drop_head(self) -> None:
        head = self._queue.popleft()
        self.size -= head.size
        self.weight -= head.weight

    def _hold(self, held: _Other | _Text | _Calls) -> None:
        self._queue.append(held)
        self.size += held.size


def _limit(head: _Text, ahead: int) -> int:
    """How far the text may leave: an offset in its lane, its end at most."""
    lane = head.lane
    limit = head.end
    if lane.is_judged:
        limit = min(limit, lane.cleared + ahead)
    if lane.redacted_from is not None and lane.out < lane.redacted_from:
        limit = min(limit, lane.redacted_from)
    return limit


def _parts(head: _Text, limit: int) -> bool:
    """Whether the text may leave up to `limit`, ahead of its end."""
    following = head.lane.next_cut
    return limit == head.lane.redacted_from or (following is not None and following <= head.end)
