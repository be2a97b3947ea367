"""Makes events of what the frames of a response say."""

from collections.abc import Set
from typing import Any

from shieldguard import (
    Answer,
    End,
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    SourceEvent,
    ToolCall,
    WireError,
)
from shieldguard_adapters.wire.framing import parse_sse
from shieldguard_adapters.wire.jsons import Path, parse_json, value_at
from shieldguard_adapters.wire.openai_responses.frame import Frame, Item, Piece, Text
from shieldguard_adapters.wire.openai_responses.items import Items
from shieldguard_adapters.wire.openai_responses.names import ADDED, DONE, LIFECYCLE, NUMBERS, PARTS, TERMINAL
from shieldguard_adapters.wire.openai_responses.texts import CITED, ERROR_NOT_TEXT, META, NOT_TEXT, texts_of

# By the stem of their events: where texts that come in deltas stand in an item, and where parts do.
_TEXTS = {stem: (name, key) for name, _, stem, key in PARTS.values()}
_PARTS = {stem: name for name, stem, _, _ in PARTS.values()}
_PARTS["response.reasoning_part"] = "content"  # of vLLM
_CALL_DELTAS: dict[str, Path] = {
    "response.function_call_arguments.delta": ("arguments",),
    "response.mcp_call_arguments.delta": ("arguments",),
    "response.custom_tool_call_input.delta": ("input",),
    "response.code_interpreter_call_code.delta": ("code",),
}


class ResponseReader:
    """Makes the events of one response. The last of a frame is one that the frame is written with."""

    def __init__(self) -> None:
        self._items = Items()

    def read(self, raw: bytes) -> list[SourceEvent]:
        """The events of one frame."""
        sent = parse_sse(raw)
        data = (sent.data or "").strip()
        if data in ("", "[DONE]"):
            silent = Frame(raw, {})
            silent.event = Passthrough(origin=Piece(silent))
            return [silent.event]
        frame = Frame(raw, parse_json(data))
        sent.check_type(frame.type)
        if not frame.type.isprintable():  # it is written as a line
            raise WireError(f"the type of an event should be a line of text, not {frame.type!r:.80}")
        events = self._events(frame)
        _check_known(frame)
        if frame.event is None:
            frame.event = Passthrough(choice=0, origin=Piece(frame, frame.item))
            events.append(frame.event)
        return events

    def read_whole(self, data: bytes) -> tuple[Frame, list[SourceEvent]]:
        """A response in one piece, read as the end of a stream."""
        frame = Frame(data, {"type": "response.completed", "response": parse_json(data)})
        return frame, self._events(frame)

    def _events(self, frame: Frame) -> list[SourceEvent]:
        type_, body = frame.type, frame.body
        if type_ in LIFECYCLE:
            return self._response(frame)
        if type_ == "error":
            self._items.all_done()
            frame.read.update(("code", "param"))
            return [
                event
                for key in ("message", "error")
                for event in self._say(frame, self._items.own, (key,), ("error",), ERROR_NOT_TEXT)
            ]
        if (index := self._items.index_of(body)) is None:
            return []
        if type_ == ADDED:
            frame.item = self._items.begin(index, body.get("item"))
            return self._item(frame, frame.item, ("item",)) if frame.item else []
        if type_ == DONE:
            frame.item = self._items.done(index, body.get("item"))
            return self._item(frame, frame.item, ("item",))
        frame.item = item = self._items.at(index, type_)
        _object(body.get("item") or {}, "item")
        if item.is_call:
            return self._call(frame, item)
        stem, _, ending = type_.rpartition(".")
        if stem in _TEXTS and ending in ("delta", "done"):
            return self._text(frame, item, stem, ending)
        if stem in _PARTS and ending in ("added", "done"):
            name = _PARTS[stem]
            frame.part = (name, _number(body, NUMBERS[name]))
            _object(body.get("part"), "part")
            return self._say(frame, item, ("part",), frame.part)
        if type_ == "response.output_text.annotation.added":
            return self._say(frame, item, ("annotation",), ("annotations",), NOT_TEXT | CITED)
        return []

    def _response(self, frame: Frame) -> list[SourceEvent]:
        """What a frame says of the whole response."""
        self._items.begun = True
        if frame.type in TERMINAL:
            self._items.all_done()
        response = _object(frame.body.get("response"), "response")
        output = response.get("output") or []
        if not isinstance(output, list):
            raise WireError(f"'output' should be a list of items, not {output!r:.80}")
        events: list[SourceEvent] = []
        for place, value in enumerate(output):
            item = self._items.match(place, value)
            frame.items.append(item)
            events += self._item(frame, item, ("response", "output", place))
        frame.read.add("response")
        for name in response:
            path = ("response", name)
            if name == "error":
                events += self._say(frame, self._items.own, path, ("error",), ERROR_NOT_TEXT)
            elif name not in META and name != "output":
                events += self._say(frame, self._items.own, path, path)
        if frame.type in TERMINAL:
            details = response.get("incomplete_details")
            reason = details.get("reason") if isinstance(details, dict) else None
            frame.event = End(str(reason or response.get("status")), origin=Piece(frame))
            events.append(frame.event)
        return events

    def _item(self, frame: Frame, item: Item, path: Path) -> list[SourceEvent]:
        """What a frame says of a whole item."""
        value = value_at(frame.body, path)
        if not isinstance(value, dict) or str(value.get("type")) != item.type:
            raise WireError(f"an item of type {item.type!r} became {value!r:.80}")
        events: list[SourceEvent] = []
        if value.get("encrypted_content"):
            events += _opaque(frame, item, OpaqueKind.ENCRYPTED)
        events += self._say(frame, item, path, (), begins=item.is_call and not item.texts)
        is_complete = frame.type != ADDED
        if item.type == "reasoning" and is_complete and not item.texts and not item.opaque:
            events += _opaque(frame, item, OpaqueKind.HIDDEN)
        return events

    def _text(self, frame: Frame, item: Item, stem: str, ending: str) -> list[SourceEvent]:
        name, key = _TEXTS[stem]
        slot = (name, _number(frame.body, NUMBERS[name]), key)
        if ending == "done":
            return self._say(frame, item, (key,), slot)
        delta = frame.body.get("delta")
        if not isinstance(delta, str):
            raise WireError(f"'delta' should be a string, not {delta!r:.80}")
        frame.read.add("delta")
        return self._delta(frame, item, slot, delta) if delta else []

    def _call(self, frame: Frame, item: Item) -> list[SourceEvent]:
        body = frame.body
        delta = body.get("delta")
        if isinstance(delta, str) and delta:
            slot = _CALL_DELTAS.get(frame.type, (frame.type, str(body.get("command_index", ""))))
            if frame.type == "response.shell_call_command.delta":
                slot = ("action", "commands", _number(body, "command_index"))
            frame.read.add("delta")
            return self._delta(frame, item, slot, delta)
        if "partial_image_b64" in body:
            raise WireError("the response holds an image, which cannot be judged; ask for text alone")
        if frame.type.startswith("response.shell_call_command."):
            slot = ("action", "commands", _number(body, "command_index"))
            return self._say(frame, item, ("command",), slot)
        return self._say(frame, item, (), ())

    def _delta(self, frame: Frame, item: Item, slot: Path, delta: str) -> list[SourceEvent]:
        events = _summarised(frame, item, slot)
        text = self._items.grown(item, slot, delta)
        frame.event = self._event(frame, item, text, delta)
        return [*events, frame.event]

    def _say(
        self,
        frame: Frame,
        item: Item,
        path: Path,
        slot: Path,
        not_text: Set[str] = NOT_TEXT,
        *,
        begins: bool = False,
    ) -> list[SourceEvent]:
        """The events of what stands at `path` of the frame, as far as it was not said before. `slot` is its
        place in the item. `begins`: of a call, there is an event though nothing is said."""
        events: list[SourceEvent] = []
        grown: list[tuple[Text, str]] = []
        frame.read.update([str(path[0])] if path else frame.body)
        for where, said in texts_of(value_at(frame.body, path), not_text):
            text, new = self._items.said(item, (*slot, *where), said)
            frame.says.append(((*path, *where), text, said))
            if new and item.is_call:
                grown.append((text, new))
            elif new:
                events += _summarised(frame, item, (*slot, *where))
                events.append(self._event(frame, item, text, new))
        if grown or begins:
            # With a space, so that it does not run into what follows in the same call.
            judged = " ".join([*(new for _, new in grown), ""])
            call = ToolCall(judged, block=item.block, origin=Piece(frame, item, tuple(grown)))
            events.append(call)
            if frame.item is item:
                frame.event = call
        return events

    def _event(self, frame: Frame, item: Item, text: Text, new: str) -> SourceEvent:
        piece = Piece(frame, item, ((text, new),))
        if item.is_call:
            return ToolCall(new, block=item.block, origin=piece)
        self._items.check_calls(item)
        kind = Reasoning if item.type == "reasoning" else Answer
        return kind(new, block=text.block, origin=piece)


def _check_known(frame: Frame) -> None:
    """Raise for text that no event was made of. Without text, a frame says how things stand."""
    rest = {key: value for key, value in frame.body.items() if key not in frame.read}
    for _, said in texts_of(rest, NOT_TEXT):
        raise WireError(
            f"an event of type {frame.type!r} holds {said!r:.80} where no text is known; not passed on"
        )


def _summarised(frame: Frame, item: Item, slot: Path) -> list[SourceEvent]:
    return _opaque(frame, item, OpaqueKind.SUMMARISED) if slot[0] == "summary" else []


def _opaque(frame: Frame, item: Item, kind: OpaqueKind) -> list[SourceEvent]:
    """Once for each item, that there is reasoning that cannot be read."""
    if kind in item.opaque:
        return []
    item.opaque.add(kind)
    return [Opaque(kind, origin=Piece(frame, item))]


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WireError(f"{name!r} should be an object, not {value!r:.80}")
    return value


def _number(body: dict[str, Any], key: str) -> int:
    value = body.get(key, 0)
    if not isinstance(value, int):
        raise WireError(f"{key!r} should be a number, not {value!r}")
    return value
