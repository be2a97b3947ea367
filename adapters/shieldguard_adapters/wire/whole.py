"""Bodies that come in one piece, and leave in one when all of it has been released."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from shieldguard import Aborted, Answer, Reasoning, Relabel, ReleasedEvent, SourceEvent, ToolCall, WireError
from shieldguard_adapters.wire.codec import Termination

MAX_BODY = 1 << 26


class WholeCodec(ABC):
    """The codec of a JSON body. Its kinds say what a body holds, and how it is written where it changed."""

    def __init__(
        self, *, termination: Termination | str = Termination.REFUSAL, max_body: int = MAX_BODY
    ) -> None:
        self._termination = Termination(termination)
        self._max_body = max_body
        self._data = b""
        self._pieces: list[bytes] = []
        self._size = 0
        self._unchanged: list[SourceEvent] = []
        self._released: list[ReleasedEvent] = []

    @abstractmethod
    def _read(self, data: bytes) -> list[SourceEvent]:
        """The events of the body. Raises `WireError` for one that cannot be read."""

    @abstractmethod
    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        """The body with what these events hold."""

    @abstractmethod
    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        """What is sent in its place. The body may not have come, or not have been read."""

    def decode(self, data: bytes) -> list[SourceEvent]:
        """Raises `WireError` past `max_body`."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._max_body:
            self._pieces.clear()
            raise WireError(
                f"the body is over max_body={self._max_body!r} bytes; raise the limit to let it through"
            )
        return []

    def flush(self) -> list[SourceEvent]:
        self._data = b"".join(self._pieces)
        self._pieces.clear()
        events = self._read(self._data)
        self._unchanged = [event for event in events if not isinstance(event, Relabel)]
        return events

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        self._released += events
        return b""

    def keep_alive(self) -> bytes:
        return b"\n"  # JSON may have white space before it

    def close(self) -> bytes:
        released = self._released
        if released and isinstance(released[-1], Aborted):
            return json.dumps(self._ending(released[-1])).encode()
        if _by_choice(released) == _by_choice(self._unchanged):
            return self._data
        return json.dumps(self._rewritten(released)).encode()

    def aside(self, lines: Sequence[str]) -> bytes:
        return b""


def _by_choice(events: Iterable[SourceEvent | ReleasedEvent]) -> dict[object, list[tuple[object, str]]]:
    """What each choice says, in its order. A text leaves in parts, each as soon as it was judged: those that
    follow one another are one here."""
    choices: dict[object, list[tuple[object, list[str]]]] = {}
    for event in events:
        said = choices.setdefault(event.choice, [])
        if not isinstance(event, Reasoning | Answer | ToolCall):
            said.append((event, []))
            continue
        text = type(event), event.block
        if said and said[-1][0] == text:
            said[-1][1].append(event.text)
        else:
            said.append((text, [event.text]))
    return {choice: [(what, "".join(parts)) for what, parts in said] for choice, said in choices.items()}
