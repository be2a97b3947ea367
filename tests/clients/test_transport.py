"""HTTP clients without an SDK: with a guarded transport, or guarded themselves; and SDKs on such a one."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import anyio
import openai
import pytest

from shieldguard import Ended, Guard, StreamReport, UnguardedClient, WireError
from shieldguard_adapters.clients import assert_guarded, guard_client, guard_transport, report_of
from shieldguard_adapters.hooks import library_of
from tests.clients.rig import HTTP, PROGRAMS, QUESTION, guard, reasoning, run_async
from tests.upstream import Script, Upstream, chat, completion
from tests.wire.messages import bodies_in, body, message, text, thinking
from tests.wire.rig import choices_in

ANSWER = ["It is ", "fine."]
CHAT = "/chat/completions"
ASKED = {"model": "m", "messages": QUESTION}


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    pytest.importorskip(request.param)
    return import_module(request.param)


def by_transport(library: ModuleType, program: str, by: Guard, **options: Any) -> Any:
    if program == "sync":
        return library.Client(transport=guard_transport(library.HTTPTransport(), by, **options))
    return library.AsyncClient(transport=guard_transport(library.AsyncHTTPTransport(), by, **options))


def by_hooks(library: ModuleType, program: str, by: Guard, **options: Any) -> Any:
    client = library.Client() if program == "sync" else library.AsyncClient()
    return guard_client(client, by, **options)


def transport_of(library: ModuleType, program: str) -> Any:
    transport = library.HTTPTransport() if program == "sync" else library.AsyncHTTPTransport()
    return guard_transport(transport, guard())


each_way = pytest.mark.parametrize("make", [by_transport, by_hooks])
each_program = pytest.mark.parametrize("program", PROGRAMS)


def connections(client: Any) -> list[Any]:
    """The connections of a client that are neither closed nor given back."""
    transport = client._transport
    inner = getattr(transport, "_inner", transport)
    return [one for one in inner._pool.connections if not one.is_idle() and not one.is_closed()]


def fetch(
    program: str, client: Any, url: str, *, method: str = "POST", **request: Any
) -> tuple[bytes, StreamReport | None]:
    """The body of a streamed response, and its report where it is guarded."""

    def report(response: Any) -> StreamReport | None:
        return report_of(response) if "shieldguard" in response.extensions else None

    if program == "sync":
        with client, client.stream(method, url, **request) as response:
            out = b"".join(response.iter_bytes())
            response.close()
            assert not connections(client)
            return out, report(response)

    async def main() -> tuple[bytes, StreamReport | None]:
        async with client, client.stream(method, url, **request) as response:
            out = b"".join([piece async for piece in response.aiter_bytes()])
            await response.aclose()
            assert not connections(client)
            return out, report(response)

    return run_async(program, main)


@each_way
@each_program
def test_harmless_streams_pass_byte_for_byte(
    program: str, make: Callable[..., Any], library: ModuleType, upstream: Upstream
) -> None:
    for path, frames in (
        (CHAT, chat(reasoning(), ANSWER)),
        ("/messages", message(thinking(0, *reasoning()), text(1, *ANSWER))),
    ):
        upstream.play(Script(frames))
        out, report = fetch(program, make(library, program, guard()), upstream.url + path, json=ASKED)
        assert out == b"".join(frames)
        assert report is not None
        assert (report.ended, report.query) == (Ended.COMPLETE, QUESTION[0]["content"])


@each_way
@each_program
def test_a_harmful_chat_ends_as_a_refusal(
    program: str, make: Callable[..., Any], library: ModuleType, upstream: Upstream
) -> None:
    frames = chat(reasoning(harm_in=4, sentences=90), ANSWER)
    upstream.play(Script(frames, delay=0.001))
    out, report = fetch(program, make(library, program, guard()), upstream.url + CHAT, json=ASKED)
    assert report is not None
    assert report.aborted is not None
    assert b"HARM" not in out
    assert choices_in(out)[-1]["finish_reason"] == "stop"
    assert upstream.finished.wait(20)
    assert upstream.sent < len(frames) / 2


@each_way
@each_program
def test_a_harmful_message_ends_as_a_refusal(
    program: str, make: Callable[..., Any], library: ModuleType, upstream: Upstream
) -> None:
    upstream.play(Script(message(thinking(0, *reasoning(harm_in=4)), text(1, *ANSWER))))
    out, report = fetch(program, make(library, program, guard()), upstream.url + "/messages", json=ASKED)
    assert report is not None
    assert report.aborted is not None
    assert b"HARM" not in out
    assert bodies_in(out)[-2]["delta"]["stop_reason"] == "refusal"


@each_way
@pytest.mark.parametrize(
    ("path", "data"),
    [
        (CHAT, completion({"reasoning_content": "HARM", "content": "No."})),
        ("/messages", body({"type": "thinking", "thinking": "HARM", "signature": "c2ln"})),
    ],
    ids=["chat", "message"],
)
def test_a_whole_body_is_judged(
    path: str, data: bytes, make: Callable[..., Any], library: ModuleType, upstream: Upstream
) -> None:
    upstream.play(Script([data], content_type="application/json"))
    out, report = fetch("asyncio", make(library, "asyncio", guard()), upstream.url + path, json=ASKED)
    assert report is not None
    assert report.aborted is not None
    assert b"HARM" not in out


@each_program
def test_the_options_are_those_of_a_client(program: str, library: ModuleType, upstream: Upstream) -> None:
    upstream.play(Script(chat(["HARM"], ANSWER)))
    client = by_transport(
        library, program, guard(), termination="content_filter", query_from=lambda messages: "a query"
    )
    out, report = fetch(program, client, upstream.url + CHAT, json=ASKED)
    assert choices_in(out)[-1]["finish_reason"] == "content_filter"
    assert report is not None
    assert report.query == "a query"


@each_way
@each_program
def test_a_path_nobody_knows_is_not_sent_and_a_harmless_one_is(
    program: str, make: Callable[..., Any], library: ModuleType, upstream: Upstream
) -> None:
    upstream.play(Script([b'{"data":[]}'], content_type="application/json"))
    with pytest.raises(UnguardedClient, match="'/v1/think' is not guarded"):
        fetch(program, make(library, program, guard()), f"{upstream.url}/think", json=ASKED)
    with pytest.raises(UnguardedClient, match="GET '/v1/chat/completions'"):
        fetch(program, make(library, program, guard()), upstream.url + CHAT, method="GET")
    assert upstream.requests == []
    client = make(library, program, guard())
    out, report = fetch(program, client, f"{upstream.url}/models", method="GET")
    assert (out, report) == (b'{"data":[]}', None)


@each_way
@each_program
def test_a_request_whose_body_is_a_stream_is_not_sent(
    program: str, make: Callable[..., Any], library: ModuleType, upstream: Upstream
) -> None:
    def pieces() -> Any:
        yield b'{"messages":[]}'

    async def async_pieces() -> Any:
        yield b'{"messages":[]}'

    upstream.play(Script(chat(reasoning(), ANSWER)))
    content = pieces() if program == "sync" else async_pieces()
    with pytest.raises(UnguardedClient, match="give it whole"):
        fetch(program, make(library, program, guard()), upstream.url + CHAT, content=content)
    assert upstream.requests == []


@each_way
@each_program
@pytest.mark.parametrize(
    "script",
    [
        Script([b"HARM"] * 9, delay=0.05, content_type="text/plain", hold_open=True),
        Script([b"HARM"] * 9, delay=0.05, headers={"content-encoding": "br"}, hold_open=True),
    ],
    ids=["content type", "content encoding"],
)
def test_a_response_that_cannot_be_guarded_is_closed(
    script: Script, program: str, make: Callable[..., Any], library: ModuleType, upstream: Upstream
) -> None:
    upstream.play(script)
    client = make(library, program, guard())

    def sync_main() -> None:
        with client, pytest.raises(WireError):
            client.post(upstream.url + CHAT, json=ASKED)
        # Before the client itself was closed:
        assert upstream.finished.wait(20)

    async def main() -> None:
        async with client:
            with pytest.raises(WireError):
                await client.post(upstream.url + CHAT, json=ASKED)
            assert not connections(client)
            assert await anyio.to_thread.run_sync(upstream.finished.wait, 2)

    if program == "sync":
        sync_main()
    else:
        run_async(program, main)


@each_program
def test_errors_of_the_server_come_as_they_are(program: str, library: ModuleType, upstream: Upstream) -> None:
    upstream.play(Script([b'{"error":"no"}'], status=503, content_type="application/json"))
    client = by_transport(library, program, guard())
    assert fetch(program, client, upstream.url + CHAT, json=ASKED) == (b'{"error":"no"}', None)


@each_way
@each_program
def test_an_error_that_quotes_the_model_is_judged(
    make: Any, program: str, library: ModuleType, upstream: Upstream
) -> None:
    upstream.play(Script([b'{"error":"raw=HARM"}'], status=500, content_type="application/json"))
    out, report = fetch(program, make(library, program, guard()), upstream.url + CHAT, json=ASKED)
    assert b"HARM" not in out
    assert report is not None
    assert report.aborted is not None


@each_way
@each_program
@pytest.mark.parametrize(("path", "harmful"), [("/v1/files/f", True), ("/v2/chat/completions", False)])
def test_a_redirect_is_followed_to_what_is_guarded_alone(
    make: Any, program: str, path: str, harmful: bool, library: ModuleType, upstream: Upstream
) -> None:
    upstream.play(Script([completion({"content": "Fine."})], content_type="application/json"))
    upstream.first.append(Script([], status=307, headers={"location": path}))
    client = make(library, program, guard())
    client.follow_redirects = True
    if not harmful:
        assert b"Fine." in fetch(program, client, upstream.url + CHAT, json=ASKED)[0]
        return
    with pytest.raises(WireError, match="redirected"):
        fetch(program, client, upstream.url + CHAT, json=ASKED)


def test_json_that_is_called_a_stream_is_no_way_around(upstream: Upstream) -> None:
    upstream.play(Script([completion({"content": "HARM"})]))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        found = guard_client(client, guard()).chat.completions.create(model="m", messages=QUESTION)
    assert "HARM" not in str(found)


def test_guarded_and_unguarded_are_told_apart(library: ModuleType) -> None:
    for make in (by_transport, by_hooks):
        with make(library, "sync", guard()) as client:
            assert_guarded(client)
        assert_guarded(make(library, "asyncio", guard()))
    with library.Client() as client, pytest.raises(UnguardedClient, match="guard_client"):
        assert_guarded(client)


def test_what_is_no_transport_is_refused() -> None:
    with pytest.raises(UnguardedClient, match="neither an httpx nor an httpx2"):
        guard_transport(object(), guard())


def test_a_transport_is_closed_with_its_client(library: ModuleType) -> None:
    inner = library.HTTPTransport()
    closed = []
    inner.close = lambda: closed.append("sync")
    library.Client(transport=guard_transport(inner, guard())).close()

    async def aclose() -> None:
        closed.append("async")

    async_inner = library.AsyncHTTPTransport()
    async_inner.aclose = aclose
    anyio.run(library.AsyncClient(transport=guard_transport(async_inner, guard())).aclose)
    assert closed == ["sync", "async"]


@pytest.mark.parametrize("harm_in", [None, 4])
@each_program
def test_an_openai_client_on_a_guarded_transport(
    program: str, harm_in: int | None, upstream: Upstream
) -> None:
    upstream.play(Script(chat(reasoning(harm_in=harm_in), ANSWER)))
    wrapped = guard_transport(
        HTTP.HTTPTransport() if program == "sync" else HTTP.AsyncHTTPTransport(), guard()
    )

    def sync_main() -> str:
        http = openai.DefaultHttpxClient(transport=wrapped)
        with openai.OpenAI(base_url=upstream.url, api_key="none", http_client=http) as client:
            assert_guarded(client)
            stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
            return "".join(one.choices[0].delta.content or "" for one in stream if one.choices)

    async def main() -> str:
        http = openai.DefaultAsyncHttpxClient(transport=wrapped)
        async with openai.AsyncOpenAI(base_url=upstream.url, api_key="none", http_client=http) as client:
            assert_guarded(client)
            stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
            return "".join([one.choices[0].delta.content or "" async for one in stream if one.choices])

    said = sync_main() if program == "sync" else run_async(program, main)
    assert said == "".join(ANSWER) if harm_in is None else said.startswith("[Withheld")


def test_an_openai_client_on_a_guarded_transport_is_not_asked_again_after_a_refusal_of_ours(
    upstream: Upstream,
) -> None:
    upstream.play(Script([b"HARM"], content_type="text/plain"))
    http = openai.DefaultHttpxClient(transport=guard_transport(HTTP.HTTPTransport(), guard()))
    with openai.OpenAI(base_url=upstream.url, api_key="none", http_client=http, max_retries=2) as client:
        with pytest.raises(WireError) as raised:
            client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        with pytest.raises(UnguardedClient):
            client.completions.create(model="m", prompt="hi")
    assert isinstance(raised.value, openai.OpenAIError)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("harm_in", [None, 4])
@each_program
def test_an_anthropic_client_on_a_guarded_transport(
    program: str, harm_in: int | None, upstream: Upstream
) -> None:
    anthropic = pytest.importorskip("anthropic")
    upstream.play(Script(message(thinking(0, *reasoning(harm_in=harm_in)), text(1, *ANSWER))))
    base = upstream.url.removesuffix("/v1")
    wrapped = transport_of(library_of(anthropic.DefaultHttpxClient()), program)
    request: Any = {**ASKED, "max_tokens": 9}

    def sync_main() -> str:
        http = anthropic.DefaultHttpxClient(transport=wrapped)
        with (
            anthropic.Anthropic(base_url=base, api_key="none", http_client=http) as client,
            client.messages.stream(**request) as stream,
        ):
            assert_guarded(client)
            return str(stream.get_final_text())

    async def main() -> str:
        http = anthropic.DefaultAsyncHttpxClient(transport=wrapped)
        async with (
            anthropic.AsyncAnthropic(base_url=base, api_key="none", http_client=http) as client,
            client.messages.stream(**request) as stream,
        ):
            assert_guarded(client)
            return str(await stream.get_final_text())

    said = sync_main() if program == "sync" else run_async(program, main)
    assert said == "".join(ANSWER) if harm_in is None else said.startswith("[Withheld")
