"""Frames of Gemini's generateContent."""

import json
from typing import Any

USAGE = {"promptTokenCount": 5, "candidatesTokenCount": 9, "totalTokenCount": 14}
HEAD = {"modelVersion": "m", "responseId": "r"}


def thought(text: str, **part: Any) -> dict[str, Any]:
    return {"text": text, "thought": True, **part}


def said(text: str, **part: Any) -> dict[str, Any]:
    return {"text": text, **part}


def call(to: str, **part: Any) -> dict[str, Any]:
    return {"functionCall": {"name": "send", "args": {"to": to}}, **part}


def candidate(*parts: dict[str, Any], index: int = 0, **more: Any) -> dict[str, Any]:
    return {"content": {"parts": list(parts), "role": "model"}, **more, "index": index}


def body(*candidates: dict[str, Any], **more: Any) -> bytes:
    """A response in one piece."""
    held = {"candidates": list(candidates)} if candidates else {}
    return json.dumps({**held, "usageMetadata": USAGE, **HEAD, **more}, ensure_ascii=False).encode()


def frame(*candidates: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + body(*candidates, **more) + b"\r\n\r\n"


def content(*parts: dict[str, Any], reason: str = "STOP") -> list[bytes]:
    """The frames of a stream, one a part, and one that ends it."""
    return [*(frame(candidate(part)) for part in parts), frame(candidate(said(""), finishReason=reason))]


def bodies_in(out: bytes) -> list[dict[str, Any]]:
    """The JSON of the frames, as the official client reads them."""
    found = []
    for line in out.replace(b"\r", b"\n").split(b"\n"):
        if line:
            assert line.startswith(b"data: ")
            found.append(json.loads(line.removeprefix(b"data: ")))
    return found


def candidates_in(out: bytes, index: int = 0) -> list[dict[str, Any]]:
    return [one for body in bodies_in(out) for one in body.get("candidates", ()) if one["index"] == index]


def parts_in(out: bytes, index: int = 0) -> list[dict[str, Any]]:
    """The parts of a choice, neighbouring texts as one, and none that is empty."""
    parts: list[dict[str, Any]] = []
    for one in candidates_in(out, index):
        for part in one.get("content", {}).get("parts", ()):
            last = parts[-1] if parts else {}
            if part.get("text") == "":
                continue
            if "text" in part and "text" in last and part.get("thought") == last.get("thought"):
                parts[-1] = {**last, **part, "text": last["text"] + part["text"]}
            else:
                parts.append(part)
    return parts


def reason_in(out: bytes, index: int = 0) -> list[str]:
    return [one["finishReason"] for one in candidates_in(out, index) if "finishReason" in one]
