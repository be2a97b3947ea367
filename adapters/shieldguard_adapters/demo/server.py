"""A model server that recites traces, in OpenAI's wire format, at a human pace."""

import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from shieldguard import MissingDependency
from shieldguard_adapters.traces import Trace

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route
except ImportError as error:
    raise MissingDependency(error.name or "starlette", "demo") from None


@dataclass(slots=True)
class Recital:
    """The server's address, and how many characters of the last trace it has sent."""

    url: str
    sent: int = 0
    length: int = 0
    traces: dict[str, Trace] = field(default_factory=dict)


@contextmanager
def recite(traces: Sequence[Trace], *, pace: float) -> Iterator[Recital]:
    """Serve the traces, each as the model of its name, `pace` characters a second (0: at once)."""
    recital = Recital("", traces={trace.name: trace for trace in traces})

    async def completions(request: Request) -> Response:
        model = json.loads(await request.body()).get("model")
        trace = recital.traces.get(model)
        if trace is None:
            message = f"no model {model!r}; there are {sorted(recital.traces)!r}"
            return JSONResponse({"error": {"message": message}}, status_code=404)
        recital.sent, recital.length = 0, len(trace.reasoning) + len(trace.answer)
        return StreamingResponse(_frames(trace, pace, recital), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", completions, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    recital.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield recital
    finally:
        server.should_exit = server.force_exit = True
        thread.join(timeout=5)


async def _frames(trace: Trace, pace: float, recital: Recital) -> AsyncIterator[bytes]:
    yield _chunk(trace.name, {"role": "assistant", "content": ""})
    for field_name, text in (("reasoning_content", trace.reasoning), ("content", trace.answer)):
        for word in re.findall(r"\s*\S+|\s+", text):
            yield _chunk(trace.name, {field_name: word})
            recital.sent += len(word)
            await anyio.sleep(len(word) / pace if pace else 0)
    yield _chunk(trace.name, {}, "stop")
    yield b"data: [DONE]\n\n"


def _chunk(model: str, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    body = {
        "id": "chatcmpl-demo",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"
