"""Lines of Ollama's API."""

import json
from typing import Any

CREATED = "2026-01-01T00:00:00Z"
COSTS: dict[str, Any] = {"total_duration": 9, "prompt_eval_count": 5, "eval_count": 9}


def line(**body: Any) -> bytes:
    head = {"model": "m", "created_at": CREATED}
    return json.dumps({**head, "done": False, **body}, ensure_ascii=False).encode() + b"\n"


def chat_line(content: str = "", *, head: dict[str, Any] | None = None, **message: Any) -> bytes:
    return line(message={"role": "assistant", "content": content, **message}, **(head or {}))


def generate_line(response: str = "", **body: Any) -> bytes:
    return line(response=response, **body)


def call(to: str = "a friend") -> dict[str, Any]:
    return {"id": "call_1", "function": {"index": 0, "name": "send", "arguments": {"to": to}}}


def chat_lines(thought: list[str], answer: list[str], *calls: dict[str, Any]) -> list[bytes]:
    """The lines of a whole streamed chat."""
    return [
        *(chat_line(thinking=text) for text in thought),
        *(chat_line(text) for text in answer),
        *([chat_line(tool_calls=list(calls))] if calls else []),
        chat_line(head={"done": True, "done_reason": "stop", **COSTS}),
    ]


def generate_lines(thought: list[str], answer: list[str], *calls: dict[str, Any]) -> list[bytes]:
    return [
        *(generate_line(thinking=text) for text in thought),
        *(generate_line(text) for text in answer),
        *([generate_line(tool_calls=list(calls))] if calls else []),
        generate_line(done=True, done_reason="stop", context=[1, 2, 3], **COSTS),
    ]


def whole(lines: list[bytes], holder: str, answer: str) -> bytes:
    """The same in one object, as it is sent where no stream was asked for."""
    bodies = [json.loads(one) for one in lines]
    parts = [body[holder] if holder else body for body in bodies]
    texts: dict[str, Any] = {answer: "".join(part.get(answer, "") for part in parts)}
    if thought := "".join(part.get("thinking", "") for part in parts):
        texts["thinking"] = thought
    if calls := [one for part in parts for one in part.get("tool_calls", ())]:
        texts["tool_calls"] = calls
    last = bodies[-1]
    body = {**last, holder: {"role": "assistant", **texts}} if holder else {**last, **texts}
    return json.dumps(body, ensure_ascii=False).encode()


def bodies_in(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(one) for one in out.splitlines()]
