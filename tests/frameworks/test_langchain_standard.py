"""LangChain's own standard tests of chat models, for a guarded model and for the bare one in it."""

import json
from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import pytest

pytest.importorskip("langchain_tests")

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    message_chunk_to_message,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from shieldguard_adapters.langchain import GuardedChatModel
from tests.clients.rig import guard


class Bare(BaseChatModel):
    """A model that calls the tool it is given, with arguments of the right types, and answers else."""

    model: str = "bare"

    @property
    def _llm_type(self) -> str:
        return "bare"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=[convert_to_openai_tool(one) for one in tools], **kwargs)

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        message = reduce(add, (one.message for one in self._stream(messages, stop, None, **kwargs)))
        return ChatResult(generations=[ChatGeneration(message=message_chunk_to_message(message))])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        if kwargs.get("tools") and isinstance(messages[-1], HumanMessage):
            called = kwargs["tools"][0]["function"]
            arguments = json.dumps(_example(called["parameters"]))
            call = tool_call_chunk(name=called["name"], args=arguments, id="c", index=0)
            chunks = [AIMessageChunk(content="", tool_call_chunks=[call])]
        else:
            chunks = [AIMessageChunk(content=piece) for piece in ("Hello", " there", ".")]
        usage = UsageMetadata(input_tokens=1, output_tokens=2, total_tokens=3)
        metadata = {"model_name": "bare"}
        last = AIMessageChunk(
            content="", response_metadata=metadata, usage_metadata=usage, chunk_position="last"
        )
        for chunk in (*chunks, last):
            generation = ChatGenerationChunk(message=chunk)
            if run_manager is not None:
                run_manager.on_llm_new_token(str(chunk.text), chunk=generation)
            yield generation


def _example(schema: dict[str, Any]) -> Any:
    """What fits a schema."""
    kinds = {
        "string": "你好 こんにちは",
        "integer": 3,
        "number": 3.0,
        "boolean": True,
        "array": [],
        "null": None,
    }
    if schema.get("type") == "object":
        return {name: _example(inner) for name, inner in schema.get("properties", {}).items()}
    return kinds.get(str(schema.get("type")), "x")


class TestBareUnit(ChatModelUnitTests):
    chat_model_class = Bare
    chat_model_params: dict[str, Any] = {}  # noqa: RUF012


class TestBareIntegration(ChatModelIntegrationTests):
    chat_model_class = Bare
    chat_model_params: dict[str, Any] = {}  # noqa: RUF012


class TestUnit(ChatModelUnitTests):
    chat_model_class = GuardedChatModel
    chat_model_params: dict[str, Any] = {"inner": Bare(), "guard": guard()}  # noqa: RUF012


class TestIntegration(ChatModelIntegrationTests):
    chat_model_class = GuardedChatModel
    chat_model_params: dict[str, Any] = {"inner": Bare(), "guard": guard()}  # noqa: RUF012
