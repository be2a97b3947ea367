"""The parts of ADK's responses, as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from google.adk.models.llm_response import LlmResponse
from pydantic import BaseModel

# Of a response, what is neither the model's text nor holds any. All else is judged.
_METADATA = frozenset(
    {
        *("partial", "turn_complete", "turn_complete_reason", "interrupted", "interaction_status"),
        *("finish_reason", "error_code", "model_version", "cache_metadata", "interaction_id"),
        *("environment_id", "live_session_id", "live_session_resumption_update", "go_away", "voice_activity"),
    }
)
_READ_APART = frozenset({"content", "usage_metadata", "error_message"})


def others(response: LlmResponse) -> Iterator[tuple[str, Any]]:
    for name in type(response).model_fields:
        value = getattr(response, name)
        if value is not None and name not in _METADATA | _READ_APART:
            yield name, value


def alias(name: str) -> str:
    return str(LlmResponse.model_fields[name].alias or name)


def dumped(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return value


def parts_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    return body["candidates"][0].get("content", {}).get("parts") or []


def text_of(parts: Sequence[dict[str, Any]], thought: bool) -> str:
    return "".join(part.get("text", "") for part in parts if bool(part.get("thought")) is thought)


def beyond(part: dict[str, Any], known: set[bool]) -> dict[str, Any]:
    """A part without the text that is known; empty where that is nothing."""
    if "text" not in part or bool(part.get("thought")) not in known:
        return part
    rest = _beside(part)
    return rest if rest.keys() - {"thought"} else {}


def merged(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts that follow one another as one."""
    merged: list[dict[str, Any]] = []
    for part in parts:
        if merged and "text" in part and "text" in merged[-1] and _beside(part) == _beside(merged[-1]):
            merged[-1] = {**part, "text": merged[-1]["text"] + part["text"]}
        else:
            merged.append(part)
    return merged


def _beside(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != "text"}


def add(body: dict[str, Any], piece: dict[str, Any]) -> None:
    """Puts a piece of a body to those that came before."""
    if not body:
        body.update(piece)
        return
    candidate, more = body["candidates"][0], piece["candidates"][0]
    made = {**candidate, **more, "content": {"parts": parts_of(body) + parts_of(piece)}}
    messages = [one["finishMessage"] for one in (candidate, more) if one.get("finishMessage")]
    body |= {**piece, "candidates": [made | ({"finishMessage": "".join(messages)} if messages else {})]}
