"""What a frame says otherwise than it was let out, and the frame with that changed."""

import copy
from collections.abc import Iterable
from operator import is_
from typing import Any, TypeAlias

from shieldguard import Answer, Reasoning, Redacted, ReleasedEvent, ToolCall
from shieldguard_adapters.wire.jsons import Path
from shieldguard_adapters.wire.openai_responses.frame import Frame, Item, Piece
from shieldguard_adapters.wire.released import origin_of, said_by

#: By place in the frame's body, what stands there instead.
Edits: TypeAlias = dict[Path, Any]


def let_out(event: ReleasedEvent) -> None:
    """Note that this event is: a frame that says its text again then says what it should."""
    piece = origin_of(event, Piece)
    if isinstance(event, ToolCall):
        for text, new in piece.grown:
            text.out.write(new)
    elif isinstance(event, Reasoning | Answer | Redacted):
        piece.grown[0][0].out.write(said_by(event))
    if piece.item is not None:
        piece.item.let_out |= isinstance(event, ToolCall)
        piece.item.redacted |= isinstance(event, Redacted)


def edits_of(frame: Frame) -> Edits:
    """Those of a frame that says texts otherwise than they were let out."""
    return {path: out for path, text, said in frame.says if (out := text.out.getvalue()) != said}


def edits_of_whole(frame: Frame, order: Iterable[Item]) -> Edits:
    """Those of a frame that says a whole response: its items are one edit, where they are not as they came.
    `order`: theirs as they leave, with those that were added."""
    edits = edits_of(frame)
    others = {path: text for path, text in edits.items() if path[:2] != ("response", "output")}
    came = frame.body["response"].get("output")
    if not isinstance(came, list):
        return others
    values: dict[int, Any] = {}
    for place, (item, value) in enumerate(zip(frame.items, came, strict=True)):
        own = {path[3:]: text for path, text in edits.items() if path[:3] == ("response", "output", place)}
        if item.left_out or (item.is_call and (own or not item.let_out)):
            continue
        if item.redacted and value.get("encrypted_content"):
            own["encrypted_content",] = None
        values[id(item)] = edited(value, own) if own else value
    output = []
    for item in order:
        if id(item) in values:
            output.append(values.pop(id(item)))
        elif item.block < 0:
            output.append(item.body)
    output += values.values()
    if len(output) == len(came) and all(map(is_, output, came)):
        return others
    return {**others, ("response", "output"): output}


def edited(body: dict[str, Any], edits: Edits) -> dict[str, Any]:
    """A copy with these edits. What spells out or quotes a text goes where the text changes."""
    body = copy.deepcopy(body)
    for path, value in edits.items():
        holder: Any = body
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        if isinstance(holder, dict) and path[-1] in ("text", "delta"):
            holder.pop("obfuscation", None)
            holder.update({name: [] for name in ("logprobs", "annotations") if holder.get(name)})
    return body
