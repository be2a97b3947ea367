"""A model server on a loopback port that sends what a test gives it, and notes how much of it was taken."""

import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


@dataclass
class Script:
    """One answer: its pieces, sent `delay` seconds apart."""

    pieces: Sequence[bytes]
    delay: float = 0.0
    content_type: str = "text/event-stream"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0  # seconds before the answer begins
    hold_open: bool = False  # keep the connection after the last piece
    cut: bool = False  # break the connection after the last piece


@dataclass
class Upstream:
    """`sent` counts the pieces of the last answer, `closed_at` says when its client went away. A model in
    `models` answers by the script of its own, and what is in `first` is answered before all else."""

    url: str = ""
    script: Script = field(default_factory=lambda: Script([]))
    models: dict[str, Script] = field(default_factory=dict)
    first: list[Script] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    closed_at: float | None = None
    finished: threading.Event = field(default_factory=threading.Event)

    def play(self, script: Script) -> None:
        self.script = script
        self.first.clear()
        self.requests.clear()
        self.headers.clear()
        self.sent = 0
        self.closed_at = None
        self.finished.clear()

    async def answer(self, request: Request) -> Response:
        asked = json.loads(await request.body() or b"{}")
        self.requests.append(asked)
        self.headers.append(dict(request.headers))
        script = self.first.pop(0) if self.first else self.models.get(asked.get("model"), self.script)
        await anyio.sleep(script.wait)

        async def body() -> AsyncIterator[bytes]:
            try:
                for piece in script.pieces:
                    yield piece
                    self.sent += 1
                    await anyio.sleep(script.delay)
                if script.hold_open:
                    await anyio.sleep(30)
                if script.cut:
                    raise ConnectionResetError
            except BaseException:
                self.closed_at = time.monotonic()
                raise
            finally:
                self.finished.set()

        return StreamingResponse(
            body(), script.status, headers=script.headers, media_type=script.content_type
        )


@contextmanager
def serve() -> Iterator[Upstream]:
    upstream = Upstream()
    app = Starlette(routes=[Route("/{path:path}", upstream.answer, methods=["GET", "POST", "DELETE"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    upstream.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(timeout=5)


def chunk(delta: dict[str, Any] | None = None, **choice: Any) -> bytes:
    """One chat completion chunk as a server-sent event. Other arguments go to the choice."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta or {}, "finish_reason": None, **choice}],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":9,"total_tokens":14}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def chat(
    reasoning: Sequence[str], answer: Sequence[str], *, field: str = "reasoning_content", usage: bool = True
) -> list[bytes]:
    """The frames of a whole streamed chat completion."""
    return [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({field: text}) for text in reasoning),
        *(chunk({"content": text}) for text in answer),
        chunk({}, finish_reason="stop"),
        *([USAGE] if usage else []),
        DONE,
    ]


def completion(*messages: dict[str, Any], finish_reason: str = "stop") -> bytes:
    """The body of a chat completion in one piece, one choice a message."""
    choices = [
        {"index": index, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
        for index, message in enumerate(messages)
    ]
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    body["usage"] = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
    return json.dumps(body).encode()
