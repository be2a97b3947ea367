"""The texts inside a chat completion frame: finding them, and writing a frame with only some of them.

A text is found by its path in the choice's `delta` (or `message`), such as ("reasoning_content",) or
("reasoning_details", 0, "text"). Providers repeat a text under several names; it is then one event with
several paths, judged once and withheld everywhere. A text under a name that is not known is taken as
reasoning: whatever it is, it is judged.
"""

import copy
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from operator import is_
from typing import Any, TypeAlias

from shieldguard import (
    Aborted,
    Answer,
    Channel,
    End,
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    Redacted,
    ReleasedEvent,
    SourceEvent,
    Thinking,
    ThinkSplitter,
    ToolCall,
    WireError,
)
from shieldguard_adapters.wire.errors import saying
from shieldguard_adapters.wire.framing import parse_sse
from shieldguard_adapters.wire.jsons import parse_json, texts_in
from shieldguard_adapters.wire.released import origin_of, said_by
from shieldguard_adapters.wire.template import FrameTemplate

Path: TypeAlias = tuple[str | int, ...]

# What a delta or message may hold beside text.
_NOT_TEXT = frozenset({"role", "id", "name", "tool_call_id", "annotations", "citations", "signature"})
QUOTED = "failed_generation"  # in an error of Groq's
_ERROR = -2  # the position, and the block, of an error in the place of a choice or beside it
_TEXTS = frozenset({"delta", "message", "text"})  # of a choice
_LISTS = ("content", "reasoning_details", "thinking_blocks", "tool_calls")
# What a typed item may hold beside text. `data` is what an item without text hides.
_NOT_ITEM_TEXT = _NOT_TEXT | {"type", "format", "data", "status", "encrypted_content", "url"}
_NO_TEXT: tuple[Path, ...] = ()


class Frame:
    """One server-sent event, or one whole body: its bytes, and the events made of it. Its JSON is `data`,
    which is parsed when it is first asked for."""

    __slots__ = ("_body", "_choices", "_data", "events", "kept", "paths", "raw", "template")

    def __init__(
        self,
        raw: bytes,
        data: str | bytes | None = None,
        *,
        template: FrameTemplate | None = None,
        paths: Sequence[tuple[int, Path]] = (),
    ) -> None:
        self.raw = raw
        self.template = template  # that the frame was read by; its one text can be written by it, too
        self.events: list[SourceEvent] = []
        self.paths = paths  # of all texts, by position of the choice
        self.kept = 0  # characters that a splitter has not given out yet
        self._data = data
        self._body: dict[str, Any] | None = None
        self._choices: list[dict[str, Any]] = []

    @property
    def body(self) -> dict[str, Any]:
        if self._body is None:
            data = parse_sse(self.raw).data if self._data is None else self._data
            self._body = parse_json(data or "{}")
            choices = self._body.get("choices") or []
            if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
                raise WireError(f"'choices' should be a list of objects: {self.raw[:80]!r}")
            self._choices = choices
        return self._body

    @property
    def choices(self) -> list[dict[str, Any]]:
        return self._choices if self.body else []

    def without_repeats(self, key: str) -> dict[str, Any] | None:
        """The body without what some servers send beside a choice's `key`, "delta" or "message": the whole
        message again, in the last chunk; its tokens. None where there is nothing of the kind."""
        repeats = _TEXTS - {key}
        # Groq's: the tokens for debugging, and what could not be parsed.
        hidden = [
            (name, part)
            for name, part in (("x_groq", "debug"), ("error", QUOTED))
            if isinstance(holder := self.body.get(name), dict) and holder.get(part)
        ]
        if not hidden and all(repeats.isdisjoint(choice) for choice in self.choices):
            return None
        choices = [{k: v for k, v in choice.items() if k not in repeats} for choice in self.choices]
        body = {**self.body, "choices": choices} if choices else dict(self.body)
        for name, part in hidden:
            body[name] = {**body[name], part: None}
        return body

    def passthrough(self, position: int = -1, choice: int | None = None) -> list[SourceEvent]:
        event = Passthrough(choice=choice, origin=Piece(self, position, _NO_TEXT))
        self.events.append(event)
        return [event]

    def error(self) -> list[SourceEvent]:
        """What went wrong, in words that may quote the model."""
        if not (text := "\n".join(texts_in(self.body.get("error")))):
            return []
        choice = self.choices[0].get("index", 0) if self.choices else 0
        event = Answer(text, choice=choice, block=_ERROR, origin=Piece(self, _ERROR, _NO_TEXT))
        self.events.append(event)
        return [event]

    def is_whole(self, events: Sequence[ReleasedEvent]) -> bool:
        """Whether these are all of the frame's events, unchanged."""
        own = self.events
        if self.kept or len(events) != len(own):
            return False
        return events[0] is own[0] if len(own) == 1 else all(map(is_, events, own))


@dataclass(slots=True, eq=False)
class Piece:
    """Where an event comes from: the `origin` of the events of this codec."""

    frame: Frame
    position: int  # in the frame's list of choices
    paths: tuple[Path, ...]


def frame_of(event: ReleasedEvent) -> Frame | None:
    """The frame that an event is from; None for an end that the guard made."""
    piece = None if isinstance(event, Aborted) else event.origin
    return piece.frame if isinstance(piece, Piece) else None


@dataclass(frozen=True, slots=True)
class Part:
    """One text (or unreadable reasoning) of a delta. `inline`: it may hold think tags."""

    kind: type[Reasoning] | type[Answer] | type[ToolCall]
    text: str
    paths: tuple[Path, ...]
    block: int = 0
    inline: bool = False
    opaque: OpaqueKind | None = None


class ChoiceReader:
    """Makes events of one choice's deltas, over the whole of a response."""

    def __init__(self, index: int, thinking: Thinking) -> None:
        self._index = index
        self._splitter = ThinkSplitter(thinking, choice=index)
        self._fed: deque[tuple[Piece, int]] = deque()  # what the splitter keeps, and of which pieces

    def read(self, frame: Frame, position: int, key: str) -> tuple[list[SourceEvent], list[Part]]:
        """The events of `frame.choices[position]`, and the parts they are of. `key` is "delta" or
        "message"."""
        choice = frame.choices[position]
        delta = choice.get(key) or {}
        if not isinstance(delta, dict):
            raise WireError(f"a {key!r} should be an object, not {type(delta).__name__!r}")
        parts = list(_parts(delta))
        events: list[SourceEvent] = []
        for part in parts:
            frame.paths = [*frame.paths, *((position, path) for path in part.paths)]
            events += self.take(part, part.text, Piece(frame, position, part.paths))
        reason = choice.get("finish_reason")
        if reason is not None:
            events += self.flush()
            end = End(str(reason), choice=self._index, origin=Piece(frame, position, _NO_TEXT))
            frame.events.append(end)
            events.append(end)
        if not events and not any(part.inline for part in parts):
            events = frame.passthrough(position, self._index)
        return events, parts

    def take(self, part: Part, text: str, piece: "Piece") -> list[SourceEvent]:
        """The events of one part, or of one alike with another text."""
        if part.inline:
            return self._split(piece, text)
        event: SourceEvent
        if part.opaque is not None:
            event = Opaque(part.opaque, choice=self._index, origin=piece)
        else:
            event = part.kind(text, choice=self._index, block=part.block, origin=piece)
        if part.kind is Reasoning:
            self._splitter.settle()
        events = self.flush() if self._fed else []
        piece.frame.events.append(event)
        events.append(event)
        return events

    def flush(self) -> list[SourceEvent]:
        """What is kept because it might have become a tag."""
        return self._traced(self._splitter.flush()) if self._fed else []

    def _split(self, piece: "Piece", text: str) -> list[SourceEvent]:
        self._fed.append((piece, len(text)))
        piece.frame.kept += len(text)
        return self._traced(self._splitter.feed(text))

    def _traced(self, split: Iterable[SourceEvent]) -> list[SourceEvent]:
        """The splitter's events with their origin, parted where the text came from different frames."""
        events: list[SourceEvent] = []
        for event in split:
            if not isinstance(event, Reasoning | Answer | Passthrough):
                events.append(event)
                continue
            rest = event.text
            while rest:
                piece, left = self._fed.popleft()
                text, rest = rest[:left], rest[left:]
                if len(text) < left:
                    self._fed.appendleft((piece, left - len(text)))
                piece.frame.kept -= len(text)
                traced = replace(event, text=text, origin=piece)
                piece.frame.events.append(traced)
                events.append(traced)
        return events


def _parts(delta: dict[str, Any]) -> Iterator[Part]:
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
            answers.append(Part(ToolCall, _call_text(value), ((key,),)))
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
            if text := _text(item, "text"):
                answers.append(Part(Answer, text, ((key, position, "text"),), inline=True))
            item = {name: value for name, value in item.items() if name != "text"}
        found = list(_item_texts(item, (key, position)))
        texts += found
        if item.get("type") == "reasoning.summary":
            yield Part(Reasoning, "", _NO_TEXT, opaque=OpaqueKind.SUMMARISED)
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
        yield Part(ToolCall, _call_text(call), (("tool_calls", position),), block=block)


def _call_text(call: Any) -> str:
    """What there is to judge of a call or a part of one: all of its texts, whatever they are called."""
    return " ".join(_call_texts(call))


def _call_texts(value: Any) -> Iterator[str]:
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


def _text(item: dict[str, Any], key: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise WireError(f"a content item's {key!r} should be a string, not {value!r}")
    return value


def fragment(
    frame: Frame, events: Sequence[ReleasedEvent], key: str, *, begun: Set[int], edited: Set[int]
) -> dict[str, Any]:
    """The frame with the texts of these events alone. `begun`: choices whose role was sent before.
    `edited`: choices of whose reasoning some was left out, so that its signature is not true any more."""
    choices = []
    for position, source in enumerate(frame.choices):
        own = [event for event in events if origin_of(event, Piece).position == position]
        if own:
            choice = _choice(frame, position, source, own, key, begun)
            choices.append(_unsigned(choice) if choice["index"] in edited else choice)
    body = {name: value for name, value in frame.body.items() if name not in ("choices", "usage", "error")}
    body["choices"] = choices
    if errors := [event for event in events if origin_of(event, Piece).position == _ERROR]:
        body["error"] = saying(frame.body["error"], "".join(map(said_by, errors)))
    if frame.kept == 0 and events[-1] is frame.events[-1] and "usage" in frame.body:
        body["usage"] = frame.body["usage"]
    return body


def _choice(
    frame: Frame,
    position: int,
    source: dict[str, Any],
    events: Sequence[ReleasedEvent],
    key: str,
    begun: Set[int],
) -> dict[str, Any]:
    texts: dict[Path, str | None] = {path: None for where, path in frame.paths if where == position}
    delta = copy.deepcopy(source.get(key) or {})
    notices: list[dict[str, Any]] = []
    for event in events:
        paths = origin_of(event, Piece).paths
        if isinstance(event, Redacted):
            if event.channel is Channel.TOOL_CALL:
                paths = (("content",),)
                if isinstance(delta.get("content"), list):
                    notices.append({"type": "text", "text": event.notice})
                    continue
        elif isinstance(event, ToolCall | Opaque):
            for path in paths:
                texts.pop(path, None)  # leave it as it is
            continue
        for path in paths:
            texts[path] = (texts.get(path) or "") + said_by(event)
    texts = _pruned(texts)
    # From the back, so that taking an item out of a list leaves the places before it.
    for path in sorted(texts, key=_sort_key, reverse=True):
        _set(delta, path, texts[path])
    if notices:
        delta["content"] += notices
    delta = {name: value for name, value in delta.items() if value != [] or name not in _LISTS}
    if source.get("index", 0) in begun:
        delta.pop("role", None)
    # Log-probabilities spell out the text of the whole frame, so they do not go with a part of it.
    choice = {name: value for name, value in source.items() if name not in (key, "logprobs")}
    end = any(isinstance(event, End) for event in events)
    choice |= {"index": source.get("index", 0), key: delta}
    choice["finish_reason"] = source.get("finish_reason") if end else None
    return choice


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
