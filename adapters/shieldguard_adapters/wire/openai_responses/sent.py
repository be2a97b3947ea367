"""What the client has been sent of a response: its items, and events that are numbered."""

from typing import Any

from shieldguard_adapters.wire.jsons import sse
from shieldguard_adapters.wire.openai_responses.edits import Edits, edited
from shieldguard_adapters.wire.openai_responses.ending import message, text_part
from shieldguard_adapters.wire.openai_responses.frame import Frame, Item
from shieldguard_adapters.wire.openai_responses.names import ADDED, DONE, NUMBERS, PARTS


class Sent:
    """Writes frames and what is added to them, each numbered as the client has it."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._number = -1  # of the last event
        self._added = False  # whether more events were sent than came

    def frame(self, frame: Frame, edits: Edits) -> tuple[bytes, dict[str, Any]]:
        """The frame with these edits, and behind what was added here with a number that still grows; and its
        body."""
        number = frame.body.get("sequence_number")
        if isinstance(number, int):
            if self._added and number <= self._number:
                number = self._number + 1
                edits["sequence_number",] = number
            self._number = number
        if not edits:
            return frame.raw, frame.body
        self._added = True  # a frame may be one part of several
        body = edited(frame.body, edits)
        return sse(body, frame.type), body

    def of_item(self, item: Item, frame: Frame, edits: Edits) -> bytes:
        """A frame of this item, which begins with its first."""
        if frame.type in (ADDED, DONE) and item.index is None:
            item.index = len(self.items)
            self.items.append(item)
        if frame.body.get("output_index", item.index) != item.index:
            edits["output_index",] = item.index
        raw, body = self.frame(frame, edits)
        if frame.type in (ADDED, DONE):
            item.body, item.done = body["item"], frame.type == DONE
            return raw
        if frame.part is not None:
            if frame.type.endswith(".added"):
                item.parts[frame.part] = body["part"]
            else:
                item.parts.pop(frame.part, None)
        return raw

    def event(self, type_: str, **body: Any) -> bytes:
        """An event that is added."""
        self._added = True
        self._number += 1
        return sse({"type": type_, "sequence_number": self._number, **body}, type_)

    def message(self, part: dict[str, Any]) -> bytes:
        """A message of one part, which is added."""
        index = len(self.items)
        item = Item("message", f"msg_shieldguard_{index}", -1, index=index)
        item.body = message(item.id, status="in_progress")
        self.items.append(item)
        at = {"item_id": item.id, "output_index": index, "content_index": 0}
        _, part_event, event, key = PARTS[part["type"]]
        more: dict[str, Any] = {"logprobs": []} if key == "text" else {}
        return b"".join(
            [
                self.event(ADDED, output_index=index, item=item.body),
                self.event(f"{part_event}.added", **at, part={**part, key: ""}),
                self.event(f"{event}.delta", **at, delta=part[key], **more),
                self._part_done(item, "content", 0, part),
                self.done(item, message(item.id, part)),
            ]
        )

    def close(self, item: Item) -> bytes:
        """The end of an item that is open, with the text that was sent of it."""
        parts: dict[tuple[str, int], dict[str, Any]] = dict(item.parts)
        for slot, texts in item.texts.items():
            name, number, key = slot if len(slot) == 3 else ("", 0, "")
            text = texts[0].out.getvalue()
            if text and isinstance(name, str) and name in NUMBERS and isinstance(number, int):
                part = parts.get((name, number)) or _new_part(item, name, key)
                parts[name, number] = {**part, str(key): text}
        out = [
            self._part_done(item, name, number, parts[name, number])
            for name, number in item.parts
            if str(parts[name, number].get("type")) in PARTS
        ]
        body = {k: v for k, v in item.body.items() if k != "encrypted_content"}
        for name in NUMBERS:
            if own := sorted(number for there, number in parts if there == name):
                body[name] = [parts[name, number] for number in own]
        return b"".join([*out, self.done(item, {**body, "status": "incomplete"})])

    def done(self, item: Item, body: dict[str, Any]) -> bytes:
        """The end of an item, which the client then has like this."""
        item.body, item.done = body, True
        return self.event(DONE, output_index=item.index, item=body)

    def _part_done(self, item: Item, name: str, number: int, part: dict[str, Any]) -> bytes:
        _, part_event, event, key = PARTS[part["type"]]
        at = {"item_id": item.id, "output_index": item.index, NUMBERS[name]: number}
        more: dict[str, Any] = {"logprobs": []} if part["type"] == "output_text" else {}
        return self.event(f"{event}.done", **at, **{key: part.get(key, "")}, **more) + self.event(
            f"{part_event}.done", **at, part=part
        )


def _new_part(item: Item, name: str, key: str | int) -> dict[str, Any]:
    if name == "summary":
        return {"type": "summary_text"}
    if item.type == "reasoning":
        return {"type": "reasoning_text"}
    return {"type": "refusal"} if key == "refusal" else text_part("")
