"""The upstream's key, kept out of what is passed on unread: servers quote it in their errors."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2

_SHORTEST = 12  # what is shorter ("none", "EMPTY") is no secret, and may be a word
_SHOWN = b"[key]"


def hide_key(response: httpx2.Response, key: str, *, in_body: bool) -> None:
    """Leave out headers with the key in them, and, where the body is passed on unread, the key there."""
    secret = key.encode()
    if len(secret) < _SHORTEST:
        return
    response.headers = httpx2.Headers([item for item in response.headers.raw if secret not in item[1]])
    if in_body:
        response.stream = _Hidden(response.stream, secret)


class _Hidden(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, secret: bytes) -> None:
        self._stream = stream
        self._secret = secret

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held = b""
        async for data in self._stream:
            data = (held + data).replace(self._secret, _SHOWN)
            end = len(data) - self._begun(data)
            held = data[end:]
            yield data[:end]
        yield held

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _begun(self, data: bytes) -> int:
        """How many bytes at the end may be the secret's first."""
        return next((n for n in range(len(self._secret) - 1, 0, -1) if data.endswith(self._secret[:n])), 0)
