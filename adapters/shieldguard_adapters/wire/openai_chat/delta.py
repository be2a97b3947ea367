"""The texts of one delta (or message) of a choice: which it holds, and where.

Providers repeat a text under several names; it is then one part with several paths, judged once and withheld
everywhere. A text under a name that is not known is taken as reasoning: whatever it is, it is judged.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shieldguard import Answer, OpaqueKind, Reasoning, ToolCall, WireError
from shieldguard_adapters.wire.jsons import Path

# What a delta or message may hold beside text.
_NOT_TEXT = frozenset({"role", "id", "name", "tool_call_id", "annotations", "citations", "signature"})
# What a typed item may hold beside text. `data` is what an item without text hides.
_NOT_ITEM_TEXT = _NOT_TEXT | {"type", "format", "data", "status", "encrypted_content", "url"}


@dataclass(frozen=True, slots=True)
class Part:
    """One text (or unreadable reasoning) of a delta. `inline`: it may hold think tags."""

    kind: type[Reasoning] | type[Answer] | type[ToolCall]
    text: str
    paths: tuple[Path, ...]
    block: int = 0
    inline: bool = False
    opaque: OpaqueKind | None = None


def parts_of(delta: dict[str, Any]) -> Iterator[Part]:
    """The parts of a delta: its reasoning, its answer, its tool calls."""
    answers: list[Part] = []
    reasoning: dict[str, list[Path]] = {}
    lists: list[str] = []
    for key, value in delta.items():
        if value is None or value == "" or key in _NOT_TEXT:
            continue
        if key == "content" and isinstance(value, str):
            answers.append(Part(Answer, value, ((key,),), inline=True))
        elif key == "refusal" and isinstance(value, str):
            answers.append(Part(Answer, value, ((key,),)))
        elif key == "tool_calls":
            answers += _calls(value)
        elif key == "function_call":
            answers.append(Part(ToolCall, " ".join(_call_texts(value)), ((key,),)))
        elif key == "audio":
            raise WireError("the response holds audio, which cannot be judged; ask for text alone")
        elif isinstance(value, str):
            reasoning.setdefault(value, []).append((key,))
        elif isinstance(value, list):
            lists.append(key)
        elif isinstance(value, dict):
            for path, text in _item_texts(value, (key,)):
                reasoning.setdefault(text, []).append(path)
    for key in lists:
        yield from _listed(delta[key], key, reasoning, answers)
    for text, paths in reasoning.items():
        yield Part(Reasoning, text, tuple(paths))
    yield from answers


def _listed(
    items: list[Any], key: str, reasoning: dict[str, list[Path]], answers: list[Part]
) -> Iterator[Part]:
    """The parts of a list of typed items: reasoning details, thinking blocks, Mistral's content."""
    texts: list[tuple[Path, str]] = []
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            raise WireError(f"{key!r} should hold objects, not {item!r}")
        if item.get("type") == "text" and key == "content":
            if not isinstance(text := item.get("text"), str):
                raise WireError(f"a content item's 'text' should be a string, not {text!r}")
            if text:
                answers.append(Part(Answer, text, ((key, position, "text"),), inline=True))
            item = {name: value for name, value in item.items() if name != "text"}
        found = list(_item_texts(item, (key, position)))
        texts += found
        if item.get("type") == "reasoning.summary":
            yield Part(Reasoning, "", (), opaque=OpaqueKind.SUMMARISED)
        if not found and (item.get("data") or item.get("encrypted_content")):
            yield Part(Reasoning, "", ((key, position),), opaque=OpaqueKind.ENCRYPTED)
    # The same text often comes as one string, too.
    repeated = tuple(reasoning.pop("".join(text for _, text in texts), ()))
    for path, text in texts:
        yield Part(Reasoning, text, (path, *repeated))


def _item_texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """All texts in an object or a list, whatever they are called."""
    if isinstance(value, str):
        if value:
            yield path, value
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _item_texts(inner, (*path, position))
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in _NOT_ITEM_TEXT:
                yield from _item_texts(inner, (*path, name))


def _calls(calls: Any) -> Iterator[Part]:
    if not isinstance(calls, list):
        raise WireError(f"'tool_calls' should be a list, not {type(calls).__name__!r}")
    for position, call in enumerate(calls):
        if not isinstance(call, dict):
            raise WireError(f"'tool_calls' should hold objects, not {call!r}")
        block = call.get("index", position)
        if not isinstance(block, int):
            raise WireError(f"a tool call has index {block!r}; it should be a number")
        yield Part(ToolCall, " ".join(_call_texts(call)), (("tool_calls", position),), block=block)


def _call_texts(value: Any) -> Iterator[str]:
    """What there is to judge of a call or a part of one: all of its texts, whatever they are called."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _call_texts(inner)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name in ("arguments", "input") and not isinstance(inner, str | None):
                yield json.dumps(inner, ensure_ascii=False)
            elif name not in ("id", "type"):
                yield from _call_texts(inner)
