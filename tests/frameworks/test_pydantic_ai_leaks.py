"""Where unjudged text could leave a guarded model of Pydantic AI, and what leaks where others guard."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest

pytest.importorskip("pydantic_ai")

from pydantic_ai import Agent, InstrumentationSettings, capture_run_messages
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ContentFilterError, ModelHTTPError
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    PartStartEvent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, FunctionModel
from pydantic_ai.models.instrumented import InstrumentedModel
from pydantic_ai.models.wrapper import WrapperModel

from shieldguard import Action, ConfigError, Guard, Rule, history
from shieldguard_adapters.pydantic_ai import GuardedModel, GuardModels
from tests.clients.rig import guard
from tests.frameworks.failing_judges import FAILING, STOPPED
from tests.frameworks.test_pydantic_ai import ANSWER, CALM, GUARDED, HARM, call, model

each_point = pytest.mark.parametrize("made", GUARDED.values(), ids=GUARDED)
WAYS = ["run", "run_sync", "run_stream", "run_stream_events", "iter", "handler"]
each_way = pytest.mark.parametrize("way", WAYS)


def ask(
    agent: Agent[Any, Any], way: str, left: list[ModelMessage] | None = None, **options: Any
) -> tuple[str, Exception | None]:
    """All that anybody can see of a run, and how it failed; what is in its history comes to be in `left`."""
    seen: list[str] = []

    async def note(_: Any, events: Any) -> None:
        async for event in events:
            seen.append(repr(event))

    async def main() -> None:
        if way == "run_stream":
            async with agent.run_stream("Well?", **options) as result:
                async for text in result.stream_text(delta=True, debounce_by=None):
                    seen.append(text)
        elif way == "run_stream_events":
            async with agent.run_stream_events("Well?", **options) as events:
                await note(None, events)
        elif way == "iter":
            async with agent.iter("Well?", **options) as steps:
                async for step in steps:
                    seen.append(repr(step))
        else:
            handler = note if way == "handler" else None
            seen.append(repr(await agent.run("Well?", event_stream_handler=handler, **options)))

    with capture_run_messages() as messages:
        try:
            if way == "run_sync":
                with _loop():
                    seen.append(repr(agent.run_sync("Well?", **options)))
            else:
                anyio.run(main)
        except Exception as error:
            failed: Exception | None = error
        else:
            failed = None
    if left is not None:
        left += messages
    return "".join(seen) + repr(messages) + _all_of(failed), failed


@contextmanager
def _loop() -> Iterator[None]:
    """`run_sync` takes the loop of its thread, and leaves it open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _all_of(error: BaseException | None) -> str:
    if error is None:
        return ""
    return f"{error!r}{vars(error)!r}{_all_of(error.__cause__)}{_all_of(error.__context__)}"


class Saying(FunctionModel):
    """A model that gives these parts, or raises what is none."""

    def __init__(self, *said: Any, details: dict[str, Any] | None = None) -> None:
        async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
            yield "x"

        super().__init__(stream_function=stream)
        self._said = said
        self._told = details

    @asynccontextmanager
    async def request_stream(self, *arguments: Any, **options: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        if self._said and isinstance(self._said[0], Exception):
            raise self._said[0]
        async with super().request_stream(*arguments, **options) as response:

            async def events() -> AsyncIterator[Any]:
                for index, part in enumerate(self._said):
                    if isinstance(part, Exception):
                        raise part
                    event = PartStartEvent(index=index, part=part)
                    response._parts_manager.apply_event(event)
                    yield event
                response.provider_details = self._told

            response._get_event_iterator = events  # type: ignore[method-assign]
            yield response


# -- at the obvious points -----------------------------------------------------------------------


class Filtering(AbstractCapability[Any]):
    """The obvious filter: what is harmful is taken from the stream of events."""

    async def wrap_run_event_stream(self, ctx: Any, *, stream: Any) -> AsyncIterator[Any]:
        async for event in stream:
            if "HARM" not in repr(event):
                yield event


def test_filtering_the_events_would_let_it_out() -> None:
    agent = Agent(model(HARM, *ANSWER), capabilities=[Filtering()])
    seen, error = ask(agent, "handler")
    assert error is None
    assert "HARM" in seen
    assert "All is well" in seen
    guarded = Agent(model(HARM, *ANSWER), capabilities=[Filtering(), GuardModels(guard())])
    seen, error = ask(guarded, "handler")
    assert isinstance(error, ContentFilterError)
    assert "HARM" not in seen
    assert "All is well" not in seen


@each_point
@each_way
def test_no_way_to_run_an_agent_shows_harm_or_runs_the_tool(made: Any, way: str) -> None:
    ran: list[str] = []
    for answer in ([call(to="a friend")], ANSWER):
        agent = made(model(HARM, *answer), guard())
        agent.tool_plain(name="send")(lambda to: ran.append(to))
        seen, error = ask(agent, way)
        assert isinstance(error, ContentFilterError)
        assert "HARM" not in seen
        assert "All is well" not in seen
    assert ran == []


# -- tracers -------------------------------------------------------------------------------------


def test_spans_hold_judged_text() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    def spans(made: Callable[[Model, InstrumentationSettings], Agent[Any, Any]], way: str) -> str:
        exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        ask(made(model(HARM, *ANSWER), InstrumentationSettings(tracer_provider=provider)), way)
        found = exporter.get_finished_spans()
        assert found
        return "".join(span.to_json() for span in found)

    by = guard()
    for way in WAYS:
        plain = spans(lambda model, how: Agent(InstrumentedModel(model, how)), way)
        assert ("HARM" in plain) is (way in ("run_stream", "run_stream_events", "handler"))
        assert "HARM" not in spans(
            lambda model, how: Agent(InstrumentedModel(model, how), capabilities=[GuardModels(by)]), way
        )
        assert "HARM" not in spans(
            lambda model, how: Agent(InstrumentedModel(GuardedModel(model, by), how)), way
        )


def test_a_model_whose_spans_would_show_it_is_refused() -> None:
    instrumented = InstrumentedModel(model(CALM, *ANSWER))
    for one in (instrumented, WrapperModel(instrumented), FallbackModel(model(CALM), instrumented)):
        with pytest.raises(ConfigError, match="instrument the guarded model instead"):
            GuardedModel(one, guard())


# -- judges that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", FAILING.values(), ids=FAILING)
@each_point
@each_way
def test_where_the_judge_fails_nothing_leaves_and_no_tool_runs(made: Any, by: Guard, way: str) -> None:
    ran: list[str] = []
    agent = made(model(CALM, call(to="a friend")), by)
    agent.tool_plain(name="send")(lambda to: ran.append(to))
    seen, error = ask(agent, way)
    assert isinstance(error, ContentFilterError)
    assert STOPPED in str(error)
    assert "Sentence" not in seen
    assert ran == []


# -- turns ---------------------------------------------------------------------------------------


@each_point
@each_way
def test_a_thought_behind_a_call_is_judged_before_the_tool_runs(made: Any, way: str) -> None:
    ran: list[str] = []
    said = (
        ThinkingPart("".join(CALM)),
        ToolCallPart("send", {"to": "a friend"}),
        ThinkingPart("".join(HARM)),
    )
    agent = made(Saying(*said), guard())
    agent.tool_plain(name="send")(lambda to: ran.append(to))
    seen, error = ask(agent, way)
    assert isinstance(error, ContentFilterError)
    assert "HARM" not in seen
    assert ran == []


@each_point
@each_way
def test_a_blocked_thought_does_not_go_back_and_the_next_turn_works(made: Any, way: str) -> None:
    asked: list[Any] = []

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        asked.append(repr(messages))
        for piece in CALM if len(asked) > 1 else HARM:
            yield {0: DeltaThinkingPart(content=piece)}
        yield "All is well."

    agent = made(FunctionModel(stream_function=stream), guard())
    left: list[ModelMessage] = []
    _, error = ask(agent, way, left)
    assert isinstance(error, ContentFilterError)
    assert left
    seen, error = ask(agent, way, message_history=list(left))
    assert error is None
    assert "Sentence" not in asked[1]
    assert "HARM" not in seen
    assert "All is well" in seen


@pytest.mark.parametrize("told", [False, True])
def test_the_reasoning_of_a_step_is_context_for_the_next_where_it_is_wanted(told: bool) -> None:
    by = guard()
    judge: Any = by.judge
    guarded = GuardModels(by, history()) if told else GuardModels(by)
    agent = Agent(model(CALM, call(to="a friend")), capabilities=[guarded])

    @agent.tool_plain
    def send(to: str) -> str:
        return "sent"

    ask(agent, "run")
    assert judge.windows[-1].new == "Done."
    assert ("reasoning: Sentence 0" in judge.windows[-1].query) is told
    assert "Well?" in judge.windows[-1].query


# -- beside the text -----------------------------------------------------------------------------

BESIDE = {
    "a thought's": ThinkingPart("calm", provider_details={"raw": ["HARM"]}),
    "a text's": TextPart("calm", provider_details={"quotes": [{"said": "HARM"}]}),
    "a call's": ToolCallPart("send", {"to": "x"}, provider_details={"why": "HARM"}),
}


@pytest.mark.parametrize("part", BESIDE.values(), ids=BESIDE)
@each_way
def test_what_a_provider_says_of_a_part_is_judged(part: Any, way: str) -> None:
    seen, error = ask(Agent(GuardedModel(Saying(part, TextPart("Fine.")), guard())), way)
    assert isinstance(error, ContentFilterError)
    assert "HARM" not in seen


@each_way
def test_what_a_provider_says_of_a_response_is_judged(way: str) -> None:
    said = Saying(TextPart("Fine."), details={"refusal": "HARM", "logprobs": [{"token": "Fine"}]})
    assert "HARM" in ask(Agent(said), "handler")[0]
    seen, error = ask(Agent(GuardedModel(said, guard())), way)
    assert isinstance(error, ContentFilterError)
    assert "HARM" not in seen
    redacting = guard(reasoning=Rule(harmful=Action.REDACT))
    assert "HARM" not in ask(Agent(GuardedModel(said, redacting)), way)[0]
    kept = Saying(TextPart("Fine."), details={"logprobs": [{"token": "Fine"}]})
    assert "logprobs" in ask(Agent(GuardedModel(kept, guard())), "run")[0]


# -- errors --------------------------------------------------------------------------------------


class Broken(Exception):
    """An error that holds what the model said."""

    def __init__(self, completion: Any) -> None:
        super().__init__("the answer is too long")
        self.completion = completion


ERRORS = {
    "payload": Broken({"choices": ["HARM"]}),
    "body": ModelHTTPError(500, "m", body={"message": "could not parse 'HARM'"}),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("midst", [False, True], ids=["at once", "in the midst"])
@each_way
def test_what_an_error_quotes_is_judged(error: Exception, midst: bool, way: str) -> None:
    said = (ThinkingPart("".join(CALM)), error) if midst else (error,)
    assert "HARM" in ask(Agent(Saying(*said)), "handler")[0]
    seen, raised = ask(Agent(GuardedModel(Saying(*said), guard())), way)
    assert isinstance(raised, ContentFilterError)
    assert "HARM" not in seen
    redacting = guard(reasoning=Rule(harmful=Action.REDACT))
    seen, raised = ask(Agent(GuardedModel(Saying(*said), redacting)), way)
    assert "left out as harmful" in str(raised)
    assert "HARM" not in seen


@each_way
def test_a_harmless_error_is_raised_as_it_is(way: str) -> None:
    for said in ([ThinkingPart("".join(CALM))], []):
        error = Broken("nothing of note")
        assert ask(Agent(GuardedModel(Saying(*said, error), guard())), way)[1] is error


def test_a_fallback_still_follows_an_error() -> None:
    broken = Saying(ModelHTTPError(503, "m"))
    fallback = FallbackModel(GuardedModel(broken, guard()), GuardedModel(model(CALM, *ANSWER), guard()))
    assert "All is well" in ask(Agent(fallback), "run")[0]


# -- models that cannot stream -------------------------------------------------------------------


class Whole(WrapperModel):
    """A model that answers in one piece alone."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(model(CALM))
        self._parts = parts

    async def request(self, *arguments: Any) -> ModelResponse:
        return ModelResponse(list(self._parts))

    def request_stream(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError("no streams here")


@each_point
@each_way
@pytest.mark.parametrize("harmful", [False, True])
def test_a_model_that_cannot_stream(made: Any, way: str, harmful: bool) -> None:
    thought = ThinkingPart("".join(HARM if harmful else CALM))
    seen, error = ask(made(Whole(thought, TextPart("Fine.")), guard()), way)
    assert isinstance(error, ContentFilterError) is harmful
    assert ("Fine." in seen) is not harmful
    assert "HARM" not in seen


def test_what_is_not_judged_is_refused() -> None:
    guarded = GuardedModel(model(CALM), guard())
    with pytest.raises(ContentFilterError, match="batches"):
        guarded.batch_decode(None, None)
    with pytest.raises(ContentFilterError, match="history"):
        anyio.run(guarded.compact_messages, None)


def test_a_thought_in_json_is_not_cut() -> None:
    """A redaction in an answer that a program parses is an abort."""
    from pydantic import BaseModel
    from pydantic_ai import NativeOutput

    class Plan(BaseModel):
        step: str

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        for piece in HARM:
            yield {0: DeltaThinkingPart(content=piece)}
        yield json.dumps({"step": "rest"})

    by = guard(reasoning=Rule(harmful=Action.REDACT))
    made = FunctionModel(stream_function=stream, profile={"supports_json_schema_output": True})
    seen, error = ask(Agent(GuardedModel(made, by), output_type=NativeOutput(Plan)), "run")
    assert isinstance(error, ContentFilterError)
    assert "HARM" not in seen
