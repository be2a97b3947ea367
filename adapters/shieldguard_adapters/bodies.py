"""The body of an HTTP response, as the events that a codec makes of it."""

import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from shieldguard import Received, SourceEvent, WireError
from shieldguard_adapters.wire import Codec


def inflater(encoding: str) -> Callable[[bytes], bytes]:
    """What undoes a content encoding, for servers that compress though asked not to. Raises `WireError`
    for an encoding that cannot be undone."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return bytes
    if encoding in ("gzip", "deflate"):
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress

        def inflated(data: bytes) -> bytes:
            try:
                return inflate(data)
            except zlib.error as error:
                raise WireError(f"the response is not {encoding!r} as it says: {error}") from None

        return inflated
    raise WireError(f"content encoding {encoding!r} cannot be read, so the response cannot be guarded")


class Decoded:
    """The events of the bytes of `stream`, which is closed with it."""

    def __init__(self, stream: Any, codec: Codec, encoding: str = "identity") -> None:
        self._stream = stream
        self._inflate = inflater(encoding)
        self._codec = codec
        self._data: Iterator[bytes] = iter(stream)
        self._ended = False

    def __iter__(self) -> Iterator[list[SourceEvent]]:
        return self

    def __next__(self) -> list[SourceEvent]:
        if self._ended:
            raise StopIteration
        try:
            return _received(self._codec, self._inflate(next(self._data)))
        except StopIteration:
            self._ended = True
            return self._codec.flush()

    def close(self) -> None:
        self._stream.close()


class AsyncDecoded:
    """The same of an async stream."""

    def __init__(self, stream: Any, codec: Codec, encoding: str = "identity") -> None:
        self._stream = stream
        self._inflate = inflater(encoding)
        self._codec = codec
        self._data: AsyncIterator[bytes] = aiter(stream)
        self._ended = False

    def __aiter__(self) -> AsyncIterator[list[SourceEvent]]:
        return self

    async def __anext__(self) -> list[SourceEvent]:
        if self._ended:
            raise StopAsyncIteration
        try:
            return _received(self._codec, self._inflate(await anext(self._data)))
        except StopAsyncIteration:
            self._ended = True
            return self._codec.flush()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _received(codec: Codec, data: bytes) -> Received:
    return Received(codec.decode(data), len(data))
