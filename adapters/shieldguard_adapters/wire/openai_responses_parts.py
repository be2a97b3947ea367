"""What the frames of a response say: a response is a list of items (thoughts, messages, calls), and says each
of their texts several times: in deltas, when the text is done, when its part is, when its item is, and when
all is.

So a text is kept here beside what came of it. A frame that repeats exactly that gives no event; one that says
more gives an event of the rest; one that says something else gives an event of all that it says. What is
said is thus judged wherever it is said.
"""

import itertools
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Any, TypeAlias

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
from shieldguard_adapters.wire.jsons import parse_json

Path: TypeAlias = tuple[str | int, ...]

TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
LIFECYCLE = TERMINAL | {"response.created", "response.queued", "response.in_progress"}
ADDED, DONE = "response.output_item.added", "response.output_item.done"
# Of a response, what is no text of the model's: what was asked, and how it went.
META = frozenset(
    {
        *("id", "object", "status", "created_at", "completed_at", "model", "error", "incomplete_details"),
        *("usage", "service_tier", "background", "conversation", "previous_response_id", "prompt", "store"),
        *("instructions", "metadata", "tools", "tool_choice", "parallel_tool_calls", "max_tool_calls"),
        *("text", "reasoning", "temperature", "top_p", "top_logprobs", "max_output_tokens", "truncation"),
        *("image", "access_programs", "input_transformations", "moderation", "prompt_cache_diagnostics"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "user"),
        *("tool_usage", "frequency_penalty", "presence_penalty", "content_filters", "deleted"),
        *("kv_transfer_params", "ec_transfer_params", "metrics"),
    }
)
# Of an item and its parts, what is no text of the model's.
_NOT_TEXT = frozenset(
    {
        *("id", "type", "status", "role", "phase", "item_id", "call_id", "created_by", "caller", "logprobs"),
        *("encrypted_content", "obfuscation", "format", "signature", "container_id", "fingerprint"),
        *("approval_request_id", "execution", "event_id", "response_id"),
    }
)
_ERROR_NOT_TEXT = _NOT_TEXT | {"code", "param"}  # its message may quote what could not be parsed
_CITED = frozenset({"url", "title", "filename", "file_id"})  # by an annotation: not the model's words
# The texts that come in deltas: where they stand in an item.
_TEXTS = {
    "response.output_text": ("content", "content_index", "text"),
    "response.refusal": ("content", "content_index", "refusal"),
    "response.reasoning_text": ("content", "content_index", "text"),
    "response.reasoning_summary_text": ("summary", "summary_index", "text"),
}
_PARTS = {
    "response.content_part": ("content", "content_index"),
    "response.reasoning_part": ("content", "content_index"),  # of vLLM
    "response.reasoning_summary_part": ("summary", "summary_index"),
}
_CALL_DELTAS: dict[str, Path] = {
    "response.function_call_arguments.delta": ("arguments",),
    "response.mcp_call_arguments.delta": ("arguments",),
    "response.custom_tool_call_input.delta": ("input",),
    "response.code_interpreter_call_code.delta": ("code",),
}
# What no judge of text can judge.
_UNREADABLE = frozenset({"output_audio", "audio", "output_image", "image_generation_call"})


_IMAGE = re.compile(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/]*={0,2}")


class Grown:
    """A text that comes in pieces."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    def __str__(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""


@dataclass(slots=True, eq=False)
class Text:
    """One text: what came of it, and what was let out (with a notice, where some was left out)."""

    block: int
    came: Grown = field(default_factory=Grown)
    out: Grown = field(default_factory=Grown)


@dataclass(slots=True, eq=False)
class Item:
    """One item of the response. What is below `opaque` is for the one who writes."""

    type: str
    id: str
    block: int
    texts: dict[Path, list[Text]] = field(default_factory=dict)  # by place, all that was said there
    opaque: set[OpaqueKind] = field(default_factory=set)

    index: int | None = None  # where the client has it
    body: dict[str, Any] = field(default_factory=dict)  # as the client has it
    parts: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)  # those that are open
    done: bool = False
    let_out: bool = False  # of a call: whether it was
    left_out: bool = False
    redacted: bool = False

    @property
    def is_call(self) -> bool:
        """Whether it leaves whole or not at all: a call, what came of one, and all that nobody knows."""
        return self.type not in ("message", "reasoning")


@dataclass(slots=True, eq=False)
class Frame:
    """One server-sent event, or one whole body (as that of an event, under "response")."""

    raw: bytes
    body: dict[str, Any]
    item: Item | None = None
    says: list[tuple[Path, Text, str]] = field(default_factory=list)
    read: set[str] = field(default_factory=set)  # keys of the body that events were made of
    items: list[Item] = field(default_factory=list)  # of a whole response
    event: SourceEvent | None = None  # the last one: with it the frame is written
    type: str = field(init=False)

    def __post_init__(self) -> None:
        self.type = str(self.body.get("type", ""))


@dataclass(slots=True, eq=False)
class Piece:
    """Where an event comes from: the `origin` of the events of this codec. `grown`: what it adds to which
    texts."""

    frame: Frame
    item: Item | None = None
    grown: tuple[tuple[Text, str], ...] = ()


class ResponseReader:
    """Makes events of what is said of one response."""

    def __init__(self) -> None:
        self._begun = False
        self._items: dict[int, Item] = {}
        self._calling: set[int] = set()  # calls that have begun and are not done
        self._blocks = itertools.count()
        self._own = Item("message", "", next(self._blocks))  # what stands in no item

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
        events = self._events(frame)
        self._check_known(frame)
        return self._closed(frame, events)

    def read_whole(self, data: bytes) -> tuple[Frame, list[SourceEvent]]:
        """A response in one piece."""
        frame = Frame(data, {"response": parse_json(data)})
        events = self._response(frame)
        return frame, [*events, _end(frame)]

    def _closed(self, frame: Frame, events: list[SourceEvent]) -> list[SourceEvent]:
        """With a last event, if there is none yet, that the frame is written with."""
        if frame.event is None:
            frame.event = Passthrough(choice=0, origin=Piece(frame, frame.item))
            events.append(frame.event)
        return events

    def _events(self, frame: Frame) -> list[SourceEvent]:
        type_, body = frame.type, frame.body
        if type_ in LIFECYCLE:
            self._begun = True
            if type_ in TERMINAL:
                self._calling.clear()
            events = self._response(frame)
            if type_ in TERMINAL:
                frame.event = _end(frame)
                events.append(frame.event)
            return events
        if type_ == "error":
            self._calling.clear()
            frame.read.update(("code", "param"))
            return [
                event
                for key in ("message", "error")
                for event in self._say(frame, self._own, (key,), ("error",), _ERROR_NOT_TEXT)
            ]
        index = body["output_index"] if "output_index" in body else self._index_of(body)
        if index is None:
            return []
        if not isinstance(index, int):
            raise WireError(f"'output_index' should be a number, not {index!r}")
        if type_ == ADDED:
            return self._begin(frame, index)
        if type_ == DONE and index not in self._items and self._begun:
            self._items[index] = self._new(body.get("item"))
        if (item := self._items.get(index)) is None:
            raise WireError(
                f"{type_!r} is of item {index!r}, which has not begun; a stream that starts in the middle "
                "(starting_after) cannot be guarded, ask for all of it"
            )
        frame.item = item
        if type_ == DONE:
            self._calling.discard(index)
            return self._item(frame, item, ("item",))
        if item.is_call:
            return self._call(frame, item)
        stem, _, ending = type_.rpartition(".")
        if stem in _TEXTS and ending in ("delta", "done"):
            return self._text(frame, item, stem, ending)
        if stem in _PARTS and ending in ("added", "done"):
            name, number = _PARTS[stem]
            return self._say(frame, item, ("part",), (name, _number(body, number)))
        if type_ == "response.output_text.annotation.added":
            return self._say(frame, item, ("annotation",), ("annotations",), _NOT_TEXT | _CITED)
        return []

    def _check_known(self, frame: Frame) -> None:
        """Raise for text that no event was made of. Without text, a frame says how things stand."""
        rest = {key: value for key, value in frame.body.items() if key not in frame.read}
        for _, said in _strings(rest, _NOT_TEXT):
            raise WireError(
                f"an event of type {frame.type!r} holds {said!r:.80} where no text is known; not passed on"
            )

    def _index_of(self, body: dict[str, Any]) -> int | None:
        """The item of a frame that does not number it, as llama.cpp's do not."""
        item = body.get("item")
        name = body.get("item_id") or (_name(item) if isinstance(item, dict) else "")
        for index, known in self._items.items():
            if name and known.id == name:
                return index
        return len(self._items) if body.get("type") == ADDED else None

    # -- items -----------------------------------------------------------------------------------

    def _begin(self, frame: Frame, index: int) -> list[SourceEvent]:
        if not self._begun:
            raise WireError(
                f"item {index!r} begins before its response does; a stream that starts in the middle "
                "(starting_after) cannot be guarded, ask for all of it"
            )
        if index in self._items:
            raise WireError(f"item {index!r} begins for the second time")
        if frame.body.get("item") is None:
            return []
        frame.item = self._items[index] = item = self._new(frame.body["item"])
        if not item.is_call:
            self._check_calls(item)
        events = self._item(frame, item, ("item",))
        if item.is_call:
            self._calling.add(index)
        return events

    def _new(self, value: Any) -> Item:
        if not isinstance(value, dict):
            raise WireError(f"an item should be an object, not {value!r:.80}")
        return Item(str(value.get("type")), _name(value), next(self._blocks))

    def _item(self, frame: Frame, item: Item, path: Path) -> list[SourceEvent]:
        """What a frame says of a whole item."""
        value = _at(frame.body, path)
        if not isinstance(value, dict) or str(value.get("type")) != item.type:
            raise WireError(f"an item of type {item.type!r} became {value!r:.80}")
        events: list[SourceEvent] = []
        is_complete = frame.type != ADDED
        if value.get("encrypted_content"):
            events += self._opaque(frame, item, OpaqueKind.ENCRYPTED)
        events += self._say(frame, item, path, (), begins=item.is_call and not item.texts)
        if item.type == "reasoning" and is_complete and not item.texts and not item.opaque:
            events += self._opaque(frame, item, OpaqueKind.HIDDEN)
        return events

    def _response(self, frame: Frame) -> list[SourceEvent]:
        """What a frame says of the whole response."""
        response = frame.body.get("response")
        if not isinstance(response, dict):
            raise WireError(f"'response' should be an object, not {response!r:.80}")
        output = response.get("output") or []
        if not isinstance(output, list):
            raise WireError(f"'output' should be a list of items, not {output!r:.80}")
        events: list[SourceEvent] = []
        for place, value in enumerate(output):
            item = self._match(place, value)
            frame.items.append(item)
            events += self._item(frame, item, ("response", "output", place))
        frame.read.add("response")
        for name in response:
            if name == "error":
                path = ("response", name)
                events += self._say(frame, self._own, path, ("error",), _ERROR_NOT_TEXT)
            elif name not in META and name != "output":
                events += self._say(frame, self._own, ("response", name), ("response", name))
        return events

    def _match(self, place: int, value: Any) -> Item:
        """The item that this is said of: the one of this name, or in this place."""
        new = self._new(value)
        for item in self._items.values():
            if new.id and (item.type, item.id) == (new.type, new.id):
                return item
        there = self._items.get(place)
        return there if there is not None and there.type == new.type else new

    # -- texts -----------------------------------------------------------------------------------

    def _text(self, frame: Frame, item: Item, stem: str, ending: str) -> list[SourceEvent]:
        name, number, key = _TEXTS[stem]
        slot = (name, _number(frame.body, number), key)
        if ending == "done":
            where = "refusal" if key == "refusal" else "text"
            return self._say(frame, item, (where,), slot)
        delta = frame.body.get("delta")
        if not isinstance(delta, str):
            raise WireError(f"'delta' should be a string, not {delta!r:.80}")
        frame.read.add("delta")
        if not delta:
            return []
        events = self._summarised(frame, item, slot)
        text = item.texts.setdefault(slot, [Text(next(self._blocks))])[-1]
        text.came.add(delta)
        frame.event = self._of_text(frame, item, text, delta)
        return [*events, frame.event]

    def _say(
        self,
        frame: Frame,
        item: Item,
        path: Path,
        slot: Path,
        not_text: Set[str] = _NOT_TEXT,
        *,
        begins: bool = False,
    ) -> list[SourceEvent]:
        """The events of what stands at `path` of the frame, as far as it was not said before. `slot` is its
        place in the item. `begins`: of a call, there is an event though nothing is said."""
        events: list[SourceEvent] = []
        grown: list[tuple[Text, str]] = []
        frame.read.update([str(path[0])] if path else frame.body)
        for where, said in _strings(_at(frame.body, path), not_text):
            text, new = self._said(item, (*slot, *where), said)
            frame.says.append(((*path, *where), text, said))
            if new and item.is_call:
                grown.append((text, new))
            elif new:
                events += self._summarised(frame, item, (*slot, *where))
                events.append(self._of_text(frame, item, text, new))
        if grown or begins:
            # With a space, so that it does not run into what follows in the same call.
            judged = " ".join([*(new for _, new in grown), ""])
            call = ToolCall(judged, block=item.block, origin=Piece(frame, item, tuple(grown)))
            events.append(call)
            if frame.item is item:
                frame.event = call
        return events

    def _said(self, item: Item, slot: Path, said: str) -> tuple[Text, str]:
        """The text that this is, and what is new of it."""
        texts = item.texts.setdefault(slot, [])
        for text in texts:
            if str(text.came) == said:
                return text, ""
        if texts and said.startswith(so_far := str(texts[-1].came)):
            text, new = texts[-1], said[len(so_far) :]
        else:
            text, new = Text(next(self._blocks)), said
            texts.append(text)
        text.came.add(new)
        return text, new

    def _of_text(self, frame: Frame, item: Item, text: Text, new: str) -> SourceEvent:
        self._check_calls(item)
        kind = Reasoning if item.type == "reasoning" else Answer
        return kind(new, block=text.block, origin=Piece(frame, item, ((text, new),)))

    def _check_calls(self, item: Item) -> None:
        if self._calling:
            raise WireError(
                f"an item of type {item.type!r} goes on in the middle of a tool call (item "
                f"{min(self._calling)!r}), which could then leave before all of it was judged"
            )

    def _summarised(self, frame: Frame, item: Item, slot: Path) -> list[SourceEvent]:
        return self._opaque(frame, item, OpaqueKind.SUMMARISED) if slot[0] == "summary" else []

    def _opaque(self, frame: Frame, item: Item, kind: OpaqueKind) -> list[SourceEvent]:
        """Once for each item, that there is reasoning that cannot be read."""
        if kind in item.opaque:
            return []
        item.opaque.add(kind)
        return [Opaque(kind, origin=Piece(frame, item))]

    # -- calls -----------------------------------------------------------------------------------

    def _call(self, frame: Frame, item: Item) -> list[SourceEvent]:
        body = frame.body
        delta = body.get("delta")
        if isinstance(delta, str) and delta:
            slot = _CALL_DELTAS.get(frame.type, (frame.type, str(body.get("command_index", ""))))
            if frame.type == "response.shell_call_command.delta":
                slot = ("action", "commands", _number(body, "command_index"))
            frame.read.add("delta")
            text = item.texts.setdefault(slot, [Text(item.block)])[-1]
            text.came.add(delta)
            frame.event = ToolCall(delta, block=item.block, origin=Piece(frame, item, ((text, delta),)))
            return [frame.event]
        if "partial_image_b64" in body:
            raise WireError("the response holds an image, which cannot be judged; ask for text alone")
        if frame.type.startswith("response.shell_call_command."):
            return self._say(
                frame, item, ("command",), ("action", "commands", _number(body, "command_index"))
            )
        return self._say(frame, item, (), ())


def _name(item: dict[str, Any]) -> str:
    return str(item.get("id") or item.get("call_id") or "")


def _end(frame: Frame) -> End:
    response = frame.body["response"]
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return End(str(reason or response.get("status")), origin=Piece(frame))


def _strings(value: Any, not_text: Set[str]) -> Iterator[tuple[Path, str]]:
    """All texts in what a frame says, whatever they are called, and where they stand in it."""
    if isinstance(value, str):
        if value and not _IMAGE.fullmatch(value):
            yield (), value
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            for path, text in _strings(inner, not_text):
                yield (place, *path), text
    elif isinstance(value, dict):
        if (kind := str(value.get("type"))) in _UNREADABLE:
            raise WireError(f"the response holds {kind!r}, which cannot be judged; ask for text alone")
        for key, inner in value.items():
            if key not in not_text:
                skipped = not_text | _CITED if key == "annotations" else not_text
                for path, text in _strings(inner, skipped):
                    yield (key, *path), text


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key] if isinstance(key, int) else value.get(key)
    return value


def _number(body: dict[str, Any], key: str) -> int:
    value = body.get(key, 0)
    if not isinstance(value, int):
        raise WireError(f"{key!r} should be a number, not {value!r}")
    return value
