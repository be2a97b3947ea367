"""A model of LlamaIndex's, guarded."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM

from shieldguard import Guard, QueryFrom, last_user_turn
from shieldguard_adapters.llama_index.below import ask
from shieldguard_adapters.llama_index.chunks import Reader, chat, responses
from shieldguard_adapters.sources import Reading, read


class GuardedLLM(FunctionCallingLLM):
    """A model, guarded, in each way to ask it: chat and completion, streamed and whole, sync and async."""

    _inner: Any = PrivateAttr()
    _guard: Guard = PrivateAttr()
    _query_from: QueryFrom = PrivateAttr()

    def __init__(self, inner: Any, guard: Guard, *, query_from: QueryFrom = last_user_turn) -> None:
        super().__init__(callback_manager=inner.callback_manager, rate_limiter=inner.rate_limiter)
        self._inner = inner
        self._guard = guard
        self._query_from = query_from

    @property
    def metadata(self) -> LLMMetadata:
        metadata: LLMMetadata = self._inner.metadata
        return metadata

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **options: Any) -> ChatResponse:
        def whole() -> Generator[ChatResponse]:
            yield ask(self._inner, "chat", messages, **options)

        return _last(self._given_sync(whole(), messages))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **options: Any) -> ChatResponse:
        async def whole() -> AsyncGenerator[ChatResponse]:
            yield await ask(self._inner, "achat", messages, **options)

        return _last([one async for one in self._given(whole(), messages)])

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **options: Any) -> Generator[ChatResponse]:
        def chunks() -> Generator[ChatResponse]:
            yield from ask(self._inner, "stream_chat", messages, **options)

        return self._given_sync(chunks(), messages)

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **options: Any
    ) -> AsyncGenerator[ChatResponse]:
        async def chunks() -> AsyncIterator[ChatResponse]:
            given: AsyncIterator[ChatResponse] = await ask(self._inner, "astream_chat", messages, **options)
            return given

        return self._given(chunks, messages)

    def complete(self, prompt: str, formatted: bool = False, **options: Any) -> CompletionResponse:
        return _completion(self.chat([ChatMessage(prompt)], **options))

    async def acomplete(self, prompt: str, formatted: bool = False, **options: Any) -> CompletionResponse:
        return _completion(await self.achat([ChatMessage(prompt)], **options))

    def stream_complete(self, prompt: str, formatted: bool = False, **options: Any) -> Any:
        return map(_completion, self.stream_chat([ChatMessage(prompt)], **options))

    async def astream_complete(self, prompt: str, formatted: bool = False, **options: Any) -> Any:
        chunks = await self.astream_chat([ChatMessage(prompt)], **options)
        return (_completion(chunk) async for chunk in chunks)

    def get_tool_calls_from_response(self, response: Any, *args: Any, **options: Any) -> Any:
        return self._inner.get_tool_calls_from_response(response, *args, **options)

    def _prepare_chat_with_tools(self, *args: Any, **options: Any) -> Any:
        return self._inner._prepare_chat_with_tools(*args, **options)

    def _validate_chat_with_tools_response(self, *args: Any, **options: Any) -> Any:
        return self._inner._validate_chat_with_tools_response(*args, **options)

    def _query(self, messages: Sequence[ChatMessage]) -> str:
        return self._query_from(chat(messages))

    async def _given(self, chunks: Any, messages: Sequence[ChatMessage]) -> AsyncGenerator[ChatResponse]:
        source = Reading(chunks, Reader().events)
        stream = self._guard.stream(source, query=self._query(messages), redactable=False)
        try:
            while batch := await stream.next_batch():
                for response in responses(batch):
                    yield response
        finally:
            await stream.aclose()

    def _given_sync(self, chunks: Any, messages: Sequence[ChatMessage]) -> Generator[ChatResponse]:
        source = read(chunks, Reader().events)
        with self._guard.stream_sync(source, query=self._query(messages), redactable=False) as stream:
            while batch := stream.next_batch():
                yield from responses(batch)


def _last(given: Iterable[ChatResponse]) -> ChatResponse:
    *_, last = given
    last.delta = None
    return last


def _completion(response: ChatResponse) -> CompletionResponse:
    extra = response.additional_kwargs
    return CompletionResponse(
        text=response.message.content or "", delta=response.delta, additional_kwargs=extra
    )
