"""A model whose responses are guarded, and the capability that puts it around those of an agent."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ContentFilterError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import CompletedStreamedResponse, Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.instrumented import InstrumentedModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from shieldguard import Aborted, ConfigError, Guard, GuardedStream, QueryFrom, last_user_turn
from shieldguard_adapters.pydantic_ai.parts import PartsSource, chat
from shieldguard_adapters.pydantic_ai.response import GuardedResponse
from shieldguard_adapters.sources import raise_if_told, telling

_Asked: TypeAlias = tuple[list[ModelMessage], ModelSettings | None, ModelRequestParameters]


@dataclass
class GuardModels(AbstractCapability[Any]):
    """Guards the model of each attempt at a request, also the one that a fallback moves to."""

    guard: Guard
    query_from: QueryFrom = last_user_turn

    def get_wrapper_model(self, model: Model) -> Model:
        return GuardedModel(model, self.guard, query_from=self.query_from)


@dataclass(init=False)
class GuardedModel(WrapperModel):
    """A model whose responses are guarded. Each is streamed from the model, also where it is asked for whole,
    so that an abort ends it early. What a `FallbackModel` turns to behind this one is not guarded: wrap that
    model, or use `GuardModels`. Batches and compaction are refused."""

    guard: Guard
    query_from: QueryFrom

    def __init__(self, wrapped: Model | str, guard: Guard, *, query_from: QueryFrom = last_user_turn) -> None:
        super().__init__(wrapped)
        self.guard = guard
        self.query_from = query_from
        for one in _behind(self.wrapped):
            if isinstance(one, InstrumentedModel):
                raise ConfigError(
                    f"the spans of {one!r} would show unjudged text; instrument the guarded model instead"
                )

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        async with self.request_stream(messages, model_settings, model_request_parameters) as response:
            async for _ in response:
                pass
            return response.get()

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        asked = (messages, model_settings, model_request_parameters)

        def guarded(source: Any) -> GuardedStream:
            query = self.query_from(chat(messages))
            redactable = model_request_parameters.output_mode not in ("native", "prompted")
            return self.guard.stream(source, query=query, redactable=redactable)

        failed: Exception | None = None
        async with AsyncExitStack() as opened:
            try:
                inner = await self._opened(opened, asked, run_context)
            except Exception as error:
                failed = error
            else:
                stream = guarded(PartsSource(inner))
                opened.push_async_callback(stream.aclose)
                yield GuardedResponse(model_request_parameters, inner, stream)
        if failed is not None:
            await _raise_judged(failed, guarded)

    async def _opened(
        self, opened: AsyncExitStack, asked: _Asked, run_context: RunContext[Any] | None
    ) -> StreamedResponse:
        try:
            return await opened.enter_async_context(self.wrapped.request_stream(*asked, run_context))
        except NotImplementedError:
            pass  # it cannot stream
        whole = await self.wrapped.request(*asked)
        return CompletedStreamedResponse(whole, model_request_parameters=asked[2], replay_events=True)

    async def batch_encode(self, request: Any) -> NoReturn:
        raise ContentFilterError("batches are not guarded by shieldguard, so none is sent")

    def batch_decode(self, result: Any, request: Any) -> NoReturn:
        raise ContentFilterError("batches are not guarded by shieldguard, so none is read")

    async def compact_messages(self, *arguments: Any, **options: Any) -> NoReturn:
        raise ContentFilterError("what a model makes of a history is not guarded by shieldguard")


async def _raise_judged(error: Exception, guarded: Callable[[Any], GuardedStream]) -> None:
    async def told() -> AsyncGenerator[Any]:
        yield telling(error)

    async for event in guarded(told()):
        if isinstance(event, Aborted):
            raise ContentFilterError(event.notice)
        raise_if_told(event)


def _behind(model: Any) -> Iterator[Any]:
    """A model, and those that it asks."""
    while model is not None:
        yield model
        for one in getattr(model, "models", ()):
            yield from _behind(one)
        model = model.wrapped if isinstance(model, WrapperModel) else None
