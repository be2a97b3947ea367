"""Server-sent events, and lines, as frames that keep their bytes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shieldguard import WireError

MAX_FRAME = 1 << 20

# Two line ends in a row. Each alternative is atomic, so that a CRLF is never read as two. A CR that ends a
# frame may have its LF in the next chunk; it then begins the next frame, as an empty line that says nothing.
_FRAME_END = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")
# A CR ends a line once it is known that no LF comes behind it.
_LINE_END = re.compile(rb"\r\n|\n|\r(?=[^\n])")


@dataclass(frozen=True, slots=True)
class SseFrame:
    """What a frame says. `data` is None for a comment, or nothing."""

    event: str
    data: str | None

    def check_type(self, type_: Any) -> None:
        """Raise `WireError` where the event is named, and not as this type that its JSON says: some clients
        go by the one, some by the other."""
        if self.event and self.event != type_:
            raise WireError(f"an event is named {self.event!r} and has type {type_!r}; they should agree")


class SseFramer:
    """Cuts a byte stream into the frames of server-sent events (WHATWG HTML, 9.2.6), each with the blank
    line that ends it, whatever the line ends and wherever the chunks were cut. Raises `WireError` for a
    frame over `max_frame` bytes."""

    def __init__(self, *, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        # The end may have begun in the last three bytes.
        searched = max(0, len(self._buffer) - 3)
        buffer = self._buffer + data
        frames = []
        begin = 0
        for end in _frame_ends(buffer, searched):
            self._check(end - begin)
            frames.append(buffer[begin:end])
            begin = end
        self._buffer = buffer[begin:]
        self._check(len(self._buffer))
        return frames

    def flush(self) -> list[bytes]:
        """What came behind the last blank line. Some clients read it, so it counts as a frame."""
        rest, self._buffer = self._buffer, b""
        return [rest] if rest else []

    def _check(self, size: int) -> None:
        if size > self._max_frame:
            raise WireError(
                f"an event is over max_frame={self._max_frame!r} bytes; raise the limit to let it through"
            )


class LineFramer:
    """Cuts a byte stream into lines, each with its end, whatever the line ends and wherever the chunks were
    cut: newline-delimited JSON. Raises `WireError` for a line over `max_frame` bytes."""

    def __init__(self, *, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        searched = max(0, len(self._buffer) - 1)
        self._buffer += data
        lines = []
        begin = 0
        for found in _LINE_END.finditer(self._buffer, searched):
            lines.append(bytes(self._buffer[begin : found.end()]))
            begin = found.end()
        del self._buffer[:begin]
        for size in (*map(len, lines), len(self._buffer)):
            if size > self._max_frame:
                raise WireError(
                    f"a line is over max_frame={self._max_frame!r} bytes; raise the limit to let it through"
                )
        return lines

    def flush(self) -> list[bytes]:
        """What came behind the last line end."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return [rest] if rest else []


def _frame_ends(buffer: bytes, start: int) -> Iterator[int]:
    if b"\r" in buffer:
        yield from (found.end() for found in _FRAME_END.finditer(buffer, start))
        return
    # What nearly all servers send, found in a fraction of the time.
    end = start
    while (end := buffer.find(b"\n\n", end) + 2) > 1:
        yield end


def parse_sse(raw: bytes) -> SseFrame:
    """Read one frame. Raises `WireError` where it is not in UTF-8, and where a client might find more in it:
    one that asked for no stream reads a body as JSON, whatever it is called."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise WireError(f"an event is not in UTF-8 ({error}); its bytes were not passed on") from None
    event, lines = "", []
    # A byte order mark may begin the stream; elsewhere it makes a field name that nobody knows.
    for line in re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            lines.append(value)
        elif line.lstrip("\0 \t").startswith(("{", "[", '"')):
            raise WireError(f"JSON that is no server-sent event was not passed on: {line!r:.80}")
        elif len(line.splitlines()) > 1:
            raise WireError(f"what some clients take for several lines was not passed on: {line!r:.80}")
        elif name == "event":
            event = value
    return SseFrame(event, "\n".join(lines) if lines else None)
