"""The model servers behind the proxy."""

import ssl

import httpx2

from shieldguard import ConfigError
from shieldguard_adapters.proxy.forwarding import Headers
from shieldguard_adapters.proxy.refusing import Refused
from shieldguard_adapters.proxy.settings import ServeSettings, Upstream


class Upstreams:
    """Asks them. There is no cookie jar and no redirect here: what one client's response brings must not
    be sent with another's request, nor a key to another host."""

    def __init__(self, settings: ServeSettings) -> None:
        self._upstreams = settings.upstreams
        timeout = settings.read_timeout
        self._timeout = {"connect": settings.connect_timeout, "read": timeout, "write": timeout, "pool": None}
        try:
            context = ssl.create_default_context(cafile=settings.upstream_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"upstream_ca={str(settings.upstream_ca)!r} cannot be read: {error}") from None
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
        self._transport = httpx2.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits)

    async def aclose(self) -> None:
        await self._transport.aclose()

    def serving(self, model: str) -> Upstream:
        """The first that serves a model; the first of all where none is named."""
        for upstream in self._upstreams:
            if not model or upstream.serves(model):
                return upstream
        raise Refused(404, "model_not_found", f"no upstream serves the model {model[:200]!r}")

    async def ask(
        self, upstream: Upstream, method: str, path: bytes, query: bytes, headers: Headers, body: bytes
    ) -> httpx2.Response:
        """The response, its body not read. Raises `Refused` where there is none that may pass."""
        request = httpx2.Request(
            method,
            _url(upstream, path, query),
            headers=headers,
            content=body,
            extensions={"timeout": self._timeout},
        )
        try:
            response = await self._transport.handle_async_request(request)
        except httpx2.TransportError as error:
            raise failed(error) from None
        if (refused := _refused(response, upstream)) is not None:
            await response.aclose()
            raise refused
        return response


def failed(error: httpx2.TransportError) -> Refused:
    """What a client is told of an upstream that gave no answer; the rest is for the log."""
    kind = type(error).__name__
    if isinstance(error, httpx2.TimeoutException):
        refused = Refused(504, "upstream_timeout", f"no answer from the upstream in time: {kind}")
    else:
        refused = Refused(502, "upstream_failed", f"no answer from the upstream: {kind}")
    # Other errors quote what came.
    refused.detail = repr(error) if isinstance(error, httpx2.ConnectError) else kind
    return refused


def _refused(response: httpx2.Response, upstream: Upstream) -> Refused | None:
    status = response.status_code
    if 300 <= status < 400:
        # To follow it would give the upstream's key away, and a client that did would be unguarded.
        return Refused(502, "upstream_redirects", "the upstream redirects, which is not followed")
    if not 200 <= status < 600:
        return Refused(502, "upstream_failed", f"the upstream answered with the status {status}")
    if status == 401 and upstream.key:
        # Such errors tend to quote the key, and the client could do nothing about it.
        return Refused(502, "upstream_key", "the upstream does not take the key that this proxy has for it")
    return None


def _url(upstream: Upstream, path: bytes, query: bytes) -> httpx2.URL:
    """The path behind the upstream's own. What ends the one and begins the other, /v1, is there once."""
    base = httpx2.URL(upstream.url)
    own = base.raw_path.rstrip(b"/")
    last = own[own.rfind(b"/") :]
    if last and path.startswith(last + b"/"):
        path = path[len(last) :]
    return base.copy_with(raw_path=own + path + (b"?" + query if query else b""))
