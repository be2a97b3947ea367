"""Writes frames with only some of their texts."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from shieldguard import Channel, End, Opaque, Redacted, ReleasedEvent, ToolCall
from shieldguard_adapters.wire.errors import saying
from shieldguard_adapters.wire.jsons import Path
from shieldguard_adapters.wire.openai_chat.frame import ERROR, Frame, Piece
from shieldguard_adapters.wire.released import origin_of, said_by

_LISTS = ("content", "reasoning_details", "thinking_blocks", "tool_calls")


class Writer:
    """Writes the frames of one response, and knows what the client has been sent of each choice. `key` is
    what a choice has its texts in: "delta" or "message"."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.begun: set[int] = set()  # choices whose role was sent
        self.finished: set[int] = set()
        self._refused_calls: set[int] = set()
        self._edited: set[int] = set()  # choices of whose reasoning some was left out: no signature is true

    def write(self, frame: Frame, events: Sequence[ReleasedEvent]) -> dict[str, Any] | None:
        """The part of a frame that these events are; None where that is the frame as it came."""
        if not frame.is_whole(events) or self._contradicts(frame, events):
            return self.fragment(frame, events)
        self._note(frame, events)
        return None

    def fragment(self, frame: Frame, events: Sequence[ReleasedEvent]) -> dict[str, Any]:
        """The frame with the texts of these events alone."""
        for event in events:
            if isinstance(event, Redacted) and event.channel is Channel.TOOL_CALL:
                self._refused_calls.add(event.choice)
            elif isinstance(event, Redacted) and event.channel is Channel.REASONING:
                self._edited.add(event.choice)
        own: dict[int, list[ReleasedEvent]] = {}  # by position
        for event in events:
            own.setdefault(origin_of(event, Piece).position, []).append(event)
        body = {k: v for k, v in frame.body.items() if k not in ("choices", "usage", "error")}
        body["choices"] = [self._choice(frame, at, own[at]) for at in range(len(frame.choices)) if at in own]
        if ERROR in own:
            body["error"] = saying(frame.body["error"], "".join(map(said_by, own[ERROR])))
        if frame.kept == 0 and events[-1] is frame.events[-1] and "usage" in frame.body:
            body["usage"] = frame.body["usage"]
        self._note(frame, events)
        return body

    def _contradicts(self, frame: Frame, events: Iterable[ReleasedEvent]) -> bool:
        """Whether the frame is not true of what was sent: an end of calls that were refused, or a signature
        of a thought that was edited."""
        if self._edited and b'"signature"' in frame.raw:
            return True
        return any(isinstance(event, End) and event.choice in self._refused_calls for event in events)

    def _note(self, frame: Frame, events: Iterable[ReleasedEvent]) -> None:
        self.begun.update(choice.get("index", 0) for choice in frame.choices)
        self.finished.update(event.choice for event in events if isinstance(event, End))

    def _choice(self, frame: Frame, position: int, events: Sequence[ReleasedEvent]) -> dict[str, Any]:
        source, key = frame.choices[position], self._key
        index = source.get("index", 0)
        paths = [path for where, path in frame.paths if where == position]
        delta = _with_texts(source.get(key) or {}, paths, events)
        if index in self.begun:
            delta.pop("role", None)
        # Log-probabilities spell out the text of the whole frame, so they do not go with a part of it.
        choice = {name: value for name, value in source.items() if name not in (key, "logprobs")}
        reason = source.get("finish_reason") if any(isinstance(event, End) for event in events) else None
        if reason is not None and index in self._refused_calls:
            reason = "stop"
        choice |= {"index": index, key: delta, "finish_reason": reason}
        return _unsigned(choice) if index in self._edited else choice


def _with_texts(
    source: dict[str, Any], paths: Iterable[Path], events: Iterable[ReleasedEvent]
) -> dict[str, Any]:
    """A delta with the texts of these events alone. `paths`: where it has a text."""
    delta = copy.deepcopy(source)
    texts: dict[Path, str | None] = dict.fromkeys(paths)
    notices: list[dict[str, Any]] = []
    for event in events:
        own = origin_of(event, Piece).paths
        if isinstance(event, Redacted) and event.channel is Channel.TOOL_CALL:
            own = (("content",),)
            if isinstance(delta.get("content"), list):
                notices.append({"type": "text", "text": event.notice})
                continue
        elif isinstance(event, ToolCall | Opaque):
            for path in own:
                texts.pop(path, None)  # leave it as it is
            continue
        for path in own:
            texts[path] = (texts.get(path) or "") + said_by(event)
    texts = _pruned(texts)
    # From the back, so that taking an item out of a list leaves the places before it.
    for path in sorted(texts, key=_sort_key, reverse=True):
        _set(delta, path, texts[path])
    if notices:
        delta["content"] += notices
    return {name: value for name, value in delta.items() if value != [] or name not in _LISTS}


def _pruned(texts: dict[Path, str | None]) -> dict[Path, str | None]:
    """The same, where an item of a list goes as a whole if none of its texts stays."""
    stay = [path for path, text in texts.items() if text is not None]
    pruned: dict[Path, str | None] = {}
    for path, text in texts.items():
        place = path
        if text is None:
            items = (path[: end + 1] for end, name in enumerate(path) if isinstance(name, int))
            place = next((one for one in items if all(kept[: len(one)] != one for kept in stay)), path)
        pruned[place] = text
    return pruned


def _unsigned(value: Any) -> Any:
    if isinstance(value, list):
        return [_unsigned(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _unsigned(inner) for name, inner in value.items() if name != "signature"}
    return value


def _set(container: Any, path: Path, text: str | None) -> None:
    """Put a text in its place, or take the place away."""
    for name in path[:-1]:
        container = container[name]
    if text is not None:
        container[path[-1]] = text
    elif isinstance(container, list):
        container.pop(int(path[-1]))
    else:
        container.pop(path[-1], None)


def _sort_key(path: Path) -> tuple[str, ...]:
    return tuple(f"{part:08d}" if isinstance(part, int) else part for part in path)
