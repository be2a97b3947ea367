"""Where unjudged text could leave a guarded model of the OpenAI Agents SDK."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

pytest.importorskip("agents")

from agents import (
    Agent,
    Model,
    ModelProvider,
    ModelRefusalError,
    ModelSettings,
    ModelTracing,
    RunConfig,
    RunHooks,
    Runner,
    SQLiteSession,
    function_tool,
)
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseReasoningItem
from openai.types.responses.response_reasoning_item import Content

from shieldguard import Action, Guard, Rule, history
from shieldguard_adapters.openai_agents import GuardedModel, GuardedModelProvider
from tests.clients.rig import guard
from tests.frameworks.failing_judges import FAILING, STOPPED
from tests.frameworks.test_openai_agents import ANSWER, CALM, HARM, RAN, Traces, play, run, send, traces
from tests.upstream import Script, Upstream
from tests.wire import responses as wire

__all__ = ["traces"]
each_api = pytest.mark.parametrize("api", ["responses", "chat"])
each_mode = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
each_failing = pytest.mark.parametrize("by", FAILING.values(), ids=FAILING)


def thought(pieces: list[str], id_: str = "rs-1") -> ResponseReasoningItem:
    content = [Content(text="".join(pieces), type="reasoning_text")]
    return ResponseReasoningItem(id=id_, type="reasoning", summary=[], content=content)


class Keeping(ModelProvider):
    """One model, which notes what it is asked."""

    def __init__(self, *turns: list[Any]) -> None:
        self.model = ScriptedModel(list(turns))

    def get_model(self, model_name: str | None) -> Model:
        return self.model


class Hooks(RunHooks[Any]):
    def __init__(self) -> None:
        self.said = ""

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
        self.said += repr(response)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        self.said += repr(tool)

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        self.said += repr(output)


def ask(
    agent: Agent[Any], way: str, provider: ModelProvider | None, **options: Any
) -> tuple[str, Exception | None]:
    """All that anybody can see of a run, and how it failed."""
    seen: list[str] = []
    config = RunConfig(model_provider=provider) if provider else RunConfig()

    async def main() -> None:
        if way == "streamed":
            result = Runner.run_streamed(agent, "Well?", run_config=config, **options)
            try:
                async for event in result.stream_events():
                    seen.append(repr(event))
            finally:
                seen.append(repr(result.raw_responses) + repr(result.new_items))
        else:
            seen.append(repr(await Runner.run(agent, "Well?", run_config=config, **options)))

    error = None
    try:
        anyio.run(main)
    except Exception as failed:
        error = failed
        seen.append(repr(failed) + repr(vars(failed)) + repr(failed.__cause__) + repr(failed.__context__))
    return "".join(seen), error


@each_failing
@each_api
@each_mode
def test_where_the_judge_fails_nothing_leaves_and_no_tool_runs(
    api: str, streamed: bool, by: Guard, upstream: Upstream, traces: Traces
) -> None:
    RAN.clear()
    seen: list[str] = []
    play(upstream, api, streamed, CALM, to="a friend")
    with pytest.raises(ModelRefusalError, match="could not be completed"):
        run(upstream, api, streamed, by, seen)
    assert "Sentence" not in "".join(seen) + traces.text
    assert STOPPED in "".join(seen) or not streamed
    assert RAN == []


@each_mode
def test_a_thought_behind_a_call_is_judged_before_the_tool_runs(
    streamed: bool, upstream: Upstream, traces: Traces
) -> None:
    items = [wire.thinking(*CALM), wire.call('{"to": "a friend"}'), wire.thinking(*HARM, id_="rs_2")]
    if streamed:
        upstream.play(Script(wire.frames_of(*items)))
    else:
        upstream.play(Script([wire.body(*items)], content_type="application/json"))
    RAN.clear()
    seen: list[str] = []
    with pytest.raises(ModelRefusalError):
        run(upstream, "responses", streamed, guard(), seen)
    assert RAN == []
    assert "HARM" not in "".join(seen) + traces.text


@pytest.mark.parametrize("way", ["streamed", "whole"])
def test_a_blocked_thought_is_not_remembered_and_the_next_turn_works(way: str, traces: Traces) -> None:
    provider = Keeping(
        [thought(HARM), function_call("send", '{"to": "a friend"}', call_id="c")],
        [thought(CALM), assistant_message("All is well.")],
    )
    guarded = GuardedModelProvider(guard(), provider)
    agent = Agent(name="agent", tools=[send])
    session, hooks = SQLiteSession("1"), Hooks()
    RAN.clear()
    try:
        seen, error = ask(agent, way, guarded, session=session, hooks=hooks)
        assert isinstance(error, ModelRefusalError)
        assert "HARM" not in seen + hooks.said + traces.text + repr(anyio.run(session.get_items))
        assert "Sentence" not in repr(anyio.run(session.get_items))
        seen, error = ask(agent, way, guarded, session=session, hooks=hooks)
        assert error is None
        assert "All is well" in seen
        assert "Sentence" not in repr(provider.model.calls[1].input)
    finally:
        session.close()
    assert RAN == []


@each_mode
def test_nothing_goes_on_from_what_the_server_has_of_a_blocked_turn(
    streamed: bool, upstream: Upstream, traces: Traces
) -> None:
    play(upstream, "responses", streamed, HARM)
    handlers = {"model_refusal": lambda _: "Let us stop here."}
    result = run(upstream, "responses", streamed, guard(), error_handlers=handlers)
    assert result.last_response_id is None
    assert "Sentence" not in repr(result.to_input_list())
    play(upstream, "responses", streamed, CALM)
    assert run(upstream, "responses", streamed, guard()).last_response_id == "resp_1"


@pytest.mark.parametrize("way", ["streamed", "whole"])
def test_an_agent_that_is_a_tool_is_guarded_too(way: str, traces: Traces) -> None:
    provider = Keeping(
        [function_call("other", '{"input": "Well?"}', call_id="c")],
        [thought(HARM), function_call("send", '{"to": "a friend"}', call_id="d")],
        [assistant_message("Done.")],
    )
    other = Agent(name="other", tools=[send])
    agent = Agent(name="agent", tools=[other.as_tool("other", "asks another")])
    RAN.clear()
    seen, _ = ask(agent, way, GuardedModelProvider(guard(), provider))
    assert "HARM" not in seen + traces.text
    assert RAN == []


@pytest.mark.parametrize("way", ["streamed", "whole"])
@pytest.mark.parametrize("held", [False, True], ids=["named", "held"])
def test_a_handoff_is_guarded_in_each_way(way: str, held: bool, traces: Traces) -> None:
    provider = Keeping(
        [thought(CALM), function_call("transfer_to_other", "{}", call_id="c")],
        [thought(HARM), function_call("send", '{"to": "a friend"}', call_id="d")],
    )
    RAN.clear()
    model = GuardedModel(provider.model, guard()) if held else None
    other = Agent(name="other", tools=[send], model=model)
    agent = Agent(name="agent", handoffs=[other])
    seen, error = ask(agent, way, GuardedModelProvider(guard(), provider))
    assert isinstance(error, ModelRefusalError)
    assert "HARM" not in seen + traces.text
    assert RAN == []


def test_a_model_that_an_agent_holds_is_its_own() -> None:
    """A provider is asked for models by name; the README says what to do."""
    held = Keeping([thought(HARM), assistant_message("All is well.")]).model
    agent = Agent(name="agent", model=held)
    provider = GuardedModelProvider(guard(), Keeping())
    assert "HARM" in ask(agent, "whole", provider)[0]
    held = Keeping([thought(HARM), assistant_message("All is well.")]).model
    agent = Agent(name="agent", model=GuardedModel(held, guard()))
    assert "HARM" not in ask(agent, "whole", None)[0]


# -- errors --------------------------------------------------------------------------------------


class Broken(Exception):
    """An error that holds what the model said."""

    def __init__(self, completion: Any) -> None:
        super().__init__("the answer is too long")
        self.completion = completion


class Breaking(Model):
    """A model that fails, at once or in the midst."""

    def __init__(self, error: Exception, events: list[Any]) -> None:
        self._error = error
        self._events = events

    async def get_response(self, *arguments: Any, **options: Any) -> Any:
        raise self._error

    async def stream_response(self, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        for event in self._events:
            yield event
        raise self._error


@pytest.fixture
def events() -> list[Any]:
    """Those of a thought that has begun."""
    came: list[Any] = []

    async def main() -> None:
        model = ScriptedModel([[thought(CALM), assistant_message("Fine.")]])
        asked: Any = {"previous_response_id": None, "conversation_id": None, "prompt": None}
        how: Any = (None, "Well?", ModelSettings(), [], None, [], ModelTracing.DISABLED)
        async for event in model.stream_response(*how, **asked):
            came.append(event)

    anyio.run(main)
    return came[:4]


@pytest.mark.parametrize("midst", [False, True], ids=["at once", "in the midst"])
@pytest.mark.parametrize("way", ["streamed", "whole"])
def test_what_an_error_quotes_is_judged(way: str, midst: bool, events: list[Any], traces: Traces) -> None:
    begun = events if midst else []

    def failed(by: Guard | None, said: str) -> tuple[str, Exception | None]:
        model: Model = Breaking(Broken({"choices": [said]}), begun)
        return ask(Agent(name="agent", model=GuardedModel(model, by) if by else model), way, None)

    assert "HARM" in failed(None, "HARM")[0]
    seen, error = failed(guard(), "HARM")
    assert isinstance(error, ModelRefusalError)
    assert "HARM" not in seen + traces.text
    seen, error = failed(guard(reasoning=Rule(harmful=Action.REDACT)), "HARM")
    assert "left out as harmful" in str(error)
    assert "HARM" not in seen
    assert isinstance(failed(guard(), "nothing of note")[1], Broken)


# -- logs, and what the judge is told ------------------------------------------------------------


@each_api
@each_mode
def test_the_logs_hold_nothing(
    api: str, streamed: bool, upstream: Upstream, traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    play(upstream, api, streamed, HARM)
    with pytest.raises(ModelRefusalError):
        run(upstream, api, streamed, guard())
    assert caplog.records
    assert "HARM" not in caplog.text


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("way", ["streamed", "whole"])
def test_the_reasoning_of_a_step_is_context_for_the_next_where_it_is_wanted(
    way: str, told: bool, traces: Traces
) -> None:
    by = guard()
    judge: Any = by.judge
    provider = Keeping(
        [thought(["The parcel is by the door."]), function_call("send", '{"to": "a friend"}', call_id="c")],
        [thought(CALM), assistant_message("".join(ANSWER))],
    )
    options: dict[str, Any] = {"query_from": history()} if told else {}
    ask(Agent(name="agent", tools=[send]), way, GuardedModelProvider(by, provider, **options))
    assert ("reasoning: The parcel is by the door." in judge.windows[-1].query) is told
    assert "Well?" in judge.windows[-1].query


def test_a_tool_of_a_harmless_thought_runs() -> None:
    ran: list[str] = []

    @function_tool
    def post(to: str) -> str:
        ran.append(to)
        return "posted"

    provider = Keeping(
        [thought(CALM), function_call("post", '{"to": "a friend"}', call_id="c")],
        [thought(CALM, "rs-2"), assistant_message("Done.")],
    )
    for way in ("streamed", "whole"):
        provider.model = Keeping(
            [thought(CALM), function_call("post", '{"to": "a friend"}', call_id="c")],
            [thought(CALM, "rs-2"), assistant_message("Done.")],
        ).model
        seen, error = ask(Agent(name="agent", tools=[post]), way, GuardedModelProvider(guard(), provider))
        assert error is None
        assert "Done." in seen
    assert ran == ["a friend", "a friend"]
