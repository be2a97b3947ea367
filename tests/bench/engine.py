"""What the guard itself costs, with a judge that answers at once.

1. The session alone, in microseconds a chunk.
2. End to end: one stream from a loopback server through the openai SDK, bare and guarded by turns, as
   processor time of the client's process (the server runs in another).
3. Many concurrent streams on one event loop, and the peak of memory.

Wall-clock figures of a shared machine are noisy: the ratios are what counts.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import random
import socket
import statistics
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from shieldguard import End, Guard, GuardSession, Reasoning, RiskLevel, Verdict, Window
from shieldguard_adapters.clients import guard_client

_SENTENCE = (
    "the water level of the river rises when it rains so we take measures and compare them with those "
    "from last year before writing any number down because small errors add up over time"
)
_WORDS = _SENTENCE.split()


class InstantJudge:
    """Says "safe" at once."""

    name = "instant"
    _safe = Verdict(level=RiskLevel.SAFE, judge="instant")

    def judge_now(self, window: Window) -> Verdict:
        return self._safe

    async def judge(self, window: Window) -> Verdict:
        return self._safe


def prose(tokens: int) -> str:
    """Harmless text of about four characters a token, in sentences."""
    rng = random.Random(0)
    text = ""
    while len(text) < 4 * tokens:
        text += " ".join(rng.choice(_WORDS) for _ in range(rng.randint(6, 18))).capitalize() + ". "
    return text[: 4 * tokens]


def chunked(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def run_session(chunks: list[str]) -> None:
    session = GuardSession("a question")
    judge = InstantJudge()
    released = 0
    for chunk in chunks:
        session.receive(Reasoning(chunk), 0.0)
        for window in session.windows(0.0):
            session.judged(window, judge.judge_now(window), 0.0)
        released += len(session.take(0.0))
    session.receive(End(), 0.0)
    session.finish(0.0)
    for window in session.windows(0.0):
        session.judged(window, judge.judge_now(window), 0.0)
    released += len(session.take(0.0))
    assert released >= len(chunks), "the whole text must come out"


def measure_session(chunks: list[str], repeat: int) -> float:
    """Median seconds for one stream."""
    return statistics.median(timed(lambda: run_session(chunks)) for _ in range(repeat))


def timed(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _serve(bodies: dict[str, list[bytes]], port: Any) -> None:
    """The model server: the request's `model` chooses the body."""

    async def completions(request: Request) -> Response:
        frames = bodies[json.loads(await request.body())["model"]]

        async def body() -> AsyncIterator[bytes]:
            for frame in frames:
                yield frame

        return StreamingResponse(body(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", completions, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    port.send(listener.getsockname()[1])
    server.run(sockets=[listener])


@contextlib.contextmanager
def upstream(bodies: dict[str, list[bytes]]) -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(bodies, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def frame(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    body = {
        "id": "chatcmpl-b3f1c2",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "bench",
        "choices": [choice],
    }
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def frames(chunks: list[str]) -> list[bytes]:
    reasoning = [frame({"reasoning_content": chunk}) for chunk in chunks]
    return [frame({"role": "assistant", "content": ""}), *reasoning, frame({}, "stop"), b"data: [DONE]\n\n"]


async def read(client: openai.AsyncOpenAI, model: str) -> int:
    stream = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "a question"}], stream=True
    )
    return sum([1 async for _ in stream])


async def measure_sdk(url: str, model: str, repeat: int) -> tuple[float, float]:
    """Median processor seconds of one stream: bare, and guarded."""
    bare_client = openai.AsyncOpenAI(base_url=url, api_key="-")
    guarded_client = openai.AsyncOpenAI(base_url=url, api_key="-")
    guard_client(guarded_client, Guard(judge=InstantJudge()))
    times: dict[bool, list[float]] = {False: [], True: []}
    async with bare_client, guarded_client:
        counts = set()
        for number in range(2 * (repeat + 1)):
            guarded = number % 2 == 1
            begin = time.process_time()
            counts.add(await read(guarded_client if guarded else bare_client, model))
            if number >= 2:
                times[guarded].append(time.process_time() - begin)
    assert min(counts) > 0
    return statistics.median(times[False]), statistics.median(times[True])


async def _source(chunks: list[str]) -> AsyncIterator[str]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0)


async def measure_many(streams: int, chunks: list[str]) -> tuple[float, float]:
    """Processor seconds for that many concurrent streams, and the same sources unguarded."""
    guard = Guard(judge=InstantJudge())

    async def bare() -> None:
        async for _ in _source(chunks):
            pass

    async def guarded() -> None:
        async for _ in guard.stream(_source(chunks), thinking="preopened"):
            pass

    times = []
    for one in (bare, guarded):
        begin = time.process_time()
        await asyncio.gather(*(one() for _ in range(streams)))
        times.append(time.process_time() - begin)
    return times[0], times[1]


def peak_memory(streams: int, chunks: list[str]) -> float:
    """Peak bytes a stream that is guarded, of its own, while all of them run."""
    tracemalloc.start()
    asyncio.run(measure_many(streams, chunks))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / streams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--streams", type=int, default=1000)
    arguments = parser.parse_args()
    text = prose(arguments.tokens)
    sizes = (1, 8, 64)
    print(f"One stream of {len(text)} characters, an instant judge, medians of {arguments.repeat}.\n")
    print("| characters a chunk | chunks | session, µs a chunk | SDK bare, µs | guard adds, µs | added |")
    print("|--:|--:|--:|--:|--:|--:|")
    with upstream({str(size): frames(chunked(text, size)) for size in sizes}) as url:
        for size in sizes:
            chunks = chunked(text, size)
            session = measure_session(chunks, arguments.repeat)
            bare, guarded = asyncio.run(measure_sdk(url, str(size), arguments.repeat))
            per_chunk = [1e6 * seconds / len(chunks) for seconds in (session, bare, guarded - bare)]
            figures = " | ".join(f"{figure:.1f}" for figure in per_chunk)
            print(f"| {size} | {len(chunks)} | {figures} | {100 * (guarded / bare - 1):.0f} % |")
    chunks = chunked(text, 8)
    bare, guarded = asyncio.run(measure_many(arguments.streams, chunks))
    added = 1e6 * (guarded - bare) / arguments.streams / len(chunks)
    print(
        f"\n{arguments.streams} concurrent streams of {len(chunks)} chunks on one event loop: "
        f"{guarded:.1f} s of processor time ({bare:.1f} s unguarded), {added:.1f} µs a chunk added."
    )
    streams = max(1, arguments.streams // 10)
    print(f"Peak memory with {streams} streams: {peak_memory(streams, chunks) / 1024:.0f} KiB a stream.")


if __name__ == "__main__":
    main()
