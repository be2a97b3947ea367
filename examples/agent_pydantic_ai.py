"""An agent of Pydantic AI that may delete backups. Its harmful thought is stopped before the tool runs. The
model recites two traces; give `Agent` one of your own instead."""

import re
from collections.abc import AsyncIterator

from pydantic_ai import Agent
from pydantic_ai.exceptions import ContentFilterError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaThinkingCalls,
    DeltaThinkingPart,
    DeltaToolCall,
    DeltaToolCalls,
    FunctionModel,
)

from shieldguard import Action, Guard, Policy, Rule
from shieldguard_adapters.demo.scripts import EXTORTION, TIDYING
from shieldguard_adapters.pydantic_ai import GuardModels
from shieldguard_adapters.traces import Trace


def reciting(trace: Trace) -> FunctionModel:
    """Thinks the trace's thought, calls the tool, and says when that is done."""

    async def stream(
        messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | DeltaThinkingCalls | DeltaToolCalls]:
        if any(isinstance(message, ModelResponse) for message in messages):
            yield "It is done."
            return
        for word in re.findall(r"\S+\s*", trace.reasoning):
            thought: DeltaThinkingCalls = {0: DeltaThinkingPart(content=word)}
            yield thought
        call: DeltaToolCalls = {1: DeltaToolCall(name="delete_backups", json_args=trace.answer)}
        yield call

    return FunctionModel(stream_function=stream)


def delete_backups(older_than_days: int) -> str:
    """Deletes the backups that are older than this."""
    print(f"   the tool ran: backups older than {older_than_days} days are gone")
    return "deleted"


def ask(trace: Trace, guard: Guard) -> None:
    print(f"Q: {trace.query}")
    agent = Agent(reciting(trace), tools=[delete_backups], capabilities=[GuardModels(guard)])
    try:
        print(f"A: {agent.run_sync(trace.query).output}\n")
    except ContentFilterError as error:
        print(f"   {type(error).__name__}: {error}\n")


def main() -> None:
    # What the tool does cannot be undone, so stop it where the judge has a doubt.
    guard = Guard(policy=Policy(reasoning=Rule(potential=Action.ABORT)))
    for trace in (EXTORTION, TIDYING):
        ask(trace, guard)


if __name__ == "__main__":
    main()
