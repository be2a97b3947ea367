"""An agent of Microsoft's agent-framework that may delete backups. Its harmful thought is stopped before the
tool runs. The model recites two traces; give a client of your own instead."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    Message,
    ResponseStream,
)

from shieldguard import Action, Guard, Policy, Rule
from shieldguard_adapters.agent_framework import guard_chat_client
from shieldguard_adapters.demo.scripts import EXTORTION, TIDYING
from shieldguard_adapters.traces import Trace


class Reciting(FunctionInvocationLayer[Any], BaseChatClient[Any]):
    """Thinks a trace's thought, calls the tool, and says when that is done."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **rest: Any
    ) -> Any:
        thought = Content.from_text_reasoning(text=self._trace.reasoning)
        call = Content.from_function_call("call-1", "delete_backups", arguments=self._trace.answer)
        done = messages[-1].role == "tool"

        async def updates() -> AsyncIterator[ChatResponseUpdate]:
            for content in [Content.from_text("It is done.")] if done else [thought, call]:
                yield ChatResponseUpdate(contents=[content], role="assistant")

        return ResponseStream(updates(), finalizer=ChatResponse.from_updates)


def delete_backups(older_than_days: int) -> str:
    """Deletes the backups that are older than this."""
    print(f"   the tool ran: backups older than {older_than_days} days are gone")
    return "deleted"


async def ask(trace: Trace, guard: Guard) -> None:
    print(f"Q: {trace.query}")
    agent = Agent(guard_chat_client(Reciting(trace), guard), tools=[delete_backups])
    stream = agent.run(trace.query, stream=True)
    async for _ in stream:
        pass
    response = await stream.get_final_response()
    print(f"A: {response.text}\n   finish reason: {response.finish_reason or 'stop'}\n")


async def ask_all() -> None:
    # What the tool does cannot be undone, so stop it where the judge has a doubt.
    guard = Guard(policy=Policy(reasoning=Rule(potential=Action.ABORT)))
    for trace in (EXTORTION, TIDYING):
        await ask(trace, guard)


if __name__ == "__main__":
    asyncio.run(ask_all())
