"""The packages whose clients can be guarded: where each has its HTTP clients, and what else is its own."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from shieldguard import UnguardedClient
from shieldguard_adapters.wire.apis import (
    ANTHROPIC,
    ANY,
    COHERE,
    GEMINI,
    GROQ,
    HUGGINGFACE,
    MISTRAL,
    OLLAMA,
    OPENAI,
)
from shieldguard_adapters.wire.endpoints import Api


@dataclass(frozen=True, slots=True)
class Sdk:
    """The clients of one package. `error`: the root of its errors. `http`: the HTTP clients that one has.
    `retries`: it takes whatever its HTTP client raises for a connection that broke, and asks again."""

    package: str
    api: Api
    error: str
    http: Callable[[Any], Iterable[Any]]
    retries: bool = False


def _of_mistral(client: Any) -> Iterable[Any]:
    settings = client.sdk_configuration
    return [settings.client, settings.async_client]


def _of_hub(client: Any) -> Iterable[Any]:
    if not hasattr(client, "_get_async_client"):
        raise UnguardedClient(
            f"{client!r} has no HTTP client of its own, but that of all of huggingface_hub; give "
            "huggingface_hub.set_client_factory() a function that makes a guarded httpx2.Client"
        )
    if client._async_client is None:  # it makes one when it is first asked
        client._async_client = sys.modules["huggingface_hub"].get_async_session()
        client.exit_stack.push_async_callback(client._async_client.aclose)
    return [client._async_client]


def _of_genai(client: Any) -> list[Any]:
    """The sync and the async one of a `google.genai.Client`, or of its `aio`."""
    api = client._api_client
    if api._use_aiohttp() or api._use_google_auth_sync():
        raise UnguardedClient(
            f"{client!r} sends by another library than httpx (google-genai takes aiohttp where that is "
            "installed, and requests for client certificates), so it cannot be guarded; give it "
            "http_options=HttpOptions(httpx_client=httpx2.Client(), httpx_async_client=httpx2.AsyncClient())"
        )
    return [api._httpx_client, api._async_httpx_client]


SDKS = (
    Sdk("httpx", ANY, "", lambda client: [client]),
    Sdk("httpx2", ANY, "", lambda client: [client]),
    Sdk("openai", OPENAI, "openai.OpenAIError", lambda client: [client._client]),
    Sdk("anthropic", ANTHROPIC, "anthropic.AnthropicError", lambda client: [client._client]),
    Sdk("cohere", COHERE, "", lambda client: [client._client_wrapper.httpx_client.httpx_client]),
    Sdk("ollama", OLLAMA, "", lambda client: [client._client]),
    Sdk("groq", GROQ, "groq.GroqError", lambda client: [client._client], retries=True),
    Sdk("mistralai", MISTRAL, "", _of_mistral),
    Sdk("huggingface_hub", HUGGINGFACE, "", _of_hub),
    # No error of its own has a plain text, and it sends nothing again for an error that it does not know.
    Sdk("google.genai", GEMINI, "", _of_genai),
)
