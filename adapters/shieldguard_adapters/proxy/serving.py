"""The proxy as a process."""

import asyncio
import logging
import sys
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from shieldguard import ConfigError
from shieldguard_adapters.proxy.app import create_app
from shieldguard_adapters.proxy.settings import ServeConfig, ServeSettings


def run(config: ServeConfig) -> None:
    """Serve until a signal comes; then take no more requests, and give running streams
    `shutdown_timeout` seconds to end."""
    log = logging.getLogger("shieldguard.proxy")
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler(sys.stderr))
    application = create_app(config)
    options = server_options(config)
    _open_files()
    if (said := _risky(config.serve)) is not None:
        print(f"shieldguard: {said}", file=sys.stderr)
    uvicorn.run(application, **options)


def server_options(config: ServeConfig) -> dict[str, Any]:
    """What uvicorn is told. Raises `ConfigError` for what cannot be served."""
    serve = config.serve
    if (serve.tls_certificate is None) != (serve.tls_key is None):
        raise ConfigError("for TLS, give both tls_certificate and tls_key")
    for file in (serve.tls_certificate, serve.tls_key):
        if file is not None and not file.is_file():
            raise ConfigError(f"there is no file {str(file)!r}, which TLS needs")
    return {
        "host": serve.host,
        "port": serve.port,
        "http": _protocol(serve),
        "ws": "none",
        "h11_max_incomplete_event_size": serve.max_header,
        "ssl_certfile": serve.tls_certificate,
        "ssl_keyfile": serve.tls_key,
        "timeout_graceful_shutdown": serve.shutdown_timeout,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
    }


def _open_files() -> None:
    """Allow as many as may be: each stream takes two."""
    try:
        import resource
    except ImportError:
        return  # not on Windows, which has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # macOS has a lower one that it does not tell


def _risky(serve: ServeSettings) -> str | None:
    """What somebody may not have meant."""
    is_open = serve.host not in ("127.0.0.1", "::1", "localhost") and not serve.keys
    if is_open and any(upstream.key for upstream in serve.upstreams):
        return f"whoever reaches {serve.host!r} can use the upstream's key; give clients keys (serve.keys)"
    return None


def _protocol(serve: ServeSettings) -> type[asyncio.Protocol]:
    class Protocol(H11Protocol):
        """Closes a connection of which a request's head, or the rest of one that was answered, does not come
        within the limit; and one too many."""

        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > serve.max_connections:
                transport.close()
            else:
                self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE or self.conn.our_state is h11.DONE:
                self._wait()
            else:
                self._arrived()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.our_state is h11.DONE:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._late is None and not self.transport.is_closing():
                self._late = self.loop.call_later(serve.request_timeout, self.transport.close)

        def _arrived(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Protocol
