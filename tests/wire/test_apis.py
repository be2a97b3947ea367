"""Which paths are guarded, which are harmless, and which are neither."""

import pytest

from shieldguard_adapters.wire.apis import ANTHROPIC, ANY, GROQ, HUGGINGFACE, MISTRAL, OLLAMA, OPENAI
from shieldguard_adapters.wire.endpoints import Api

APIS = [OPENAI, ANTHROPIC, OLLAMA, GROQ, MISTRAL, HUGGINGFACE, ANY]

# A way to have a model write, none of which any API may take for harmless.
GENERATION = [
    "/v1/projects/p/locations/r/publishers/anthropic/models/m:streamRawPredict",
    "/hf-inference/models/m",
    "/models/m/invoke",
    "/v1/responses",
    "/v1/completions",
    "/v1/conversations",
    "/v1/batches",
    "/v1/ocr",
    "/v1/audio/transcriptions",
    "/v1/systemone",
    "/",
]


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("path", GENERATION)
def test_what_a_model_may_write_is_not_harmless(api: Api, path: str) -> None:
    assert not api.is_harmless("POST", path)


@pytest.mark.parametrize(
    ("path", "noun"),
    [
        ("/v1/chat/completions", "a chat completion"),
        ("/openai/v1/chat/completions", "a chat completion"),
        ("/v1/agents/completions/", "an agent's completion"),
        ("/v1/fim/completions", "a completion that fills in the middle"),
        ("/v1/messages", "a message"),
        ("/api/chat", "a chat"),
        ("/api/generate", "a text generated of a prompt"),
    ],
)
def test_what_is_guarded_anywhere(path: str, noun: str) -> None:
    endpoint = ANY.endpoint("POST", path)
    assert endpoint is not None
    assert endpoint.noun == noun


def test_models_are_listed() -> None:
    assert all(api.is_harmless("GET", "/v1/models") for api in (OPENAI, ANTHROPIC, GROQ, MISTRAL, ANY))
    assert ANY.is_harmless("DELETE", "/v1/models/m")
