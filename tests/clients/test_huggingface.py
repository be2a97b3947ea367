"""The real clients of the Hugging Face Hub for inference, guarded. The async one has an HTTP client of its
own; the other takes the one of all of the package, from a factory."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", minversion="2")

import anyio
import httpx2
from huggingface_hub import AsyncInferenceClient, InferenceClient, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory

from shieldguard import Guard, UnguardedClient, WireError
from shieldguard_adapters.clients import assert_guarded, guard_client
from tests.clients.rig import guard
from tests.clients.table import QUESTION, Heard, Table
from tests.upstream import Script, Upstream

REQUEST: dict[str, Any] = {"messages": QUESTION, "model": "m"}


@pytest.fixture(autouse=True)
def _factory_of_the_package() -> Iterator[None]:
    yield
    set_client_factory(default_client_factory)


def guard_all(by: Guard, **options: Any) -> None:
    """As the README says."""
    set_client_factory(
        lambda: guard_client(httpx2.Client(timeout=None, follow_redirects=True), by, **options)
    )


class TestHuggingFace(Table):
    ways = ("stream", "as OpenAI's", "whole")

    @contextmanager
    def client(self, upstream: Upstream) -> Iterator[Any]:
        with InferenceClient(base_url=upstream.url, api_key="none") as client:
            yield client

    @asynccontextmanager
    async def async_client(self, upstream: Upstream) -> AsyncIterator[Any]:
        async with AsyncInferenceClient(base_url=upstream.url, api_key="none") as client:
            yield client

    def guarded(self, client: Any, by: Guard, **options: Any) -> Any:
        if isinstance(client, AsyncInferenceClient):
            return guard_client(client, by, **options)
        guard_all(by, **options)
        return client

    def hear(self, client: Any, way: str) -> Heard:
        heard = Heard()
        if way == "whole":
            heard.completion(client.chat_completion(QUESTION))
        elif way == "stream":
            for chunk in self.stream(client):
                heard.chunk(chunk)
        else:
            for chunk in client.chat.completions.create(**REQUEST, stream=True):
                heard.chunk(chunk)
        return heard

    async def hear_async(self, client: Any, way: str) -> Heard:
        heard = Heard()
        if way == "whole":
            heard.completion(await client.chat_completion(QUESTION))
        elif way == "stream":
            async for chunk in await self.stream_async(client):
                heard.chunk(chunk)
        else:
            async for chunk in await client.chat.completions.create(**REQUEST, stream=True):
                heard.chunk(chunk)
        return heard

    def stream(self, client: Any) -> Any:
        return client.chat_completion(QUESTION, stream=True)

    async def stream_async(self, client: Any) -> Any:
        return await client.chat_completion(QUESTION, stream=True)


def test_the_sync_client_cannot_be_guarded_alone() -> None:
    with pytest.raises(UnguardedClient, match="set_client_factory"):
        guard_client(InferenceClient(base_url="http://127.0.0.1:9", api_key="none"), guard())


def test_the_async_client_has_one_http_client_which_it_closes(upstream: Upstream) -> None:
    async def main() -> None:
        async with AsyncInferenceClient(base_url=upstream.url, api_key="none") as client:
            with pytest.raises(UnguardedClient, match="not guarded"):
                assert_guarded(client)
            by = guard()
            guard_client(guard_client(client, by), by)
            assert_guarded(client)
            http = await client._get_async_client()
        assert http.is_closed

    anyio.run(main)


REFUSED: dict[str, Any] = {
    "text generation": lambda client: client.text_generation("What?"),
    "streamed text": lambda client: client.text_generation("What?", stream=True),
    "a summary": lambda client: client.summarization("A long text."),
    "an image": lambda client: client.text_to_image("A house."),
}


@pytest.mark.parametrize("base", ["", "/hf-inference/models/m"])
@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("program", ["sync", "asyncio", "trio"])
def test_what_would_come_unguarded_is_not_sent(
    program: str, call: Any, base: str, upstream: Upstream
) -> None:
    upstream.play(Script([]))
    url = upstream.url + base

    async def main() -> None:
        async with AsyncInferenceClient(base_url=url, api_key="none") as client:
            await call(guard_client(client, guard()))

    def asked() -> None:
        if program == "sync":
            guard_all(guard())
            call(InferenceClient(base_url=url, api_key="none"))
        else:
            anyio.run(main, backend=program)

    with pytest.raises(UnguardedClient, match="was not sent"):
        asked()
    assert upstream.requests == []


def test_what_is_no_text_is_sent(upstream: Upstream) -> None:
    guard_all(guard())
    upstream.play(Script([b"[[0.5]]"], content_type="application/json"))
    url = upstream.url + "/models/m/pipeline/feature-extraction"
    assert InferenceClient(base_url=url, api_key="none").feature_extraction("a").shape == (1, 1)


def test_a_content_type_that_is_not_known_is_not_read(upstream: Upstream) -> None:
    guard_all(guard())
    upstream.play(Script([b"HARM"], content_type="text/plain"))
    with pytest.raises(WireError, match="content type"):
        InferenceClient(base_url=upstream.url, api_key="none").chat_completion(QUESTION)
    assert len(upstream.requests) == 1


def test_an_error_of_the_server_reaches_the_caller(upstream: Upstream) -> None:
    guard_all(guard())
    upstream.play(Script([b'{"error":"no such model"}'], status=404, content_type="application/json"))
    with pytest.raises(HfHubHTTPError, match="404"):
        InferenceClient(base_url=upstream.url, api_key="none").chat_completion(QUESTION)
