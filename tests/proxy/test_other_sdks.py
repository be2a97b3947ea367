"""The official clients of the other formats, before the proxy."""

from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.clients.rig import reasoning
from tests.proxy.rig import QUESTION, Proxied, parted, until
from tests.upstream import Script, Upstream, chat
from tests.wire import cohere, contents, messages, ndjson, responses

THOUGHT, HARMFUL = reasoning(sentences=4), reasoning(sentences=4, harm_in=2)
ANSWER = ["It is ", "fine."]
NOTICE = "[Withheld: a safety check rated this content as harmful.]"


def test_openais_responses(upstream: Upstream, proxy: Proxied) -> None:
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        for thought, said in ((THOUGHT, "It is fine."), (HARMFUL, NOTICE)):
            upstream.play(
                Script(responses.frames_of(responses.thinking(*thought), responses.message(*ANSWER)))
            )
            with client.responses.stream(model="m", input="What do you think?") as stream:
                response = stream.get_final_response()
            assert said in str(response.output[-1])
            assert "HARM" not in str(response)
        found = proxy.client.get(f"{proxy.url}/metrics").text
        assert 'kind="response"' in found


def test_ollamas_chat(upstream: Upstream, proxy: Proxied) -> None:
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host=proxy.url)
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "What do you think?"}]}
    for thought, said in ((THOUGHT, "It is fine."), (HARMFUL, NOTICE)):
        upstream.play(Script(ndjson.chat_lines(thought, ANSWER), content_type="application/x-ndjson"))
        parts = list(client.chat(**asked, stream=True))
        assert "".join(part.message.content or "" for part in parts) == said
        assert "HARM" not in str(parts)
    client._client.close()


def test_geminis_contents(upstream: Upstream, proxy: Proxied) -> None:
    pytest.importorskip("google.genai")
    from google import genai
    from google.genai import types

    with genai.Client(api_key="mine", http_options=types.HttpOptions(base_url=proxy.url)) as client:
        for thought, said in ((THOUGHT, "It is fine."), (HARMFUL, NOTICE)):
            given = [*map(contents.thought, thought), *map(contents.said, ANSWER)]
            upstream.play(Script(contents.content(*given)))
            parts = list(client.models.generate_content_stream(model="m", contents="What do you think?"))
            assert "".join(part.text or "" for part in parts) == said
            assert "HARM" not in str(parts)
        assert upstream.headers[0]["x-goog-api-key"] == "mine"
    assert until(proxy.is_idle)


def mistrals(url: str) -> str:
    pytest.importorskip("mistralai")
    from mistralai.client import Mistral

    asked: Any = {"model": "m", "messages": QUESTION["messages"]}
    with Mistral(api_key="none", server_url=url) as client, client.chat.stream(**asked) as stream:
        return "".join(
            str(event.data.choices[0].delta.content or "") for event in stream if event.data.choices
        )


def groqs(url: str) -> str:
    groq = pytest.importorskip("groq")
    with groq.Groq(base_url=url, api_key="none") as client:
        chunks = client.chat.completions.create(**QUESTION, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def huggingfaces(url: str) -> str:
    hub = pytest.importorskip("huggingface_hub")
    with hub.InferenceClient(base_url=f"{url}/v1", api_key="none") as client:
        chunks = client.chat_completion(**QUESTION, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("ask", [mistrals, groqs, huggingfaces])
def test_other_clients_of_chat_completions(
    ask: Callable[[str], str], upstream: Upstream, proxy: Proxied
) -> None:
    """They make nothing of what is said behind the stream."""
    for thought, said in ((THOUGHT, "It is fine."), (HARMFUL, NOTICE)):
        upstream.play(Script(chat(thought, ANSWER)))
        assert ask(proxy.url) == said


def test_coheres_chat(upstream: Upstream, proxy: Proxied) -> None:
    module = pytest.importorskip("cohere")
    with module.ClientV2("none", base_url=proxy.url) as client:
        for thought, said in ((THOUGHT, "It is fine."), (HARMFUL, NOTICE)):
            upstream.play(Script(cohere.message(cohere.thinking(0, *thought), cohere.text(1, *ANSWER))))
            events = list(client.chat_stream(**QUESTION))
            deltas = [event.delta.message.content for event in events if event.type == "content-delta"]
            assert "".join(delta.text or "" for delta in deltas) == said
            assert "HARM" not in str(events)


def test_who_is_told_how_a_stream_ended(upstream: Upstream, proxy: Proxied) -> None:
    """Not the clients of Gemini and Ollama, which raise for a comment."""
    thinking = messages.message(messages.thinking(0, *THOUGHT), messages.text(1, *ANSWER))
    contented = [*map(contents.thought, THOUGHT), *map(contents.said, ANSWER)]
    spoken: list[tuple[str, list[bytes], bool]] = [
        ("/v1/chat/completions", chat(THOUGHT, ANSWER), True),
        (
            "/v1/responses",
            responses.frames_of(responses.thinking(*THOUGHT), responses.message(*ANSWER)),
            True,
        ),
        ("/v1/messages", thinking, True),
        ("/v2/chat", cohere.message(cohere.thinking(0, *THOUGHT), cohere.text(1, *ANSWER)), True),
        ("/v1beta/models/m:streamGenerateContent", contents.content(*contented), False),
        ("/api/chat", ndjson.chat_lines(THOUGHT, ANSWER), False),
    ]
    for path, frames, is_told in spoken:
        lines = path == "/api/chat"
        upstream.play(Script(frames, content_type="application/x-ndjson" if lines else "text/event-stream"))
        response = proxy.ask(path=path, json={} if "v1beta" in path else QUESTION)
        came, told = parted(response.content)
        assert (came, bool(told)) == (b"".join(frames), is_told), path
        assert proxy.get(f"/shieldguard/streams/{response.headers['x-shieldguard-id']}").status_code == 200
