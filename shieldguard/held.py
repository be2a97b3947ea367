"""What a session holds back, and when it may leave.

One queue, in the order of the source, of which only the head may leave. Text is held until its lane is
cleared that far; answers and tool calls also until the reasoning that came before them is. An event leaves
whole, so that its frame keeps its bytes, unless another window ends in it, or its rest must not leave.
In mode `shadow` nothing is queued: what comes is free to leave.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from shieldguard.choices import Choice
from shieldguard.events import (
    Aborted,
    Answer,
    Channel,
    End,
    Opaque,
    Passthrough,
    Reasoning,
    Redacted,
    ReleasedEvent,
    TextEvent,
    ToolCall,
    cut,
)
from shieldguard.lanes import Lane
from shieldguard.policy import Policy, Release


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
    size: int
    weight: int = 0


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
        size = _size(event)
        self.events.append(event)
        self.size += size
        return size


class HeldEvents:
    """What has come and was not taken yet: what is free to leave, and behind it the queue of what waits.

    `size` is what the queue holds: characters, and one more for each event. `weight` are the bytes
    that these came in, as far as they are known."""

    def __init__(self, policy: Policy) -> None:
        self.size = 0
        self.weight = 0
        self._policy = policy
        self._lag = policy.release is Release.LAG
        self._shadow = policy.release is Release.SHADOW
        self._queue: deque[_Other | _Text | _Calls] = deque()
        self._free: deque[ReleasedEvent] = deque()
        self._free_size = 0
        self._free_weight = 0
        self._coming: dict[Choice, _Calls] = {}  # tool calls that are not complete

    def __bool__(self) -> bool:
        return bool(self._queue or self._free)

    @property
    def is_full(self) -> bool:
        """Whether as much is held as may be."""
        return (
            self.size + self._free_size >= self._policy.max_held
            or self.weight + self._free_weight >= self._policy.max_held_bytes
        )

    def clear(self) -> None:
        self._queue.clear()
        self._free.clear()
        self._coming.clear()
        self.size = self.weight = self._free_size = self._free_weight = 0

    def weigh(self, size: int) -> None:
        """Hold that many bytes with what came last."""
        if self._shadow:
            self._free_weight += size
        elif self._queue:
            self._queue[-1].weight += size
            self.weight += size

    def hold_text(self, event: TextEvent, lane: Lane, choice: Choice, now: float) -> None:
        """Hold a text that was just added to its lane."""
        if self._shadow:
            lane.move_out(lane.seen, released=True, now=now)
            self._let_go(event)
        elif isinstance(event, ToolCall):
            self._hold_call(event, lane, choice)
        else:
            gate = () if lane.channel is Channel.REASONING else choice.uncleared(Channel.REASONING)
            self._hold(_Text(event, lane, lane.seen, gate, size=len(event.text) + 1))

    def hold_other(self, event: Opaque | Passthrough | End, choice: Choice | None) -> None:
        """Hold an event in its turn; where its choice's tool calls are coming, among them."""
        if self._shadow:
            self._let_go(event)
        elif not isinstance(event, End) and choice in self._coming:
            self.size += self._coming[choice].add(event)
        else:
            # An end that has left can no longer be told from a refusal, so it waits for the last verdict.
            gate = choice.uncleared() if choice is not None and isinstance(event, End) else ()
            self._hold(_Other(event, gate))

    def complete_calls(self, choice: Choice) -> None:
        """The tool calls of this turn have all come."""
        if calls := self._coming.pop(choice, None):
            calls.complete = True

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

    def drain(self, now: float, aborted: Aborted) -> None:
        """Free what is cleared, to the last character, and the end. What is left can never leave."""
        drained: list[ReleasedEvent] = []
        while released := self._release(tuple, now, last=True):
            drained += released
        self.clear()
        for event in (*drained, aborted):
            self._let_go(event)

    def take(self, lanes: Callable[[], Iterable[Lane]], now: float, limit: int | None) -> list[ReleasedEvent]:
        """What may leave now, in order; about `limit` events (the tool calls of a turn are not parted).
        `lanes` gives all of the stream's."""
        taken: list[ReleasedEvent] = []
        while limit is None or len(taken) < limit:
            if self._free:
                taken.append(self._free.popleft())
                self._free_size -= _size(taken[-1])
            elif released := self._release(lanes, now):
                taken += released
            else:
                break
        if not self._free:
            self._free_weight = 0
        return taken

    def _release(
        self, lanes: Callable[[], Iterable[Lane]], now: float, *, last: bool = False
    ) -> list[ReleasedEvent]:
        """What the head of the queue gives; empty where it has to wait. `last`: nothing that is not
        cleared by now will be."""
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
            head.size -= len(event.text)
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

    def _hold_call(self, event: ToolCall, lane: Lane, choice: Choice) -> None:
        calls = self._coming.get(choice)
        if calls is None:
            gate = choice.uncleared(Channel.REASONING)
            calls = self._coming[choice] = _Calls(choice, gate, refused=choice.redacted)
            self._hold(calls)
        calls.ends[lane] = lane.seen
        self.size += calls.add(event)

    def _hold(self, held: _Other | _Text | _Calls) -> None:
        self._queue.append(held)
        self.size += held.size

    def _let_go(self, event: ReleasedEvent) -> None:
        self._free.append(event)
        self._free_size += _size(event)


def _size(event: ReleasedEvent) -> int:
    return 1 + (len(event.text) if isinstance(event, TextEvent) else 0)


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
