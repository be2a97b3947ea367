"""What a wire codec is."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from shieldguard import ReleasedEvent, SourceEvent


class Termination(StrEnum):
    """How an aborted response ends."""

    REFUSAL = "refusal"  # as if the model had refused; no official client raises on it
    CONTENT_FILTER = "content_filter"  # as the provider's own filter would; some helpers raise
    ERROR = "error"  # an error the client raises


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the codec of a response needs to know of its request."""

    query: str = ""
    redactable: bool = True  # False where a notice in the middle would break what the caller parses


class Codec(Protocol):
    """The two directions of one response. Raises `WireError` for bytes that it cannot read."""

    def decode(self, data: bytes) -> list[SourceEvent]:
        """The events that these bytes complete."""
        ...

    def flush(self) -> list[SourceEvent]:
        """The rest, at the end of the bytes."""
        ...

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        """The bytes for released events. Give as many at a time as there are: a frame all of whose
        events are there, unchanged, leaves byte for byte."""
        ...

    def keep_alive(self) -> bytes:
        """What can be written between two encoded batches, at any time before the end, to show that the
        response goes on: its official client makes nothing of it."""
        ...

    def close(self) -> bytes:
        """What is still to be written once the last event was encoded."""
        ...

    def aside(self, lines: Sequence[str]) -> bytes:
        """These lines, to be written behind all else: not a part of the response, but beside it. Nothing
        where the format has no place for them that its official client leaves out."""
        ...
