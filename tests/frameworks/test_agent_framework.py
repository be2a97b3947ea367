"""Agents of Microsoft's agent-framework, guarded: what leaks at the obvious point, and does not with ours."""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import openai
import pytest

pytest.importorskip("agent_framework")
pytest.importorskip("agent_framework.openai")

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatContext,
    ChatMiddleware,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    InMemoryHistoryProvider,
    Message,
    ResponseStream,
    observability,
)
from agent_framework.observability import OBSERVABILITY_SETTINGS, ChatTelemetryLayer
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

from shieldguard import Action, Guard, OpaqueKind, Rule, UnguardedClient, history, last_user_turn
from shieldguard_adapters.agent_framework import guard_chat_client
from shieldguard_adapters.clients import guard_client
from tests.clients.rig import guard, reasoning
from tests.frameworks.failing_judges import FAILING, STOPPED
from tests.frameworks.quoting_errors import ERRORS, Quoting, everything_of
from tests.upstream import DONE, Script, Upstream, chat, chunk
from tests.wire import responses as wire

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
HARM = reasoning(harm_in=3)
CALM = reasoning(sentences=4)
ANSWER = ["All is well. ", "It really is."]
NOTICE = "[Withheld: a safety check rated this content as harmful.]"
RAN: list[str] = []


def send(to: str) -> str:
    """Sends a parcel."""
    RAN.append(to)
    return "sent"


class Scripted(  # type: ignore[misc]
    FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], ChatTelemetryLayer[Any], BaseChatClient[Any]
):
    """A client whose model thinks, and then calls or answers; behind a tool it only answers."""

    def __init__(self, *contents: Content, **options: Any) -> None:
        super(type(self), self).__init__(**options)
        self.contents = contents
        self.given = 0
        self.closed = False
        self.conversation: str | None = None
        self.asked: list[Any] = []

    def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **kwargs: Any) -> Any:
        self.asked.append(messages)
        contents = self.contents
        if any(content.type == "function_result" for message in messages for content in message.contents):
            contents = tuple(map(Content.from_text, ANSWER))
        held: dict[str, Any] = {"role": "assistant", "message_id": "m", "conversation_id": self.conversation}

        async def updates() -> Any:
            try:
                for content in contents:
                    self.given += 1
                    raw = Content.from_text("HARM, raw")
                    content.raw_representation = raw
                    yield ChatResponseUpdate(contents=[content], raw_representation=raw, **held)
            finally:
                self.closed = True
            yield ChatResponseUpdate(finish_reason="stop", **held)

        async def whole() -> ChatResponse[Any]:
            return ChatResponse.from_updates([update async for update in updates()])

        return ResponseStream(updates(), finalizer=ChatResponse.from_updates) if stream else whole()


def thinks(pieces: list[str], to: str | None = None) -> Scripted:
    said = [Content.from_function_call("c", "send", arguments=json.dumps({"to": to}))]
    said = list(map(Content.from_text, ANSWER)) if to is None else said
    return Scripted(*(Content.from_text_reasoning(text=piece) for piece in pieces), *said)


def run(
    streamed: bool,
    client: Any,
    by: Guard | None = None,
    *middleware: Any,
    seen: list[Any] | None = None,
    query_from: Any = last_user_turn,
    **options: Any,
) -> Any:
    if by is not None:
        client = guard_chat_client(client, by, query_from=query_from)

    async def main() -> Any:
        agent = Agent(client, middleware=list(middleware), tools=[send])
        if not streamed:
            return await agent.run("Well?", **options)
        stream = agent.run("Well?", stream=True, **options)
        async for update in stream:
            if seen is not None:
                seen.append(update)
        return await stream.get_final_response()

    return anyio.run(main)


def text_of(response: Any, kind: str) -> str:
    contents = [content for message in response.messages for content in message.contents]
    return "".join(content.text for content in contents if content.type == kind)


def everything(value: Any) -> str:
    """All that an object holds, and what is in that."""
    if isinstance(value, list | tuple):
        return "".join(map(everything, value))
    if isinstance(value, dict):
        return everything(list(value.values()))
    return everything(vars(value)) if hasattr(value, "__dict__") else str(value)


def plain(response: Any) -> str:
    """The messages of a run, but for the ids that the framework makes up."""
    return re.sub("af-call-[0-9a-f]+", "", repr([message.to_dict() for message in response.messages]))


each_mode = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


@each_mode
@pytest.mark.parametrize("to", [None, "a friend"])
@pytest.mark.parametrize("instant", [True, False])
def test_a_harmless_run_is_as_without_a_guard(streamed: bool, to: str | None, instant: bool) -> None:
    expected = run(streamed, thinks(CALM, to))
    RAN.clear()
    by = guard(instant=instant, delay=0 if instant else 0.01)
    response = run(streamed, thinks(CALM, to), by)
    assert response.text == expected.text == "".join(ANSWER)
    assert plain(response) == plain(expected)
    assert response.finish_reason == expected.finish_reason
    assert ([to] if to else []) == RAN


@each_mode
@pytest.mark.parametrize("to", [None, "a friend"])
def test_a_harmful_thought_ends_it_and_runs_no_tool(streamed: bool, to: str | None) -> None:
    RAN.clear()
    seen: list[Any] = []
    client = thinks(HARM, to)
    response = run(streamed, client, guard(), seen=seen)
    assert response.text == NOTICE
    assert response.finish_reason == "content_filter"
    assert "HARM" not in everything(seen) + everything(response)
    assert RAN == []
    assert len(client.asked) == 1
    if streamed:
        assert client.given < len(HARM)


@each_mode
def test_harm_in_the_arguments_stops_the_tool(streamed: bool) -> None:
    RAN.clear()
    assert run(streamed, thinks(CALM, "HARM"), guard()).text == NOTICE
    assert RAN == []


@each_mode
def test_the_next_turn_knows_nothing_of_a_blocked_thought(streamed: bool) -> None:
    client = thinks(HARM)
    client.conversation = "kept"  # by the server, with the thought

    async def main() -> None:
        agent = Agent(guard_chat_client(client, guard()))
        session = agent.create_session()
        for question in ("Well?", "And now?"):
            if streamed:
                async for _ in (stream := agent.run(question, stream=True, session=session)):
                    pass
                await stream.get_final_response()
            else:
                await agent.run(question, session=session)
        assert session.service_session_id is None

    anyio.run(main)
    assert "HARM" not in repr([message.to_dict() for message in client.asked[1]])


@each_mode
def test_a_conversation_that_the_server_keeps_goes_on(streamed: bool) -> None:
    client = thinks(CALM)
    client.conversation = "kept"

    async def main() -> Any:
        agent = Agent(guard_chat_client(client, guard()))
        session = agent.create_session()
        if streamed:
            await agent.run("Well?", stream=True, session=session).get_final_response()
        else:
            await agent.run("Well?", session=session)
        return session.service_session_id

    assert anyio.run(main) == "kept"


class Obvious(ChatMiddleware):
    """Judges each update in a hook, as the framework offers."""

    def __init__(self) -> None:
        self.blocked = 0

    async def process(self, context: ChatContext, call_next: Callable[[], Awaitable[None]]) -> None:
        def judge(update: ChatResponseUpdate) -> ChatResponseUpdate:
            if self.blocked or "HARM" in str([content.text for content in update.contents]):
                self.blocked += 1
                return ChatResponseUpdate(contents=[], finish_reason="content_filter")
            return update

        context.stream_transform_hooks.append(judge)
        await call_next()


def test_a_transform_hook_would_leak_and_not_end_the_stream() -> None:
    seen: list[Any] = []
    client, obvious = thinks(HARM, "a friend"), Obvious()
    run(True, client, None, obvious, seen=seen)
    assert client.given == len(HARM) + 1 + len(ANSWER)  # it went on to the end
    assert obvious.blocked > 50
    shown = "".join(content.text or "" for update in seen for content in update.contents)
    assert "Sentence 3 of the" in shown
    # And a whole response does not come by it at all.
    RAN.clear()
    response = run(False, thinks(HARM, "a friend"), None, Obvious())
    assert "HARM" in text_of(response, "text_reasoning")
    assert RAN == ["a friend"]

    seen = []
    run(True, thinks(HARM, "a friend"), guard(), seen=seen)
    shown = "".join(content.text or "" for update in seen for content in update.contents)
    assert "Sentence 3" not in shown


@each_mode
def test_a_redaction_leaves_the_answer_and_refuses_the_tool(streamed: bool) -> None:
    RAN.clear()
    by = guard(reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    response = run(streamed, thinks(HARM), by)
    assert response.text == "".join(ANSWER)
    thought = text_of(response, "text_reasoning")
    assert thought.startswith("Sentence 0")
    assert thought.endswith("[gone]")
    assert "HARM" not in repr(response.to_dict())
    response = run(streamed, thinks(HARM, "a friend"), by)
    assert response.text == "[gone]"
    assert RAN == []


@pytest.mark.parametrize("leaves", [True, False])
def test_the_models_stream_is_closed_when_the_caller_leaves_and_on_abort(leaves: bool) -> None:
    pieces = CALM * 9 if leaves else HARM * 9
    client = thinks(pieces)

    async def main() -> None:
        agent = Agent(guard_chat_client(client, guard()))
        async with agent.run("Well?", stream=True) as stream:
            async for update in stream:
                if leaves or update.finish_reason:
                    assert client.closed is not leaves
                    break
        assert client.closed

    anyio.run(main)
    assert client.given < len(pieces)


class Plan(BaseModel):
    step: str


@each_mode
def test_structured_output(streamed: bool) -> None:
    by = guard(reasoning=Rule(harmful=Action.REDACT))
    for thought, wanted in ((CALM, '{"step": "rest"}'), (HARM, NOTICE)):
        pieces = [Content.from_text_reasoning(text=piece) for piece in thought]
        client = Scripted(*pieces, Content.from_text('{"step": "rest"}'))
        response = run(streamed, client, by, options={"response_format": Plan})
        assert response.text == wanted
        if thought is CALM:
            assert response.value == Plan(step="rest")


@each_mode
@pytest.mark.parametrize(
    "content",
    [
        Content.from_text_reasoning(protected_data=json.dumps([{"type": "t", "text": "HARM"}])),
        Content.from_text("Well.", additional_properties={"note": "HARM"}),
        Content.from_text("Well.", annotations=[{"type": "citation", "title": "HARM"}]),
        Content("shell_tool_call", commands=["HARM"]),
        Content.from_function_approval_request(
            "1", Content.from_function_call("c", "send", arguments={"to": "HARM"})
        ),
        Content.from_uri("data:image/png;base64,AAAA", media_type="image/png"),
    ],
    ids=lambda content: content.type,
)
def test_text_beside_the_text_is_judged_and_media_are_refused(streamed: bool, content: Content) -> None:
    response = run(streamed, Scripted(content), guard())
    assert response.finish_reason == "content_filter"
    assert "HARM" not in repr(response.to_dict())
    assert response.text.startswith("[")


@each_mode
def test_what_is_kept_for_the_provider_goes_back_to_it(streamed: bool) -> None:
    details = json.dumps([{"type": "reasoning.text", "text": "".join(CALM)}])
    client = Scripted(Content.from_text_reasoning(protected_data=details), Content.from_text("Well."))
    response = run(streamed, client, guard())
    assert response.messages[0].contents[0].protected_data == details
    heard = Heard()
    by = Guard(judge=guard().judge, observers=[heard])
    run(streamed, Scripted(Content.from_text_reasoning(protected_data="c2VjcmV0")), by)
    assert heard.reports[0].unobservable == {OpaqueKind.ENCRYPTED}


class Heard:
    def __init__(self) -> None:
        self.reports: list[Any] = []

    def window_judged(self, event: Any) -> None: ...

    def stream_closed(self, report: Any) -> None:
        self.reports.append(report)


def test_the_query_can_be_the_conversation() -> None:
    heard = Heard()
    by = Guard(judge=guard().judge, observers=[heard])
    run(True, thinks(CALM, "a friend"), by, query_from=history())
    first, second = (report.query for report in heard.reports)
    assert first == "user: Well?"
    assert "reasoning: Sentence 0" in second
    assert second.endswith("tool: sent")


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What the framework's traces hold, where they may hold texts."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observability, "get_tracer", lambda: provider.get_tracer("tests"))
        patch.setattr(type(OBSERVABILITY_SETTINGS), "ENABLED", True)
        patch.setattr(type(OBSERVABILITY_SETTINGS), "SENSITIVE_DATA_ENABLED", True)
        yield exporter


@each_mode
def test_traces_would_hold_it_and_do_not(streamed: bool, spans: InMemorySpanExporter) -> None:
    for by in (None, guard()):
        spans.clear()
        run(streamed, thinks(HARM, "a friend"), by)
        told = "".join(repr(span.attributes) + repr(span.events) for span in spans.get_finished_spans())
        assert "Well?" in told
        assert ("HARM" in told, "a friend" in told) == (by is None, by is None)


class Judging(ChatMiddleware):
    """Judges what the model made, as the last middleware."""

    async def process(self, context: ChatContext, call_next: Callable[[], Awaitable[None]]) -> None:
        await call_next()
        if "HARM" in everything(context.result):
            context.result = ChatResponse(messages=[Message("assistant", [NOTICE])])


def test_a_history_of_each_call_lies_below_the_last_middleware_and_above_ours() -> None:
    async def main(client: Any, *middleware: Any) -> tuple[str, str]:
        agent = Agent(
            client,
            middleware=list(middleware),
            context_providers=[InMemoryHistoryProvider()],
            require_per_service_call_history_persistence=True,
        )
        session = agent.create_session()
        response = await agent.run("Well?", session=session)
        await agent.run("And now?", session=session)
        asked = [message.to_dict() for message in client.asked[1]]
        return response.text, everything(session.state) + repr(asked)

    answer, kept = anyio.run(main, thinks(HARM), Judging())
    assert answer == NOTICE
    assert "HARM" in kept
    answer, kept = anyio.run(main, guard_chat_client(thinks(HARM), guard()))
    assert answer == NOTICE
    assert "HARM" not in kept


class Breaks(  # type: ignore[misc]
    FunctionInvocationLayer[Any], ChatMiddlewareLayer[Any], ChatTelemetryLayer[Any], BaseChatClient[Any]
):
    """A client whose model fails: at once, or behind these texts."""

    def __init__(self, error: Exception, begun: list[str]) -> None:
        super().__init__()
        self.error = error
        self.contents = [Content.from_text(text) for text in begun]

    def _inner_get_response(self, *, stream: bool, **asked: Any) -> Any:
        async def updates() -> Any:
            for content in self.contents:
                yield ChatResponseUpdate(contents=[content], role="assistant")
            raise self.error

        async def whole() -> Any:
            raise self.error

        if stream and not self.contents:
            raise self.error
        return ResponseStream(updates(), finalizer=ChatResponse.from_updates) if stream else whole()


each_break = pytest.mark.parametrize("begun", [[], CALM], ids=["at once", "in the midst"])


@each_mode
@each_break
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_what_an_error_quotes_is_judged(
    streamed: bool, begun: list[str], error: Exception, spans: InMemorySpanExporter
) -> None:
    def told() -> str:
        return "".join(
            repr(span.attributes) + repr(span.events[0].attributes if span.events else "")
            for span in spans.get_finished_spans()
        )

    with pytest.raises(type(error)) as raised:
        run(streamed, Breaks(error, begun))
    assert "HARM" in everything_of(raised.value)
    if "HARM" in str(error):
        assert "HARM" in told()
    spans.clear()
    seen: list[Any] = []
    response = run(streamed, Breaks(error, begun), guard(), seen=seen)
    assert (response.text[-len(NOTICE) :], response.finish_reason) == (NOTICE, "content_filter")
    assert "HARM" not in everything(seen) + everything(response) + told()
    with pytest.raises(Exception, match="left out as harmful") as raised:
        run(streamed, Breaks(error, begun), guard(reasoning=Rule(harmful=Action.REDACT)))
    assert "HARM" not in everything_of(raised.value) + told()


@each_mode
@each_break
def test_a_harmless_error_is_raised_as_it_is(streamed: bool, begun: list[str]) -> None:
    error = Quoting(completion={"choices": ["well"]})
    seen: list[Any] = []
    with pytest.raises(Quoting) as raised:
        run(streamed, Breaks(error, begun), guard(), seen=seen)
    assert raised.value is error
    assert "".join(update.text for update in seen) == ("".join(begun) if streamed else "")


@each_mode
@pytest.mark.parametrize("by", FAILING.values(), ids=FAILING)
def test_without_a_verdict_no_text_comes_and_no_tool_runs(streamed: bool, by: Guard) -> None:
    RAN.clear()
    seen: list[Any] = []
    response = run(streamed, thinks(CALM, "a friend"), by, seen=seen)
    assert (response.text, response.finish_reason) == (STOPPED, "content_filter")
    assert "Sentence" not in everything(seen) + everything(response)
    assert RAN == []


def test_a_client_without_middleware_is_guarded_and_what_is_no_client_refused() -> None:
    class Raw(BaseChatClient[Any]):  # type: ignore[misc]
        _inner_get_response = Scripted._inner_get_response
        __init__ = Scripted.__init__

    raw = guard_chat_client(Raw(*thinks(HARM).contents), guard())
    assert "HARM" not in everything(anyio.run(Agent(raw).run, "Well?"))
    with pytest.raises(UnguardedClient, match="'object'"):
        guard_chat_client(object(), guard())


def test_the_frameworks_own_client(upstream: Upstream) -> None:
    async def main(by: Guard | None = None, below: Guard | None = None, api: str = "responses") -> Any:
        async with openai.AsyncOpenAI(base_url=upstream.url, api_key="none", max_retries=0) as sdk:
            sdk = guard_client(sdk, below) if below else sdk
            kind: Any = OpenAIChatClient if api == "responses" else OpenAIChatCompletionClient
            client = kind(model="m", async_client=sdk)
            agent = Agent(guard_chat_client(client, by) if by else client, tools=[send])
            stream = agent.run("Well?", stream=True)
            seen = [update async for update in stream]
            return await stream.get_final_response(), everything(seen)

    RAN.clear()
    upstream.play(Script(wire.frames_of(wire.thinking(*HARM), wire.call('{"to": "a friend"}'))))
    response, seen = anyio.run(main, guard())
    assert (response.text, response.finish_reason, RAN) == (NOTICE, "content_filter", [])
    assert "HARM" not in seen

    # A field that this client drops: only a guard below it sees the thought.
    call = {
        "index": 0,
        "id": "c",
        "type": "function",
        "function": {"name": "send", "arguments": '{"to": "x"}'},
    }
    called = [chunk({"tool_calls": [call]}), chunk(finish_reason="tool_calls"), DONE]
    thought = [chunk({"reasoning_content": piece}) for piece in HARM]
    upstream.play(Script(chat([], ANSWER)))
    upstream.first.append(Script([*thought, *called]))
    response, seen = anyio.run(lambda: main(guard(), api="chat"))
    assert RAN == ["x"]
    assert "HARM" not in seen  # not even in the provider's own objects
    RAN.clear()
    upstream.first.append(Script([*thought, *called]))
    response, seen = anyio.run(lambda: main(below=guard(), api="chat"))
    assert RAN == []
    assert "HARM" not in seen
