"""What travels through a guarded stream.

A source (a wire codec, or any async iterator) gives `Reasoning`, `Answer`, `ToolCall`, `Opaque`,
`Passthrough`, `Relabel` and `End`. A guarded stream gives the same events back, some of them cut
shorter, and two of its own: `Redacted` and `Aborted`.

`choice` is the index of the completion (n > 1). `block` tells apart the thinking blocks or tool calls
of one choice. `origin` belongs to whoever made the event: the session carries it along unread, so that
a codec finds the frame an event came from. Events are compared by identity where a codec asks whether
one came back unchanged, so the session never copies an event that it does not cut.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from shieldguard.errors import JudgeError, SourceError
from shieldguard.verdicts import Verdict


class Channel(StrEnum):
    """Which part of a response a text belongs to."""

    REASONING = "reasoning"
    ANSWER = "answer"
    TOOL_CALL = "tool_call"


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the chain of thought."""

    text: str
    choice: int = field(default=0, kw_only=True)
    block: int = field(default=0, kw_only=True)
    origin: Any = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A piece of the answer. `tentative`: it may yet turn out to be reasoning (see `Relabel`), so it is
    judged whatever the policy says of answers."""

    text: str
    choice: int = field(default=0, kw_only=True)
    block: int = field(default=0, kw_only=True)
    tentative: bool = field(default=False, kw_only=True)
    origin: Any = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A piece of a tool call: `text` is what there is to judge, its name or a part of its arguments."""

    text: str
    choice: int = field(default=0, kw_only=True)
    block: int = field(default=0, kw_only=True)
    origin: Any = field(default=None, kw_only=True, repr=False, compare=False)


class OpaqueKind(StrEnum):
    """Why reasoning cannot be read."""

    ENCRYPTED = "encrypted"
    SUMMARISED = "summarised"
    HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class Opaque:
    """Reasoning that was there and cannot be judged. The text of a summary comes as `Reasoning` beside it."""

    kind: OpaqueKind = OpaqueKind.ENCRYPTED
    choice: int = field(default=0, kw_only=True)
    origin: Any = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Passthrough:
    """Something without model text to judge: a role, usage, a keep-alive, the think tag itself.

    `choice` is None where it belongs to the whole response."""

    text: str = ""
    choice: int | None = field(default=None, kw_only=True)
    origin: Any = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Relabel:
    """The tentative answer of this choice so far was reasoning (only a closing think tag came)."""

    choice: int = field(default=0, kw_only=True)


@dataclass(frozen=True, slots=True)
class End:
    """A choice is complete."""

    reason: str | None = None
    choice: int = field(default=0, kw_only=True)
    origin: Any = field(default=None, kw_only=True, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Redacted:
    """Given once where text begins to be left out. `notice` is what to show instead."""

    notice: str
    channel: Channel
    choice: int = field(default=0, kw_only=True)
    block: int = field(default=0, kw_only=True)
    origin: Any = field(default=None, kw_only=True, repr=False, compare=False)


class AbortCause(StrEnum):
    """Why a guarded stream was aborted."""

    RISK = "risk"
    JUDGE_FAILURE = "judge_failure"
    OPAQUE = "opaque"
    BOUND = "bound"
    SOURCE = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """The last event of an aborted stream. `verdict` is set for `risk`, `error` for the failures."""

    cause: AbortCause
    notice: str
    choice: int = 0
    channel: Channel | None = None
    verdict: Verdict | None = None
    error: JudgeError | SourceError | None = None


TextEvent: TypeAlias = Reasoning | Answer | ToolCall
SourceEvent: TypeAlias = Reasoning | Answer | ToolCall | Opaque | Passthrough | Relabel | End
ReleasedEvent: TypeAlias = Reasoning | Answer | ToolCall | Opaque | Passthrough | End | Redacted | Aborted

CHANNELS = {Reasoning: Channel.REASONING, Answer: Channel.ANSWER, ToolCall: Channel.TOOL_CALL}


class Received(list[SourceEvent]):
    """Events that a source gives at a time, and the `size` in bytes of what they were made of, which is
    held with them: `Policy.max_held_bytes` bounds it."""

    __slots__ = ("size",)

    def __init__(self, events: Iterable[SourceEvent], size: int) -> None:
        super().__init__(events)
        self.size = size


T = TypeVar("T", bound=Reasoning | Answer | ToolCall)


def cut(event: T, at: int) -> tuple[T, T]:
    """Split a text event before its character `at`."""
    return replace(event, text=event.text[:at]), replace(event, text=event.text[at:])
