"""The parts of a response of Pydantic AI as events, and the conversation as text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_ai.messages import (
    BaseToolCallPart,
    FinalResultEvent,
    ModelMessage,
    NativeToolReturnPart,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    SystemPromptPart,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPartDelta,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import StreamedResponse

from shieldguard import (
    Answer,
    End,
    Message,
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    SourceEvent,
    ToolCall,
    WireError,
)
from shieldguard_adapters.sources import telling
from shieldguard_adapters.wire.jsons import texts_in

# Of what a provider says of a response, what is not its text. Log-probabilities repeat what is judged.
_DETAILS = frozenset({"id", "type", "finish_reason", "timestamp", "logprobs"})


@dataclass(slots=True, eq=False)
class Origin:
    """Of the framework's events, the one that an event was made of. `silent`: its text is judged, and left
    to another event to show."""

    event: PartStartEvent | PartDeltaEvent | None
    made: SourceEvent | None = None
    silent: bool = False


class PartsSource:
    """A model's response as events."""

    def __init__(self, response: StreamedResponse) -> None:
        self._response = response
        self._events = aiter(response)
        self._details: dict[int, dict[str, Any]] = {}  # of parts, as far as they have come
        self._ended = False

    def __aiter__(self) -> "PartsSource":
        return self

    async def __anext__(self) -> Sequence[SourceEvent]:
        if self._ended:
            raise StopAsyncIteration
        try:
            event = await anext(self._events)
        except StopAsyncIteration:
            self._ended = True
            return [*_silent(_texts(self._response.provider_details)), End(self._response.finish_reason)]
        except Exception as error:
            self._ended = True
            return telling(error)
        if isinstance(event, PartEndEvent | FinalResultEvent):
            return []  # made anew of what leaves
        if isinstance(event, PartDeltaEvent):
            event = self._resolved(event)
        origin = Origin(event)
        origin.made = _event(event, origin)
        return [*_silent(self._new_details(event), event), origin.made]

    async def aclose(self) -> None:
        try:
            await self._response.cancel()
        except NotImplementedError:
            pass  # the model's own context closes it

    def _resolved(self, event: PartDeltaEvent) -> PartDeltaEvent:
        """Details may come as a function of those before; then what it gives is what they are."""
        delta = event.delta
        if not isinstance(delta, ThinkingPartDelta) or not callable(delta.provider_details):
            return event
        details = delta.provider_details(self._details.get(event.index))
        return replace(event, delta=replace(delta, provider_details=details))

    def _new_details(self, event: PartStartEvent | PartDeltaEvent) -> list[str]:
        """The texts in what a provider says of a part, such as the thought itself beside its summary."""
        part = event.part if isinstance(event, PartStartEvent) else event.delta
        details = getattr(part, "provider_details", None)
        if not isinstance(details, dict):
            return []
        before = self._details.get(event.index, {})
        self._details[event.index] = before | details
        known = set(_texts(before))
        return [text for text in _texts(details) if text not in known]


def _silent(texts: Sequence[str], event: PartStartEvent | PartDeltaEvent | None = None) -> list[SourceEvent]:
    block = -1 if event is None else event.index
    return [Reasoning("\n".join(texts), block=block, origin=Origin(event, silent=True))] if texts else []


def _event(event: PartStartEvent | PartDeltaEvent, origin: Origin) -> SourceEvent:
    index = event.index
    match event.part if isinstance(event, PartStartEvent) else event.delta:
        case ThinkingPart(content="", signature=str()):
            return Opaque(OpaqueKind.HIDDEN, origin=origin)
        case ThinkingPart(content=text) | ThinkingPartDelta(content_delta=text) if text:
            return Reasoning(text, block=index, origin=origin)
        case TextPart(content=text) | TextPartDelta(content_delta=text) if text:
            return Answer(text, block=index, origin=origin)
        case BaseToolCallPart() as call:
            return ToolCall(f"{call.tool_name} {call.args_as_json_str()}", block=index, origin=origin)
        case ToolCallPartDelta() as call:
            text = f"{call.tool_name_delta or ''}{call.args_delta or ''}"
            return ToolCall(text, block=index, origin=origin)
        case NativeToolReturnPart() as result:
            return ToolCall(result.model_response_str(), block=index, origin=origin)
        case ThinkingPart() | ThinkingPartDelta() | TextPart() | TextPartDelta():
            return Passthrough(choice=0, origin=origin)
        case other:
            raise WireError(f"{type(other).__name__!r} cannot be judged and was not passed on")


def _texts(details: Any) -> Sequence[str]:
    return [text for text in texts_in(details, _DETAILS) if text]


def chat(messages: Sequence[ModelMessage]) -> list[Message]:
    """The conversation, by role; what the model thought before has the role "reasoning"."""
    chat = []
    for message in messages:
        for part in message.parts:
            match part:
                case UserPromptPart():
                    parts = [part.content] if isinstance(part.content, str) else part.content
                    text = "\n".join(one if isinstance(one, str) else "[media]" for one in parts)
                    chat.append(Message("user", text))
                case SystemPromptPart():
                    chat.append(Message("system", part.content))
                case ToolReturnPart():
                    chat.append(Message("tool", part.model_response_str()))
                case TextPart():
                    chat.append(Message("assistant", part.content))
                case ThinkingPart():
                    chat.append(Message("reasoning", part.content))
    return chat
