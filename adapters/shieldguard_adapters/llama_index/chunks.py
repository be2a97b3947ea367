"""LlamaIndex's chunks, each of which repeats those before it, as events and back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from shieldguard import (
    Aborted,
    Answer,
    Message,
    Passthrough,
    Reasoning,
    ReleasedEvent,
    SourceEvent,
    ToolCall,
    WireError,
)
from shieldguard_adapters.sources import raise_if_told


@dataclass(slots=True, eq=False)
class _Chunk:
    """A chunk, and how many characters of what is new in it have not been released."""

    response: ChatResponse
    left: int = 0


class Reader:
    """Makes events of what is new in each chunk."""

    def __init__(self) -> None:
        self._before: dict[tuple[type[Any], int], str] = {}

    def events(self, response: ChatResponse) -> list[SourceEvent]:
        chunk = _Chunk(response.model_copy(update={"raw": None}))
        events: list[SourceEvent] = []
        for kind, block, text in _texts(response):
            before = self._before.get((kind, block), "")
            self._before[kind, block] = text
            new = text[len(before) :] if text.startswith(before) else text
            if new:
                chunk.left += len(new)
                events.append(kind(new, block=block, origin=chunk))
        return events or [Passthrough(choice=0, origin=chunk)]


def _texts(response: ChatResponse) -> Iterator[tuple[Any, int, str]]:
    """The texts of a chunk as they stand in it: reasoning, then the answer, then tool calls."""
    parts: list[tuple[Any, int, str]] = []
    for block, part in enumerate(response.message.blocks):
        if isinstance(part, ThinkingBlock):
            parts.append((Reasoning, block, part.content or ""))
        elif isinstance(part, TextBlock):
            parts.append((Answer, block, part.text))
        elif isinstance(part, ToolCallBlock):
            parts.append((ToolCall, block, f"{part.tool_name} {part.tool_kwargs}"))
        else:
            raise WireError(f"a block of type {part.block_type!r} cannot be judged and was not passed on")
    said = "".join(text for _, _, text in parts)
    extra = {**response.additional_kwargs, **response.message.additional_kwargs}
    for block, (name, value) in enumerate(extra.items(), start=len(parts)):
        if name == "tool_calls":
            parts.append((ToolCall, block, str(value) if value else ""))
        elif isinstance(value, str) and value not in said:
            parts.append((Reasoning, block, value))
    if response.delta and response.delta not in said:
        parts.append((Answer, len(parts) + len(extra), response.delta))
    order = (Reasoning, Answer, ToolCall)
    yield from sorted(parts, key=lambda part: order.index(part[0]))


def responses(batch: Sequence[ReleasedEvent]) -> Iterator[ChatResponse]:
    """The chunks of which all is released. Raises the error of a model that failed."""
    for event in batch:
        if raise_if_told(event):
            continue
        if isinstance(event, Aborted):
            message = ChatMessage(role=MessageRole.ASSISTANT, content=event.notice)
            why = {"shieldguard": event.cause.value}
            yield ChatResponse(message=message, delta=event.notice, additional_kwargs=why)
        elif isinstance(chunk := event.origin, _Chunk):
            chunk.left -= len(getattr(event, "text", ""))
            if chunk.left == 0:
                yield chunk.response


def chat(messages: Sequence[ChatMessage]) -> list[Message]:
    """The conversation, by role; what the model thought before has the role "reasoning"."""
    said = []
    for one in messages:
        thoughts = [block.content for block in one.blocks if isinstance(block, ThinkingBlock)]
        said += [Message("reasoning", thought) for thought in thoughts if thought]
        said.append(Message(one.role.value, one.content or ""))
    return said
