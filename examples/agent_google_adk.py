"""An agent of Google's ADK that may delete backups. Its harmful thought is stopped before the tool runs. The
model recites two traces; give `GuardedLlm` the name of one of your own instead."""

import asyncio
import json
from collections.abc import AsyncGenerator

from google.adk.agents import Agent
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types

from shieldguard import Action, Guard, Policy, Rule
from shieldguard_adapters.demo.scripts import EXTORTION, TIDYING
from shieldguard_adapters.google_adk import GuardedLlm
from shieldguard_adapters.traces import Trace


class Reciting(BaseLlm):
    """Thinks a trace's thought, calls the tool, and says when that is done."""

    trace: Trace

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        thought = types.Part(text=self.trace.reasoning, thought=True)
        arguments = json.loads(self.trace.answer)
        parts = [thought, types.Part.from_function_call(name="delete_backups", args=arguments)]
        if any(part.function_response for part in llm_request.contents[-1].parts or ()):
            parts = [types.Part(text="It is done.")]
        usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=1, candidates_token_count=1)
        yield LlmResponse(content=types.ModelContent(parts=parts), usage_metadata=usage)


def delete_backups(older_than_days: int) -> str:
    """Deletes the backups that are older than this."""
    print(f"   the tool ran: backups older than {older_than_days} days are gone")
    return "deleted"


async def ask(trace: Trace, guard: Guard) -> None:
    print(f"Q: {trace.query}")
    model = GuardedLlm(Reciting(model="reciting", trace=trace), guard)
    async with InMemoryRunner(Agent(name="housekeeper", model=model, tools=[delete_backups])) as runner:
        [*_, last] = await runner.run_debug(trace.query, quiet=True)
    if last.error_code:
        print(f"   {last.error_code}: {last.error_message}\n")
    elif last.content and last.content.parts:
        print(f"A: {last.content.parts[-1].text}\n")


async def ask_all() -> None:
    # What the tool does cannot be undone, so stop it where the judge has a doubt.
    guard = Guard(policy=Policy(reasoning=Rule(potential=Action.ABORT)))
    for trace in (EXTORTION, TIDYING):
        await ask(trace, guard)


if __name__ == "__main__":
    asyncio.run(ask_all())
