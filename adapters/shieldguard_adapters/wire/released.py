"""What a codec asks of an event that leaves: where it came from, and what it says."""

from collections.abc import Iterable
from typing import TypeVar

from shieldguard import Channel, Redacted, ReleasedEvent, SourceEvent

T = TypeVar("T")


def origin_of(event: SourceEvent | ReleasedEvent, type_: type[T]) -> T:
    """The `origin` of an event that this codec made, or that was cut from one: a `type_`."""
    origin = getattr(event, "origin", None)
    assert isinstance(origin, type_)
    return origin


def said_by(event: ReleasedEvent) -> str:
    """Its notice, or its text; empty where it has neither."""
    return getattr(event, "notice", "") or getattr(event, "text", "")


def by_block(
    released: Iterable[ReleasedEvent],
) -> tuple[dict[int, list[ReleasedEvent]], dict[int, str]]:
    """Of a body in one piece whose events have the index of their block as `origin`: the events of each block
    that is kept, and the notices in the place of those left out, each once, where it comes first."""
    kept: dict[int, list[ReleasedEvent]] = {}
    left_out: set[int] = set()
    notices: dict[str, int] = {}
    for event in released:
        index = getattr(event, "origin", None)
        if not isinstance(index, int) or index in left_out:
            continue
        if isinstance(event, Redacted) and event.channel is not Channel.ANSWER:
            left_out.add(index)
            kept.pop(index, None)
            notices.setdefault(event.notice, index)
        else:
            kept.setdefault(index, []).append(event)
    return kept, {index: notice for notice, index in notices.items()}
