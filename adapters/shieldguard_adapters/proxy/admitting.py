"""Who is let in, with how much, and how many at a time."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from starlette.requests import Request

from shieldguard_adapters.proxy.keys import Keys, given_keys, hashed
from shieldguard_adapters.proxy.refusing import Refused
from shieldguard_adapters.proxy.settings import Key, ServeSettings


class Admission:
    """Each method raises `Refused` for what is not let in."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._keys = Keys(settings.keys)
        self._taken: Counter[str] = Counter()  # places, by the names of keys

    @property
    def wants_keys(self) -> bool:
        return bool(self._keys)

    def head(self, request: Request) -> None:
        """The path and the headers may come."""
        headers = request.scope["headers"]
        names = {name for name, _ in headers}
        if b"transfer-encoding" in names and b"content-length" in names:
            # Whoever stands before us could take the other of the two for the body's end.
            said = "a request has a content-length or a transfer-encoding, not both"
            raise Refused(400, "framing", said, connection="close")
        size = len(request.scope["path"]) + len(request.scope["query_string"])
        size += sum(len(name) + len(value) + 4 for name, value in headers)  # with what parts them
        if size > self._settings.max_header:
            raise Refused(431, "header", f"path and headers are over {self._settings.max_header} bytes")

    def client(self, request: Request) -> Key | None:
        """Whose the request is; None where no client needs a key."""
        if not self._keys:
            return None
        key = self._keys.find(request.headers, request.scope["query_string"])
        if key is None:
            raise Refused(401, "key", "this proxy wants a key of its own, and none came, or a wrong one")
        return key

    def scraper(self, request: Request) -> None:
        """Metrics may be read."""
        wanted = self._settings.metrics_sha256
        if wanted is not None and wanted not in map(hashed, given_keys(request.headers)):
            raise Refused(401, "key", "the metrics want the key of metrics_sha256, and it did not come")

    @contextmanager
    def place(self, key: Key | None) -> Iterator[None]:
        """One of the places that there are for requests at a time."""
        name = key.name if key else ""
        if self._taken.total() >= self._settings.max_requests:
            raise Refused(503, "busy", "as many requests are answered as may be", retry_after="1")
        if key and key.max_requests is not None and self._taken[name] >= key.max_requests:
            raise Refused(429, "busy", f"this key may ask {key.max_requests} at a time", retry_after="1")
        if key and (wait := self._keys.wait(key)) > 0:
            again = str(math.ceil(wait))
            raise Refused(429, "rate", f"this key may ask again in {wait:.1f} s", retry_after=again)
        self._taken[name] += 1
        try:
            yield
        finally:
            self._taken[name] -= 1

    async def body(self, request: Request) -> bytes:
        """The body, whole."""
        settings = self._settings
        if any(encoding != "identity" for encoding in request.headers.getlist("content-encoding")):
            raise Refused(415, "encoding", "a compressed request cannot be read; send it as it is")
        too_large = Refused(413, "too_large", f"the request is over {settings.max_body} bytes")
        if int(request.headers.get("content-length", 0)) > settings.max_body:
            raise too_large
        body = bytearray()
        with anyio.move_on_after(settings.request_timeout) as limit:
            async for data in request.stream():
                body += data
                if len(body) > settings.max_body:
                    raise too_large
        if limit.cancelled_caught:
            raise Refused(408, "slow", "the request's body did not come in time", connection="close")
        return bytes(body)
