"""The contents of the framework's messages, as events and back."""

import json
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

from agent_framework import ChatResponse, ChatResponseUpdate, Content

from shieldguard import (
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
from shieldguard_adapters.wire.jsons import texts_in

_MEDIA = frozenset({"data", "uri", "image_generation_tool_call", "image_generation_tool_result"})
_MEDIA |= {"computer_tool_call", "computer_tool_result"}
_IDS = frozenset({"hosted_file", "hosted_vector_store", "usage"})
_NOT_TEXT = frozenset({"type", "id", "call_id", "item_id", "index", "media_type", "status", "merge_mode"})


@dataclass(slots=True, eq=False)
class Part:
    """A content and what it came in: an update, or the message at this place. One without a content is judged
    only; or it `ends` an update."""

    content: Content | None = None
    update: ChatResponseUpdate | None = None
    place: int = 0
    made: SourceEvent | None = None
    ends: bool = False
    sent: int = 0  # characters of its text, where that was cut


class Reader:
    """Makes events of contents, over the whole of a response. Where the server keeps the conversation, its id
    is kept here until the end, so that none goes on from a blocked turn."""

    def __init__(self) -> None:
        self.conversation_id: str | None = None
        self._calls: dict[str, int] = {}
        self._call = ""
        self._beside: set[str] = set()

    def update(self, update: ChatResponseUpdate) -> list[SourceEvent]:
        self.conversation_id = update.conversation_id or self.conversation_id
        events = list(self.beside(update.additional_properties, Part(update=update)))
        events += [event for one in update.contents for event in self.events(Part(one, update))]
        if update.finish_reason or update.continuation_token or not update.contents:
            events.append(Passthrough(choice=0, origin=Part(update=update, ends=True)))
        return events

    def whole(self, response: ChatResponse[Any]) -> list[SourceEvent]:
        events: list[SourceEvent] = []
        for place, message in enumerate(response.messages):
            held = [response.additional_properties, message.additional_properties]
            events += self.beside(held, Part(place=place))
            for one in message.contents:
                events += self.events(Part(one, place=place))
        return events

    def events(self, part: Part) -> Iterator[SourceEvent]:
        content = part.content
        assert content is not None
        if content.type in _MEDIA:
            raise WireError(
                f"a content of type {content.type!r} cannot be judged and was not passed on; "
                "ask for text alone"
            )
        thought = content.type == "text_reasoning"
        apart = Part(None, part.update, part.place)
        yield from self.beside([content.additional_properties, _annotations(content)], apart, thought)
        if thought:
            # What is kept of it for the provider is encrypted, or in words, as JSON.
            kept = "".join(_texts(_json(content.protected_data)))
            if content.protected_data and not kept:
                yield Opaque(OpaqueKind.ENCRYPTED, origin=apart)
            if kept:
                yield Reasoning(kept, origin=apart)
            text = content.text
            part.made = Reasoning(text, origin=part) if text else Passthrough(choice=0, origin=part)
        elif content.type in _IDS or (content.type == "text" and not content.text):
            part.made = Passthrough(choice=0, origin=part)
        elif content.type == "text":
            part.made = Answer(content.text or "", origin=part)
        else:
            # A piece without an id goes on from the one before.
            self._call = content.call_id or self._call
            block = self._calls.setdefault(self._call, len(self._calls))
            part.made = ToolCall(_call_text(content), block=block, origin=part)
        yield part.made

    def beside(self, held: Any, part: Part, thought: bool = False) -> Iterator[SourceEvent]:
        """What there is to judge beside the contents' own text, once."""
        texts = [text for text in _texts(held) if text not in self._beside]
        self._beside.update(texts)
        if texts:
            yield (Reasoning if thought else Answer)("\n".join(texts), origin=part)


class Writer:
    """Makes contents and updates of what is let out."""

    def __init__(self) -> None:
        self.redacted = False

    def content(self, event: ReleasedEvent, part: Part) -> Content | None:
        if isinstance(event, Redacted):
            self.redacted = True
            return _text(event.channel is Channel.REASONING, event.notice)
        if part.content is None or (self.redacted and part.content.protected_data):
            return None
        content = copy(part.content)
        content.raw_representation = None
        if self.redacted:
            content.additional_properties, content.annotations = {}, None
        if event is not part.made and isinstance(event, Reasoning | Answer):
            part.sent += len(event.text)
            content.text = event.text
            if part.sent < len(part.content.text or ""):
                content.protected_data = content.annotations = None  # they come with the last piece
        return content

    def update(self, part: Part, content: Content | None) -> ChatResponseUpdate:
        """An update with this content alone, or with none, as its end."""
        update = copy(part.update) or ChatResponseUpdate()
        update.raw_representation = update.conversation_id = None
        update.contents = [content] if content is not None else []
        if content is not None:
            update.finish_reason = update.continuation_token = None
        if self.redacted:
            update.additional_properties = {}
        return update


def _text(thought: bool, text: str) -> Content:
    return Content.from_text_reasoning(text=text) if thought else Content.from_text(text)


def _call_text(content: Content) -> str:
    if content.type != "function_call":
        return " ".join(_texts(content.to_dict(exclude={"additional_properties", "annotations"}))) or " "
    name = f"{content.name} " if content.name else ""
    given = content.arguments
    return name + (given if isinstance(given, str) else json.dumps(given, default=str) if given else "")


def _annotations(content: Content) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in one.items() if key != "raw_representation"}
        for one in content.annotations or ()
    ]


def _json(data: str | None) -> Any:
    try:
        return json.loads(data or "null")
    except ValueError:
        return None


def _texts(value: Any) -> list[str]:
    return [text for text in texts_in(value, _NOT_TEXT) if text]
