"""The real Ollama client, guarded."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

pytest.importorskip("ollama")

import anyio
import ollama

from shieldguard import UnguardedClient, WireError
from shieldguard_adapters.clients import guard_client
from shieldguard_adapters.wire import Codec
from shieldguard_adapters.wire.ollama import CHAT, GENERATE, OllamaStream
from tests.clients.rig import PROGRAMS, guard, reasoning
from tests.clients.table import ANSWER, QUESTION, REDACT, THOUGHT, Heard, Table
from tests.upstream import Script, Upstream
from tests.wire.ndjson import call, chat_lines, generate_line, generate_lines, whole


class OllamaTable(Table):
    ways = ("stream", "whole")
    refused = "content_filter"
    content_type = "application/x-ndjson"

    def client(self, upstream: Upstream) -> Any:
        return ollama.Client(upstream.url.removesuffix("/v1"))

    def async_client(self, upstream: Upstream) -> Any:
        return ollama.AsyncClient(upstream.url.removesuffix("/v1"))


def _costs(heard: Heard, part: Any) -> None:
    heard.finish = part.done_reason or heard.finish
    if part.eval_count is not None:
        heard.usage = part.prompt_eval_count + part.eval_count


class TestChat(OllamaTable):
    def codec(self, **options: Any) -> Codec:
        return OllamaStream(CHAT, **options)

    def frames(self, thought: list[str], answer: list[str], *calls: str) -> list[bytes]:
        return chat_lines(thought, answer, *map(call, calls))

    def body(self, thought: list[str], answer: list[str], *calls: str) -> bytes:
        return whole(self.frames(thought, answer, *calls), "message", "content")

    def stream(self, client: Any) -> Any:
        return client.chat("m", QUESTION, stream=True)

    async def stream_async(self, client: Any) -> Any:
        return await client.chat("m", QUESTION, stream=True)

    def hear(self, client: Any, way: str) -> Heard:
        return _heard([client.chat("m", QUESTION)] if way == "whole" else self.stream(client))

    async def hear_async(self, client: Any, way: str) -> Heard:
        if way == "whole":
            return _heard([await client.chat("m", QUESTION)])
        return _heard([part async for part in await self.stream_async(client)])


def _heard(parts: Iterable[Any]) -> Heard:
    heard = Heard()
    for part in parts:
        message = part.message
        heard.thought += message.thinking or ""
        heard.text += message.content or ""
        heard.calls += len(message.tool_calls or ())
        _costs(heard, part)
    return heard


class TestGenerate(OllamaTable):
    calls = 0  # the server sends them; this client knows of none

    def codec(self, **options: Any) -> Codec:
        return OllamaStream(GENERATE, **options)

    def frames(self, thought: list[str], answer: list[str], *calls: str) -> list[bytes]:
        return generate_lines(thought, answer, *map(call, calls))

    def body(self, thought: list[str], answer: list[str], *calls: str) -> bytes:
        return whole(self.frames(thought, answer, *calls), "", "response")

    def stream(self, client: Any) -> Any:
        return client.generate("m", "What do you think?", stream=True)

    async def stream_async(self, client: Any) -> Any:
        return await client.generate("m", "What do you think?", stream=True)

    def hear(self, client: Any, way: str) -> Heard:
        return _generated(
            [client.generate("m", "What do you think?")] if way == "whole" else self.stream(client)
        )

    async def hear_async(self, client: Any, way: str) -> Heard:
        if way == "whole":
            return _generated([await client.generate("m", "What do you think?")])
        return _generated([part async for part in await self.stream_async(client)])


def _generated(parts: Iterable[Any]) -> Heard:
    heard = Heard()
    for part in parts:
        heard.thought += part.thinking or ""
        heard.text += part.response or ""
        _costs(heard, part)
    return heard


def _call(program: str, upstream: Upstream, call: Callable[[Any], Any], **policy: Any) -> Any:
    if program == "sync":
        with TestChat().client(upstream) as client:
            return call(guard_client(client, guard(**policy)))

    async def main() -> Any:
        async with TestChat().async_client(upstream) as client:
            return await call(guard_client(client, guard(**policy)))

    return anyio.run(main, backend=program)


each_program = pytest.mark.parametrize("program", PROGRAMS)


@each_program
def test_what_would_come_unguarded_is_not_sent(program: str, upstream: Upstream) -> None:
    upstream.play(Script([]))
    with pytest.raises(UnguardedClient, match="was not sent"):
        _call(program, upstream, lambda client: client.systemone("m", "a state", {}))
    assert upstream.requests == []


HARMLESS: dict[str, tuple[Callable[[Any], Any], bytes]] = {
    "list": (lambda client: client.list(), b'{"models":[]}'),
    "running": (lambda client: client.ps(), b'{"models":[]}'),
    "show": (lambda client: client.show("m"), b'{"model_info":{}}'),
    "embed": (lambda client: client.embed("m", "a"), b'{"embeddings":[[0.5]]}'),
    "pull": (lambda client: client.pull("m"), b'{"status":"success"}'),
    "push": (lambda client: client.push("m"), b'{"status":"success"}'),
    "create": (lambda client: client.create("m", from_="n"), b'{"status":"success"}'),
    "copy": (lambda client: client.copy("m", "n"), b"{}"),
    "delete": (lambda client: client.delete("m"), b"{}"),
}


@pytest.mark.parametrize(("call", "body"), HARMLESS.values(), ids=HARMLESS.keys())
@each_program
def test_what_no_model_writes_is_sent(program: str, call: Any, body: bytes, upstream: Upstream) -> None:
    upstream.play(Script([body], content_type="application/json"))
    _call(program, upstream, call)
    assert len(upstream.requests) == 1


@each_program
def test_a_content_type_that_is_not_known_is_not_read(program: str, upstream: Upstream) -> None:
    upstream.play(Script([b"HARM"], content_type="text/plain"))
    with pytest.raises(WireError, match="content type"):
        _call(program, upstream, lambda client: client.chat("m", QUESTION))
    assert len(upstream.requests) == 1


def test_an_error_of_the_server_reaches_the_caller(upstream: Upstream) -> None:
    upstream.play(Script([b'{"error":"no such model"}'], status=404, content_type="application/json"))
    with pytest.raises(ollama.ResponseError, match="no such model"):
        _call("sync", upstream, lambda client: client.chat("m", QUESTION))
    frames = [*chat_lines([], ["So"])[:-1], b'{"error":"out of memory"}\n']
    upstream.play(Script(frames, content_type="application/x-ndjson"))
    with pytest.raises(ollama.ResponseError, match="out of memory"):
        _call("sync", upstream, lambda client: list(client.chat("m", QUESTION, stream=True)))


def test_inline_reasoning_is_judged_as_such(upstream: Upstream) -> None:
    table = TestChat()
    frames = table.frames([], ["<think>", *reasoning(harm_in=4), "</think>", *ANSWER])
    upstream.play(Script(frames, content_type=table.content_type))
    heard, report = table.hear_guarded("sync", "stream", upstream)
    assert report.reasoning.seen > report.answer.seen == 0
    assert "HARM" not in heard.text
    assert heard.finish == "content_filter"


@pytest.mark.parametrize("harm_in", [None, 4])
def test_output_to_be_parsed_gets_no_notice_in_its_middle(harm_in: int | None, upstream: Upstream) -> None:
    """To redact means to abort there."""
    frames = chat_lines(reasoning(harm_in=harm_in), ['{"a":', "1}"])
    upstream.play(Script(frames, content_type="application/x-ndjson"))
    heard = _heard(
        _call(
            "sync",
            upstream,
            lambda client: list(client.chat("m", QUESTION, stream=True, format="json")),
            reasoning=REDACT,
        )
    )
    assert heard.finish == ("stop" if harm_in is None else "content_filter")
    assert (heard.text == '{"a":1}') is (harm_in is None)


def test_a_context_goes_with_what_passed_whole(upstream: Upstream) -> None:
    """It says in numbers what was withheld."""
    for thought, kept in ((THOUGHT, [1, 2, 3]), (reasoning(harm_in=3), None)):
        upstream.play(Script(generate_lines(thought, ANSWER), content_type="application/x-ndjson"))
        parts = _call("sync", upstream, _generate, reasoning=REDACT)
        assert parts[-1].context == kept


def _generate(client: Any) -> list[Any]:
    return list(client.generate("m", "What?", stream=True))


def test_an_image_cannot_be_judged(upstream: Upstream) -> None:
    lines = [generate_line(completed=1, total=2), generate_line(image="iVBORw0KGgo=", done=True)]
    upstream.play(Script(lines, content_type="application/x-ndjson"))
    last = _call("sync", upstream, _generate)[-1]
    assert (last.image, last.done_reason) == (None, "content_filter")
