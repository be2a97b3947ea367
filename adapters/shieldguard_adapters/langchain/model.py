"""A chat model whose responses are guarded."""

import operator
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.config import var_child_runnable_config
from langsmith import tracing_context
from pydantic import Field, model_validator

from shieldguard import Guard, QueryFrom, Release, last_user_turn
from shieldguard_adapters.langchain.chunks import Writer, as_chunk, events
from shieldguard_adapters.langchain.turns import chat, without_blocked_thoughts
from shieldguard_adapters.sources import Reading, read

# Options with which models of various providers answer in JSON alone, where there is no room for a notice.
_STRICT = frozenset({"response_format", "format", "output_format", "output_config", "response_schema"})
_FROM_INNER = ("callbacks", "tags", "metadata", "rate_limiter", "output_version")


class GuardedChatModel(BaseChatModel):
    """A chat model whose responses are guarded. Each is streamed from the inner model, where that can
    stream, so that an abort ends it early.

    No response is cached unless `cache` is given one's own: what one policy let out, or the notice of a judge
    that failed, is no answer for the next.
    """

    inner: BaseChatModel
    guard: Any  # a Guard; pydantic would look into it
    query_from: QueryFrom = last_user_turn
    cache: BaseCache | bool | None = Field(default=False, exclude=True)

    @model_validator(mode="after")
    def _is_a_guard(self) -> "GuardedChatModel":
        if not isinstance(self.guard, Guard):
            raise ValueError(f"guard={self.guard!r} is no Guard")
        for name in _FROM_INNER:
            own, inner = getattr(self, name), getattr(self.inner, name)
            if own is None:
                setattr(self, name, inner)
            elif isinstance(own, dict):
                setattr(self, name, {**(inner or {}), **own})
        if _drops_reasoning(self.inner):
            warnings.warn(
                "ChatOpenAI drops the reasoning of chat completions, so this guard judges the answer alone; "
                "to judge the reasoning, give it guarded HTTP clients (see shieldguard_adapters.langchain)",
                stacklevel=3,
            )
        return self

    @property
    def _llm_type(self) -> str:
        return f"guarded-{self.inner._llm_type}"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "inner": self.inner._identifying_params,
            "judge": self.guard.judge.name,
            "policy": repr(self.guard.policy),
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.inner._get_ls_params(stop, **kwargs)

    def _resolve_model_profile(self) -> Any:
        return self.inner.profile

    def get_token_ids(self, text: str) -> list[int]:
        return self.inner.get_token_ids(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Any = None) -> int:
        return self.inner.get_num_tokens_from_messages(messages, tools)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[LanguageModelInput, AIMessage]:
        bound = self.inner.bind_tools(tools, **kwargs)
        if not isinstance(bound, RunnableBinding) or bound.bound is not self.inner:
            raise TypeError(
                f"{self.inner!r} binds tools as {type(bound).__name__!r}, which cannot be guarded"
            )
        return self.bind(**bound.kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _whole(list(self._stream(messages, stop, None, **kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _whole([chunk async for chunk in self._astream(messages, stop, None, **kwargs)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        asked = without_blocked_thoughts(messages)
        source = read(self._asked(asked, stop, kwargs), events, within=_unheard)
        writer = self._writer()
        with self.guard.stream_sync(source, **self._how(asked, kwargs)) as stream:
            for event in stream:
                yield from writer.write(event)
            yield from writer.finish()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        asked = without_blocked_thoughts(messages)
        source = Reading(self._aasked(asked, stop, kwargs), events, within=_unheard)
        writer = self._writer()
        stream = self.guard.stream(source, **self._how(asked, kwargs))
        try:
            async for event in stream:
                for chunk in writer.write(event):
                    yield chunk
            for chunk in writer.finish():
                yield chunk
        finally:
            await stream.aclose()

    def _writer(self) -> Writer:
        return Writer(keeps_calls=self.guard.policy.release is not Release.SHADOW)

    def _how(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"query": self.query_from(chat(messages)), "redactable": not _STRICT & kwargs.keys()}

    # The inner model is asked below its own callbacks, which would tell what is not judged yet.

    def _asked(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        if self.inner._should_stream(async_api=False, **{**kwargs, "stream": True}):
            yield from self.inner._stream(messages, stop, None, **kwargs)
        else:
            yield as_chunk(self.inner._generate(messages, stop, None, **kwargs))

    def _aasked(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> AsyncIterator[ChatGenerationChunk]:
        async def whole() -> AsyncIterator[ChatGenerationChunk]:
            yield as_chunk(await self.inner._agenerate(messages, stop, None, **kwargs))

        streams = self.inner._should_stream(async_api=True, **{**kwargs, "stream": True})
        return self.inner._astream(messages, stop, None, **kwargs) if streams else whole()


def _drops_reasoning(model: BaseChatModel) -> bool:
    """Whether it reads chat completions as `ChatOpenAI` does; its kin for other providers read more."""
    for kind in type(model).__mro__:
        if kind.__name__ == "BaseChatOpenAI" and kind.__module__.startswith("langchain_openai."):
            name = "_convert_chunk_to_generation_chunk"
            reads = getattr(type(model), name) is not getattr(kind, name)
            return not reads and not getattr(model, "use_responses_api", None)
    return False


@contextmanager
def _unheard() -> Iterator[None]:
    """Without the callbacks and tracers of this run, which a model that the inner one asks in turn would
    tell."""
    token = var_child_runnable_config.set(None)
    try:
        with tracing_context(enabled=False):
            yield
    finally:
        var_child_runnable_config.reset(token)


def _whole(chunks: Sequence[ChatGenerationChunk]) -> ChatResult:
    messages = [chunk.message for chunk in chunks] or [AIMessageChunk(content="")]
    message = reduce(operator.add, messages)
    return ChatResult(generations=[ChatGeneration(message=message_chunk_to_message(message))])
