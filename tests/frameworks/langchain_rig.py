"""A scripted chat model of LangChain, and agents of it, as everybody sees them."""

import json
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

pytest.importorskip("langchain")

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import tool

from tests.clients.rig import reasoning

HARM = reasoning(harm_in=3)
CALM = reasoning(sentences=4)
ANSWER = ["All is well. ", "It really is."]


class Scripted(BaseChatModel):
    """A model that thinks in `kind` of blocks, and then answers or calls; behind a tool it only answers."""

    thought: list[str]
    answer: list[str] = ANSWER
    calls: list[dict[str, Any]] = []  # noqa: RUF012
    kind: str = "reasoning"
    given: int = 0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=[getattr(one, "name", one) for one in tools], **kwargs)

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, None, **kwargs))

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages):
            self.given += 1
            message = ChatGenerationChunk(message=chunk)
            if run_manager is not None:
                run_manager.on_llm_new_token(str(chunk.text), chunk=message)
            yield message

    def _chunks(self, messages: list[BaseMessage]) -> Iterator[AIMessageChunk]:
        if any(message.type == "tool" for message in messages):
            yield AIMessageChunk(content="Done.")
            return
        for piece in self.thought:
            if self.kind == "kwargs":
                yield AIMessageChunk(content="", additional_kwargs={"reasoning_content": piece})
            else:
                yield AIMessageChunk(content=[{"type": self.kind, self.kind: piece, "index": 0}])
        if self.kind == "thinking":
            yield AIMessageChunk(content=[{"type": "thinking", "signature": "c2ln", "index": 0}])
        for piece in self.answer:
            plain = self.kind == "kwargs"
            yield AIMessageChunk(content=piece if plain else [{"type": "text", "text": piece, "index": 1}])
        for index, call in enumerate(self.calls):
            name = tool_call_chunk(name=call["name"], args="", id=f"c{index}", index=index)
            yield AIMessageChunk(content="", tool_call_chunks=[name])
            arguments = tool_call_chunk(args=json.dumps(call["args"]), index=index)
            yield AIMessageChunk(content="", tool_call_chunks=[arguments])
        yield AIMessageChunk(
            content="",
            response_metadata={"finish_reason": "stop"},
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            chunk_position="last",
        )


KINDS = ["reasoning", "thinking", "kwargs"]
WAYS = ["ainvoke", "messages", "updates", "values", "events v2", "events v3"]


def ask(model: BaseChatModel, way: str) -> Any:
    if way == "invoke":
        return model.invoke("Well?")
    if way == "ainvoke":
        return anyio.run(model.ainvoke, "Well?")
    if way == "stream":
        chunks = list(model.stream("Well?"))
    else:

        async def read() -> list[Any]:
            return [chunk async for chunk in model.astream("Well?")]

        chunks = anyio.run(read)
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


RAN: list[str] = []


@tool
def send(to: str) -> str:
    """Send a parcel."""
    RAN.append(to)
    return "sent"


def run(agent: Any, way: str) -> str:
    """All that anybody can see of a run."""
    asked = {"messages": [("user", "Well?")]}

    async def main() -> str:
        if way == "ainvoke":
            return repr(await agent.ainvoke(asked))
        if way.startswith("events"):
            events = agent.astream_events(asked, version=way.removeprefix("events "))
            if hasattr(events, "__await__"):
                events = await events
            return repr([event async for event in events])
        return repr([item async for item in agent.astream(asked, stream_mode=way)])

    return anyio.run(main)
