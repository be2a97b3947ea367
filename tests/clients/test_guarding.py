"""Which clients can be guarded, and what a guarded client does and refuses."""

import json
from contextlib import suppress
from typing import Any

import anyio
import openai
import pytest

from shieldguard import UnguardedClient
from shieldguard_adapters.clients import assert_guarded, guard_client, guard_transport, report_of
from tests.clients.rig import HTTP, QUESTION, guard, reasoning
from tests.upstream import Script, Upstream, chat, completion


@pytest.fixture
def client(upstream: Upstream) -> Any:
    upstream.play(Script(chat(reasoning(harm_in=0), ["No."])))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        yield client


def text(client: Any) -> str:
    chunks = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
    return "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)


def is_guarded(client: Any) -> bool:
    return text(client).startswith("[Withheld")


def test_the_client_itself_comes_back(client: Any) -> None:
    assert guard_client(client, guard()) is client
    assert is_guarded(client)


@pytest.mark.parametrize(
    "derive",
    [lambda client: client.copy(), lambda client: client.with_options(timeout=5, max_retries=1)],
    ids=["copy", "with_options"],
)
def test_what_is_made_of_a_guarded_client_is_guarded(derive: Any, client: Any) -> None:
    derived = derive(guard_client(client, guard()))
    assert_guarded(derived)
    assert is_guarded(derived)


def test_a_copy_with_another_http_client_is_not(client: Any) -> None:
    guard_client(client, guard())
    with HTTP.Client() as http, pytest.raises(UnguardedClient, match="not guarded"):
        assert_guarded(client.copy(http_client=http))


def test_a_client_is_guarded_once_by_one_guard(client: Any) -> None:
    by = guard()
    guard_client(guard_client(client, by), by)
    assert len(client._client.event_hooks["response"]) == 1
    guard_client(client.copy(), by)
    assert len(client._client.event_hooks["response"]) == 1


@pytest.mark.parametrize(
    ("other", "options"), [(True, {}), (False, {"termination": "error"}), (False, {"thinking": "explicit"})]
)
def test_a_second_guard_is_refused(other: bool, options: dict[str, str], client: Any) -> None:
    by = guard()
    guard_client(client, by)
    with pytest.raises(UnguardedClient, match="guarded already"):
        guard_client(client, guard() if other else by, **options)  # type: ignore[arg-type]


def test_a_client_that_nobody_guards_is_told(client: Any) -> None:
    with pytest.raises(UnguardedClient, match="guard_client"):
        assert_guarded(client)


@pytest.mark.parametrize(
    "thing", [object(), type("Client", (), {"_client": object()})()], ids=["object", "client"]
)
def test_what_is_of_no_known_package_cannot_be_guarded(thing: object) -> None:
    with pytest.raises(UnguardedClient, match="openai, anthropic"):
        guard_client(thing, guard())


def test_a_part_of_a_client_cannot_be_guarded(client: Any) -> None:
    with pytest.raises(UnguardedClient, match="no httpx or httpx2 client underneath"):
        guard_client(client.chat.completions, guard())


def test_settings_that_cannot_work_are_refused(client: Any) -> None:
    with pytest.raises(ValueError, match="loudly"):
        guard_client(client, guard(), termination="loudly")
    with pytest.raises(UnguardedClient):
        assert_guarded(client)


def test_only_a_guarded_response_has_a_report(client: Any) -> None:
    with pytest.raises(UnguardedClient):
        report_of(client.chat.completions.create(model="m", messages=QUESTION, stream=True))
    with pytest.raises(UnguardedClient):
        report_of("a response")


def test_the_report_is_there_while_the_stream_runs(client: Any) -> None:
    stream = guard_client(client, guard()).chat.completions.create(model="m", messages=QUESTION, stream=True)
    assert report_of(stream).aborted is None
    list(stream)
    assert report_of(stream) == report_of(stream.response)
    assert report_of(stream).aborted is not None


REFUSED = {
    "a compaction": lambda client: client.responses.compact(model="m", input="hi"),
    "legacy completions": lambda client: client.completions.create(model="m", prompt="hi"),
    "stored completions": lambda client: client.chat.completions.list(),
    "a stored completion": lambda client: client.chat.completions.retrieve("chatcmpl-1"),
    "batches": lambda client: client.batches.list(),
    "a path nobody knows": lambda client: client.post("/think", cast_to=object),
    "a path that looks harmless": lambda client: client.post("/models-of-thought", cast_to=object),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_what_would_come_unguarded_is_not_sent(call: Any, client: Any, upstream: Upstream) -> None:
    guard_client(client, guard())
    with pytest.raises(UnguardedClient, match="was not sent"):
        call(client)
    assert upstream.requests == []


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.models.list(),
        lambda client: client.embeddings.create(model="m", input="hi", encoding_format="float"),
        lambda client: client.moderations.create(input="hi"),
        lambda client: client.files.retrieve("file-1"),
    ],
    ids=["models", "embeddings", "moderations", "files"],
)
def test_what_holds_no_model_text_is_sent(call: Any, client: Any, upstream: Upstream) -> None:
    upstream.play(Script([b'{"data":[],"object":"list"}'], content_type="application/json"))
    guard_client(client, guard())
    with suppress(ValueError):  # an answer without embeddings
        call(client)
    assert len(upstream.requests) == 1


def test_azure_clients_are_guarded(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(harm_in=0), ["No."])))
    with openai.AzureOpenAI(
        azure_endpoint=upstream.url.removesuffix("/v1"), api_key="none", api_version="2024-10-21"
    ) as client:
        assert is_guarded(guard_client(client, guard()))


def test_the_users_own_hooks_stay_and_see_guarded_text_alone(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(harm_in=0), ["No."])))
    seen: list[Any] = []

    def on_request(request: Any) -> None:
        seen.append(request.method)

    def on_response(response: Any) -> None:
        response.read()
        seen.append(response.text)

    http = HTTP.Client(event_hooks={"request": [on_request], "response": [on_response]})
    with openai.OpenAI(base_url=upstream.url, api_key="none", http_client=http) as client:
        assert is_guarded(guard_client(client, guard()))
    assert seen[0] == "POST"
    assert "[Withheld" in seen[1]
    assert "HARM" not in seen[1]


def test_a_legacy_http_client_under_a_newer_sdk_is_guarded(upstream: Upstream) -> None:
    httpx = pytest.importorskip("httpx")
    upstream.play(Script(chat(reasoning(harm_in=0), ["No."])))
    with openai.OpenAI(base_url=upstream.url, api_key="none", http_client=httpx.Client()) as client:
        assert is_guarded(guard_client(client, guard()))


def test_compression_is_not_asked_for(client: Any) -> None:
    guard_client(client, guard())
    with client.chat.completions.with_streaming_response.create(
        model="m", messages=QUESTION, stream=True
    ) as raw:
        assert raw.http_request.headers["accept-encoding"] == "identity"
        assert "content-length" not in raw.headers


@pytest.mark.parametrize("point", ["client", "transport"])
@pytest.mark.parametrize("program", ["sync", "async"])
@pytest.mark.parametrize("streamed", [True, False])
def test_a_response_that_was_made_with_its_content_is_guarded(
    point: str, program: str, streamed: bool
) -> None:
    """As those of a cache, or a double, are: the client would not look at their stream."""

    def answer(request: Any) -> Any:
        thought = reasoning(harm_in=3)
        if streamed:
            data = b"".join(chat(thought, ["All is well."]))
            return HTTP.Response(200, content=data, headers={"content-type": "text/event-stream"})
        body = completion({"content": "All is well.", "reasoning_content": "".join(thought)})
        return HTTP.Response(200, json=json.loads(body))

    mock = transport = HTTP.MockTransport(answer)
    if point == "transport":
        # Of one kind only; the mock is of both.
        name = "handle_request" if program == "sync" else "handle_async_request"
        kind = HTTP.BaseTransport if program == "sync" else HTTP.AsyncBaseTransport
        inner = type("OneKind", (kind,), {name: lambda self, request: getattr(mock, name)(request)})()
        transport = guard_transport(inner, guard())
    options: dict[str, Any] = {"base_url": "http://nowhere/v1", "api_key": "none", "max_retries": 0}
    asked: dict[str, Any] = {"model": "m", "messages": QUESTION, "stream": streamed}
    if program == "sync":
        with openai.OpenAI(http_client=HTTP.Client(transport=transport), **options) as sdk:
            sdk = guard_client(sdk, guard()) if point == "client" else sdk
            made = sdk.chat.completions.create(**asked)
            got = repr(list(made) if streamed else made)
    else:

        async def main() -> str:
            http = HTTP.AsyncClient(transport=transport)
            async with openai.AsyncOpenAI(http_client=http, **options) as sdk:
                sdk = guard_client(sdk, guard()) if point == "client" else sdk
                made = await sdk.chat.completions.create(**asked)
                return repr([chunk async for chunk in made] if streamed else made)

        got = anyio.run(main)
    assert "HARM" not in got
    assert "All is well" not in got
    assert "Withheld" in got
