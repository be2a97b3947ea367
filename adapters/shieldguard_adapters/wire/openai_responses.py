"""OpenAI responses, streaming (server-sent events) and whole (JSON)."""

import copy
from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any

from shieldguard import (
    Aborted,
    Answer,
    Channel,
    OpaqueKind,
    Reasoning,
    Redacted,
    ReleasedEvent,
    SourceEvent,
    ToolCall,
)
from shieldguard_adapters.wire.codec import Termination
from shieldguard_adapters.wire.framing import SseFramer
from shieldguard_adapters.wire.jsons import comment, sse
from shieldguard_adapters.wire.openai_responses_parts import (
    ADDED,
    DONE,
    LIFECYCLE,
    META,
    TERMINAL,
    Frame,
    Item,
    Path,
    Piece,
    ResponseReader,
)
from shieldguard_adapters.wire.released import origin_of, said_by
from shieldguard_adapters.wire.whole import WholeCodec

# The last event says all of the response again, with the request's tools.
MAX_FRAME = 1 << 24
# The parts of an item: where they stand, their events, and what holds their text.
_PARTS = {
    "output_text": ("content", "response.content_part", "response.output_text", "text"),
    "refusal": ("content", "response.content_part", "response.refusal", "refusal"),
    "reasoning_text": ("content", "response.content_part", "response.reasoning_text", "text"),
    "summary_text": ("summary", "response.reasoning_summary_part", "response.reasoning_summary_text", "text"),
}
_NUMBERS = {"content": "content_index", "summary": "summary_index"}
_EMPTY: dict[str, Any] = {
    "id": "",
    "object": "response",
    "created_at": 0,
    "model": "",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


class ResponseStream:
    """The codec of a streamed response.

    `whole_thoughts`: a thought that comes with its encrypted form leaves when all of it was released, so that
    it can be left out whole; needless where the policy never redacts. `strict_output`: the caller parses the
    text, so an ending takes back what there is of it.
    """

    def __init__(
        self,
        *,
        termination: Termination | str = Termination.REFUSAL,
        whole_thoughts: bool = True,
        strict_output: bool = False,
    ) -> None:
        self._termination = Termination(termination)
        self._framer = SseFramer(max_frame=MAX_FRAME)
        self._reader = ResponseReader()
        self._writer = _Writer(whole_thoughts)
        self._strict_output = strict_output

    def decode(self, data: bytes) -> list[SourceEvent]:
        return [event for raw in self._framer.feed(data) for event in self._reader.read(raw)]

    def flush(self) -> list[SourceEvent]:
        return [event for raw in self._framer.flush() for event in self._reader.read(raw)]

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        return b"".join(
            self._writer.end(event, self._termination, strict_output=self._strict_output)
            if isinstance(event, Aborted)
            else self._writer.write(event)
            for event in events
        )

    def keep_alive(self) -> bytes:
        return b": \n\n"

    def close(self) -> bytes:
        return self._writer.kept()

    def aside(self, lines: Sequence[str]) -> bytes:
        return comment(lines)


class _Writer:
    """Writes frames, and knows what the client has been sent of the response."""

    def __init__(self, whole_thoughts: bool) -> None:
        self._whole_thoughts = whole_thoughts
        self._begun = self._ended = self._notified = self._added = False
        self._response: dict[str, Any] = {}  # as the client has it
        self._number = -1  # of the last event sent
        self._sent: list[Item] = []
        self._thought: Item | None = None  # one that is kept until all of it was released
        self._kept: list[ReleasedEvent] = []

    def write(self, event: ReleasedEvent) -> bytes:
        piece = origin_of(event, Piece)
        frame, item = piece.frame, piece.item
        if self._thought is None and self._keeps(frame):
            self._thought = item
        if self._thought is None:
            return self._write(event, piece)
        self._kept.append(event)
        if item is not self._thought:
            return b""
        if isinstance(event, Redacted):
            item.left_out = True
        return self.kept() if item.left_out or (frame.type == DONE and _carries(event)) else b""

    def kept(self) -> bytes:
        """What was kept of a thought."""
        kept, self._kept, self._thought = self._kept, [], None
        return b"".join([self._write(event, origin_of(event, Piece)) for event in kept])

    def end(self, aborted: Aborted, termination: Termination, *, strict_output: bool) -> bytes:
        """End the response, in whatever state it is."""
        out = []
        if self._thought is not None:
            self._thought.left_out = True
            out.append(self.kept())
        notice = aborted.notice
        if self._ended:
            return b"".join(out)
        self._ended = True
        if termination is Termination.ERROR:
            error = {"code": aborted.cause.value, "message": notice, "param": None}
            return b"".join([*out, self._event("error", **error, error={**error, "type": "shieldguard"})])
        response = {**_EMPTY, **{k: v for k, v in self._response.items() if k in META}}
        if not self._begun:
            out.append(self._event("response.created", response={**response, "status": "in_progress"}))
        is_refusal = termination is Termination.REFUSAL
        refusal = {"type": "refusal", "refusal": notice} if is_refusal else _text_part(notice)
        told = False
        for item in self._sent:
            if item.done:
                continue
            if strict_output and item.type == "message":
                # The text would be parsed, and is no whole text.
                content = [refusal] if is_refusal else []
                told = told or is_refusal
                out.append(self._done(item, {**item.body, "content": content}))
            else:
                out.append(self._close(item))
        if not told and (is_refusal or not strict_output):
            out.append(self._message(refusal))
        response |= {"output": [item.body for item in self._sent], **_ending(is_refusal)}
        return b"".join([*out, self._event(f"response.{response['status']}", response=response)])

    # -- frames ----------------------------------------------------------------------------------

    def _keeps(self, frame: Frame) -> bool:
        """Whether a thought begins that can only be shown as it is."""
        if not (self._whole_thoughts and frame.type == ADDED and frame.item is not None):
            return False
        return frame.item.type == "reasoning" and bool(frame.body["item"].get("encrypted_content"))

    def _write(self, event: ReleasedEvent, piece: Piece) -> bytes:
        item = piece.item
        if isinstance(event, Redacted) and (
            event.channel is Channel.TOOL_CALL or (item is not None and item.left_out)
        ):
            if self._notified:
                return b""
            self._notified = True
            return self._message(_text_part(event.notice))
        _account(event, piece)
        if not _carries(event):
            return b""
        frame = piece.frame
        if frame.type in LIFECYCLE:
            return self._lifecycle(frame)
        if frame.item is None:
            return self._changed(frame, _unlike(frame))[0]
        if isinstance(event, Reasoning | Answer | Redacted):
            same = event is frame.event
            return self._of_item(frame, frame.item, {} if same else {("delta",): said_by(event)})
        return self._of_item(frame, frame.item, {})

    def _of_item(self, frame: Frame, item: Item, changes: dict[Path, Any]) -> bytes:
        if item.left_out or (item.is_call and not item.let_out):
            return b""
        changes |= _unlike(frame)
        if changes and item.is_call:
            return b""  # it says what was refused
        begins = frame.type in (ADDED, DONE) and item.index is None
        if begins:
            item.index = len(self._sent)
            self._sent.append(item)
        if item.redacted and frame.body.get("item", {}).get("encrypted_content"):
            changes["item", "encrypted_content"] = None
        if frame.body.get("output_index", item.index) != item.index:
            changes["output_index",] = item.index
        raw, body = self._changed(frame, changes)
        self._note(frame.type, item, body)
        return raw

    def _note(self, type_: str, item: Item, body: dict[str, Any]) -> None:
        """Keep what an ending has to know of an item."""
        if type_ in (ADDED, DONE):
            item.body, item.done = body["item"], type_ == DONE
            return
        for name, number in _NUMBERS.items():
            if "part" in body and number in body:
                if type_.endswith(".added"):
                    item.parts[name, body[number]] = body["part"]
                else:
                    item.parts.pop((name, body[number]), None)

    def _lifecycle(self, frame: Frame) -> bytes:
        changes = _unlike(frame)
        is_end = frame.type in TERMINAL
        output = _output(frame, changes, self._sent if is_end else ())
        changes = {path: text for path, text in changes.items() if path[:2] != ("response", "output")}
        if output is not None:
            changes["response", "output"] = output
        raw, body = self._changed(frame, changes)
        self._response, self._begun = body["response"], True
        self._ended = self._ended or is_end
        return raw

    def _changed(self, frame: Frame, changes: dict[Path, Any]) -> tuple[bytes, dict[str, Any]]:
        """The frame with these changes, and behind what was added here with a number that still grows."""
        number = frame.body.get("sequence_number")
        if isinstance(number, int):
            if self._added and number <= self._number:
                number = self._number + 1
                changes["sequence_number",] = number
            self._number = number
        if not changes:
            return frame.raw, frame.body
        self._added = True  # a frame may be one part of several
        body = _with(frame.body, changes)
        return sse(body, frame.type), body

    # -- what is added ---------------------------------------------------------------------------

    def _event(self, type_: str, **body: Any) -> bytes:
        self._added = True
        self._number += 1
        return sse({"type": type_, "sequence_number": self._number, **body}, type_)

    def _message(self, part: dict[str, Any]) -> bytes:
        """A message of one part."""
        index = len(self._sent)
        item = Item("message", f"msg_shieldguard_{index}", -1, index=index)
        self._sent.append(item)
        message = {"type": "message", "id": item.id, "role": "assistant"}
        item.body = {**message, "status": "in_progress", "content": []}
        at = {"item_id": item.id, "output_index": index, "content_index": 0}
        _, part_event, event, key = _PARTS[part["type"]]
        more: dict[str, Any] = {"logprobs": []} if key == "text" else {}
        return b"".join(
            [
                self._event(ADDED, output_index=index, item=item.body),
                self._event(f"{part_event}.added", **at, part={**part, key: ""}),
                self._event(f"{event}.delta", **at, delta=part[key], **more),
                self._part_done(item, "content", 0, part),
                self._done(item, {**message, "status": "completed", "content": [part]}),
            ]
        )

    def _close(self, item: Item) -> bytes:
        """The end of an item that is open, with the text that was sent of it."""
        parts: dict[tuple[str, int], dict[str, Any]] = dict(item.parts)
        for slot, texts in item.texts.items():
            name, number, key = slot if len(slot) == 3 else ("", 0, "")
            text = str(texts[0].out)
            if text and isinstance(name, str) and name in _NUMBERS and isinstance(number, int):
                part = parts.get((name, number)) or _new_part(item, name, key)
                parts[name, number] = {**part, str(key): text}
        out = [
            self._part_done(item, name, number, parts[name, number])
            for name, number in item.parts
            if parts[name, number].get("type") in _PARTS
        ]
        body = {k: v for k, v in item.body.items() if k != "encrypted_content"}
        for name in _NUMBERS:
            if own := sorted(number for there, number in parts if there == name):
                body[name] = [parts[name, number] for number in own]
        return b"".join([*out, self._done(item, {**body, "status": "incomplete"})])

    def _part_done(self, item: Item, name: str, number: int, part: dict[str, Any]) -> bytes:
        _, part_event, event, key = _PARTS[part["type"]]
        at = {"item_id": item.id, "output_index": item.index, _NUMBERS[name]: number}
        more: dict[str, Any] = {"logprobs": []} if part["type"] == "output_text" else {}
        return self._event(f"{event}.done", **at, **{key: part.get(key, "")}, **more) + self._event(
            f"{part_event}.done", **at, part=part
        )

    def _done(self, item: Item, body: dict[str, Any]) -> bytes:
        item.body, item.done = body, True
        return self._event(DONE, output_index=item.index, item=body)


class ResponseBody(WholeCodec):
    """The codec of a response in one piece: made at once, or stored. `strict_output` is as in
    `ResponseStream`."""

    def __init__(self, *, strict_output: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._strict_output = strict_output
        self._frame = Frame(b"", {"response": {}})

    def _read(self, data: bytes) -> list[SourceEvent]:
        self._frame, events = ResponseReader().read_whole(data)
        return events

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        notices: dict[int, Item] = {}  # one, in the place of what was left out first
        for event in released:
            piece, item = origin_of(event, Piece), origin_of(event, Piece).item
            if isinstance(event, Redacted) and item is not None:
                if event.channel is Channel.REASONING and OpaqueKind.ENCRYPTED in item.opaque:
                    item.left_out = True
                if item.left_out or event.channel is Channel.TOOL_CALL:
                    notices = notices or {id(item): _notice_item(event.notice)}
                    continue
            _account(event, piece)
        order = []
        for item in self._frame.items:
            order += [notices[id(item)], item] if id(item) in notices else [item]
        changes = _unlike(self._frame)
        output = _output(self._frame, changes, order)
        changes = {path: text for path, text in changes.items() if path[:2] != ("response", "output")}
        if output is not None:
            changes["response", "output"] = output
        body: dict[str, Any] = _with(self._frame.body, changes)["response"]
        return body

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        own = {k: v for k, v in self._frame.body["response"].items() if k in META}
        body = {**_EMPTY, **own, "output": []}
        if self._termination is Termination.ERROR:
            error = {"code": aborted.cause.value, "message": aborted.notice}
            return {**body, "status": "failed", "incomplete_details": None, "error": error}
        is_refusal = self._termination is Termination.REFUSAL
        part = {"type": "refusal", "refusal": aborted.notice} if is_refusal else _text_part(aborted.notice)
        if is_refusal or not self._strict_output:
            body["output"] = [{**_notice_item(aborted.notice).body, "content": [part]}]
        return body | _ending(is_refusal)


def _carries(event: ReleasedEvent) -> bool:
    """Whether this event, or one that it was cut from, is the one its frame is written with."""
    piece = origin_of(event, Piece)
    own = piece.frame.event
    return own is not None and getattr(own, "origin", None) is piece


def _account(event: ReleasedEvent, piece: Piece) -> None:
    """Note what is let out."""
    if isinstance(event, ToolCall):
        assert piece.item is not None
        piece.item.let_out = True
        for text, new in piece.grown:
            text.out.add(new)
    elif isinstance(event, Reasoning | Answer | Redacted):
        assert piece.item is not None
        piece.grown[0][0].out.add(said_by(event))
        piece.item.redacted = piece.item.redacted or isinstance(event, Redacted)


def _unlike(frame: Frame) -> dict[Path, Any]:
    """What a frame says otherwise than it was let out, and what was."""
    return {path: str(text.out) for path, text, said in frame.says if str(text.out) != said}


def _output(frame: Frame, changes: dict[Path, Any], order: Iterable[Item]) -> list[Any] | None:
    """The items of a whole response, in this order; None where nothing changed. `order` may have items that
    were added here."""
    whole = frame.body["response"].get("output")
    if not isinstance(whole, list):
        return None
    values: dict[int, Any] = {}
    for place, (item, value) in enumerate(zip(frame.items, whole, strict=True)):
        own = {path[3:]: text for path, text in changes.items() if path[:3] == ("response", "output", place)}
        if item.left_out or (item.is_call and (own or not item.let_out)):
            continue
        if item.redacted and value.get("encrypted_content"):
            own["encrypted_content",] = None
        values[id(item)] = _with(value, own) if own else value
    output = []
    for item in order:
        if id(item) in values:
            output.append(values.pop(id(item)))
        elif item.block < 0:
            output.append(item.body)
    output += values.values()
    return None if len(output) == len(whole) and all(map(is_, output, whole)) else output


def _with(body: dict[str, Any], changes: dict[Path, Any]) -> dict[str, Any]:
    """A copy with these changes. What spells out or quotes a text goes where the text changes."""
    body = copy.deepcopy(body)
    for path, value in changes.items():
        holder: Any = body
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        if isinstance(holder, dict) and path[-1] in ("text", "delta"):
            holder.pop("obfuscation", None)
            holder.update({name: [] for name in ("logprobs", "annotations") if holder.get(name)})
    return body


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _new_part(item: Item, name: str, key: str | int) -> dict[str, Any]:
    if name == "summary":
        return {"type": "summary_text"}
    if item.type == "reasoning":
        return {"type": "reasoning_text"}
    return {"type": "refusal"} if key == "refusal" else _text_part("")


def _notice_item(notice: str) -> Item:
    item = Item("message", "msg_shieldguard", -1)
    item.body = {"type": "message", "id": item.id, "role": "assistant", "status": "completed"}
    item.body["content"] = [_text_part(notice)]
    return item


def _ending(is_refusal: bool) -> dict[str, Any]:
    """How a response says that it was ended."""
    if is_refusal:
        return {"status": "completed", "incomplete_details": None, "error": None}
    return {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "error": None}
