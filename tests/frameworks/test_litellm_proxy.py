"""LiteLLM's proxy, started with the example's config.yaml, asked by the official clients."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

pytest.importorskip("litellm.proxy")
pytest.importorskip("anthropic")

import anthropic

from tests.clients.rig import QUESTION, reasoning
from tests.ports import free_port
from tests.upstream import Script, Upstream, chat, completion
from tests.wire import messages, responses

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-0123456789abcdef0123456789abcdef"
HARM = reasoning(harm_in=3)
CALM = reasoning(sentences=4)
ANSWER = ["All is well. ", "It really is."]
LOGGER = """
litellm_settings:
  callbacks: tests.frameworks.proxy_judge.heard
"""

pytestmark = [
    pytest.mark.timeout(180),  # it takes a while to start
    # A thought that LiteLLM makes of another API's is not quite one of the Responses API.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the proxy's loggers are told."""
    return tmp_path_factory.mktemp("heard") / "heard"


@pytest.fixture(scope="module")
def proxy(server: Upstream, heard: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("proxy")
    log, config = folder / "log", folder / "config.yaml"
    config.write_text((ROOT / "examples/litellm/config.yaml").read_text() + LOGGER)
    port = free_port()
    command = [sys.executable, "-c", "import litellm; litellm.run_server()", "--config"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")]),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": KEY,
        "MODEL_SERVER": server.url,
        "MODEL_SERVER_KEY": "none",
        "OPENAI_API_BASE": server.url,
        "OPENAI_API_KEY": "none",
        "ANTHROPIC_API_BASE": server.url.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": "none",
        "HEARD": str(heard),
        "SHIELDGUARD_JUDGE": "tests.frameworks.proxy_judge:judge",
    }
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                *command,
                str(config),
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(300):
            time.sleep(0.5)
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{url}/health/liveliness", timeout=2).close()
                break
            except OSError:
                continue
        yield url
    finally:
        process.kill()
        process.wait()


def play(upstream: Upstream, api: str, streamed: bool, thought: list[str], **script: Any) -> None:
    """What the model's own server answers, in its API."""
    whole = "".join(thought), "".join(ANSWER)
    pieces: list[bytes]
    if api == "chat":
        pieces = (
            chat(thought, ANSWER) if streamed else [completion({"reasoning": whole[0], "content": whole[1]})]
        )
    elif api == "messages" and streamed:
        pieces = messages.message(messages.thinking(0, *thought), messages.text(1, *ANSWER))
    elif api == "messages":
        thinking = {"type": "thinking", "thinking": whole[0], "signature": "c2ln"}
        pieces = [messages.body(thinking, {"type": "text", "text": whole[1]})]
    else:
        items = responses.thinking(*thought), responses.message(*ANSWER)
        pieces = responses.frames_of(*items) if streamed else [responses.body(*items)]
    kind = "text/event-stream" if streamed else "application/json"
    upstream.play(Script(pieces, content_type=kind, **script))


def ask(proxy: str, route: str, model: str, streamed: bool) -> tuple[str, str, str, bool]:
    """The thought, the answer, and all that was given; whether the model refused."""
    if route == "messages":
        return _message(proxy, model, streamed)
    with openai.OpenAI(base_url=f"{proxy}/v1", api_key=KEY) as client:
        return _response(client, model, streamed) if route == "responses" else _chat(client, model, streamed)


def _chat(client: openai.OpenAI, model: str, streamed: bool) -> tuple[str, str, str, bool]:
    if not streamed:
        made = client.chat.completions.create(model=model, messages=QUESTION)
        message: Any = made.choices[0].message
        thought = getattr(message, "reasoning_content", "")
        return thought, message.content, repr(made), message.refusal is not None
    chunks: list[Any] = list(client.chat.completions.create(model=model, messages=QUESTION, stream=True))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    thought, answer, refusal = (
        "".join(getattr(delta, name, None) or "" for delta in deltas)
        for name in ("reasoning_content", "content", "refusal")
    )
    return thought, answer, repr(chunks), bool(refusal)


def _response(client: openai.OpenAI, model: str, streamed: bool) -> tuple[str, str, str, bool]:
    seen: list[Any] = []
    if streamed:
        with client.responses.stream(model=model, input="Well?") as stream:
            seen = list(stream)
            made: Any = stream.get_final_response()
    else:
        made = client.responses.create(model=model, input="Well?")
    kinds = [part.type for item in made.output if item.type == "message" for part in item.content]
    thought = "".join(repr(item) for item in made.output if item.type == "reasoning")
    return thought, made.output_text, repr([made, *seen]), "refusal" in kinds


def _message(proxy: str, model: str, streamed: bool) -> tuple[str, str, str, bool]:
    request: Any = {"model": model, "messages": QUESTION, "max_tokens": 4000}
    seen: list[Any] = []
    with anthropic.Anthropic(base_url=proxy, api_key=KEY) as client:
        if streamed:
            with client.messages.stream(**request) as stream:
                seen = list(stream)
                made: Any = stream.get_final_message()
        else:
            made = client.messages.create(**request)
    text = "".join(block.text for block in made.content if block.type == "text")
    thought = "".join(block.thinking for block in made.content if block.type == "thinking")
    return thought, text, repr([made, *seen]), made.stop_reason == "refusal"


# The route of the proxy, the model by which it chooses a provider, and the provider's own API.
each_route = pytest.mark.parametrize(
    ("route", "model", "api"),
    [
        ("chat", "m", "chat"),
        ("chat", "claude-m", "messages"),
        ("messages", "claude-m", "messages"),
        ("messages", "m", "chat"),
        ("responses", "gpt-5", "responses"),
        ("responses", "claude-m", "messages"),
    ],
    ids=lambda value: str(value),
)
each_mode = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


@each_route
@each_mode
def test_a_harmless_response_passes(
    proxy: str, upstream: Upstream, route: str, model: str, api: str, streamed: bool
) -> None:
    play(upstream, api, streamed, CALM)
    thought, answer, _, refused = ask(proxy, route, model, streamed)
    assert "Sentence 3 of the thought is calm" in thought
    assert (answer, refused) == ("".join(ANSWER), False)


@each_route
@each_mode
def test_a_harmful_one_is_a_refusal(
    proxy: str, upstream: Upstream, route: str, model: str, api: str, streamed: bool
) -> None:
    play(upstream, api, streamed, HARM, delay=0.01 if streamed else 0.0)
    _, _, everything, refused = ask(proxy, route, model, streamed)
    assert "Withheld" in everything
    assert "HARM" not in everything
    assert "All is well" not in everything
    assert refused
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("route", "model", "api", "streamed"),
    [
        ("chat", "m", "chat", True),
        ("chat", "claude-m", "messages", True),
        ("messages", "claude-m", "messages", True),
        ("messages", "m", "chat", True),
        ("responses", "gpt-5", "responses", True),
        ("responses", "claude-m", "messages", True),
        ("responses", "gpt-5", "responses", False),
    ],
)
def test_loggers_are_told_no_text(
    proxy: str, heard: Path, upstream: Upstream, route: str, model: str, api: str, streamed: bool
) -> None:
    time.sleep(0.5)  # for what is told of an earlier request
    heard.write_text("")
    play(upstream, api, streamed, ["By the light of the moon. ", *CALM])
    ask(proxy, route, model, streamed)
    until = time.monotonic() + 20
    while "END" not in (told := heard.read_text()):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert "redacted-by-litellm" in told
    assert "the moon" not in told


@each_route
def test_the_model_is_stopped(proxy: str, upstream: Upstream, route: str, model: str, api: str) -> None:
    play(upstream, api, True, reasoning(sentences=60, harm_in=3), delay=0.02)
    ask(proxy, route, model, True)
    assert upstream.finished.wait(20)
    assert upstream.sent < len(upstream.script.pieces) / 2


def test_a_client_that_leaves_stops_the_model(proxy: str, upstream: Upstream) -> None:
    play(upstream, "chat", True, reasoning(sentences=60), delay=0.02)
    with openai.OpenAI(base_url=f"{proxy}/v1", api_key=KEY) as client:
        stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        next(iter(stream))
        stream.close()
    assert upstream.finished.wait(20)
    assert upstream.sent < len(upstream.script.pieces)


@pytest.mark.parametrize("said", ["HARM", "nothing of note"])
@each_mode
def test_what_an_error_quotes_is_judged(proxy: str, upstream: Upstream, streamed: bool, said: str) -> None:
    error = json.dumps({"error": {"message": f"could not parse {said!r}", "code": 422}}).encode()
    upstream.play(Script([error], content_type="application/json", status=422))
    with pytest.raises(openai.APIStatusError) as raised:
        ask(proxy, "chat", "m", streamed)
    harmful = said == "HARM"
    assert raised.value.status_code == (400 if harmful else 422)
    assert (said in str(raised.value), "Withheld" in str(raised.value)) == (not harmful, harmful)


@each_mode
def test_what_cannot_be_guarded_is_refused_once(proxy: str, upstream: Upstream, streamed: bool) -> None:
    play(upstream, "chat", streamed, HARM)
    with (
        openai.OpenAI(base_url=f"{proxy}/v1", api_key=KEY) as client,
        pytest.raises(openai.APIError) as raised,
    ):
        list(client.completions.create(model="m", prompt="Well?", stream=streamed))
    assert "cannot be guarded" in str(raised.value)
    assert "HARM" not in str(raised.value)
    assert len(upstream.requests) == 1
