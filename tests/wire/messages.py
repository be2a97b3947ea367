"""Frames of Anthropic messages."""

import json
from typing import Any

START: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 3},
}
THINKING = {"type": "thinking", "thinking": "", "signature": ""}
TEXT = {"type": "text", "text": ""}


def event(type_: str, **body: Any) -> bytes:
    data = json.dumps({"type": type_, **body}, ensure_ascii=False)
    return f"event: {type_}\ndata: {data}\n\n".encode()


def start(index: int, block: dict[str, Any]) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def delta(index: int, type_: str, **body: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": type_, **body})


def stop(index: int) -> bytes:
    return event("content_block_stop", index=index)


def thinking(index: int, *texts: str, signature: str = "c2ln") -> list[bytes]:
    signed = [delta(index, "signature_delta", signature=signature)] if signature else []
    deltas = [delta(index, "thinking_delta", thinking=text) for text in texts]
    return [start(index, THINKING), *deltas, *signed, stop(index)]


def text(index: int, *texts: str) -> list[bytes]:
    return [start(index, TEXT), *(delta(index, "text_delta", text=one) for one in texts), stop(index)]


def tool(index: int, *pieces: str, name: str = "send") -> list[bytes]:
    block = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}
    deltas = [delta(index, "input_json_delta", partial_json=piece) for piece in pieces]
    return [start(index, block), *deltas, stop(index)]


def message(*blocks: list[bytes], stop_reason: str = "end_turn") -> list[bytes]:
    """The frames of a whole streamed message."""
    return [
        event("message_start", message=START),
        event("ping"),
        *(frame for block in blocks for frame in block),
        event(
            "message_delta",
            delta={"stop_reason": stop_reason, "stop_sequence": None},
            usage={"output_tokens": 9},
        ),
        event("message_stop"),
    ]


def body(*content: dict[str, Any], stop_reason: str = "end_turn") -> bytes:
    """A message in one piece."""
    usage = {"input_tokens": 5, "output_tokens": 9}
    return json.dumps({**START, "content": content, "stop_reason": stop_reason, "usage": usage}).encode()


def bodies_in(out: bytes) -> list[dict[str, Any]]:
    """The JSON of the frames, each named by its type."""
    found = []
    for raw in out.split(b"\n\n")[:-1]:
        name, data = raw.decode().split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found
