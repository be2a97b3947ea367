"""Which model a request names."""

import json
import re
from typing import Any

from shieldguard_adapters.proxy.refusing import Refused

_PARTS = 1 << 18  # strings, and characters between them: enough for a hundred thousand small objects


def model_of(path: str, body: bytes, *, guarded: bool) -> str:
    """The model that a request names, in its path or else its body; "" for none. Raises `Refused` for a body
    that an upstream could read in another way than we do, or that would take long to read. What is passed on
    unread may be no JSON."""
    named = _in_body(body) if guarded or body[:64].lstrip().startswith(b"{") else ""
    found = re.search(r"/(?:models?|deployments)/([^/:]+)", path)
    return found[1] if found else named


def _in_body(body: bytes) -> str:
    _check_parts(body)
    try:
        asked = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return ""  # whoever needs more of it will say so
    model = asked.get("model") if isinstance(asked, dict) else None
    if not isinstance(model, str | None):
        raise Refused(400, "bad_request", f"'model' should be a string, not {type(model).__name__!r}")
    return model or ""


def _check_parts(body: bytes) -> None:
    """JSON is read while all streams wait: long strings take no time, but millions of parts do."""
    pieces = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', _PARTS)  # every other is a string
    parts = len(pieces) + sum(len(piece.translate(None, b" \t\r\n")) for piece in pieces[::2])
    if parts > _PARTS:
        raise Refused(413, "too_large", f"the request has over {_PARTS} parts; long strings are no trouble")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise Refused(400, "bad_request", "the request names something twice, and which counts is not said")
    return read
