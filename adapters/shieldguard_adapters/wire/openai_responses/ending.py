"""What is said in the place of the model: a notice, and how a response was ended."""

from typing import Any

from shieldguard_adapters.wire.codec import Termination
from shieldguard_adapters.wire.openai_responses.texts import META

_EMPTY: dict[str, Any] = {
    "id": "",
    "object": "response",
    "created_at": 0,
    "model": "",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def last_part(notice: str, termination: Termination) -> dict[str, Any]:
    """The notice of an ending."""
    is_refusal = termination is Termination.REFUSAL
    return {"type": "refusal", "refusal": notice} if is_refusal else text_part(notice)


def message(id_: str, *content: dict[str, Any], status: str = "completed") -> dict[str, Any]:
    return {"type": "message", "id": id_, "role": "assistant", "status": status, "content": [*content]}


def head(response: dict[str, Any]) -> dict[str, Any]:
    """What there is to say of a response beside its output."""
    return {**_EMPTY, **{key: value for key, value in response.items() if key in META}}


def ended(termination: Termination) -> dict[str, Any]:
    """How a response says that it was."""
    if termination is Termination.REFUSAL:
        return {"status": "completed", "incomplete_details": None, "error": None}
    return {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}, "error": None}
