"""The rows of many streams within a budget of memory."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import TypeAlias

from shieldguard.judges.local.rows import Rows, Shape, common_prefix
from shieldguard.judges.local.text import GrowingText
from shieldguard.windows import Window

Lane: TypeAlias = tuple[str, str, int, int]
"""One growing text of one stream."""


def lane_of(window: Window) -> Lane:
    return window.stream, window.channel.value, window.choice, window.block


class Store:
    """Least recently used lanes make room. What made room is computed again when it is asked for.

    `limit` is the most rows one lane may have; `budget`, in bytes, holds at least that many.
    `prefix` is the beginning that all lanes have in common.
    """

    def __init__(self, shape: Shape, *, budget: int, limit: int) -> None:
        self.prefix = Rows(shape)
        self.evictions = 0
        self._shape = shape
        self._budget = budget
        self._limit = limit
        self._lanes: OrderedDict[Lane, tuple[Rows, GrowingText]] = OrderedDict()

    @property
    def bytes(self) -> int:
        return sum(rows.bytes for rows, _ in list(self._lanes.values()))

    def __len__(self) -> int:
        return len(self._lanes)

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._lanes

    def text(self, lane: Lane) -> GrowingText:
        """What is known of a lane's tokens."""
        if lane not in self._lanes:
            self._lanes[lane] = Rows(self._shape), GrowingText()
        self._lanes.move_to_end(lane)
        return self._lanes[lane][1]

    def claim(self, lane: Lane, tokens: Sequence[int], compute: int, busy: Collection[Lane]) -> Rows | None:
        """A lane's rows, with room for `tokens`, holding what was computed of them but for the last
        `compute`. None where what others are `busy` with leaves no room."""
        self.text(lane)
        rows = self._lanes[lane][0]
        if not self._make_room(lane, rows, len(tokens), busy):
            return None
        most = len(tokens) - compute
        shared = min(common_prefix(self.prefix.tokens, tokens), most)
        known = min(common_prefix(rows.tokens, tokens), most)
        if shared > known:
            rows.copy(self.prefix, shared)
        else:
            rows.crop(known)
        return rows

    def forget(self, stream: str) -> None:
        for lane in [lane for lane in self._lanes if lane[0] == stream]:
            del self._lanes[lane]

    def clear(self, busy: Collection[Lane] = ()) -> int:
        """Give back all memory but that of busy lanes. Answers with how many others there were."""
        others = [lane for lane in self._lanes if lane not in busy]
        for lane in others:
            del self._lanes[lane]
        return len(others)

    def _make_room(self, lane: Lane, rows: Rows, length: int, busy: Collection[Lane]) -> bool:
        if length <= rows.capacity:
            return True
        capacity = min(max(length, rows.capacity * 3 // 2, len(self.prefix) * 3 // 2), self._limit)
        free = self._budget - capacity * self._shape.row_bytes - (self.bytes - rows.bytes)
        for other in list(self._lanes):
            if free >= 0:
                break
            if other != lane and other not in busy:
                free += self._lanes.pop(other)[0].bytes
                self.evictions += 1
        if free < 0:
            return False
        rows.grow(capacity)
        return True
