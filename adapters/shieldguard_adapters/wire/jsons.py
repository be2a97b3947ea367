"""JSON as it comes and goes on the wire."""

import json
from typing import Any

from shieldguard import WireError


def parse_json(data: str | bytes) -> dict[str, Any]:
    """A JSON object. Raises `WireError` for anything else."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise WireError(f"not JSON ({error}): {data[:80]!r}") from None
    if not isinstance(value, dict):
        raise WireError(f"a JSON object should be here, not {data[:80]!r}")
    return value


def sse(body: dict[str, Any], event: str = "") -> bytes:
    """A server-sent event of one JSON object."""
    head = f"event: {event}\n".encode() if event else b""
    return head + b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
