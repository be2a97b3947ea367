"""The chunks of LangChain's chat models as events, and back."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from shieldguard import (
    Aborted,
    Answer,
    Channel,
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    Redacted,
    ReleasedEvent,
    SourceEvent,
    ToolCall,
    WireError,
)
from shieldguard_adapters.sources import raise_if_told

# Of blocks of content: those of tool calls, and those that nothing here can judge.
_CALLS = frozenset(
    {"tool_use", "input_json_delta", "tool_call", "tool_call_chunk", "function_call", "server_tool_use"}
)
_MEDIA = frozenset({"image", "image_url", "audio", "video", "file"})
_CALL_KEYS = frozenset({"tool_calls", "function_call"})  # of `additional_kwargs`
_SIGNING = frozenset({"signature", "encrypted_content"})
_NOT_TEXT = _SIGNING | {"type", "id", "index", "format", "status"}
# Of what comes beside the content, what is not the model's text. All else is judged.
_METADATA = frozenset(
    {
        *("finish_reason", "stop_reason", "stop_sequence", "model", "model_name", "model_provider", "id"),
        *("system_fingerprint", "service_tier", "object", "created", "created_at", "done_reason", "status"),
        *("headers", "ResponseMetadata", "usage", "token_usage"),
    }
)
# What the notice of a redaction, or of an abort, has in its message's `response_metadata`.
BLOCKED = "shieldguard"
REDACTED = "shieldguard_redacted"


@dataclass(slots=True, eq=False)
class _Part:
    """A piece of a chunk. One that holds a single text can have another `put` in its place; any other leaves
    when all of its text is let out."""

    chunk: AIMessageChunk
    put: Callable[[str], AIMessageChunk] | None = None
    made: SourceEvent | None = None
    left: int = 0  # characters that were not let out
    signs: bool = False  # it is nothing without a thought, or repeats what was said


def events(generation: ChatGenerationChunk) -> list[SourceEvent]:
    """The reasoning of a chunk, its answer, its tool calls, and then what else it holds."""
    chunk = generation.message
    if not isinstance(chunk, AIMessageChunk):
        raise WireError(f"{type(chunk).__name__!r} is no chunk of a model's message and was not passed on")
    extra = chunk.additional_kwargs
    empty: Any = "" if isinstance(chunk.content, str) else []
    parts: list[tuple[int, SourceEvent]] = []

    def piece(**fields: Any) -> AIMessageChunk:
        return AIMessageChunk(**{"content": empty, "id": chunk.id, **fields})

    def add(order: int, kind: Callable[..., SourceEvent], text: str, part: _Part) -> None:
        part.left = len(text)
        part.made = kind(text, origin=part) if text else kind(origin=part)
        parts.append((order, part.made))

    if media := _MEDIA & {*extra, *(block["type"] for block in _blocks(chunk) if "type" in block)}:
        raise WireError(f"content of type {min(media)!r} cannot be judged and was not passed on")
    for key in extra.keys() - _CALL_KEYS:
        if texts := _texts(extra[key]):
            put = partial(_in_kwargs, piece, key) if isinstance(extra[key], str) else None
            add(0, Reasoning, "".join(texts), _Part(piece(additional_kwargs={key: extra[key]}), put))
    if isinstance(chunk.content, str) and chunk.content:
        add(1, Answer, chunk.content, _Part(piece(content=chunk.content), lambda text: piece(content=text)))
    calls = [block for block in _blocks(chunk) if block.get("type") in _CALLS]
    for given, block in zip(chunk.content, _blocks(chunk), strict=False):
        type_ = str(block.get("type"))
        part = _Part(piece(content=[given]), _put_in_block(piece, block))
        texts = _texts(block)
        if type_ in _CALLS:
            pass
        elif type_ == "redacted_thinking" or not texts:
            hidden = type_ == "redacted_thinking" or bool(block.get("encrypted_content"))
            part.signs = hidden or "signature" in block
            kind = partial(Opaque, OpaqueKind.ENCRYPTED) if hidden else partial(Passthrough, choice=0)
            add(3, kind, "", part)
        else:
            thought = "thinking" in type_ or "reasoning" in type_
            add(0 if thought else 1, Reasoning if thought else Answer, "".join(texts), part)
    held = {key: extra[key] for key in _CALL_KEYS & extra.keys()}
    if calls or chunk.tool_call_chunks or held:
        made = piece(content=calls or empty, tool_call_chunks=chunk.tool_call_chunks, additional_kwargs=held)
        add(2, ToolCall, "".join(_texts([calls, chunk.tool_call_chunks, held])) or " ", _Part(made))
    metadata = {**(generation.generation_info or {}), **chunk.response_metadata}
    if logprobs := metadata.pop("logprobs", None):
        add(
            4,
            partial(Passthrough, choice=0),
            "",
            _Part(piece(response_metadata={"logprobs": logprobs}), signs=True),
        )
    told = {key: value for key, value in metadata.items() if key not in _METADATA and _texts(value)}
    if told:
        add(4, Reasoning, "".join(_texts(told)), _Part(piece(response_metadata=told)))
    silent = {key: value for key, value in extra.items() if key not in held and not _texts(value)}
    plain = {key: value for key, value in metadata.items() if key not in told}
    fields = {
        name: getattr(chunk, name)
        for name in {"usage_metadata", "chunk_position", "name"} & chunk.model_fields_set
    }
    if fields or plain or silent or not parts:
        made = piece(response_metadata=plain, additional_kwargs=silent, **fields)
        add(5, partial(Passthrough, choice=0), "", _Part(made))
    return [event for _, event in sorted(parts, key=lambda part: part[0])]


class Writer:
    """Makes chunks of what is let out. Tool calls, and what comes behind them, are kept to the end, as an
    abort takes them back."""

    def __init__(self, *, keeps_calls: bool = True) -> None:
        self._keeps_calls = keeps_calls
        self._kept: list[AIMessageChunk] = []
        self._redacted = False

    def write(self, event: ReleasedEvent) -> Iterator[ChatGenerationChunk]:
        chunk = None if raise_if_told(event) else self._chunk(event)
        if isinstance(event, Aborted):
            self._kept.clear()
        if self._kept or (self._keeps_calls and isinstance(event, ToolCall)):
            self._kept += [chunk] if chunk is not None else []
        elif chunk is not None:
            yield ChatGenerationChunk(message=chunk)

    def finish(self) -> Iterator[ChatGenerationChunk]:
        for chunk in self._kept:
            yield ChatGenerationChunk(message=chunk)

    def _chunk(self, event: ReleasedEvent) -> AIMessageChunk | None:
        if isinstance(event, Aborted):
            metadata = {"finish_reason": "content_filter", BLOCKED: event.cause.value}
            return AIMessageChunk(content=event.notice, response_metadata=metadata, chunk_position="last")
        part = getattr(event, "origin", None)
        if not isinstance(part, _Part) or (self._redacted and part.signs):
            return None
        if isinstance(event, Redacted):
            self._redacted = True
            puts = part.put is not None and event.channel is not Channel.TOOL_CALL
            chunk = part.put(event.notice) if part.put and puts else AIMessageChunk(content=event.notice)
            chunk.response_metadata[REDACTED] = True
            return chunk
        if event is part.made:
            return part.chunk
        text = getattr(event, "text", "")
        part.left -= len(text)
        if part.put is not None:
            return part.put(text)
        return part.chunk if part.left == 0 else None


def _blocks(chunk: AIMessageChunk) -> list[dict[str, Any]]:
    content = [] if isinstance(chunk.content, str) else chunk.content
    return [{"type": "text", "text": one} if isinstance(one, str) else one for one in content]


def _in_kwargs(piece: Callable[..., AIMessageChunk], key: str, text: str) -> AIMessageChunk:
    return piece(additional_kwargs={key: text})


def _put_in_block(
    piece: Callable[..., AIMessageChunk], block: dict[str, Any]
) -> Callable[[str], AIMessageChunk] | None:
    """Puts a text where the block has its only one; what signed that is left out."""
    keys = [key for key, value in block.items() if key not in _NOT_TEXT and _texts(value)]
    if len(keys) != 1 or not isinstance(block[keys[0]], str):
        return None
    rest = {key: value for key, value in block.items() if key not in _SIGNING}
    return lambda text: piece(content=[{**rest, keys[0]: text}])


def _texts(value: Any) -> list[str]:
    """All texts in a value; an object that is no JSON is shown as it is."""
    if value is None or isinstance(value, bool | int | float):
        return []
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, dict):
        return [text for key, inner in value.items() if key not in _NOT_TEXT for text in _texts(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _texts(inner)]
    return [repr(value)]


def as_chunk(result: ChatResult) -> ChatGenerationChunk:
    """A whole response, as the one chunk of a stream."""
    generation = result.generations[0]
    message = generation.message
    if not isinstance(message, AIMessage):
        raise WireError(f"{type(message).__name__!r} is no message of a model and was not passed on")
    calls = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(message.tool_calls)
    ]
    chunk = AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        tool_call_chunks=calls,
        id=message.id,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=chunk, generation_info=generation.generation_info)
