"""What a codec asks of an event that leaves: where it came from, and what it says."""

from typing import TypeVar

from shieldguard import ReleasedEvent, SourceEvent

T = TypeVar("T")


def origin_of(event: SourceEvent | ReleasedEvent, type_: type[T]) -> T:
    """The `origin` of an event that this codec made, or that was cut from one: a `type_`."""
    origin = getattr(event, "origin", None)
    assert isinstance(origin, type_)
    return origin


def said_by(event: ReleasedEvent) -> str:
    """Its notice, or its text; empty where it has neither."""
    return getattr(event, "notice", "") or getattr(event, "text", "")
