"""LlamaIndex's models of OpenAI's, which ask by guarded HTTP clients."""

import json
from typing import Any

import anyio
import httpx
import pytest

pytest.importorskip("llama_index.llms.openai")

from llama_index.core.agent.workflow import AgentStream, FunctionAgent, ToolCall
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI

from shieldguard import Action, Guard, Rule
from shieldguard_adapters.clients import guard_client
from tests.clients.rig import guard, reasoning
from tests.upstream import DONE, Script, Upstream, chat, chunk, completion

# LlamaIndex's workflows look at what pydantic has renamed.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HARM = reasoning(harm_in=3)
CALM = reasoning(sentences=4)
ANSWER = ["All is well. ", "It really is."]
WAYS = ["chat", "stream_chat", "achat", "astream_chat"]


def play(upstream: Upstream, way: str, thought: list[str], to: str | None = None) -> None:
    streamed = "stream" in way
    if streamed:
        upstream.play(Script(chat(thought, ANSWER)))
    else:
        message = {"reasoning_content": "".join(thought), "content": "".join(ANSWER)}
        upstream.play(Script([completion(message)], content_type="application/json"))
    if to is None:
        return
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": json.dumps({"to": to})}}
    if streamed:
        frames = [chunk({"role": "assistant"}), *(chunk({"reasoning_content": piece}) for piece in thought)]
        called = [chunk({"tool_calls": [{"index": 0, **call}]}), chunk({}, finish_reason="tool_calls"), DONE]
        upstream.first.append(Script([*frames, *called]))
    else:
        message = {"reasoning_content": "".join(thought), "content": None, "tool_calls": [call]}  # type: ignore[dict-item]
        made = completion(message, finish_reason="tool_calls")
        upstream.first.append(Script([made], content_type="application/json"))


def model(upstream: Upstream, **clients: Any) -> OpenAI:
    return OpenAI(model="gpt-4o", api_base=upstream.url, api_key="none", max_retries=0, **clients)


def ask(upstream: Upstream, way: str, by: Guard | None) -> tuple[str, list[Any]]:
    """The answer, and all that was given."""
    question = [ChatMessage("What do you think?")]
    given: list[Any] = []
    if not way.startswith("a"):
        with httpx.Client() as http:
            llm = model(upstream, http_client=guard_client(http, by) if by else http)
            made = getattr(llm, way)(question)
            given += [made] if way == "chat" else made
        return given[-1].message.content, given

    async def main() -> None:
        async with httpx.AsyncClient() as http:
            llm = model(upstream, async_http_client=guard_client(http, by) if by else http)
            made = await getattr(llm, way)(question)
            given.extend([made] if way == "achat" else [one async for one in made])

    anyio.run(main)
    return given[-1].message.content, given


@pytest.mark.parametrize("way", WAYS)
def test_a_harmless_answer_is_as_without_a_guard(way: str, upstream: Upstream) -> None:
    play(upstream, way, CALM)
    expected, plain = ask(upstream, way, None)
    play(upstream, way, CALM)
    answer, given = ask(upstream, way, guard())
    assert answer == expected == "".join(ANSWER)
    assert [one.message for one in given] == [one.message for one in plain]


@pytest.mark.parametrize("way", WAYS)
def test_a_harmful_thought_leaves_a_notice(way: str, upstream: Upstream) -> None:
    play(upstream, way, HARM)
    answer, given = ask(upstream, way, guard())
    assert answer.startswith("[Withheld")
    assert "HARM" not in repr(given) + repr([one.raw for one in given])
    assert "All is well" not in repr(given)


def run(upstream: Upstream, way: str, by: Guard | None) -> tuple[str, list[str], list[Any]]:
    """A run of an agent: its answer, the uses of its tool, and the events of its workflow."""
    ran: list[str] = []
    events: list[Any] = []

    def send(to: str) -> str:
        """Send a parcel."""
        ran.append(to)
        return "sent"

    async def main() -> str:
        async with httpx.AsyncClient() as http:
            llm = model(upstream, async_http_client=guard_client(http, by) if by else http)
            tools: list[Any] = [FunctionTool.from_defaults(send)]
            agent = FunctionAgent(tools=tools, llm=llm, streaming="stream" in way)
            running = agent.run(user_msg="Send it.")
            async for event in running.stream_events():
                events.append(event)
            return str(await running)

    return anyio.run(main), ran, events


each_agent = pytest.mark.parametrize("way", ["achat", "astream_chat"])


@each_agent
def test_a_harmless_agent_uses_its_tool(way: str, upstream: Upstream) -> None:
    play(upstream, way, CALM, to="a friend")
    answer, ran, events = run(upstream, way, guard())
    assert (answer, ran) == ("".join(ANSWER), ["a friend"])
    assert [event.tool_name for event in events if type(event) is ToolCall] == ["send"]


@each_agent
@pytest.mark.parametrize("where", ["thought", "arguments"])
def test_no_tool_runs_on_harm(way: str, where: str, upstream: Upstream) -> None:
    play(
        upstream, way, HARM if where == "thought" else CALM, to="HARM" if where == "arguments" else "a friend"
    )
    answer, ran, events = run(upstream, way, guard())
    assert answer.startswith("[Withheld")
    assert ran == []
    assert not [event for event in events if type(event) is ToolCall]
    raws = [event.raw for event in events if isinstance(event, AgentStream)]
    assert "HARM" not in repr(events) + repr(raws)
    assert len(upstream.requests) == 1


def test_the_events_of_a_workflow_would_show_it(upstream: Upstream) -> None:
    play(upstream, "astream_chat", HARM, to="a friend")
    _, ran, events = run(upstream, "astream_chat", None)
    assert "HARM" in "".join(event.thinking_delta or "" for event in events if isinstance(event, AgentStream))
    assert ran == ["a friend"]


@each_agent
def test_a_redaction_refuses_the_tool_and_leaves_the_answer(way: str, upstream: Upstream) -> None:
    by = guard(reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    play(upstream, way, HARM)
    answer, _, events = run(upstream, way, by)
    assert answer == "".join(ANSWER)
    assert "HARM" not in repr(events)
    play(upstream, way, HARM, to="a friend")
    answer, ran, _ = run(upstream, way, by)
    assert (answer, ran) == ("[gone]", [])
