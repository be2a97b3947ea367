"""One completion of the response: the lanes that its text goes on in, and what holds for all of them."""

from dataclasses import dataclass, field

from shieldguard.events import CHANNELS, Answer, Channel, TextEvent
from shieldguard.lanes import Lane
from shieldguard.policy import Policy


@dataclass(slots=True, eq=False)
class Choice:
    """Its text goes on in one lane at a time, `active`. `strict`: whatever the policy says, its answers and
    tool calls are judged. `redacted`: no reasoning of it is let out any more, and no tool call."""

    lanes: dict[tuple[Channel, int], Lane] = field(default_factory=dict)
    active: Lane | None = None
    strict: bool = False
    redacted: bool = False
    ended: bool = False

    def lane(self, event: TextEvent, policy: Policy) -> Lane:
        """The lane that a text goes on in, or begins."""
        channel = CHANNELS[type(event)]
        lane = self.lanes.get((channel, event.block))
        if lane is None:
            is_judged = self.strict or policy.rule(channel) is not None
            lane = Lane(channel, event.choice, event.block, is_judged)
            if self.redacted and channel is Channel.REASONING:
                lane.redacted_from = 0
            self.lanes[channel, event.block] = lane
        if isinstance(event, Answer) and event.tentative:
            lane.start_judging()
        return lane

    def relabel(self, lane: Lane) -> None:
        """What came in this lane as an answer was reasoning."""
        del self.lanes[Channel.ANSWER, lane.block]
        lane.channel = Channel.REASONING
        key = (Channel.REASONING, lane.block)
        if key in self.lanes:
            key = (Channel.REASONING, min(0, *(block for _, block in self.lanes)) - 1)
        self.lanes[key] = lane
        if self.redacted and lane.redacted_from is None:
            lane.redacted_from = lane.out

    def be_strict(self) -> None:
        self.strict = True
        for lane in self.lanes.values():
            lane.start_judging()

    def redact(self, lane: Lane, start: int) -> None:
        """Leave out what came from `start` on in one lane, and all reasoning that is still to come."""
        self.redacted = True
        self.be_strict()
        lane.redact_from(start)
        for other in self.lanes.values():
            if other.channel is Channel.REASONING and other.redacted_from is None:
                other.redacted_from = other.seen

    def uncleared(self, channel: Channel | None = None) -> tuple[tuple[Lane, int], ...]:
        """The lanes (of a channel, or all) that are judged and not cleared yet, and how far they go."""
        return tuple(
            (lane, lane.seen)
            for lane in self.lanes.values()
            if lane.is_judged and lane.cleared < lane.seen and channel in (None, lane.channel)
        )
