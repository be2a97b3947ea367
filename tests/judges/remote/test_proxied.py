"""The proxy before a real model server: transformers' own, and llama.cpp's where there is one."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("prometheus_client")
pytest.importorskip("openai")

import openai

from tests.judges.hostile import CALM_TEXT, HARM_TEXT
from tests.judges.local.tiny import ANALYSES, PROMPT
from tests.judges.remote.engines import llama_server, transformers_serve
from tests.proxy.rig import Proxied, proxied, until

LLAMA_SERVER = os.environ.get("SHIELDGUARD_LLAMA_SERVER", "")


@pytest.fixture(scope="module", params=["transformers", "llama.cpp"])
def server(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    if request.param == "transformers":
        pytest.importorskip("fastapi")
        pytest.importorskip("accelerate")
        with transformers_serve(checkpoint, log) as url:
            yield url
    elif not LLAMA_SERVER:
        pytest.skip("no llama-server; run `make test-matrix`")
    else:
        pytest.importorskip("gguf")
        from tests.judges.remote.as_gguf import write_gguf

        model = write_gguf(checkpoint, tmp_path_factory.mktemp("gguf") / "Tiny-Shield.gguf")
        with llama_server(LLAMA_SERVER, model, log) as url:
            yield url


@pytest.fixture(scope="module")
def proxy(server: str) -> Iterator[Proxied]:
    """Of the three things that the model says, one has the mark in it."""
    with proxied(server, marks={"steps": 1.0}) as proxy:
        yield proxy


def asked(checkpoint: Path, text: str) -> dict[str, Any]:
    user = f"Query: what hums?\nThought: {text}"
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": user}]
    return {"model": str(checkpoint), "messages": messages, "temperature": 0, "max_tokens": 200}


@pytest.mark.parametrize("stream", [True, False])
def test_openais_client_gets_what_was_judged(stream: bool, proxy: Proxied, checkpoint: Path) -> None:
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()]
        calm, harmful = (said(client, stream, asked(checkpoint, text)) for text in (CALM_TEXT, HARM_TEXT))
    assert ANALYSES["0"] in calm
    assert "steps" not in harmful
    assert "Withheld" in harmful
    assert until(proxy.is_idle)


def said(client: Any, stream: bool, request: dict[str, Any]) -> str:
    made = client.chat.completions.create(**request, stream=stream)
    if stream:
        return "".join(chunk.choices[0].delta.content or "" for chunk in made if chunk.choices)
    return str(made.choices[0].message.content)


@pytest.mark.parametrize("server", ["llama.cpp"], indirect=True)
def test_anthropics_client_gets_what_was_judged(proxy: Proxied, checkpoint: Path) -> None:
    """transformers' server does not speak its format."""
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(base_url=proxy.url, api_key="none", max_retries=0) as client:
        for text, mark in ((CALM_TEXT, ANALYSES["0"]), (HARM_TEXT, "Withheld")):
            request = asked(checkpoint, text)
            system, user = (message["content"] for message in request.pop("messages"))
            request["messages"] = [{"role": "user", "content": user}]
            request["extra_body"] = {"temperature": request.pop("temperature")}
            with client.messages.stream(**request, system=system) as stream:
                message = stream.get_final_message()
            assert mark in message.content[-1].text
            assert "steps" not in str(message.content)
