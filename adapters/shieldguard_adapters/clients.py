"""Guard an SDK client that sits on httpx or httpx2, by hooks on the HTTP client it already has, which
keeps its proxies, mounts, timeouts and retries; or a client of boto3's, by its events. What such a client
would fetch unguarded is refused before it is sent."""

from collections.abc import Callable
from typing import Any, TypeVar

from shieldguard import (
    Guard,
    QueryFrom,
    ShieldguardError,
    StreamReport,
    Thinking,
    UnguardedClient,
    last_user_turn,
)
from shieldguard_adapters.bedrock import BotoHooks, is_boto_client, stream_of
from shieldguard_adapters.hooks import EXTENSION, MARK, Hooks, guarded_transports, library_of
from shieldguard_adapters.sdks import SDKS, Sdk
from shieldguard_adapters.wire import Termination
from shieldguard_adapters.wire.apis import ANY
from shieldguard_adapters.wire.endpoints import Options

C = TypeVar("C")


def guard_client(
    client: C,
    guard: Guard,
    *,
    query_from: QueryFrom = last_user_turn,
    thinking: Thinking | str = Thinking.AUTO,
    termination: Termination | str = Termination.REFUSAL,
) -> C:
    """Guard all that `client` generates, and what `copy()` or `with_options()` makes of it does. It is a
    client of one of the packages in `SDKS`, sync or async; a boto3 client of Bedrock's runtime; or an HTTP
    client of httpx or httpx2 itself, for any of their APIs. Returns the same client. What a client does
    beside its HTTP client is not seen: the WebSockets of openai (`responses.connect()`,
    `realtime.connect()`).

    `query_from` makes the judge's query of the request's messages, `thinking` says how inline reasoning
    begins, `termination` how an aborted response ends. Raises `UnguardedClient` for a client that this
    cannot guard, or that another guard guards already.
    """
    options = Options(
        thinking=Thinking(thinking), termination=Termination(termination), redacts=guard.policy.redacts
    )
    if is_boto_client(client):
        ours = BotoHooks(guard=guard, query_from=query_from, options=options)
        if _is_new(client, client, ours):
            ours.attach(client)
        return client
    sdk = _sdk(client)
    for http in _http_clients(client, sdk):
        hooks = Hooks(
            guard=guard,
            library=library_of(http),
            api=sdk.api,
            query_from=query_from,
            options=options,
            sdk_errors=(sdk.error,) if sdk.error else (),
        )
        if _is_new(http, client, hooks):
            _attach(http, hooks, retries=sdk.retries)
    return client


def guard_transport(
    transport: C,
    guard: Guard,
    *,
    query_from: QueryFrom = last_user_turn,
    thinking: Thinking | str = Thinking.AUTO,
    termination: Termination | str = Termination.REFUSAL,
) -> C:
    """A transport that guards what comes through `transport`, of httpx or httpx2, sync or async; for a new
    HTTP client (`httpx2.AsyncClient(transport=…)`). The options are those of `guard_client`. A client that
    is given a transport takes no proxies from the environment."""
    hooks = Hooks(
        guard=guard,
        library=library_of(transport),
        api=ANY,
        query_from=query_from,
        options=Options(
            thinking=Thinking(thinking), termination=Termination(termination), redacts=guard.policy.redacts
        ),
        sdk_errors=tuple(sdk.error for sdk in SDKS if sdk.error),  # any of them may use it
    )
    is_async = isinstance(transport, hooks.library.AsyncBaseTransport)
    guarded: C = guarded_transports(hooks.library)[is_async](transport, hooks)
    return guarded


def _is_new(holder: object, client: object, hooks: Hooks | BotoHooks) -> bool:
    """Whether nothing guards this yet. Raises `UnguardedClient` where another guard does."""
    before = getattr(holder, MARK, None)
    if before is not None and (before.guard is not hooks.guard or before != hooks):
        raise UnguardedClient(f"{client!r} is guarded already, by {before.guard!r}; make a client of its own")
    return before is None


def assert_guarded(client: object) -> None:
    """Raise `UnguardedClient` unless `guard_client` has guarded this client, or it was made with a transport
    of `guard_transport`."""
    holders = [client] if is_boto_client(client) else _http_clients(client, _sdk(client))
    for http in holders:
        if not hasattr(http, MARK) and not hasattr(getattr(http, "_transport", None), MARK):
            raise UnguardedClient(f"{client!r} is not guarded; pass it through guard_client()")


def report_of(response: Any) -> StreamReport:
    """The report of a guarded response: an `openai.Stream`, a raw response or an httpx response. What
    google-genai gives does not lead back to its response; there, observers get the report, whose `stream` is
    the header "x-shieldguard-id" of the result's `sdk_http_response`."""
    response = getattr(response, "response", None) or getattr(response, "http_response", None) or response
    stream = stream_of(response) or getattr(response, "extensions", {}).get(EXTENSION)
    if stream is None:
        raise UnguardedClient(
            f"{response!r:.200} did not come through a guarded client, or does not lead back to a response; "
            "the observers of a guard get all its reports"
        )
    report: StreamReport = stream.report
    return report


def _sdk(client: object) -> Sdk:
    modules = [f"{base.__module__}." for base in type(client).__mro__]
    for sdk in SDKS:
        if any(module.startswith(f"{sdk.package}.") for module in modules):
            return sdk
    known = ", ".join([*(sdk.package for sdk in SDKS), "boto3"])
    raise UnguardedClient(f"{client!r} cannot be guarded: guard_client() takes the clients of {known}")


def _http_clients(client: object, sdk: Sdk) -> list[Any]:
    try:
        return [http for http in sdk.http(client) if http.event_hooks is not None]
    except AttributeError as error:
        raise UnguardedClient(
            f"{client!r} has no httpx or httpx2 client underneath, so it cannot be guarded ({error})"
        ) from None


def _attach(http: Any, hooks: Hooks, *, retries: bool) -> None:
    is_async = isinstance(http, hooks.library.AsyncClient)
    on_request, on_response = _async_hooks(hooks, retries) if is_async else _sync_hooks(hooks, retries)
    events = http.event_hooks
    # Run last on the way out and first on the way back, so that other hooks see guarded text alone.
    http.event_hooks = {
        "request": [*events["request"], on_request],
        "response": [on_response, *events["response"]],
    }
    if retries:
        http.build_request = _checked(http.build_request, hooks)
    if any("send" in vars(base) and "google.genai" in base.__module__ for base in type(http).__mro__):
        _attach_per_loop(http)
    setattr(http, MARK, hooks)


def _checked(build_request: Callable[..., Any], hooks: Hooks) -> Callable[..., Any]:
    """Requests are built before the part that is tried again, so what is raised there is final."""

    def checked(*args: Any, **kwargs: Any) -> Any:
        request = build_request(*args, **kwargs)
        hooks.on_request(request)
        return request

    return checked


def _attach_per_loop(http: Any) -> None:
    """The async client of google-genai sends by another one for each event loop, made of what it was made
    of itself: its hooks have to be among that."""
    try:
        http._client_kwargs["event_hooks"] = http.event_hooks
        for inner in http._loop_clients.values():
            inner.event_hooks = http.event_hooks
    except AttributeError as error:
        raise UnguardedClient(
            f"{http!r} does not send by itself, and by what it sends is not known here ({error})"
        ) from None


def _sync_hooks(hooks: Hooks, retries: bool) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    def on_response(response: Any) -> None:
        try:
            hooks.on_response(response.request, response)
        except ShieldguardError as error:
            if not retries:
                raise
            response.stream.close()
            hooks.raise_later(response, error)
        hooks.read_whole(response)

    return hooks.on_request, on_response


def _async_hooks(hooks: Hooks, retries: bool) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    async def on_request(request: Any) -> None:
        hooks.on_request(request)

    async def on_response(response: Any) -> None:
        try:
            hooks.on_async_response(response.request, response)
        except ShieldguardError as error:
            if not retries:
                raise
            await response.stream.aclose()
            hooks.raise_later(response, error)
        await hooks.aread_whole(response)

    return on_request, on_response
