"""JSON as it comes and goes on the wire."""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from shieldguard import WireError

#: Where something stands in an object, such as ("reasoning_details", 0, "text").
Path: TypeAlias = tuple[str | int, ...]

MAX_DEPTH = 100  # of what holds what; nothing that is sent is near it, and all that reads it recurses


def parse_json(data: str | bytes) -> dict[str, Any]:
    """A JSON object. Raises `WireError` for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON ({error}): {data[:80]!r}") from None
    if not isinstance(value, dict):
        raise WireError(f"a JSON object should be here, not {data[:80]!r}")
    if _is_deep(value, data):
        raise WireError(f"JSON is nested over {MAX_DEPTH!r} deep and was not passed on: {data[:80]!r}")
    return value


def _is_deep(value: dict[str, Any], data: str | bytes) -> bool:
    opened = (
        data.count("[") + data.count("{") if isinstance(data, str) else data.count(b"[") + data.count(b"{")
    )
    if opened <= MAX_DEPTH:
        return False
    level: list[Any] = [value]
    depth = 0
    while level and depth <= MAX_DEPTH:
        holders = [one.values() if isinstance(one, dict) else one for one in level]
        level = [inner for one in holders for inner in one if isinstance(inner, dict | list)]
        depth += 1
    return bool(level)


def value_at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key] if isinstance(key, int) else value.get(key)
    return value


def text_at(holder: dict[str, Any], key: str) -> str:
    """Empty where there is none. Raises `WireError` for anything else."""
    text = holder.get(key) or ""
    if not isinstance(text, str):
        raise WireError(f"{key!r} should be a string, not {text!r:.80}")
    return text


def objects_at(holder: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Empty where there are none. Raises `WireError` for anything else."""
    values = holder.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise WireError(f"{key!r} should be a list of objects, not {values!r:.80}")
    return values


def texts_in(value: Any, without: Container[str] = ()) -> Iterator[str]:
    """All texts in a value, but those under these names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner, without)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in without:
                yield from texts_in(inner, without)


def comment(lines: Sequence[str]) -> bytes:
    """Lines that those who read server-sent events leave out, wherever the line before ended."""
    return "".join(["\n", *(f": {line}\n" for line in lines), "\n"]).encode()


def sse(body: dict[str, Any], event: str = "") -> bytes:
    """A server-sent event of one JSON object."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
