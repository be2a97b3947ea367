"""The codec of a response in one piece: made at once, or stored."""

from collections.abc import Sequence
from typing import Any

from shieldguard import Aborted, Channel, OpaqueKind, Redacted, ReleasedEvent, SourceEvent
from shieldguard_adapters.wire.codec import Termination
from shieldguard_adapters.wire.openai_responses.edits import edited, edits_of_whole, let_out
from shieldguard_adapters.wire.openai_responses.ending import ended, head, last_part, message, text_part
from shieldguard_adapters.wire.openai_responses.frame import Frame, Item, Piece
from shieldguard_adapters.wire.openai_responses.reader import ResponseReader
from shieldguard_adapters.wire.released import origin_of
from shieldguard_adapters.wire.whole import WholeCodec

_ID = "msg_shieldguard"  # of the message with the notice


class ResponseBody(WholeCodec):
    """The codec of a response in one piece. `strict_output` is as in `ResponseStream`."""

    def __init__(self, *, strict_output: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._strict_output = strict_output
        self._frame = Frame(b"", {"response": {}})

    def _read(self, data: bytes) -> list[SourceEvent]:
        self._frame, events = ResponseReader().read_whole(data)
        return events

    def _rewritten(self, released: Sequence[ReleasedEvent]) -> dict[str, Any]:
        order = [*self._frame.items]
        for event in released:
            item = origin_of(event, Piece).item
            if isinstance(event, Redacted) and item is not None:
                if event.channel is Channel.REASONING and OpaqueKind.ENCRYPTED in item.opaque:
                    item.left_out = True
                if item.left_out or event.channel is Channel.TOOL_CALL:
                    if len(order) == len(self._frame.items):  # one notice, where something was left out first
                        notice = Item("message", _ID, -1, body=message(_ID, text_part(event.notice)))
                        order.insert(order.index(item), notice)
                    continue
            let_out(event)
        body: dict[str, Any] = edited(self._frame.body, edits_of_whole(self._frame, order))["response"]
        return body

    def _ending(self, aborted: Aborted) -> dict[str, Any]:
        body = {**head(self._frame.body["response"]), "output": []}
        if self._termination is Termination.ERROR:
            error = {"code": aborted.cause.value, "message": aborted.notice}
            return {**body, "status": "failed", "incomplete_details": None, "error": error}
        if self._termination is Termination.REFUSAL or not self._strict_output:
            body["output"] = [message(_ID, last_part(aborted.notice, self._termination))]
        return body | ended(self._termination)
