"""Who may ask: keys, kept by their hashes, and how often each may."""

import hashlib
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import parse_qsl

from shieldguard_adapters.proxy.settings import Key

KEY_HEADERS = ("x-api-key", "x-goog-api-key", "api-key")  # Anthropic, Gemini, Azure


def new_key() -> tuple[str, str]:
    """A key, and the hash to keep of it."""
    key = f"sg-{secrets.token_urlsafe(32)}"
    return key, hashed(key)


def hashed(key: str) -> str:
    # A key has 256 bits of chance, so there is nothing to guess, and one round is enough.
    return hashlib.sha256(key.encode()).hexdigest()


def given_keys(headers: Mapping[str, str], query: bytes = b"") -> Iterator[str]:
    """The keys of a request, wherever its API puts them."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        yield token.strip()
    yield from (headers[name] for name in KEY_HEADERS if headers.get(name))
    yield from (value for name, value in parse_qsl(query.decode("latin-1")) if name == "key")


class Rate:
    """At most `per_minute` requests in any minute, evened out: a bucket that fills steadily."""

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._full = float(per_minute)
        self._left = self._full
        self._at = time.monotonic()

    def take(self) -> float:
        """0, or the seconds to wait before the next request."""
        now = time.monotonic()
        self._left = min(self._full, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self._per_second
        self._left -= 1
        return 0.0


class Keys:
    """The keys that are let in."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_hash = {key.sha256: key for key in keys}
        self._rates = {
            key.name: Rate(key.requests_per_minute)
            for key in self._by_hash.values()
            if key.requests_per_minute is not None
        }

    def __bool__(self) -> bool:
        return bool(self._by_hash)

    def find(self, headers: Mapping[str, str], query: bytes = b"") -> Key | None:
        """The first key of a request that is one of ours."""
        found = (self._by_hash.get(hashed(key)) for key in given_keys(headers, query))
        return next((key for key in found if key is not None), None)

    def wait(self, key: Key) -> float:
        """0, or the seconds that a client has to wait."""
        rate = self._rates.get(key.name)
        return rate.take() if rate is not None else 0.0
