"""What is let out of a response of Pydantic AI, as a response."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic_ai.exceptions import ContentFilterError
from pydantic_ai.messages import (
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)
from pydantic_ai.models import StreamedResponse
from pydantic_ai.usage import RequestUsage

from shieldguard import Aborted, Answer, Channel, GuardedStream, Reasoning, Redacted, ReleasedEvent
from shieldguard_adapters.pydantic_ai.parts import Origin
from shieldguard_adapters.sources import raise_if_told


@dataclass
class GuardedResponse(StreamedResponse):
    """What of a response is let out, as a response."""

    inner: StreamedResponse
    stream: GuardedStream
    _places: dict[int, int] = field(default_factory=dict, init=False)  # of parts, where they are let out
    _count: int = field(default=0, init=False)
    _redacted: set[int] = field(default_factory=set, init=False)
    _blocked: bool = field(default=False, init=False)

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        async for released in self.stream:
            if isinstance(released, Aborted):
                self._blocked = True
                raise ContentFilterError(released.notice)
            if not raise_if_told(released) and (event := self._event(released)) is not None:
                self._parts_manager.apply_event(event)
                yield event
        self.finish_reason = self.inner.finish_reason
        self.provider_response_id = self.inner.provider_response_id
        # They may repeat the text, as log-probabilities do.
        self.provider_details = None if self._redacted else self.inner.provider_details

    def get(self) -> ModelResponse:
        """The response so far. One that is blocked has no part that could come into the history."""
        response = super().get()
        return replace(response, parts=[]) if self._blocked else response

    def _event(self, released: ReleasedEvent) -> PartStartEvent | PartDeltaEvent | None:
        origin = getattr(released, "origin", None)
        if not isinstance(origin, Origin):
            return None  # the end
        event = origin.event
        if isinstance(released, Redacted):
            return self._notice(released, -1 if event is None else event.index)
        if event is None:
            return None
        begins = event.index not in self._places
        if origin.silent or event.index in self._redacted or (begins and isinstance(event, PartDeltaEvent)):
            return None  # nothing of its own, or the rest of what was left out
        place = self._place(event.index)
        if released is origin.made:
            return replace(event, index=place)
        assert isinstance(released, Reasoning | Answer)
        first = begins and isinstance(event, PartStartEvent)
        return _piece(type(released), released.text, place, first)

    def _notice(self, redacted: Redacted, index: int) -> PartStartEvent | PartDeltaEvent:
        if redacted.channel is Channel.TOOL_CALL:
            self._count += 1
            return PartStartEvent(index=self._count - 1, part=TextPart(redacted.notice))
        begins = index not in self._places
        self._redacted.add(index)
        kind = Reasoning if redacted.channel is Channel.REASONING else Answer
        return _piece(kind, redacted.notice, self._place(index), begins)

    def _place(self, index: int) -> int:
        if index not in self._places:
            self._places[index] = self._count
            self._count += 1
        return self._places[index]

    @property
    def usage(self) -> RequestUsage:
        return self.inner.usage

    @property
    def model_name(self) -> str:
        return self.inner.model_name

    @property
    def provider_name(self) -> str | None:
        return self.inner.provider_name

    @property
    def provider_url(self) -> str | None:
        return self.inner.provider_url

    @property
    def timestamp(self) -> datetime:
        return self.inner.timestamp

    async def close_stream(self) -> None:
        await self.stream.aclose()


def _piece(
    kind: type[Reasoning] | type[Answer], text: str, index: int, begins: bool
) -> PartStartEvent | PartDeltaEvent:
    if begins:
        return PartStartEvent(index=index, part=(ThinkingPart if kind is Reasoning else TextPart)(text))
    delta = ThinkingPartDelta(content_delta=text) if kind is Reasoning else TextPartDelta(content_delta=text)
    return PartDeltaEvent(index=index, delta=delta)
