"""Chat models and agents of LangChain, guarded: what leaks at the obvious point, and does not with ours."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import BaseModel

from shieldguard import Action, Rule
from shieldguard_adapters.langchain import GuardedChatModel, GuardMiddleware
from tests.clients.rig import guard, reasoning
from tests.frameworks.langchain_rig import ANSWER, CALM, HARM, KINDS, RAN, WAYS, Scripted, ask, run, send

each_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.filterwarnings("ignore:The v3 streaming protocol")


@each_kind
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
def test_a_harmless_message_is_as_without_a_guard(kind: str, way: str) -> None:
    calls = [{"name": "send", "args": {"to": "a friend"}}, {"name": "send", "args": {"to": "another"}}]
    model = Scripted(thought=CALM, kind=kind, calls=calls)
    expected = ask(model, "stream")
    got = ask(GuardedChatModel(inner=model, guard=guard()), way)
    assert got.content == expected.content
    assert got.additional_kwargs == expected.additional_kwargs
    assert got.tool_calls == expected.tool_calls
    assert [call["args"] for call in got.tool_calls] == [{"to": "a friend"}, {"to": "another"}]
    assert (got.usage_metadata, got.response_metadata["finish_reason"]) == (expected.usage_metadata, "stop")


@each_kind
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
def test_a_harmful_thought_ends_it(kind: str, way: str) -> None:
    model = Scripted(thought=HARM, kind=kind, calls=[{"name": "send", "args": {}}])
    got = ask(GuardedChatModel(inner=model, guard=guard()), way)
    assert "HARM" not in repr(got)
    assert str(got.text) == "[Withheld: a safety check rated this content as harmful.]"
    assert (got.tool_calls, got.response_metadata["finish_reason"]) == ([], "content_filter")
    assert got.response_metadata["shieldguard"] == "risk"
    assert model.given < len(HARM)


@each_kind
def test_a_redaction_leaves_the_answer(kind: str) -> None:
    by = guard(reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    calls = [{"name": "send", "args": {"to": "a friend"}}]
    got = ask(GuardedChatModel(inner=Scripted(thought=HARM, kind=kind, calls=calls), guard=by), "stream")
    assert "HARM" not in repr(got)
    assert "c2ln" not in repr(got)
    assert str(got.text) == "".join(ANSWER) + "[gone]"
    assert got.tool_calls == []


def test_a_judge_that_fails_ends_it() -> None:
    from shieldguard import JudgeError

    by = guard({"Sentence 2": JudgeError("no")})
    got = ask(GuardedChatModel(inner=Scripted(thought=CALM), guard=by), "invoke")
    assert str(got.text) == "[Stopped: the safety check of this response could not be completed.]"
    assert got.response_metadata["shieldguard"] == "judge_failure"


class JudgedAfterwards(AgentMiddleware):
    """The obvious point: judge what the model gave."""

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        response = handler(request)
        response.result[:] = [AIMessage("[blocked]")] if "HARM" in repr(response) else response.result
        return response

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        response = await handler(request)
        response.result[:] = [AIMessage("[blocked]")] if "HARM" in repr(response) else response.result
        return response


@pytest.mark.parametrize("way", WAYS)
@each_kind
@pytest.mark.parametrize("point", ["middleware", "model"])
def test_an_agent_shows_no_harm_and_runs_no_tool(way: str, kind: str, point: str) -> None:
    RAN.clear()
    model = Scripted(thought=HARM, kind=kind, calls=[{"name": "send", "args": {"to": "a friend"}}])
    if point == "model":
        agent = create_agent(GuardedChatModel(inner=model, guard=guard()), tools=[send])
    else:
        agent = create_agent(model, tools=[send], middleware=[GuardMiddleware(guard())])
    seen = run(agent, way)
    assert "Withheld" in seen
    assert "HARM" not in seen
    assert RAN == []


@pytest.mark.parametrize("way", ["messages", "events v2"])
def test_judging_afterwards_would_show_it(way: str) -> None:
    agent = create_agent(Scripted(thought=HARM), tools=[], middleware=[JudgedAfterwards()])
    assert "HARM" in run(agent, way)


@pytest.mark.parametrize("way", WAYS)
def test_an_agents_tool_runs_on_a_judged_thought(way: str) -> None:
    RAN.clear()
    model = Scripted(thought=CALM, calls=[{"name": "send", "args": {"to": "a friend"}}])
    seen = run(create_agent(model, tools=[send], middleware=[GuardMiddleware(guard())]), way)
    assert RAN == ["a friend"]
    assert "Done." in seen


def test_a_sync_agent_is_guarded_too() -> None:
    RAN.clear()
    model = Scripted(thought=HARM, calls=[{"name": "send", "args": {"to": "a friend"}}])
    agent = create_agent(model, tools=[send], middleware=[GuardMiddleware(guard())])
    asked: Any = {"messages": [("user", "Well?")]}
    result = agent.invoke(asked)
    assert "HARM" not in repr(result)
    assert "Withheld" in str(result["messages"][-1].text)
    assert RAN == []


class Plan(BaseModel):
    """A plan."""

    step: str


def test_structured_output() -> None:
    model = Scripted(thought=CALM, answer=[], calls=[{"name": "Plan", "args": {"step": "rest"}}])
    guarded = GuardedChatModel(inner=model, guard=guard())
    assert guarded.with_structured_output(Plan).invoke("Well?") == Plan(step="rest")


def test_the_query_can_be_the_conversation() -> None:
    from shieldguard import Guard, history

    queries: list[str] = []

    class Heard:
        def window_judged(self, event: Any) -> None: ...

        def stream_closed(self, report: Any) -> None:
            queries.append(report.query)

    by = Guard(judge=guard().judge, observers=[Heard()])
    model = Scripted(thought=CALM, calls=[{"name": "send", "args": {"to": "a friend"}}])
    run(create_agent(model, tools=[send], middleware=[GuardMiddleware(by, query_from=history())]), "ainvoke")
    assert queries[0] == "user: Well?"
    assert "reasoning: Sentence 0 of the thought is calm" in queries[1]
    assert queries[1].endswith("tool: sent")


def test_an_openai_model_whose_reasoning_is_not_seen_is_told() -> None:
    openai = pytest.importorskip("langchain_openai")
    with pytest.warns(UserWarning, match="drops the reasoning"):
        GuardedChatModel(inner=openai.ChatOpenAI(model="m", api_key="none"), guard=guard())


def test_a_block_that_cannot_be_judged_stops_it() -> None:
    class Painter(Scripted):
        def _chunks(self, messages: list[BaseMessage]) -> Iterator[AIMessageChunk]:
            yield AIMessageChunk(content=[{"type": "image", "base64": "AAAA", "mime_type": "image/png"}])

    got = ask(GuardedChatModel(inner=Painter(thought=[]), guard=guard()), "astream")
    assert "AAAA" not in repr(got)
    assert got.response_metadata["shieldguard"] == "source"


def test_leaving_early_stops_the_model() -> None:
    class Slow(Scripted):
        async def _astream(self, messages: Any, *rest: Any, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                for chunk in self._chunks(messages):
                    self.given += 1
                    yield ChatGenerationChunk(message=chunk)
                    await anyio.sleep(0.001)
            finally:
                closed.append(self.given)

    closed: list[int] = []

    async def main() -> None:
        stream: Any = GuardedChatModel(inner=Slow(thought=reasoning(sentences=40)), guard=guard()).astream(
            "Well?"
        )
        async for _ in stream:
            break
        await stream.aclose()

    anyio.run(main)
    assert closed
    assert closed[0] < 100
