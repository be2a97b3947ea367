"""Agents of Pydantic AI, guarded: what leaks at the obvious point, and does not with ours."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

pytest.importorskip("pydantic_ai")

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.capabilities import ModelFallback
from pydantic_ai.exceptions import ContentFilterError, FallbackExceptionGroup
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    ThinkingPart,
)
from pydantic_ai.models import infer_model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaThinkingCalls,
    DeltaThinkingPart,
    DeltaToolCall,
    FunctionModel,
)

from shieldguard import Action, Guard, Rule
from shieldguard_adapters.pydantic_ai import GuardedModel, GuardModels
from tests.clients.rig import guard, reasoning

HARM = reasoning(harm_in=3)
CALM = reasoning(sentences=4)
ANSWER = ["All is well. ", "It really is."]


def model(thought: list[str], *answer: Any) -> FunctionModel:
    """A model that thinks, and then answers or calls; at its second turn it only answers."""

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        if any(isinstance(message, ModelResponse) for message in messages):
            yield "Done."
            return
        for piece in thought:
            thinking: DeltaThinkingCalls = {0: DeltaThinkingPart(content=piece)}
            yield thinking
        for piece in answer:
            yield piece

    return FunctionModel(stream_function=stream)


def call(**arguments: str) -> Any:
    return {1: DeltaToolCall(name="send", json_args=json.dumps(arguments), tool_call_id="c")}


def run(agent: Agent[Any, Any], seen: list[str] | None = None) -> Any:
    async def handler(context: Any, events: Any) -> None:
        async for event in events:
            if seen is not None:
                seen.append(repr(event))

    async def main() -> Any:
        return await agent.run(
            "What do you think?", event_stream_handler=handler if seen is not None else None
        )

    return anyio.run(main)


GUARDED = {
    "capability": lambda model, by: Agent(model, capabilities=[GuardModels(by)]),
    "model": lambda model, by: Agent(GuardedModel(model, by)),
}
each_point = pytest.mark.parametrize("made", GUARDED.values(), ids=GUARDED)


@each_point
@pytest.mark.parametrize("streamed", [False, True])
def test_a_harmless_run_is_as_without_a_guard(made: Any, streamed: bool) -> None:
    plain: list[str] = []
    guarded: list[str] = []
    expected = run(Agent(model(CALM, *ANSWER)), plain)
    result = run(made(model(CALM, *ANSWER), guard()), guarded if streamed else None)
    assert result.output == expected.output == "".join(ANSWER)
    assert [part.part_kind for part in result.response.parts] == ["thinking", "text"]
    assert result.usage == expected.usage
    if streamed:
        assert guarded == plain


@each_point
@pytest.mark.parametrize("streamed", [False, True])
def test_a_harmful_thought_raises_and_nobody_sees_it(made: Any, streamed: bool) -> None:
    seen: list[str] = []
    with pytest.raises(ContentFilterError, match="Withheld"):
        run(made(model(HARM, *ANSWER), guard()), seen if streamed else None)
    assert "HARM" not in "".join(seen)
    assert "All is well" not in "".join(seen)


def test_an_event_handler_alone_would_see_it() -> None:
    seen: list[str] = []
    run(Agent(model(HARM, *ANSWER)), seen)
    assert "HARM" in "".join(seen)


@each_point
@pytest.mark.parametrize("harmful", [False, True])
def test_a_tool_runs_only_on_a_judged_thought(made: Any, harmful: bool) -> None:
    ran: list[str] = []
    agent = made(model(HARM if harmful else CALM, call(to="a friend")), guard())

    @agent.tool_plain
    def send(to: str) -> str:
        ran.append(to)
        return "sent"

    if harmful:
        with pytest.raises(ContentFilterError):
            run(agent)
        assert ran == []
    else:
        assert run(agent).output == "Done."
        assert ran == ["a friend"]


@each_point
def test_harm_in_the_arguments_stops_the_tool(made: Any) -> None:
    ran: list[str] = []
    agent = made(model(CALM, call(to="HARM")), guard())
    agent.tool_plain(name="send")(lambda to: ran.append(to))
    with pytest.raises(ContentFilterError):
        run(agent)
    assert ran == []


@each_point
def test_a_redaction_leaves_the_answer_and_refuses_the_tool(made: Any) -> None:
    ran: list[str] = []
    by = guard(reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    agent = made(model(HARM, call(to="a friend")), by)
    agent.tool_plain(name="send")(lambda to: ran.append(to))
    result = run(agent)
    assert ran == []
    assert result.output == "[gone]"
    assert "HARM" not in repr(result.all_messages())
    result = run(made(model(HARM, *ANSWER), by))
    assert result.output == "".join(ANSWER)
    assert result.response.thinking.endswith("[gone]")


def test_run_stream_gives_judged_text_alone() -> None:
    agent = Agent(model(CALM, *reasoning(harm_in=2)), capabilities=[GuardModels(guard())])
    got: list[str] = []

    async def main() -> None:
        async with agent.run_stream("Well?") as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                got.append(text)

    with pytest.raises(ContentFilterError):
        anyio.run(main)
    assert got
    assert "HARM" not in "".join(got)


def test_run_stream_events_holds_no_harm() -> None:
    agent = Agent(model(HARM, *ANSWER), capabilities=[GuardModels(guard())])
    seen: list[Any] = []

    async def main() -> None:
        async with agent.run_stream_events("Well?") as events:
            async for event in events:
                seen.append(event)

    with pytest.raises(ContentFilterError):
        anyio.run(main)
    assert any(isinstance(event, PartStartEvent | PartDeltaEvent) for event in seen)
    assert "HARM" not in repr(seen)


def test_a_fallback_is_guarded_too() -> None:
    def whole(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse([ThinkingPart("".join(HARM)), TextPart("worse")])

    bad = model(HARM, *ANSWER)
    streamed: Any = model(HARM, "worse").stream_function
    worse = FunctionModel(whole, stream_function=streamed)
    # With the guard on the first model alone, the fallback's answer comes out unjudged.
    first_alone = FallbackModel(GuardedModel(bad, guard()), worse, fallback_on=(ContentFilterError,))
    assert run(Agent(first_alone)).output == "worse"
    both = FallbackModel(
        GuardedModel(bad, guard()), GuardedModel(worse, guard()), fallback_on=(ContentFilterError,)
    )
    for agent in (Agent(both), Agent(bad, capabilities=[ModelFallback(worse), GuardModels(guard())])):
        with pytest.raises((ContentFilterError, FallbackExceptionGroup)):
            run(agent)


class Plan(BaseModel):
    step: str


@pytest.mark.parametrize("harmful", [False, True])
def test_structured_output(harmful: bool) -> None:
    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        for piece in HARM if harmful else CALM:
            yield {0: DeltaThinkingPart(content=piece)}
        yield {
            1: DeltaToolCall(name=info.output_tools[0].name, json_args='{"step": "rest"}', tool_call_id="o")
        }

    agent = Agent(
        FunctionModel(stream_function=stream), output_type=Plan, capabilities=[GuardModels(guard())]
    )
    if harmful:
        with pytest.raises(ContentFilterError):
            run(agent)
    else:
        assert run(agent).output == Plan(step="rest")


def test_a_blocked_turn_does_not_come_into_the_history() -> None:
    agent = Agent(model(HARM, *ANSWER), capabilities=[GuardModels(guard())])

    async def main() -> list[Any]:
        async with agent.iter("Well?") as agent_run:
            with pytest.raises(ContentFilterError):
                async for _ in agent_run:
                    pass
            return list(agent_run.ctx.state.message_history)

    assert "HARM" not in repr(anyio.run(main))


def test_the_query_can_be_the_conversation() -> None:
    from shieldguard import history

    queries: list[str] = []

    class Heard:
        def window_judged(self, event: Any) -> None: ...

        def stream_closed(self, report: Any) -> None:
            queries.append(report.query)

    by = Guard(judge=guard().judge, observers=[Heard()])
    agent = Agent(
        model(CALM, call(to="a friend")), system_prompt="Be kind.", capabilities=[GuardModels(by, history())]
    )

    @agent.tool_plain
    def send(to: str) -> str:
        return "sent"

    run(agent)
    assert queries[0] == "system: Be kind.\nuser: What do you think?"
    assert "reasoning: Sentence 0 of the thought is calm" in queries[1]
    assert queries[1].endswith("tool: sent")


def test_batches_are_refused() -> None:
    guarded = GuardedModel(infer_model("test"), guard())
    with pytest.raises(ContentFilterError, match="batches"):
        anyio.run(guarded.batch_encode, None)


def test_a_part_that_cannot_be_judged_stops_it() -> None:
    from pydantic_ai.messages import BinaryContent, FilePart

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        yield "x"

    class Painter(FunctionModel):
        def request_stream(self, *arguments: Any) -> Any:
            opened = super().request_stream(*arguments)

            class Opened:
                async def __aenter__(self) -> Any:
                    response: Any = await opened.__aenter__()

                    async def events() -> AsyncIterator[Any]:
                        picture = BinaryContent(b"...", media_type="image/png")
                        yield PartStartEvent(index=0, part=FilePart(content=picture))
                        yield PartStartEvent(index=1, part=TextPart("x"))

                    response._get_event_iterator = events
                    return response

                async def __aexit__(self, *error: Any) -> None:
                    await opened.__aexit__(*error)

            return Opened()

    with pytest.raises(ContentFilterError, match="could not be completed"):
        run(Agent(GuardedModel(Painter(stream_function=stream), guard())))
