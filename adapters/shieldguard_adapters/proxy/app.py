"""The proxy as an ASGI application: what is guarded, what is passed on, what is refused."""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote_plus

import anyio
import httpx2
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from shieldguard import ConfigError, Guard, Observer, Policy, WireError, last_user_turn
from shieldguard.recording import Recorder
from shieldguard_adapters.bodies import AsyncDecoded
from shieldguard_adapters.proxy.admitting import Admission
from shieldguard_adapters.proxy.exchanges import Exchange
from shieldguard_adapters.proxy.forwarding import request_headers, response_headers, sent_query
from shieldguard_adapters.proxy.hiding import hide_key
from shieldguard_adapters.proxy.metrics import Metrics
from shieldguard_adapters.proxy.models import model_of
from shieldguard_adapters.proxy.paths import endpoint_of, plain
from shieldguard_adapters.proxy.readiness import Readiness
from shieldguard_adapters.proxy.refusing import Refused
from shieldguard_adapters.proxy.reports import Reports
from shieldguard_adapters.proxy.settings import ServeConfig
from shieldguard_adapters.proxy.tracing import Tracing
from shieldguard_adapters.proxy.upstreams import Upstreams, failed
from shieldguard_adapters.responding import GuardedResponse, Paced, unless_left
from shieldguard_adapters.wire import Codec
from shieldguard_adapters.wire import Request as Asked
from shieldguard_adapters.wire.endpoints import Endpoint, Options

logger = logging.getLogger("shieldguard.proxy")

_CLOSING = 5.0  # seconds that an upstream gets to close


class Proxy:
    """Guards what goes through it."""

    def __init__(self, config: ServeConfig) -> None:
        self._settings = settings = config.serve
        self._admission = Admission(settings)
        self._upstreams = Upstreams(settings)
        self._streams: set[Any] = set()
        self._metrics = Metrics(lambda: sum(stream.waiting for stream in self._streams))
        self._reports = Reports(settings.reports)
        guard = config.build()
        self._readiness = Readiness(guard)
        self._tracing = Tracing()
        own_observers: list[Observer] = [self._metrics, self._reports, self._readiness]
        if settings.record is not None:
            own_observers.append(Recorder(settings.record))
        self._guard = guard.variant(observers=[*own_observers, *self._tracing.observers])
        own = {key.name: config.key_policy(key) for key in settings.keys if key.policy}
        self._guards = {name: self._guard.variant(policy=policy) for name, policy in own.items()}

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._upstreams.aclose()

    # -- its own paths -------------------------------------------------------------------------

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "up"})

    async def readyz(self, request: Request) -> Response:
        if (error := await self._readiness.error()) is not None:
            return JSONResponse({"status": "no verdict", "error": type(error).__name__}, 503)
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        self._admission.scraper(request)
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def report(self, request: Request) -> Response:
        key = self._admission.client(request)
        report = self._reports.find(request.path_params["stream"], key.name if key else "")
        if report is None:
            raise Refused(404, "unknown", "no report of that id is kept for this client")
        return Response(report, media_type="application/json")

    def own(self, path: str, answer: Callable[[Request], Awaitable[Response]]) -> Route:
        async def admitted(request: Request) -> Response:
            try:
                self._admission.head(request)
                return await answer(request)
            except Refused as refused:
                return refused.response()

        return Route(path, admitted)

    # -- the others ----------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        exchange = Exchange(Request(scope, receive))

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            with anyio.move_on_after(self._settings.write_timeout) as limit:
                await send(message)
            if limit.cancelled_caught:
                exchange.failed = "the client took nothing"
                raise ClientDisconnect

        try:
            try:
                await self._answer(exchange, receive, sent)
            except Refused as refused:
                exchange.failed = f"{refused.code} {refused.detail}".rstrip()
                await refused.response()(scope, receive, sent)
        except ClientDisconnect:
            pass
        finally:
            self._metrics.answered(exchange.kind, exchange.status)
            logger.info(json.dumps(exchange.record(with_query=self._settings.log_query)))

    async def _answer(self, exchange: Exchange, receive: Any, send: Any) -> None:
        self._admission.head(exchange.request)
        exchange.key = self._admission.client(exchange.request)
        with self._admission.place(exchange.key):
            await self._forward(exchange, receive, send)

    async def _forward(self, exchange: Exchange, receive: Any, send: Any) -> None:
        request = exchange.request
        path = plain(exchange.raw_path)
        endpoint = endpoint_of(request.method, path, self._settings.pass_paths)
        query = unquote_plus(request.scope["query_string"].decode("latin-1"))
        if endpoint is not None and (unseen := [name for name in endpoint.without if name in query]):
            raise Refused(
                400, "unseen", f"{endpoint.noun} with {unseen[0]!r}: the judge would not see what came before"
            )
        exchange.at(endpoint)
        body = await self._admission.body(request)
        exchange.model = model_of(path, body, guarded=endpoint is not None)
        asked = _asked(endpoint, body)
        exchange.upstream = self._upstreams.serving(exchange.model)

        async def respond() -> None:
            response = await self._ask(exchange, endpoint, path, body)
            try:
                guard = self._guards.get(exchange.owner, self._guard)
                if (codec := self._codec(endpoint, response, asked, guard.policy)) is None:
                    await self._pass(response, send)
                else:
                    await self._guarded(exchange, guard, codec, asked, response, send)
            except httpx2.TransportError as error:
                exchange.failed = type(error).__name__
                if exchange.status == 0:
                    raise failed(error) from None
                # A response that has begun is left without its end, so that it does not look whole.
            finally:
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _CLOSING):
                    await response.aclose()

        await unless_left(receive, respond)

    async def _ask(
        self, exchange: Exchange, endpoint: Endpoint | None, path: str, body: bytes
    ) -> httpx2.Response:
        scope, upstream = exchange.request.scope, exchange.upstream
        assert upstream is not None
        wants_keys = self._admission.wants_keys
        response = await self._upstreams.ask(
            upstream,
            exchange.request.method,
            exchange.raw_path,
            sent_query(scope["query_string"], keyless=wants_keys or bool(upstream.key)),
            request_headers(scope["headers"], upstream.key, path, keyless=wants_keys),
            body,
        )
        hide_key(response, upstream.key, in_body=endpoint is None or not response.is_success)
        return response

    async def _pass(self, response: httpx2.Response, send: Any) -> None:
        headers = response_headers(response.headers.raw, guarded=False)
        headers.append((b"x-shieldguard-passed", b"unguarded"))
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        async for data in response.aiter_raw():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _codec(
        self, endpoint: Endpoint | None, response: httpx2.Response, asked: Asked, policy: Policy
    ) -> Codec | None:
        """None for what is passed on as it is: also an error that is the upstream's alone."""
        if endpoint is None:
            return None
        settings, content_type = self._settings, response.headers.get("content-type", "")
        options = Options(
            thinking=settings.thinking, termination=settings.termination, redacts=policy.redacts
        )
        if not response.is_success:
            return endpoint.error_codec(response.status_code, content_type, options)
        try:
            return endpoint.codec(content_type, asked, options)
        except WireError as error:
            raise _unreadable(error) from None

    async def _guarded(
        self,
        exchange: Exchange,
        guard: Guard,
        codec: Codec,
        asked: Asked,
        response: httpx2.Response,
        send: Any,
    ) -> None:
        try:
            encoding = response.headers.get("content-encoding", "identity")
            source = Paced(AsyncDecoded(response.stream, codec, encoding))
        except WireError as error:
            raise _unreadable(error) from None
        with self._tracing.within(exchange.request.headers):
            stream = guard.stream(source, query=asked.query, redactable=asked.redactable)
        exchange.stream = stream
        self._reports.owned(stream.report.stream, exchange.owner)
        respond = GuardedResponse(
            stream,
            source,
            codec,
            status=response.status_code,
            headers=response_headers(response.headers.raw, guarded=True),
            keep_alive=self._settings.keep_alive if response.is_success else None,
            outcome_at_end=self._settings.outcome_at_end,
        )
        self._streams.add(stream)
        with self._metrics.in_flight.track_inprogress():
            try:
                await respond(send)
            finally:
                self._streams.discard(stream)


def _unreadable(error: WireError) -> Refused:
    # Clients ask again after a 5xx, unless told not to: a generation for nothing.
    return Refused(502, "unreadable", str(error), x_should_retry="false")


def _asked(endpoint: Endpoint | None, body: bytes) -> Asked:
    try:
        return endpoint.read_request(body, last_user_turn) if endpoint else Asked()
    except WireError as error:
        raise Refused(400, "bad_request", f"the request cannot be read: {error}") from None


def create_app(config: ServeConfig | None = None) -> Starlette:
    """The proxy of these settings, or of the environment's. Raises `ConfigError` for what cannot work."""
    config = config or ServeConfig.load()
    if not config.serve.upstreams:
        raise ConfigError(
            "there is no model server to guard; give --upstream URL, or serve.upstreams in the configuration"
        )
    for upstream in config.serve.upstreams:
        _ = upstream.key  # raises for a variable that is not set
    proxy = Proxy(config)
    routes = [
        proxy.own("/", proxy.healthz),  # Ollama's command asks there whether its server is up
        proxy.own("/healthz", proxy.healthz),
        proxy.own("/readyz", proxy.readyz),
        proxy.own("/metrics", proxy.metrics),
        proxy.own("/shieldguard/streams/{stream}", proxy.report),
        Mount("/", proxy),
    ]
    return Starlette(routes=routes, lifespan=proxy.lifespan)
