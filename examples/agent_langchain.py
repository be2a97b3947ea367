"""An agent of LangChain that may delete backups. Its harmful thought is stopped before the tool runs. The
model recites two traces; give `create_agent` one of your own instead."""

import re
from collections.abc import Iterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable

from shieldguard import Action, Guard, Policy, Rule
from shieldguard_adapters.demo.scripts import EXTORTION, TIDYING
from shieldguard_adapters.langchain import GuardMiddleware
from shieldguard_adapters.traces import Trace


class Reciting(BaseChatModel):
    """Thinks a trace's thought, calls the tool, and says when that is done."""

    trace: Trace

    @property
    def _llm_type(self) -> str:
        return "reciting"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return self.bind(**kwargs)

    def _generate(self, *arguments: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(
        self, messages: list[BaseMessage], *rest: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        if messages[-1].type == "tool":
            yield ChatGenerationChunk(message=AIMessageChunk(content="It is done."))
            return
        for word in re.findall(r"\S+\s*", self.trace.reasoning):
            thought = {"type": "reasoning", "reasoning": word, "index": 0}
            yield ChatGenerationChunk(message=AIMessageChunk(content=[thought]))
        call = tool_call_chunk(name="delete_backups", args=self.trace.answer, id="call-1", index=0)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[call]))


def delete_backups(older_than_days: int) -> str:
    """Deletes the backups that are older than this."""
    print(f"   the tool ran: backups older than {older_than_days} days are gone")
    return "deleted"


def ask(trace: Trace, guard: Guard) -> None:
    print(f"Q: {trace.query}")
    agent = create_agent(Reciting(trace=trace), [delete_backups], middleware=[GuardMiddleware(guard)])
    result = agent.invoke({"messages": [HumanMessage(trace.query)]})
    last = result["messages"][-1]
    print(f"A: {last.text}\n   finish reason: {last.response_metadata.get('finish_reason', 'stop')}\n")


def main() -> None:
    # What the tool does cannot be undone, so stop it where the judge has a doubt.
    guard = Guard(policy=Policy(reasoning=Rule(potential=Action.ABORT)))
    for trace in (EXTORTION, TIDYING):
        ask(trace, guard)


if __name__ == "__main__":
    main()
