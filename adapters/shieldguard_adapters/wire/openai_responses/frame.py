"""What a response is made of: frames, and items (thoughts, messages, calls) with the texts said in them."""

from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from shieldguard import OpaqueKind, SourceEvent
from shieldguard_adapters.wire.jsons import Path


@dataclass(slots=True, eq=False)
class Text:
    """One text: what came of it, and what was let out (with a notice, where some was left out)."""

    block: int
    came: StringIO = field(default_factory=StringIO)
    out: StringIO = field(default_factory=StringIO)


@dataclass(slots=True, eq=False)
class Item:
    """One item of the response. What is below `opaque` is for the one who writes. One that was added to what
    the model said has a negative `block`."""

    type: str
    id: str
    block: int
    texts: dict[Path, list[Text]] = field(default_factory=dict)  # by place, all that was said there
    opaque: set[OpaqueKind] = field(default_factory=set)

    index: int | None = None  # where the client has it
    body: dict[str, Any] = field(default_factory=dict)  # as the client has it
    parts: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)  # those that are open
    done: bool = False
    let_out: bool = False  # of a call: whether it was
    left_out: bool = False
    redacted: bool = False

    @property
    def is_call(self) -> bool:
        """Whether it leaves whole or not at all: a call, what came of one, and all that nobody knows."""
        return self.type not in ("message", "reasoning")


@dataclass(slots=True, eq=False)
class Frame:
    """One server-sent event, or one whole body (as that of an event, under "response")."""

    raw: bytes
    body: dict[str, Any]
    item: Item | None = None
    part: tuple[str, int] | None = None  # of the item, where it begins or ends
    says: list[tuple[Path, Text, str]] = field(default_factory=list)
    read: set[str] = field(default_factory=set)  # keys of the body that events were made of
    items: list[Item] = field(default_factory=list)  # of a whole response
    event: SourceEvent | None = None  # the last one: with it the frame is written
    type: str = field(init=False)

    def __post_init__(self) -> None:
        self.type = str(self.body.get("type", ""))


@dataclass(slots=True, eq=False)
class Piece:
    """Where an event comes from: the `origin` of the events of this codec. `grown`: what it adds to which
    texts."""

    frame: Frame
    item: Item | None = None
    grown: tuple[tuple[Text, str], ...] = ()
