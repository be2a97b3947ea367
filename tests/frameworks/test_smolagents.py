"""Agents of smolagents, whose model asks by a guarded client."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

pytest.importorskip("smolagents")

from smolagents import AgentGenerationError, CodeAgent, LogLevel, OpenAIModel, Tool, ToolCallingAgent

from shieldguard import Guard, history
from shieldguard_adapters.clients import guard_client
from tests.clients.rig import guard, reasoning
from tests.frameworks.failing_judges import FAILING, STOPPED
from tests.upstream import DONE, USAGE, Script, Upstream, chunk, completion

HARM = reasoning(harm_in=3)
CALM = reasoning(sentences=4)


class Send(Tool):  # type: ignore[misc]
    name = "send"
    description = "Sends a parcel."
    inputs = {"to": {"type": "string", "description": "To whom."}}  # noqa: RUF012
    output_type = "string"

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def forward(self, to: str) -> str:
        self.ran.append(to)
        return "sent"


def said(streamed: bool, thought: list[str], text: str = "", call: dict[str, Any] | None = None) -> Script:
    calls = []
    if call is not None:
        function = {"name": call.pop("name"), "arguments": json.dumps(call)}
        calls = [{"id": "c", "type": "function", "function": function}]
    reason = "tool_calls" if calls else "stop"
    if not streamed:
        message: dict[str, Any] = {"reasoning_content": "".join(thought), "content": text}
        message |= {"tool_calls": calls} if calls else {}
        return Script([completion(message, finish_reason=reason)], content_type="application/json")
    delta: dict[str, Any] = {"content": text}
    if calls:
        delta = {"tool_calls": [{"index": 0, **calls[0]}]}
    frames = [chunk({"role": "assistant"}), *(chunk({"reasoning_content": piece}) for piece in thought)]
    return Script([*frames, chunk(delta), chunk({}, finish_reason=reason), USAGE, DONE])


def turns(kind: type[Any], streamed: bool, thought: list[str], to: str) -> list[Script]:
    """The model thinks and calls, then thinks calmly and answers."""
    if kind is CodeAgent:
        return [
            said(streamed, thought, f'Thought: I send it.\n<code>\nprint(send(to="{to}"))\n</code>'),
            said(streamed, CALM, 'Thought: done.\n<code>\nfinal_answer("It is on its way.")\n</code>'),
        ]
    return [
        said(streamed, thought, call={"name": "send", "to": to}),
        said(streamed, CALM, call={"name": "final_answer", "answer": "It is on its way."}),
    ]


@pytest.fixture
def client(upstream: Upstream) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
        yield client


def agent_of(kind: type[Any], client: openai.OpenAI, streamed: bool, by: Guard, **options: Any) -> Any:
    model = OpenAIModel("m", api_key="none", retry=False)
    model.client = guard_client(client, by, **options)
    return kind(
        tools=[Send()], model=model, stream_outputs=streamed, max_steps=2, verbosity_level=LogLevel.OFF
    )


each_agent = pytest.mark.parametrize("kind", [CodeAgent, ToolCallingAgent])
each_mode = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


def play(upstream: Upstream, scripts: list[Script]) -> None:
    upstream.play(scripts[-1])
    upstream.first += scripts[:-1]


@each_agent
@each_mode
def test_a_harmless_run(kind: type[Any], streamed: bool, upstream: Upstream, client: openai.OpenAI) -> None:
    play(upstream, turns(kind, streamed, CALM, "a friend"))
    agent = agent_of(kind, client, streamed, guard())
    assert agent.run("Send it.") == "It is on its way."
    assert agent.tools["send"].ran == ["a friend"]


@each_agent
@each_mode
@pytest.mark.parametrize("where", ["thought", "arguments"])
def test_no_tool_runs_on_harm(
    kind: type[Any], streamed: bool, where: str, upstream: Upstream, client: openai.OpenAI
) -> None:
    thought, to = (HARM, "a friend") if where == "thought" else (CALM, "HARM")
    play(upstream, turns(kind, streamed, thought, to))
    agent = agent_of(kind, client, streamed, guard())
    seen = list(agent.run("Send it.", stream=True))
    assert agent.tools["send"].ran == []
    assert "HARM" not in repr(seen) + repr(agent.memory.get_full_steps())
    assert "Withheld" in repr(agent.memory.get_full_steps())
    assert seen[-1].output == "It is on its way."  # of the step that follows


@each_agent
@each_mode
def test_an_error_ends_the_run(
    kind: type[Any], streamed: bool, upstream: Upstream, client: openai.OpenAI
) -> None:
    play(upstream, turns(kind, streamed, HARM, "a friend"))
    agent = agent_of(kind, client, streamed, guard(), termination="error")
    with pytest.raises(AgentGenerationError):
        agent.run("Send it.")
    assert agent.tools["send"].ran == []
    assert len(upstream.requests) == 1


@each_agent
@each_mode
def test_a_callback_would_see_no_thought_and_come_too_late(
    kind: type[Any], streamed: bool, upstream: Upstream, client: openai.OpenAI
) -> None:
    play(upstream, turns(kind, streamed, HARM, "a friend"))
    model = OpenAIModel("m", api_key="none")
    model.client = client
    steps: list[str] = []
    agent = kind(
        tools=[Send()],
        model=model,
        stream_outputs=streamed,
        step_callbacks=[
            lambda step, agent: steps.append(repr(vars(step)) if streamed else step.model_output or "")
        ],
        verbosity_level=LogLevel.OFF,
    )
    agent.run("Send it.")
    assert len(steps) >= 2
    assert "HARM" not in "".join(steps)
    assert agent.tools["send"].ran == ["a friend"]


@each_agent
@each_mode
@pytest.mark.parametrize("by", FAILING.values(), ids=FAILING)
def test_without_a_verdict_no_text_comes_and_no_tool_runs(
    kind: type[Any], streamed: bool, by: Guard, upstream: Upstream, client: openai.OpenAI
) -> None:
    play(upstream, turns(kind, streamed, CALM, "a friend"))
    agent = agent_of(kind, client, streamed, by)
    seen = list(agent.run("Send it.", stream=True))
    told = repr(seen) + repr(agent.memory.get_full_steps())
    assert agent.tools["send"].ran == []
    assert STOPPED in told
    assert "I send it" not in told
    assert "Sentence" not in told


@each_agent
def test_the_query_can_be_the_conversation(
    kind: type[Any], upstream: Upstream, client: openai.OpenAI
) -> None:
    queries: list[str] = []

    class Heard:
        def window_judged(self, event: Any) -> None: ...

        def stream_closed(self, report: Any) -> None:
            queries.append(report.query)

    play(upstream, turns(kind, True, CALM, "a friend"))
    by = Guard(judge=guard().judge, observers=[Heard()])
    agent_of(kind, client, True, by, query_from=history()).run("Send it.")
    first, second = queries
    assert "Send it." in first
    assert second.startswith(first)
    assert "sent" in second.removeprefix(first)
