"""The binary event stream of AWS (`application/vnd.amazon.eventstream`) as messages that keep their bytes.

A message is its own length, the length of its headers, a checksum of the two, the headers, the payload, and
a checksum of all that.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from zlib import crc32

from shieldguard import WireError
from shieldguard_adapters.wire.framing import MAX_FRAME

_PRELUDE = struct.Struct(">III")
_CHECKSUM = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_STRING = 7
# What a header's value takes, by its type; bytes and strings say it themselves.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_SMALLEST = _PRELUDE.size + _CHECKSUM.size


@dataclass(frozen=True, slots=True)
class Message:
    """What a message says. Of its headers, those that hold a string."""

    headers: Mapping[str, str]
    payload: bytes


class EventStreamFramer:
    """Cuts a byte stream into messages, wherever the chunks were cut. Raises `WireError` for a message over
    `max_frame` bytes, and for lengths that are not what their checksum says."""

    def __init__(self, *, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        self._buffer += data
        messages = []
        begin = 0
        while len(self._buffer) - begin >= _PRELUDE.size:
            size = self._size(begin)
            if len(self._buffer) - begin < size:
                break
            messages.append(self._buffer[begin : begin + size])
            begin += size
        self._buffer = self._buffer[begin:]
        return messages

    def flush(self) -> None:
        """Raises `WireError` where the bytes ended in the middle of a message."""
        if self._buffer:
            raise WireError(f"the event stream ends {len(self._buffer)!r} bytes into a message")

    def _size(self, begin: int) -> int:
        size, headers, checksum = _PRELUDE.unpack_from(self._buffer, begin)
        if crc32(self._buffer[begin : begin + 8]) != checksum:
            raise WireError("a message of the event stream has a wrong checksum; it was not passed on")
        if size - headers < _SMALLEST:
            raise WireError(f"a message of {size!r} bytes cannot have {headers!r} bytes of headers")
        if size > self._max_frame:
            raise WireError(
                f"an event is over max_frame={self._max_frame!r} bytes; raise the limit to let it through"
            )
        return int(size)


def parse_message(raw: bytes) -> Message:
    """Read one message. Raises `WireError` where its checksum or its headers are wrong."""
    _, size, _ = _PRELUDE.unpack_from(raw)
    if crc32(raw[:-4]) != _CHECKSUM.unpack_from(raw, len(raw) - 4)[0]:
        raise WireError("a message of the event stream has a wrong checksum; it was not passed on")
    end = _PRELUDE.size + size
    headers: dict[str, str] = {}
    try:
        for name, value in _headers(raw[_PRELUDE.size : end]):
            if name in headers:
                raise WireError(f"a message of the event stream has header {name!r} twice")
            headers[name] = value
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise WireError(f"the headers of a message of the event stream cannot be read: {error!r}") from None
    return Message(headers, raw[end:-4])


def message_bytes(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A message with these headers."""
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    written = b"".join(
        bytes([len(name)]) + name + bytes([_STRING]) + _LENGTH.pack(len(value)) + value
        for name, value in encoded
    )
    lengths = struct.pack(">II", _SMALLEST + len(written) + len(payload), len(written))
    message = lengths + _CHECKSUM.pack(crc32(lengths)) + written + payload
    return message + _CHECKSUM.pack(crc32(message))


def _headers(data: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(data):
        name = data[at + 1 : at + 1 + data[at]].decode()
        at += 1 + data[at]
        type_ = data[at]
        at += 1
        if type_ in _SIZES:
            value, size = "", _SIZES[type_]
        else:
            (size,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            value = data[at : at + size].decode() if type_ == _STRING else ""
        at += size
        if at > len(data):
            raise IndexError(at)
        yield name, value
