"""Agents of AutoGen, guarded in the HTTP client below the model's: what leaks at the obvious point, and does
not there."""

import json
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import anyio
import openai
import pytest

pytest.importorskip("autogen_agentchat")
pytest.importorskip("autogen_ext.models.openai")

from autogen_agentchat.agents import AssistantAgent
from autogen_core import EVENT_LOGGER_NAME
from autogen_core.models import ChatCompletionClient, CreateResult, ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel

from shieldguard import Action, Guard, Rule, history
from shieldguard_adapters.clients import guard_client
from tests.clients.rig import HTTP, guard, reasoning
from tests.frameworks.failing_judges import FAILING, STOPPED
from tests.upstream import DONE, Script, Upstream, chat, chunk, completion

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
HARM = reasoning(harm_in=3)
CALM = reasoning(sentences=4)
ANSWER = ["All is well. ", "It really is."]
NOTICE = "[Withheld: a safety check rated this content as harmful.]"
RAN: list[str] = []
INFO = ModelInfo(
    vision=False, function_calling=True, json_output=True, family="unknown", structured_output=True
)


async def send(to: str) -> str:
    """Sends a parcel."""
    RAN.append(to)
    return "sent"


class Events(logging.Handler):
    """What AutoGen tells of its model calls."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += str(record.msg)


@pytest.fixture
def events() -> Iterator[Events]:
    events = Events()
    logger = logging.getLogger(EVENT_LOGGER_NAME)
    level = logger.level
    logger.addHandler(events)
    logger.setLevel(logging.INFO)
    yield events
    logger.removeHandler(events)
    logger.setLevel(level)


def script(streamed: bool, thought: list[str], to: str | None = None, answer: list[str] = ANSWER) -> Script:
    """The model thinks, and then calls or answers."""
    function = {"name": "send", "arguments": json.dumps({"to": to})}
    call = {"id": "c", "type": "function", "function": function}
    if streamed:
        if to is None:
            return Script(chat(thought, answer))
        called = [chunk({"tool_calls": [{"index": 0, **call}]}), chunk(finish_reason="tool_calls"), DONE]
        return Script([*(chunk({"reasoning_content": piece}) for piece in thought), *called])
    message: dict[str, Any] = {"role": "assistant", "reasoning_content": "".join(thought)}
    message |= {"content": "".join(answer)} if to is None else {"content": None, "tool_calls": [call]}
    reason = "stop" if to is None else "tool_calls"
    return Script([completion(message, finish_reason=reason)], content_type="application/json")


def play(upstream: Upstream, streamed: bool, thought: list[str], to: str | None = None) -> None:
    upstream.play(script(streamed, thought))
    if to is not None:
        upstream.first.append(script(streamed, thought, to))


def run(
    upstream: Upstream,
    streamed: bool,
    by: Guard | None,
    *questions: str,
    wrap: Callable[[ChatCompletionClient], Any] = lambda client: client,
    query_from: Any = None,
    **options: Any,
) -> list[Any]:
    """The messages and events of an agent with a tool."""

    async def main() -> list[Any]:
        async with HTTP.AsyncClient() as http:
            if by is not None:
                query = {"query_from": query_from} if query_from else {}
                guard_client(http, by, termination="content_filter", **query)
            below: dict[str, Any] = {"http_client": http}  # it goes on to OpenAI's client
            client = OpenAIChatCompletionClient(
                model="m",
                base_url=upstream.url,
                api_key="none",
                model_info=INFO,
                **below,
                max_retries=0,
                include_name_in_message=False,
            )
            agent = AssistantAgent(
                "agent",
                wrap(client),
                model_client_stream=streamed,
                **{"tools": [send], "reflect_on_tool_use": True, **options},
            )
            seen = []
            for question in questions or ("Well?",):
                async for event in agent.run_stream(task=question):
                    seen.append(event)
            await client.close()
            return seen

    return anyio.run(main)


def shown(seen: list[Any]) -> str:
    """What of the events is the model's."""
    return "".join(str(event.content) for event in seen if getattr(event, "source", "user") != "user")


def last(seen: list[Any]) -> Any:
    return seen[-1].messages[-1].content


each_mode = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


@each_mode
@pytest.mark.parametrize("to", [None, "a friend"])
def test_a_harmless_run_is_as_without_a_guard(streamed: bool, to: str | None, upstream: Upstream) -> None:
    play(upstream, streamed, CALM, to)
    expected = run(upstream, streamed, None)
    RAN.clear()
    play(upstream, streamed, CALM, to)
    seen = run(upstream, streamed, guard())
    assert last(seen) == last(expected) == "".join(ANSWER)
    kinds = [type(event) for event in expected if "Chunk" not in type(event).__name__]
    assert [type(event) for event in seen if "Chunk" not in type(event).__name__] == kinds
    assert ([to] if to else []) == RAN


@each_mode
@pytest.mark.parametrize("to", [None, "a friend"])
def test_a_harmful_thought_ends_it_and_runs_no_tool(
    streamed: bool, to: str | None, upstream: Upstream, events: Events
) -> None:
    RAN.clear()
    play(upstream, streamed, HARM, to)
    seen = run(upstream, streamed, guard())
    assert last(seen) == NOTICE
    assert "HARM" not in shown(seen) + events.text
    assert NOTICE in events.text
    assert RAN == []


@each_mode
def test_harm_in_the_arguments_stops_the_tool(streamed: bool, upstream: Upstream) -> None:
    RAN.clear()
    play(upstream, streamed, CALM, to="HARM")
    assert last(run(upstream, streamed, guard())) == NOTICE
    assert RAN == []


@each_mode
def test_the_next_turn_knows_nothing_of_a_blocked_thought(streamed: bool, upstream: Upstream) -> None:
    upstream.play(script(streamed, CALM))
    upstream.first.append(script(streamed, HARM, "a friend"))
    assert last(run(upstream, streamed, guard(), "Well?", "And now?")) == "".join(ANSWER)
    assert "HARM" not in repr(upstream.requests[-1])
    assert "a friend" not in repr(upstream.requests[-1])


@each_mode
@pytest.mark.parametrize("by", FAILING.values(), ids=FAILING)
def test_without_a_verdict_no_text_comes_and_no_tool_runs(
    streamed: bool, by: Guard, upstream: Upstream, events: Events
) -> None:
    RAN.clear()
    play(upstream, streamed, CALM, to="a friend")
    seen = run(upstream, streamed, by)
    assert last(seen) == STOPPED
    assert "Sentence" not in shown(seen) + events.text
    assert RAN == []


class Obvious:
    """A model client that judges what the one in it has made."""

    def __init__(self, inner: ChatCompletionClient) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def create(self, *arguments: Any, **options: Any) -> CreateResult:
        result = await self._inner.create(*arguments, **options)
        if "HARM" in repr(result):
            return result.model_copy(update={"content": NOTICE, "thought": None})
        return result

    async def create_stream(self, *arguments: Any, **options: Any) -> AsyncGenerator[str | CreateResult]:
        async for piece in self._inner.create_stream(*arguments, **options):
            if "HARM" not in repr(piece):
                yield piece


def test_a_client_around_the_models_would_miss_the_thought_before_a_call(
    upstream: Upstream, events: Events
) -> None:
    RAN.clear()
    play(upstream, False, HARM, to="a friend")
    run(upstream, False, None, wrap=Obvious)
    assert RAN == ["a friend"]  # of a response with a call, AutoGen's client drops the reasoning
    play(upstream, False, HARM)
    assert last(run(upstream, False, None, wrap=Obvious)) == NOTICE
    assert "HARM" in events.text  # and it tells of what it read
    RAN.clear()
    play(upstream, False, HARM, to="a friend")
    run(upstream, False, guard())
    assert RAN == []


@each_mode
def test_a_redaction_leaves_the_answer_and_refuses_the_tool(streamed: bool, upstream: Upstream) -> None:
    RAN.clear()
    by = guard(reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    play(upstream, streamed, HARM)
    seen = run(upstream, streamed, by)
    assert last(seen) == "".join(ANSWER)
    assert "HARM" not in shown(seen)
    play(upstream, streamed, HARM, to="a friend")
    run(upstream, streamed, by)
    assert RAN == []


class Plan(BaseModel):
    step: str


@pytest.mark.parametrize("harmful", [False, True])
def test_structured_output(harmful: bool, upstream: Upstream) -> None:
    upstream.play(script(False, HARM if harmful else CALM, answer=['{"step": "rest"}']))
    if harmful:
        with pytest.raises(openai.ContentFilterFinishReasonError):
            run(upstream, False, guard(), tools=[], output_content_type=Plan)
    else:
        assert last(run(upstream, False, guard(), tools=[], output_content_type=Plan)) == Plan(step="rest")


def test_the_query_can_be_the_conversation(upstream: Upstream) -> None:
    class Heard:
        def __init__(self) -> None:
            self.queries: list[str] = []

        def window_judged(self, event: Any) -> None: ...

        def stream_closed(self, report: Any) -> None:
            self.queries.append(report.query)

    heard = Heard()
    by = Guard(judge=guard().judge, observers=[heard])
    play(upstream, False, CALM, to="a friend")
    run(upstream, False, by, query_from=history(), system_message="Be kind.")
    assert heard.queries[0] == "system: Be kind.\nuser: Well?"
    assert heard.queries[1].endswith("tool: sent")
