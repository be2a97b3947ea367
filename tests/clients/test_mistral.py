"""The real Mistral SDK, guarded. Its thoughts come in the content, as a list of typed chunks."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("mistralai")

import anyio
from mistralai.client import Mistral
from mistralai.client.utils.retries import BackoffStrategy, RetryConfig

from shieldguard import Action, Rule, UnguardedClient, WireError
from shieldguard_adapters.clients import assert_guarded, guard_client, report_of
from tests.clients.rig import guard, reasoning
from tests.clients.table import ANSWER, QUESTION, THOUGHT, Heard, Table, tool_call
from tests.upstream import Script, Upstream, chunk, completion

PROGRAMS = ("sync", "asyncio")  # it calls asyncio itself
REQUEST: dict[str, Any] = {"model": "m", "messages": QUESTION}


def _thinking(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}], **more}


def _add(heard: Heard, message: Any, finish: Any) -> None:
    for item in [message.content] if isinstance(message.content, str) else message.content or ():
        if isinstance(item, str):
            heard.text += item
        elif item.type == "thinking":
            heard.thought += "".join(part.text for part in item.thinking)
        else:
            heard.text += item.text
    heard.calls += len(message.tool_calls or ())
    heard.finish = finish or heard.finish


def _chunk(heard: Heard, event: Any) -> None:
    for choice in event.data.choices:
        _add(heard, choice.delta, choice.finish_reason)
    heard.usage = event.data.usage.total_tokens if event.data.usage else heard.usage


def _completion(heard: Heard, completion: Any) -> Heard:
    for choice in completion.choices:
        _add(heard, choice.message, choice.finish_reason)
    heard.usage = completion.usage.total_tokens
    return heard


class TestMistral(Table):
    ways = ("stream", "whole", "agent", "whole agent")
    programs = PROGRAMS

    def client(self, upstream: Upstream) -> Any:
        return Mistral(api_key="none", server_url=upstream.url.removesuffix("/v1"), timeout_ms=10_000)

    async_client = client

    def play(self, upstream: Upstream, way: str, thought: list[str], answer: list[str], *calls: str) -> None:
        super().play(upstream, way.removesuffix(" agent"), thought, answer, *calls)

    def thought_frame(self, text: str) -> bytes:
        return chunk({"content": [_thinking(text)]})

    def body(self, thought: list[str], answer: list[str], *calls: str) -> bytes:
        content = [_thinking("".join(thought)), {"type": "text", "text": "".join(answer)}]
        return completion({"content": content, "tool_calls": [tool_call(call) for call in calls]})

    def hear(self, client: Any, way: str) -> Heard:
        heard = Heard()
        if way == "whole":
            return _completion(heard, client.chat.complete(**REQUEST))
        if way == "whole agent":
            return _completion(heard, client.agents.complete(agent_id="a", messages=QUESTION))
        asked = (
            client.agents.stream(agent_id="a", messages=QUESTION) if way == "agent" else self.stream(client)
        )
        with asked as stream:
            for event in stream:
                _chunk(heard, event)
        return heard

    async def hear_async(self, client: Any, way: str) -> Heard:
        heard = Heard()
        if way == "whole":
            return _completion(heard, await client.chat.complete_async(**REQUEST))
        if way == "whole agent":
            return _completion(heard, await client.agents.complete_async(agent_id="a", messages=QUESTION))
        if way == "agent":
            asked = await client.agents.stream_async(agent_id="a", messages=QUESTION)
        else:
            asked = await self.stream_async(client)
        async with asked as stream:
            async for event in stream:
                _chunk(heard, event)
        return heard

    def stream(self, client: Any) -> Any:
        return client.chat.stream(**REQUEST)

    async def stream_async(self, client: Any) -> Any:
        return await client.chat.stream_async(**REQUEST)


def _client(upstream: Upstream) -> Any:
    return TestMistral().client(upstream)


def _call(program: str, upstream: Upstream, call: Callable[[Any], Any]) -> Any:
    client = guard_client(_client(upstream), guard())
    if program == "sync":
        with client:
            return call(client)

    async def main() -> Any:
        async with client:
            return await call(client)

    return anyio.run(main)


REFUSED: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "conversations": (
        lambda client: client.beta.conversations.start(inputs="What?", model="m"),
        lambda client: client.beta.conversations.start_async(inputs="What?", model="m"),
    ),
    "streamed conversations": (
        lambda client: client.beta.conversations.start_stream(inputs="What?", model="m"),
        lambda client: client.beta.conversations.start_stream_async(inputs="What?", model="m"),
    ),
    "a conversation that goes on": (
        lambda client: client.beta.conversations.append(conversation_id="c", inputs="What?"),
        lambda client: client.beta.conversations.append_async(conversation_id="c", inputs="What?"),
    ),
    "responses": (
        lambda client: client.responses.create(model="m", input="What?"),
        lambda client: client.responses.create_async(model="m", input="What?"),
    ),
    "batches": (lambda client: client.batch.jobs.list(), lambda client: client.batch.jobs.list_async()),
    "text read from a page": (
        lambda client: client.ocr.process(model="m", document={"type": "document_url", "document_url": "u"}),
        lambda client: client.ocr.process_async(
            model="m", document={"type": "document_url", "document_url": "u"}
        ),
    ),
}


@pytest.mark.parametrize("calls", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_would_come_unguarded_is_not_sent(program: str, calls: Any, upstream: Upstream) -> None:
    upstream.play(Script([]))
    with pytest.raises(UnguardedClient, match="was not sent"):
        _call(program, upstream, calls[program != "sync"])
    assert upstream.requests == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_cannot_be_guarded_is_asked_for_once(program: str, upstream: Upstream) -> None:
    upstream.play(Script([b"HARM"], content_type="text/plain"))
    calls = (lambda c: c.chat.complete(**REQUEST), lambda c: c.chat.complete_async(**REQUEST))
    with pytest.raises(WireError, match="content type"):
        _call(program, upstream, calls[program != "sync"])
    assert len(upstream.requests) == 1


def test_what_is_harmless_is_sent(upstream: Upstream) -> None:
    upstream.play(Script([b'{"data":[],"object":"list"}'], content_type="application/json"))
    assert _call("sync", upstream, lambda client: client.models.list()).data == []


@pytest.mark.parametrize("harm_in", [None, 3])
@pytest.mark.parametrize("way", ["stream", "whole"])
def test_what_fills_in_the_middle_is_guarded(way: str, harm_in: int | None, upstream: Upstream) -> None:
    TestMistral().play(upstream, way, [], reasoning(harm_in=harm_in))
    heard = Heard()
    with guard_client(_client(upstream), guard()) as client:
        if way == "whole":
            _completion(heard, client.fim.complete(model="m", prompt="def f(", suffix="return x"))
        else:
            with client.fim.stream(model="m", prompt="def f(") as stream:
                for event in stream:
                    _chunk(heard, event)
                assert report_of(stream).query == "def f("
    assert "HARM" not in heard.text
    assert ("[Withheld" in heard.text) is (harm_in is not None)


@pytest.mark.parametrize("way", ["stream", "whole"])
def test_a_thought_that_was_edited_has_no_signature(way: str, upstream: Upstream) -> None:
    thought = [_thinking("HARM."), _thinking("It goes on."), _thinking("", signature="c2ln", closed=True)]
    if way == "whole":
        body = completion(
            {"content": [_thinking("HARM.", signature="c2ln"), {"type": "text", "text": "Yes."}]}
        )
        upstream.play(Script([body], content_type="application/json"))
    else:
        frames = [chunk({"content": [one]}) for one in thought]
        upstream.play(Script([*frames, *TestMistral().frames([], ["Yes."])]))
    by = guard(reasoning=Rule(harmful=Action.REDACT))
    with guard_client(_client(upstream), by) as client:
        if way == "whole":
            items = client.chat.complete(**REQUEST).choices[0].message.content
        else:
            with client.chat.stream(**REQUEST) as stream:
                contents = [choice.delta.content for event in stream for choice in event.data.choices]
            items = [item for content in contents if isinstance(content, list) for item in content]
    assert items[0].type == "thinking"
    assert not any(getattr(item, "signature", None) for item in items)


def test_a_signature_passes_with_its_thought(upstream: Upstream) -> None:
    frames = [chunk({"content": [_thinking("So.")]}), chunk({"content": [_thinking("", signature="c2ln")]})]
    upstream.play(Script([*frames, *TestMistral().frames([], ["Yes."])]))
    with guard_client(_client(upstream), guard()) as client, client.chat.stream(**REQUEST) as stream:
        contents = [choice.delta.content for event in stream for choice in event.data.choices]
    assert contents[1][0].signature == "c2ln"


def test_thought_and_answer_in_one_chunk_leave_as_chunks_that_parse(upstream: Upstream) -> None:
    """Apart, as the answer waits for the verdict on the thought; no chunk is left without its text."""
    content = [_thinking("".join(THOUGHT)), {"type": "text", "text": "".join(ANSWER)}]
    upstream.play(Script([chunk({"content": content}), *TestMistral().frames([], [])]))
    heard = Heard()
    with guard_client(_client(upstream), guard()) as client, client.chat.stream(**REQUEST) as stream:
        for event in stream:
            _chunk(heard, event)
    assert (heard.thought, heard.text) == ("".join(THOUGHT), "".join(ANSWER))


def test_a_body_that_breaks_off_ends_as_one_that_parses(upstream: Upstream) -> None:
    upstream.play(Script([b'{"id": "1", '], content_type="application/json"))
    with guard_client(_client(upstream), guard()) as client:
        heard = _completion(Heard(), client.chat.complete(**REQUEST))
    assert (heard.finish, heard.usage) == ("stop", 0)


def test_both_http_clients_are_guarded(upstream: Upstream) -> None:
    with _client(upstream) as client:
        with pytest.raises(UnguardedClient, match="not guarded"):
            assert_guarded(client)
        assert_guarded(guard_client(client, guard()))


def test_the_client_for_azure_is_guarded_too(upstream: Upstream) -> None:
    from mistralai.azure.client import MistralAzure

    upstream.play(Script(TestMistral().frames(reasoning(harm_in=0), ANSWER)))
    heard = Heard()
    with guard_client(MistralAzure(api_key="none", server_url=upstream.url), guard()) as client:
        for event in client.chat.stream(**REQUEST):
            _chunk(heard, event)
    assert "[Withheld" in heard.text


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_error_of_the_guard_is_not_tried_again(program: str, upstream: Upstream) -> None:
    backoff = BackoffStrategy(initial_interval=1, max_interval=1, exponent=1, max_elapsed_time=2000)
    config = RetryConfig("backoff", backoff, retry_connection_errors=True)
    upstream.play(Script([b"HARM"], content_type="text/plain"))
    calls = (
        lambda client: client.chat.complete(**REQUEST, retries=config),
        lambda client: client.chat.complete_async(**REQUEST, retries=config),
    )
    with pytest.raises(WireError, match="content type"):
        _call(program, upstream, calls[program != "sync"])
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_one_harmful_choice_ends_them_all(program: str, upstream: Upstream) -> None:
    """Each with an ending of its own."""
    frames = [
        chunk({"content": [_thinking(text)]}, index=index)
        for texts in zip(THOUGHT, reasoning(harm_in=3), strict=True)
        for index, text in enumerate(texts)
    ]
    upstream.play(Script([*frames, *TestMistral().frames([], ANSWER)]))
    table = TestMistral()
    heard, report = table.hear_guarded(program, "stream", upstream)
    assert report.aborted is not None
    assert heard.text == report.aborted.notice * 2
    assert "HARM" not in heard.thought
