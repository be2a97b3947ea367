"""Which server a stream's windows go to."""

import logging
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

logger = logging.getLogger("shieldguard")

# Streams of which nobody said that they ended: the oldest are let go beyond this.
_MOST_STREAMS = 65_536


@dataclass(eq=False, slots=True)
class Replica:
    """One server. `down_until`: it failed, and is left alone until then; `busy_until`: it asked for that.
    `heard_at`: when it last sent anything."""

    url: str
    down_until: float = -math.inf
    busy_until: float = -math.inf
    heard_at: float = -math.inf
    streams: set[str] = field(default_factory=set)
    asked: set[object] = field(default_factory=set)

    @property
    def load(self) -> int:
        return len(self.streams) + len(self.asked)


class Replicas:
    """A stream stays with its replica, whose prefix cache knows it, until that fails. A new one goes to the
    least loaded. Several threads may ask: nothing here takes more than one step at a time.

    `retry_after`: seconds for which a replica that failed is left alone, as long as there are others.
    """

    def __init__(self, urls: Iterable[str], *, retry_after: float) -> None:
        self.all: Sequence[Replica] = [Replica(url) for url in urls]
        self._retry_after = retry_after
        self._of: dict[str, Replica] = {}

    def choose(self, stream: str, now: float, *, tried: Collection[Replica] = ()) -> Replica | None:
        """The replica to ask next; None where all were tried."""
        left = [replica for replica in self.all if replica not in tried]
        if not left:
            return None
        up = [one for one in left if max(one.down_until, one.busy_until) <= now]
        kept = self._of.get(stream)
        if kept in up:
            return kept
        if up:
            chosen = min(up, key=lambda one: one.load)
        else:  # rather one that may be back than none
            chosen = min(left, key=lambda one: max(one.down_until, one.busy_until))
        if stream:
            self.forget(stream)
            self._of[stream] = chosen
            chosen.streams.add(stream)
            if len(self._of) > _MOST_STREAMS:
                self.forget(next(iter(self._of)))
        return chosen

    def forget(self, stream: str) -> None:
        kept = self._of.pop(stream, None)
        if kept is not None:
            kept.streams.discard(stream)

    def answered(self, replica: Replica) -> None:
        if replica.down_until > -math.inf:
            logger.warning("shieldguard: the judge's server %s answers again", replica.url)
            replica.down_until = -math.inf

    def failed(self, replica: Replica, now: float, why: object) -> None:
        if replica.down_until <= now:
            logger.warning("shieldguard: the judge's server %s failed: %s", replica.url, why)
        replica.down_until = now + self._retry_after
