"""An agent of AutoGen that may delete backups. Its harmful thought is stopped before the tool runs. The model
recites two traces; leave the transport out to ask one of your own.

The guard is in the HTTP client, since AutoGen's own client drops the reasoning that comes before a call."""

import asyncio
import json
from typing import Any

import httpx2
from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient

from shieldguard import Action, Guard, Policy, Rule
from shieldguard_adapters.clients import guard_client
from shieldguard_adapters.demo.scripts import EXTORTION, TIDYING
from shieldguard_adapters.traces import Trace

INFO = ModelInfo(
    vision=False, function_calling=True, json_output=False, family="unknown", structured_output=False
)


def reciting(trace: Trace) -> httpx2.MockTransport:
    """Thinks the trace's thought, calls the tool, and says when that is done."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        function = {"name": "delete_backups", "arguments": trace.answer}
        call = {"id": "call-1", "type": "function", "function": function}
        message = {"role": "assistant", "reasoning_content": trace.reasoning, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        if json.loads(request.content)["messages"][-1]["role"] == "tool":
            choice |= {"message": {"role": "assistant", "content": "It is done."}, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return httpx2.Response(200, json=body)

    return httpx2.MockTransport(answer)


async def delete_backups(older_than_days: int) -> str:
    """Deletes the backups that are older than this."""
    print(f"   the tool ran: backups older than {older_than_days} days are gone")
    return "deleted"


async def ask(trace: Trace, guard: Guard) -> None:
    print(f"Q: {trace.query}")
    http = guard_client(httpx2.AsyncClient(transport=reciting(trace)), guard, termination="content_filter")
    async with http:
        below: dict[str, Any] = {"http_client": http}  # what is not AutoGen's own goes to OpenAI's client
        client = OpenAIChatCompletionClient(model="m", api_key="none", model_info=INFO, **below)
        agent = AssistantAgent("housekeeper", client, tools=[delete_backups], reflect_on_tool_use=True)
        result = await agent.run(task=trace.query)
    print(f"A: {result.messages[-1].to_text()}\n")


async def ask_all() -> None:
    # What the tool does cannot be undone, so stop it where the judge has a doubt.
    guard = Guard(policy=Policy(reasoning=Rule(potential=Action.ABORT)))
    for trace in (EXTORTION, TIDYING):
        await ask(trace, guard)


if __name__ == "__main__":
    asyncio.run(ask_all())
