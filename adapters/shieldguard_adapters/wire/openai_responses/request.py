"""What a request for a response says of what may follow."""

from typing import Any

from shieldguard import Message, QueryFrom, WireError, last_user_turn
from shieldguard_adapters.wire.codec import Request
from shieldguard_adapters.wire.jsons import parse_json
from shieldguard_adapters.wire.requests import asks_for_text, content_text

_UNSEEN = Message("conversation", "", unseen=True)
_HISTORY = ("previous_response_id", "conversation", "prompt")  # what only the server has


def read_request(body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """Of a request for a new response, from its JSON body."""
    request = parse_json(body)
    messages = [_UNSEEN] if any(request.get(name) for name in _HISTORY) else []
    if isinstance(instructions := request.get("instructions"), str):
        messages.append(Message("system", instructions))
    given = request.get("input") or []
    if isinstance(given, str):
        messages.append(Message("user", given))
    elif isinstance(given, list):
        messages += [_message(item) for item in given]
    else:
        raise WireError(f"'input' should be a text or a list of items, not {given!r:.80}")
    config = request.get("text")
    is_text = not isinstance(config, dict) or asks_for_text(config.get("format"))
    return Request(query=query_from(messages), redactable=is_text)


def read_stored_request(_body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """Of a request for a response that the server keeps: what was asked is not seen, nor in which format, so
    there is no notice in the middle of it."""
    return Request(query=query_from([_UNSEEN]), redactable=False)


def _message(item: Any) -> Message:
    if not isinstance(item, dict):
        raise WireError(f"an item of the input should be an object, not {item!r:.80}")
    type_ = str(item.get("type") or "message")
    if type_ == "message":
        return Message(str(item.get("role", "")), content_text(item.get("content")))
    if type_ == "item_reference":
        return _UNSEEN
    if type_.endswith("_output"):
        return Message("tool", content_text(item.get("output")))
    if type_ == "reasoning":
        return Message(
            "reasoning",
            content_text(item.get("content")) or content_text(item.get("summary")) or "[reasoning]",
        )
    return Message("assistant", f"[{type_}]")
