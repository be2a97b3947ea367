"""The real Groq SDK, guarded. It takes whatever its HTTP client raises for a connection that broke, and asks
again: what cannot be guarded must not be asked for twice."""

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest

pytest.importorskip("groq")

import groq

from shieldguard import UnguardedClient, WireError
from shieldguard_adapters.clients import assert_guarded, guard_client, report_of
from tests.clients.rig import PROGRAMS, guard
from tests.clients.table import ANSWER, QUESTION, REDACT, THOUGHT, Heard, Table
from tests.upstream import Script, Upstream

REQUEST: dict[str, Any] = {"model": "m", "messages": QUESTION}


def _base(upstream: Upstream) -> str:
    return upstream.url.removesuffix("/v1")


class TestGroq(Table):
    ways = ("create", "raw response", "whole")

    def client(self, upstream: Upstream) -> Any:
        return groq.Groq(base_url=_base(upstream), api_key="none")

    def async_client(self, upstream: Upstream) -> Any:
        return groq.AsyncGroq(base_url=_base(upstream), api_key="none")

    def hear(self, client: Any, way: str) -> Heard:
        heard, completions = Heard(), client.chat.completions
        if way == "whole":
            heard.completion(completions.create(**REQUEST))
        elif way == "create":
            for chunk in completions.create(**REQUEST, stream=True):
                heard.chunk(chunk)
        else:
            for chunk in completions.with_raw_response.create(**REQUEST, stream=True).parse():
                heard.chunk(chunk)
        return heard

    async def hear_async(self, client: Any, way: str) -> Heard:
        heard, completions = Heard(), client.chat.completions
        if way == "whole":
            heard.completion(await completions.create(**REQUEST))
        elif way == "create":
            async for chunk in await completions.create(**REQUEST, stream=True):
                heard.chunk(chunk)
        else:
            raw = await completions.with_raw_response.create(**REQUEST, stream=True)
            async for chunk in await raw.parse():
                heard.chunk(chunk)
        return heard

    def stream(self, client: Any) -> Any:
        return client.chat.completions.create(**REQUEST, stream=True)

    async def stream_async(self, client: Any) -> Any:
        return await client.chat.completions.create(**REQUEST, stream=True)


each_program = pytest.mark.parametrize("program", PROGRAMS)


def _call(program: str, upstream: Upstream, call: Callable[[Any], Any]) -> Any:
    """What a guarded client raises, with all its retries."""
    if program == "sync":
        with groq.Groq(base_url=_base(upstream), api_key="none") as client:
            return call(guard_client(client, guard()))

    async def main() -> Any:
        async with groq.AsyncGroq(base_url=_base(upstream), api_key="none") as client:
            return await call(guard_client(client, guard()))

    return anyio.run(main, backend=program)


REFUSED: dict[str, Callable[[Any], Any]] = {
    "batches": lambda client: client.batches.list(),
    "speech": lambda client: client.audio.speech.create(input="a", model="m", voice="v"),
    "transcriptions": lambda client: client.audio.transcriptions.create(model="m", file=b"RIFF"),
    "responses": lambda client: client.post("/openai/v1/responses", cast_to=object),
    "of a copy": lambda client: client.with_options(timeout=5).batches.list(),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
@each_program
def test_what_would_come_unguarded_is_not_sent(program: str, call: Any, upstream: Upstream) -> None:
    upstream.play(Script([]))
    with pytest.raises(UnguardedClient, match="was not sent") as raised:
        _call(program, upstream, call)
    assert isinstance(raised.value, groq.GroqError)
    assert upstream.requests == []


@pytest.mark.parametrize("stream", [True, False])
@each_program
def test_what_cannot_be_guarded_is_asked_for_once(program: str, stream: bool, upstream: Upstream) -> None:
    upstream.play(Script([b"HARM"], content_type="text/plain", headers={"content-encoding": "br"}))
    with pytest.raises(WireError, match="content type") as raised:
        _call(program, upstream, lambda client: client.chat.completions.create(**REQUEST, stream=stream))
    assert isinstance(raised.value, groq.GroqError)
    assert len(upstream.requests) == 1
    assert upstream.finished.wait(20)


@each_program
def test_what_is_harmless_is_sent(program: str, upstream: Upstream) -> None:
    upstream.play(Script([b'{"data":[],"object":"list"}'], content_type="application/json"))
    assert _call(program, upstream, lambda client: client.models.list()).data == []


def test_what_is_made_of_a_guarded_client_is_guarded(upstream: Upstream) -> None:
    upstream.play(Script(TestGroq().frames(THOUGHT, ANSWER)))
    with groq.Groq(base_url=_base(upstream), api_key="none") as client:
        copy = guard_client(client, guard()).with_options(timeout=5)
        assert_guarded(copy)
        stream = copy.chat.completions.create(**REQUEST, stream=True)
        list(stream)
        assert report_of(stream).reasoning.judged == len("".join(THOUGHT))


@pytest.mark.parametrize("stream", [True, False])
def test_what_the_debug_output_spells_out_does_not_pass(stream: bool, upstream: Upstream) -> None:
    """It would leave before its verdict."""
    debug = {"x_groq": {"id": "r", "debug": {"output_tokens": ["HA", "RM"], "output_token_ids": [1, 2]}}}
    table = TestGroq()
    if stream:
        frames = table.frames(THOUGHT, ANSWER)
        frames[1] = frames[1].replace(b'"model"', json.dumps(debug)[1:-1].encode() + b', "model"')
        upstream.play(Script(frames))
    else:
        body = {**json.loads(table.body(THOUGHT, ANSWER)), **debug}
        upstream.play(Script([json.dumps(body).encode()], content_type="application/json"))
    with groq.Groq(base_url=_base(upstream), api_key="none") as client:
        asked = guard_client(client, guard()).chat.completions.with_streaming_response
        with asked.create(**REQUEST, stream=stream) as response:
            data = response.read()
    assert b'"HA"' not in data
    assert b'"x_groq":{"id":"r"' in data.replace(b": ", b":")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("harm", [True, False])
@each_program
def test_an_error_that_quotes_the_model_is_judged(
    program: str, harm: bool, stream: bool, upstream: Upstream
) -> None:
    quoted = f"<think>This is {'HARM' if harm else 'calm'}."
    error = {"message": "not JSON", "code": "json_validate_failed", "failed_generation": quoted}
    body = json.dumps({"error": error}, indent=1).encode()
    upstream.play(Script([body], status=400, content_type="application/json"))
    with pytest.raises(groq.BadRequestError, match="not JSON") as raised:
        _call(program, upstream, lambda client: client.chat.completions.create(**REQUEST, stream=stream))
    assert (raised.value.response.content == body) is not harm
    assert ("HARM" in raised.value.response.text) is False
    assert ("[Withheld" in str(raised.value)) is harm


@pytest.mark.parametrize(
    "body", [b"<p>Bad", b"[]", b'{"error":"HARM"}', b'{"error":{"failed_generation":7}}']
)
def test_an_error_that_quotes_nothing_passes(body: bytes, upstream: Upstream) -> None:
    upstream.play(Script([body], status=400, content_type="application/json"))
    with pytest.raises(groq.BadRequestError) as raised:
        _call("sync", upstream, lambda client: client.chat.completions.create(**REQUEST))
    assert raised.value.response.content == body


def test_a_quotation_that_is_redacted_leaves_its_error(upstream: Upstream) -> None:
    error = {"message": "not JSON", "failed_generation": "HARM"}
    upstream.play(
        Script([json.dumps({"error": error}).encode()], status=400, content_type="application/json")
    )
    with groq.Groq(base_url=_base(upstream), api_key="none") as client:
        guard_client(client, guard(answer=REDACT))
        with pytest.raises(groq.BadRequestError, match=r"not JSON.*\[Withheld"):
            client.chat.completions.create(**REQUEST)


def test_an_error_in_a_stream_quotes_nothing(upstream: Upstream) -> None:
    error = {"error": {"message": "not JSON", "failed_generation": "HARM"}}
    frames = TestGroq().frames(THOUGHT, ANSWER)[:-3]
    upstream.play(Script([*frames, f"data: {json.dumps(error)}\n\n".encode()]))
    with pytest.raises(groq.APIError, match="not JSON") as raised:
        _call("sync", upstream, lambda client: list(client.chat.completions.create(**REQUEST, stream=True)))
    assert raised.value.body == {"message": "not JSON", "failed_generation": None}
