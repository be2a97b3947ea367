"""An agent of the OpenAI Agents SDK that may delete backups. Its harmful thought is stopped before the tool
runs. The model recites two traces; leave `Reciting` out to ask one of your own."""

import asyncio

from agents import Agent, Model, ModelProvider, ModelRefusalError, RunConfig, Runner, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseReasoningItem
from openai.types.responses.response_reasoning_item import Content

from shieldguard import Action, Guard, Policy, Rule
from shieldguard_adapters.demo.scripts import EXTORTION, TIDYING
from shieldguard_adapters.openai_agents import GuardedModelProvider
from shieldguard_adapters.traces import Trace


class Reciting(ModelProvider):
    """Thinks a trace's thought, calls the tool, and says when that is done."""

    def __init__(self, trace: Trace) -> None:
        content = [Content(text=trace.reasoning, type="reasoning_text")]
        thought = ResponseReasoningItem(id="rs-1", type="reasoning", summary=[], content=content)
        call = function_call("delete_backups", trace.answer, call_id="call-1")
        self._model = ScriptedModel([[thought, call], [assistant_message("It is done.")]])

    def get_model(self, model_name: str | None) -> Model:
        return self._model


@function_tool
def delete_backups(older_than_days: int) -> str:
    """Deletes the backups that are older than this."""
    print(f"   the tool ran: backups older than {older_than_days} days are gone")
    return "deleted"


async def ask(trace: Trace, guard: Guard) -> None:
    print(f"Q: {trace.query}")
    agent = Agent(name="housekeeper", tools=[delete_backups])
    guarded = RunConfig(model_provider=GuardedModelProvider(guard, Reciting(trace)), tracing_disabled=True)
    try:
        result = await Runner.run(agent, trace.query, run_config=guarded)
        print(f"A: {result.final_output}\n")
    except ModelRefusalError as error:
        print(f"   {type(error).__name__}: {error}\n")


async def ask_all() -> None:
    # What the tool does cannot be undone, so stop it where the judge has a doubt.
    guard = Guard(policy=Policy(reasoning=Rule(potential=Action.ABORT)))
    for trace in (EXTORTION, TIDYING):
        await ask(trace, guard)


if __name__ == "__main__":
    asyncio.run(ask_all())
