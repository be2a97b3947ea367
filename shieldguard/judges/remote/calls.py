"""One request to one server: a whole reply, a stream of events, or the error that says what went wrong."""

import math
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx2

from shieldguard.errors import ConfigError, JudgeBusy, JudgeError, JudgeRefused, JudgeUnreachable
from shieldguard.judges.remote.replicas import Replica
from shieldguard.judges.remote.replies import is_spent, said

_ERROR_BYTES = 64 << 10

_REFUSALS = {
    400: "look whether the server takes this model, and whether the text is too long for it (context)",
    401: "give the judge the server's api_key",
    403: "the api_key may not use this model",
    404: "look at the URL, which as a rule ends in /v1, and at the model's name",
    413: "the text is too long for it; lower the judge's context",
    422: "the server does not know a field of the request",
}


class ServerBusy(JudgeBusy):
    """A server takes no more for now. `seconds`: when it may be asked again."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """How servers are reached. `silence`: seconds without a byte; `connect`: seconds for a connection;
    `connections`: at most, to each server."""

    headers: Mapping[str, str]
    verify: ssl.SSLContext | bool
    silence: float
    connect: float
    connections: int

    def client(self, context: ssl.SSLContext) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            # Compressed replies could be any size; a redirect could take key and thought anywhere.
            headers={"Accept-Encoding": "identity", "User-Agent": "shieldguard", **self.headers},
            follow_redirects=False,
            verify=context,
            timeout=httpx2.Timeout(self.silence, connect=self.connect, pool=None),
            limits=httpx2.Limits(
                max_connections=self.connections, max_keepalive_connections=self.connections
            ),
        )


class Clients:
    """A client for each server, so that one that hangs takes no other's connections. For one event loop."""

    def __init__(self, transport: Transport, urls: Sequence[str]) -> None:
        verify = transport.verify
        context = httpx2.create_ssl_context(verify) if isinstance(verify, bool) else verify
        self._of = {url: transport.client(context) for url in urls}
        # The last word, as "Bearer" is no secret.
        self._secrets = [value.split()[-1] for value in transport.headers.values() if value.strip()]

    async def reply(self, replica: Replica, path: str, body: Mapping[str, Any], *, most: int) -> bytes:
        """The whole body of a reply, of `most` bytes."""
        async with self._posted(replica, path, body) as response:
            return await _whole(replica, response, most)

    async def events(
        self, replica: Replica, path: str, body: Mapping[str, Any], *, most: int
    ) -> AsyncGenerator[bytes, None]:
        """The data of each server-sent event. Closing the iterator closes the connection."""
        async with (
            self._posted(replica, path, body) as response,
            aclosing(_lines(replica, response, most)) as lines,
        ):
            async for line in lines:
                if line.startswith(b"data:"):
                    yield line[5:].strip()

    async def close(self) -> None:
        for client in self._of.values():
            await client.aclose()

    def _hidden(self, error: JudgeError) -> JudgeError:
        """The error without the keys, which a server may repeat in what it says."""
        said = str(error)
        for secret in self._secrets:
            said = said.replace(secret, "…")
        error.args = (said,)
        return error

    @asynccontextmanager
    async def _posted(
        self, replica: Replica, path: str, body: Mapping[str, Any]
    ) -> AsyncIterator[httpx2.Response]:
        with _translated():
            async with self._of[replica.url].stream("POST", replica.url + path, json=body) as response:
                if response.status_code != 200:
                    raise self._hidden(_error(response, await _whole(replica, response, _ERROR_BYTES)))
                yield response


async def _whole(replica: Replica, response: httpx2.Response, most: int) -> bytes:
    body = bytearray()
    async with aclosing(_chunks(replica, response, most)) as chunks:
        async for chunk in chunks:
            body += chunk
    return bytes(body)


async def _lines(replica: Replica, response: httpx2.Response, most: int) -> AsyncGenerator[bytes, None]:
    rest = b""
    async with aclosing(_chunks(replica, response, most)) as chunks:
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line


async def _chunks(replica: Replica, response: httpx2.Response, most: int) -> AsyncGenerator[bytes, None]:
    read = 0
    async for chunk in response.aiter_raw():
        replica.heard_at = time.monotonic()
        read += len(chunk)
        if read > most:
            raise JudgeUnreachable(f"it sent more than {most} bytes")
        yield chunk


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx2.ConnectTimeout as error:
        raise JudgeUnreachable("no connection within the connect_timeout") from error
    except httpx2.TimeoutException as error:
        raise JudgeUnreachable("it sent nothing for the judge's timeout") from error
    except httpx2.TransportError as error:
        what = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in what:
            what += "; give the judge verify='the certificate file of its authority'"
        raise JudgeUnreachable(what) from error


def _error(response: httpx2.Response, body: bytes) -> JudgeError:
    status = response.status_code
    what = f"status {status}: {said(body)}"
    if response.is_redirect:
        where = response.headers.get("location", "nowhere")
        return JudgeRefused(f"it redirects to {where!r}, which is not followed; give that address")
    if status == 429 and is_spent(body):
        return JudgeRefused(f"{what}; the account's quota is used up, so waiting is no use")
    seconds = _retry_after(response.headers.get("retry-after", ""))
    if status == 429 or (status == 503 and seconds is not None):
        return ServerBusy(what, 1.0 if seconds is None else seconds)
    if status >= 500 or status in (408, 425):
        return JudgeUnreachable(what)
    return JudgeRefused(f"{what}; {_REFUSALS.get(status, 'it is no server of the OpenAI kind')}")


def _retry_after(value: str) -> float | None:
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def checked_url(url: str) -> str:
    """A base URL without the slash at its end; `/v1` is added where it has no path.

    Raises `ConfigError` for what is no base URL.
    """
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigError(f"the judge's URL {url!r} cannot be used: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"the judge's URL {url!r} is none; give one such as 'http://127.0.0.1:8000/v1'")
    if parsed.userinfo:
        raise ConfigError(f"the judge's URL for {parsed.host!r} holds a password; give it as a header")
    if parsed.query or parsed.fragment:
        raise ConfigError(f"the judge's URL {url!r} has a query or a fragment; leave that out")
    base = str(parsed).rstrip("/")
    return base if parsed.path.strip("/") else f"{base}/v1"


def checked_headers(api_key: str | None, headers: Mapping[str, str]) -> dict[str, str]:
    """Raises `ConfigError`, without their values, for headers that HTTP cannot carry."""
    given = dict(headers)
    if api_key is not None:
        given["Authorization"] = f"Bearer {api_key}"
    for name, value in given.items():
        if not (
            isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()
        ):
            raise ConfigError(f"the header {name!r} (or the api_key) has a value that HTTP cannot carry")
    return given


def checked_verify(verify: bool | str | Path | ssl.SSLContext) -> ssl.SSLContext | bool:
    """Raises `ConfigError` for a certificate file that cannot be used."""
    if isinstance(verify, bool | ssl.SSLContext):
        return verify
    try:
        return ssl.create_default_context(cafile=str(verify))
    except OSError as error:
        raise ConfigError(f"verify={str(verify)!r} is no file of certificates: {error}") from None


def check_seconds(**options: float) -> None:
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{name}={value!r}; give a number of seconds above 0")
