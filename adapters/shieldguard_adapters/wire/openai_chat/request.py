"""What a request for a chat completion says of what may follow."""

from typing import Any

from shieldguard import Message, QueryFrom, WireError, last_user_turn
from shieldguard_adapters.wire.codec import Request
from shieldguard_adapters.wire.jsons import parse_json
from shieldguard_adapters.wire.requests import asks_for_text, content_text


def read_request(body: bytes, query_from: QueryFrom = last_user_turn) -> Request:
    """Of a request for a chat completion, from its JSON body."""
    request = parse_json(body)
    messages = request.get("messages") or []
    if not isinstance(messages, list):
        raise WireError(f"'messages' should be a list, not {type(messages).__name__!r}")
    turns = [turn for message in messages for turn in _turns(message)]
    if not turns and request.get("prompt"):  # Mistral's, to fill in the middle
        turns = _turns({"role": "user", "content": request["prompt"]})
    return Request(query=query_from(turns), redactable=asks_for_text(request.get("response_format")))


def _turns(message: Any) -> list[Message]:
    """What was thought in a turn has a role of its own."""
    if not isinstance(message, dict):
        raise WireError(f"a message should be an object, not {type(message).__name__!r}")
    said = Message(str(message.get("role", "")), content_text(message.get("content")))
    thought = message.get("reasoning_content") or message.get("reasoning")
    return [Message("reasoning", thought), said] if isinstance(thought, str) else [said]
