"""The items that come of a response, and what is new of what is said of them.

A response says each text several times: in deltas, when the text is done, when its part is, when its item is,
and when all is. So what came of it is kept. What repeats exactly that is nothing new; of what says more, the
rest is, and of what says something else, all. What is said is thus judged wherever it is said.
"""

import itertools
from typing import Any

from shieldguard import WireError
from shieldguard_adapters.wire.jsons import Path
from shieldguard_adapters.wire.openai_responses.frame import Item, Text
from shieldguard_adapters.wire.openai_responses.names import ADDED, DONE

_MIDDLE = "a stream that starts in the middle (starting_after) cannot be guarded, ask for all of it"


class Items:
    """The items that came of one response, and what is new of what is said of them. Raises `WireError` for
    what comes at a time at which it cannot be told what it adds to, or in the middle of a call."""

    def __init__(self) -> None:
        self.begun = False  # whether the response has
        self._items: dict[int, Item] = {}
        self._calling: set[int] = set()  # calls that have begun and are not done
        self._blocks = itertools.count()
        self.own = self._new({"type": "message"})  # what stands in no item

    def index_of(self, body: dict[str, Any]) -> int | None:
        """Of the item that a frame is of; None for a frame of no item."""
        if "output_index" in body:
            index = body["output_index"]
            if not isinstance(index, int | None):
                raise WireError(f"'output_index' should be a number, not {index!r}")
            return index
        # llama.cpp's frames do not number their items.
        item = body.get("item")
        name = body.get("item_id") or (_name(item) if isinstance(item, dict) else "")
        for index, known in self._items.items():
            if name and known.id == name:
                return index
        return len(self._items) if body.get("type") == ADDED else None

    def begin(self, index: int, value: Any) -> Item | None:
        """A new item; None where nothing is said of it."""
        if not self.begun:
            raise WireError(f"item {index!r} begins before its response does; {_MIDDLE}")
        if index in self._items:
            raise WireError(f"item {index!r} begins for the second time")
        if value is None:
            return None
        self._items[index] = item = self._new(value)
        if item.is_call:
            self._calling.add(index)
        else:
            self.check_calls(item)
        return item

    def at(self, index: int, type_: str) -> Item:
        """The item that a frame of this type is of."""
        if (item := self._items.get(index)) is None:
            raise WireError(f"{type_!r} is of item {index!r}, which has not begun; {_MIDDLE}")
        return item

    def done(self, index: int, value: Any) -> Item:
        """An item that is complete. It may come at once, where the response has begun."""
        if index not in self._items and self.begun:
            self._items[index] = self._new(value)
        self._calling.discard(index)
        return self.at(index, DONE)

    def all_done(self) -> None:
        """No call goes on."""
        self._calling.clear()

    def match(self, place: int, value: Any) -> Item:
        """The item that a whole response says this of: the one of this name, or in this place."""
        new = self._new(value)
        for item in self._items.values():
            if new.id and (item.type, item.id) == (new.type, new.id):
                return item
        there = self._items.get(place)
        return there if there is not None and there.type == new.type else new

    def check_calls(self, item: Item) -> None:
        """Raise `WireError` where text of this item would overtake a call."""
        if self._calling:
            raise WireError(
                f"an item of type {item.type!r} goes on in the middle of a tool call (item "
                f"{min(self._calling)!r}), which could then leave before all of it was judged"
            )

    def grown(self, item: Item, slot: Path, delta: str) -> Text:
        """The text in this place of the item, which a delta adds to."""
        texts = item.texts.setdefault(slot, [])
        if not texts:
            texts.append(Text(next(self._blocks)))
        texts[-1].came.write(delta)
        return texts[-1]

    def said(self, item: Item, slot: Path, said: str) -> tuple[Text, str]:
        """The text that this is, and what is new of it."""
        texts = item.texts.setdefault(slot, [])
        for text in texts:
            if text.came.getvalue() == said:
                return text, ""
        if not (texts and said.startswith(texts[-1].came.getvalue())):
            texts.append(Text(next(self._blocks)))
        text = texts[-1]
        new = said[len(text.came.getvalue()) :]
        text.came.write(new)
        return text, new

    def _new(self, value: Any) -> Item:
        if not isinstance(value, dict):
            raise WireError(f"an item should be an object, not {value!r:.80}")
        return Item(str(value.get("type")), _name(value), next(self._blocks))


def _name(item: dict[str, Any]) -> str:
    return str(item.get("id") or item.get("call_id") or "")
