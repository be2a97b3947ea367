"""Agents of the OpenAI Agents SDK, guarded: what leaks at the obvious point, and does not with ours."""

import json
from collections.abc import Iterator
from typing import Any

import anyio
import openai
import pytest

pytest.importorskip("agents")

from agents import (
    Agent,
    GuardrailFunctionOutput,
    Model,
    ModelProvider,
    ModelRefusalError,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    Runner,
    function_tool,
    output_guardrail,
)
from agents.tracing import TracingProcessor, set_trace_processors
from pydantic import BaseModel

from shieldguard import Action, Guard, Rule, history
from shieldguard_adapters.openai_agents import GuardedModel, GuardedModelProvider
from tests.clients.rig import guard, reasoning
from tests.upstream import DONE, Script, Upstream, chat, chunk, completion
from tests.wire import responses as wire

HARM = reasoning(harm_in=3)
CALM = reasoning(sentences=4)
ANSWER = ["All is well. ", "It really is."]
RAN: list[str] = []


@function_tool
def send(to: str) -> str:
    """Send a parcel."""
    RAN.append(to)
    return "sent"


def play(upstream: Upstream, api: str, streamed: bool, thought: list[str], to: str | None = None) -> None:
    """The model thinks, and then calls, and then answers; or answers at once."""
    upstream.play(_script(api, streamed, thought, None))
    if to is not None:
        upstream.first.append(_script(api, streamed, thought, to))


def _script(api: str, streamed: bool, thought: list[str], to: str | None) -> Script:
    arguments = json.dumps({"to": to})
    if api == "responses":
        items = [wire.thinking(*thought), wire.message(*ANSWER) if to is None else wire.call(arguments)]
        if streamed:
            return Script(wire.frames_of(*items))
        return Script([wire.body(*items)], content_type="application/json")
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": arguments}}
    if streamed:
        if to is None:
            return Script(chat(thought, ANSWER))
        called = [chunk({"tool_calls": [{"index": 0, **call}]}), chunk(finish_reason="tool_calls"), DONE]
        return Script([*(chunk({"reasoning_content": piece}) for piece in thought), *called])
    message: dict[str, Any] = {"role": "assistant", "reasoning_content": "".join(thought)}
    message |= {"content": "".join(ANSWER)} if to is None else {"content": None, "tool_calls": [call]}
    reason = "stop" if to is None else "tool_calls"
    return Script([completion(message, finish_reason=reason)], content_type="application/json")


class Provider(ModelProvider):
    """The models of a server of our own."""

    def __init__(self, client: openai.AsyncOpenAI, api: str) -> None:
        self._client = client
        self._api = api

    def get_model(self, model_name: str | None) -> Model:
        if self._api == "responses":
            return OpenAIResponsesModel(model_name or "m", self._client)
        return OpenAIChatCompletionsModel(model_name or "m", self._client)


class Traces(TracingProcessor):
    def __init__(self) -> None:
        self.text = ""

    def on_trace_start(self, trace: Any) -> None: ...

    def on_trace_end(self, trace: Any) -> None: ...

    def on_span_start(self, span: Any) -> None: ...

    def on_span_end(self, span: Any) -> None:
        data = span.span_data
        self.text += (
            repr(data.export()) + repr(getattr(data, "response", "")) + repr(getattr(data, "output", ""))
        )

    def shutdown(self) -> None: ...

    def force_flush(self) -> None: ...


@pytest.fixture
def traces() -> Iterator[Traces]:
    traces = Traces()
    set_trace_processors([traces])
    yield traces
    set_trace_processors([])


def run(
    upstream: Upstream,
    api: str,
    streamed: bool,
    by: Guard | None,
    seen: list[str] | None = None,
    **options: Any,
) -> Any:
    """One run of an agent with a tool; `seen` gets whatever a reader of the stream is shown."""
    seen = [] if seen is None else seen
    handlers = options.pop("error_handlers", None)

    async def main() -> Any:
        async with openai.AsyncOpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
            provider: ModelProvider = Provider(client, api)
            if by is not None:
                provider = GuardedModelProvider(by, provider)
            agent = Agent(name="agent", **{"tools": [send], **options})
            config = RunConfig(model_provider=provider)
            if not streamed:
                return await Runner.run(agent, "Well?", run_config=config, error_handlers=handlers)
            result = Runner.run_streamed(agent, "Well?", run_config=config, error_handlers=handlers)
            async for event in result.stream_events():
                seen.append(repr(event))
            return result

    return anyio.run(main)


each_api = pytest.mark.parametrize("api", ["responses", "chat"])
each_mode = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


@each_api
@each_mode
def test_a_harmless_run_is_as_without_a_guard(
    api: str, streamed: bool, upstream: Upstream, traces: Traces
) -> None:
    RAN.clear()
    play(upstream, api, streamed, CALM, to="a friend")
    plain, guarded = [], []  # type: ignore[var-annotated]
    expected = run(upstream, api, streamed, None, plain)
    play(upstream, api, streamed, CALM, to="a friend")
    result = run(upstream, api, streamed, guard(), guarded)
    assert result.final_output == expected.final_output == "".join(ANSWER)
    assert RAN == ["a friend", "a friend"]
    assert repr(result.to_input_list()) == repr(expected.to_input_list())
    assert result.context_wrapper.usage == expected.context_wrapper.usage
    assert len(plain) == len(guarded)


@each_api
@each_mode
def test_a_harmful_thought_is_a_refusal_and_runs_no_tool(
    api: str, streamed: bool, upstream: Upstream, traces: Traces
) -> None:
    RAN.clear()
    seen: list[str] = []
    play(upstream, api, streamed, HARM, to="a friend")
    with pytest.raises(ModelRefusalError, match="Withheld"):
        run(upstream, api, streamed, guard(), seen)
    assert "HARM" not in "".join(seen)
    assert "HARM" not in traces.text
    assert RAN == []
    play(upstream, api, streamed, HARM)
    result = run(
        upstream,
        api,
        streamed,
        guard(),
        seen,
        error_handlers={"model_refusal": lambda _: "Let us stop here."},
    )
    assert result.final_output == "Let us stop here."
    assert "HARM" not in "".join(seen)
    assert "HARM" not in repr(result.to_input_list())


@each_api
@each_mode
def test_harm_in_the_arguments_stops_the_tool(
    api: str, streamed: bool, upstream: Upstream, traces: Traces
) -> None:
    RAN.clear()
    play(upstream, api, streamed, CALM, to="HARM")
    with pytest.raises(ModelRefusalError):
        run(upstream, api, streamed, guard())
    assert RAN == []


def test_an_output_guardrail_would_show_it(upstream: Upstream, traces: Traces) -> None:
    @output_guardrail
    async def obvious(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    seen: list[str] = []
    play(upstream, "responses", True, HARM)
    with pytest.raises(OutputGuardrailTripwireTriggered):
        run(upstream, "responses", True, None, seen, output_guardrails=[obvious])
    assert "HARM" in "".join(seen)
    assert "All is well" in "".join(seen)
    assert "HARM" in traces.text


@each_mode
def test_a_redaction_leaves_the_answer(streamed: bool, upstream: Upstream, traces: Traces) -> None:
    by = guard(reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    seen: list[str] = []
    play(upstream, "responses", streamed, HARM)
    result = run(upstream, "responses", streamed, by, seen)
    assert result.final_output == "".join(ANSWER)
    assert "HARM" not in repr(result.to_input_list()) + "".join(seen)


class Plan(BaseModel):
    step: str


@each_api
@pytest.mark.parametrize("harmful", [False, True])
def test_structured_output(api: str, harmful: bool, upstream: Upstream, traces: Traces) -> None:
    thought = HARM if harmful else CALM
    if api == "chat":
        upstream.play(Script(chat(thought, ['{"step": ', '"rest"}'])))
    else:
        upstream.play(Script(wire.frames_of(wire.thinking(*thought), wire.message('{"step": ', '"rest"}'))))
    if harmful:
        with pytest.raises(ModelRefusalError):
            run(upstream, api, True, guard(), output_type=Plan)
    else:
        assert run(upstream, api, True, guard(), output_type=Plan).final_output == Plan(step="rest")


def test_a_handoff_is_guarded_too(upstream: Upstream, traces: Traces) -> None:
    other = Agent(name="other")
    upstream.play(Script(wire.frames_of(wire.thinking(*HARM), wire.message(*ANSWER))))
    calling = wire.frames_of(wire.thinking(*CALM), wire.call("{}", name="transfer_to_other"))
    upstream.first.append(Script(calling))
    seen: list[str] = []
    with pytest.raises(ModelRefusalError):
        run(upstream, "responses", True, guard(), seen, tools=[], handoffs=[other])
    assert "transfer_to_other" in "".join(seen)
    assert "HARM" not in "".join(seen)


def test_one_agents_model_can_be_guarded(upstream: Upstream, traces: Traces) -> None:
    async def main() -> Any:
        async with openai.AsyncOpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
            model = GuardedModel(OpenAIChatCompletionsModel("m", client), guard())
            return await Runner.run(Agent(name="agent", model=model), "Well?")

    play(upstream, "chat", False, HARM)
    with pytest.raises(ModelRefusalError):
        anyio.run(main)


def test_the_query_can_be_the_conversation(upstream: Upstream, traces: Traces) -> None:
    queries: list[str] = []

    class Heard:
        def window_judged(self, event: Any) -> None: ...

        def stream_closed(self, report: Any) -> None:
            queries.append(report.query)

    by = Guard(judge=guard().judge, observers=[Heard()])

    async def main() -> Any:
        async with openai.AsyncOpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
            provider = GuardedModelProvider(by, Provider(client, "responses"), query_from=history())
            agent = Agent(name="agent", instructions="Be kind.", tools=[send])
            return await Runner.run(agent, "Well?", run_config=RunConfig(model_provider=provider))

    play(upstream, "responses", False, CALM, to="a friend")
    anyio.run(main)
    assert queries[0] == "system: Be kind.\nuser: Well?"
    assert queries[1].endswith("tool: sent")
