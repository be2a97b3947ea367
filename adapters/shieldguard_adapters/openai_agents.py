"""A guard in the OpenAI Agents SDK, inside the model, where no stream, hook or trace sees unjudged text.

`RunConfig(model_provider=GuardedModelProvider(guard))` guards every model that the agents of a run name; an
agent that holds a model needs `Agent(model=GuardedModel(model, guard))`. A response that the guard aborts
ends as a refusal, which the SDK raises as `ModelRefusalError`, or gives to the handler in
`error_handlers={"model_refusal": …}`. Traces keep the usage and leave out the model's text, which would come
into them before it is judged. So would the SDK's logs, if `OPENAI_AGENTS_DONT_LOG_MODEL_DATA` is set to 0.
"""

import json
from collections.abc import AsyncGenerator
from typing import Any, get_args

from shieldguard import Aborted, Guard, MissingDependency, QueryFrom, SourceEvent, last_user_turn
from shieldguard_adapters.sources import Reading, raise_if_told
from shieldguard_adapters.wire.framing import parse_sse
from shieldguard_adapters.wire.jsons import parse_json, sse
from shieldguard_adapters.wire.openai_responses import ResponseBody, ResponseStream, read_request

try:
    from agents import Model, ModelProvider, ModelResponse, ModelTracing, MultiProvider, Usage
    from openai.types.responses import ResponseOutputItem, ResponseStreamEvent
except ImportError as error:
    raise MissingDependency(error.name or "agents", "openai-agents") from None


def _by_type(union: Any) -> dict[str, Any]:
    """The classes of a union, by the type that each names."""
    classes = get_args(get_args(union)[0])
    return {get_args(one.model_fields["type"].annotation)[0]: one for one in classes}


_ITEMS = _by_type(ResponseOutputItem)
_EVENTS = _by_type(ResponseStreamEvent)


class GuardedModelProvider(ModelProvider):
    """Gives the models of another provider, guarded. The default is the SDK's own."""

    def __init__(
        self,
        guard: Guard,
        inner: ModelProvider | None = None,
        *,
        query_from: QueryFrom = last_user_turn,
    ) -> None:
        self._guard = guard
        self._inner = inner or MultiProvider()
        self._query_from = query_from

    def get_model(self, model_name: str | None) -> Model:
        return GuardedModel(self._inner.get_model(model_name), self._guard, query_from=self._query_from)

    async def aclose(self) -> None:
        await self._inner.aclose()


class GuardedModel(Model):
    """A model whose responses are guarded, streamed and whole. Of a model on the WebSocket transport, too."""

    def __init__(self, inner: Model, guard: Guard, *, query_from: QueryFrom = last_user_turn) -> None:
        self._inner = inner
        self._guard = guard
        self._query_from = query_from

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[Any],  # noqa: A002
        model_settings: Any,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: ModelTracing,
        **rest: Any,
    ) -> ModelResponse:
        """The whole response, judged. The inner model has then made all of it: stream to stop it early."""
        asked = (system_instructions, input, model_settings, tools, output_schema, handoffs)
        redactable = _is_text(output_schema)
        codec = ResponseBody(strict_output=not redactable)
        response = ModelResponse(output=[], usage=Usage(), response_id=None)

        async def answer() -> AsyncGenerator[ModelResponse]:
            yield await self._inner.get_response(*asked, _quiet(tracing), **rest)

        def read(whole: ModelResponse) -> list[SourceEvent]:
            nonlocal response
            response = whole
            output = [item.model_dump(mode="json", exclude_unset=True) for item in whole.output]
            codec.decode(json.dumps({"id": whole.response_id or "", "output": output}).encode())
            return codec.flush()

        query = self._query(system_instructions, input, rest)
        stream = self._guard.stream(Reading(answer(), read), query=query, redactable=redactable)
        try:
            async for event in stream:
                if not raise_if_told(event):
                    codec.encode([event])
        finally:
            await stream.aclose()
        # Unchecked, as the SDK makes them of what servers send.
        response.output = [
            _ITEMS[item["type"]].construct(**item) for item in json.loads(codec.close())["output"]
        ]
        if stream.report.aborted is not None:
            response.response_id = None  # the server has all of it, so nothing should go on from there
        return response

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[Any],  # noqa: A002
        model_settings: Any,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: ModelTracing,
        **rest: Any,
    ) -> AsyncGenerator[Any]:
        redactable = _is_text(output_schema)
        codec = ResponseStream(
            strict_output=not redactable, whole_thoughts=self._guard.policy.redacts and redactable
        )
        asked = (system_instructions, input, model_settings, tools, output_schema, handoffs)
        frames = _Frames(codec)
        items = self._inner.stream_response(*asked, _quiet(tracing), **rest)
        query = self._query(system_instructions, input, rest)
        stream = self._guard.stream(Reading(items, frames.read), query=query, redactable=redactable)
        try:
            async for event in stream:
                if not raise_if_told(event):
                    for given in frames.given(codec.encode([event])):
                        yield _blocked(given) if isinstance(event, Aborted) else given
            for given in frames.given(codec.close()):
                yield given
        finally:
            await stream.aclose()

    async def close(self) -> None:
        await self._inner.close()

    def get_retry_advice(self, request: Any) -> Any:
        return self._inner.get_retry_advice(request)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._inner._cleanup_on_run_end(owner)

    def _query(self, instructions: str | None, given: str | list[Any], rest: dict[str, Any]) -> str:
        held = {name: rest[name] for name in ("previous_response_id", "conversation_id") if rest.get(name)}
        request = {"instructions": instructions, "input": given, "conversation": held or None}
        return read_request(json.dumps(request, default=str).encode(), self._query_from).query


class _Frames:
    """The events of a streamed response, as frames of their wire format and back."""

    def __init__(self, codec: ResponseStream) -> None:
        self._codec = codec
        self._came: dict[bytes, Any] = {}  # the events, by their frames

    def read(self, event: Any) -> list[SourceEvent]:
        frame = sse(event.model_dump(mode="json", exclude_unset=True, by_alias=True), event.type)
        self._came[frame] = event
        return self._codec.decode(frame)

    def given(self, data: bytes) -> list[Any]:
        """The events of these bytes: the very ones that came, where nothing changed them."""
        frames = [frame + b"\n\n" for frame in data.split(b"\n\n") if frame]
        return [self._came.pop(frame, None) or _parsed(frame) for frame in frames]


def _parsed(frame: bytes) -> Any:
    event = parse_json(parse_sse(frame).data or "")
    return _EVENTS[event["type"]].construct(**event)


def _blocked(event: Any) -> Any:
    """The end of a blocked turn has the refusal alone: no tool runs, no thought comes into the history, and
    nothing goes on from what the server has of it."""
    if event.type == "response.completed":
        refusals = [one for one in event.response.output if one.type == "message" and _refuses(one)]
        event.response.output, event.response.id = refusals, None
    return event


def _refuses(message: Any) -> bool:
    return any(getattr(part, "type", None) == "refusal" for part in message.content)


def _is_text(output_schema: Any) -> bool:
    return output_schema is None or output_schema.is_plain_text()


def _quiet(tracing: ModelTracing) -> ModelTracing:
    return tracing if tracing.is_disabled() else ModelTracing.ENABLED_WITHOUT_DATA
