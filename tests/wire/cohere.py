"""Frames and bodies of Cohere's chat (v2)."""

import json
from typing import Any

USAGE = {"tokens": {"input_tokens": 5, "output_tokens": 9}}
SOURCES = [{"type": "document", "id": "d", "document": {"title": "Bread", "text": "Salt slows yeast."}}]


def event(type_: str, **body: Any) -> bytes:
    data = json.dumps({"type": type_, **body}, ensure_ascii=False)
    return f"event: {type_}\ndata: {data}\n\n".encode()


def told(type_: str, key: str, value: Any, **body: Any) -> bytes:
    """A frame with one thing in its message."""
    return event(type_, **body, delta={"message": {key: value}})


def block(kind: str, index: int, *texts: str) -> list[bytes]:
    return [
        told("content-start", "content", {"type": kind, kind: ""}, index=index),
        *(told("content-delta", "content", {kind: text}, index=index) for text in texts),
        event("content-end", index=index),
    ]


def thinking(index: int, *texts: str) -> list[bytes]:
    return block("thinking", index, *texts)


def text(index: int, *texts: str) -> list[bytes]:
    return block("text", index, *texts)


def plan(_: int, *texts: str) -> list[bytes]:
    return [told("tool-plan-delta", "tool_plan", one) for one in texts]


def tool(index: int, *pieces: str, name: str = "send") -> list[bytes]:
    call = {"id": f"{name}_1", "type": "function", "function": {"name": name, "arguments": ""}}
    return [
        told("tool-call-start", "tool_calls", call, index=index),
        *(
            told("tool-call-delta", "tool_calls", {"function": {"arguments": piece}}, index=index)
            for piece in pieces
        ),
        event("tool-call-end", index=index),
    ]


def cited(index: int, text: str) -> list[bytes]:
    citation = {"start": 0, "end": len(text), "text": text, "sources": SOURCES, "type": "TEXT_CONTENT"}
    return [
        told("citation-start", "citations", citation, index=index),
        event("citation-end", index=index),
    ]


def message(*blocks: list[bytes], finish_reason: str = "COMPLETE") -> list[bytes]:
    """The frames of a whole streamed message."""
    start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    return [
        event("message-start", id="c14c", delta={"message": start}),
        *(frame for one in blocks for frame in one),
        event("message-end", id="c14c", delta={"finish_reason": finish_reason, "usage": USAGE}),
    ]


def body(*content: dict[str, Any], finish_reason: str = "COMPLETE", **more: Any) -> bytes:
    """A message in one piece. Other arguments go to the message."""
    message = {"role": "assistant", "content": content, **more}
    return json.dumps(
        {"id": "c14c", "finish_reason": finish_reason, "message": message, "usage": USAGE}
    ).encode()


def bodies_in(out: bytes) -> list[dict[str, Any]]:
    """The JSON of the frames, each named by its type."""
    found = []
    for raw in out.split(b"\n\n")[:-1]:
        name, data = raw.decode().split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found
