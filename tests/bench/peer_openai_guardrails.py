"""What OpenAI Guardrails adds per chunk to a streamed chat completion, with a check that allows at once.

Needs an environment with requirements-openai-guardrails.txt. A child process serves the same
chat.completion.chunk frames to the bare SDK and to the guarded client. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import importlib.metadata
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

Message = dict[str, Any]
MODEL = "fake"
CHECK = "Instant Check"
WORDS = (
    "a the one this river garden letter window teacher morning market paper kettle walked opened carried "
    "found painted counted quiet narrow old bright slowly again before after near under with and then because"
)


@dataclass(slots=True)
class Tally:
    """What one run gave to the check and to the consumer."""

    checks: int = 0
    judged_chars: int = 0
    chunks_out: int = 0
    out_before_first_check: int | None = None

    def record(self, text: str) -> None:
        self.checks += 1
        self.judged_chars += len(text)
        if self.out_before_first_check is None:
            self.out_before_first_check = self.chunks_out


def prose(chars: int, seed: int = 7) -> str:
    """Return exactly `chars` characters of harmless sentences, the same for the same seed."""
    rng = random.Random(seed)
    vocabulary = WORDS.split()
    sentences: list[str] = []
    length = 0
    while length < chars:
        words = rng.choices(vocabulary, k=rng.randint(6, 16))
        sentence = " ".join(words).capitalize() + ". "
        sentences.append(sentence)
        length += len(sentence)
    return "".join(sentences)[:chars]


def frames(text: str, size: int) -> list[bytes]:
    """Return the server-sent events of one completion: role, content chunks, finish, [DONE]."""
    deltas: list[tuple[Message, str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": text[at : at + size]}, None) for at in range(0, len(text), size)]
    deltas.append(({}, "stop"))
    out: list[bytes] = []
    for delta, finish in deltas:
        body = {
            "id": "chatcmpl-bench",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }
        out.append(b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n")
    out.append(b"data: [DONE]\n\n")
    return out


def serve(events: Sequence[bytes]) -> None:
    """Print a free loopback port, then answer every request there with `events`, one write each."""
    uvicorn: Any = importlib.import_module("uvicorn")

    async def app(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def upstream(tokens: int, size: int) -> Iterator[str]:
    """Run `serve` in a child process and yield its base URL."""
    command = [sys.executable, __file__, "--serve", "--tokens", str(tokens), "--chars-per-chunk", str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            port = child.stdout.readline().strip() if child.stdout else ""
            if not port:
                raise RuntimeError("the upstream process ended before it named a port")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            child.kill()


async def consume(client: Any, tally: Tally, expected: str) -> float:
    """Read one streamed completion and return the seconds; fail if the text is not the expected one."""
    messages = [{"role": "user", "content": "Tell me a story."}]
    parts: list[str] = []
    gc.collect()
    start = time.perf_counter()
    stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
    async for chunk in stream:
        content = chunk.choices[0].delta.content
        if content:
            parts.append(content)
            tally.chunks_out += 1
    seconds = time.perf_counter() - start
    if "".join(parts) != expected:
        raise RuntimeError(f"the stream gave {''.join(parts)[-200:]!r} at its end, not the source's text")
    return seconds


class Checks:
    """The registered check; it counts into the current run's tally."""

    def __init__(self, guardrails: Any) -> None:
        self.tally = Tally()
        result = guardrails.GuardrailResult(tripwire_triggered=False)

        async def instant_check(ctx: object, data: str, config: None) -> Any:
            self.tally.record(data)
            return result

        guardrails.default_spec_registry.register(
            name=CHECK, check_fn=instant_check, description="Counts and allows.", media_type="text/plain"
        )


async def measure(base_url: str, text: str, size: int, repeat: int) -> dict[str, object]:
    openai: Any = importlib.import_module("openai")
    guardrails: Any = importlib.import_module("guardrails")
    checks = Checks(guardrails)
    options = {"base_url": base_url, "api_key": "none", "max_retries": 0}
    stage = {"version": 1, "guardrails": [{"name": CHECK, "config": {}}]}
    clients = {
        "bare": openai.AsyncOpenAI(**options),
        "guarded": guardrails.GuardrailsAsyncOpenAI(config={"version": 1, "output": stage}, **options),
    }
    times: dict[str, list[float]] = {"bare": [], "guarded": []}
    for turn in range(repeat + 1):
        for kind in ("bare", "guarded") if turn % 2 else ("guarded", "bare"):
            tally = Tally()
            if kind == "guarded":
                checks.tally = tally
            seconds = await consume(clients[kind], tally, text)
            if turn:  # the first turn warms up
                times[kind].append(seconds)
    for client in clients.values():
        await client.close()
    chunks = -(-len(text) // size)
    bare, over = median(times["bare"]), median(times["guarded"])
    return {
        "name": "OpenAI Guardrails",
        "version": importlib.metadata.version("openai-guardrails"),
        "chars_per_chunk": size,
        "chunks": chunks,
        "seconds_bare": round(bare, 6),
        "seconds_guarded": round(over, 6),
        "us_per_chunk_added": round((over - bare) / chunks * 1e6, 3),
        "ratio_to_bare": round(over / bare, 2),
        "judged_chars": checks.tally.judged_chars,
        "checks": checks.tally.checks,
        "chunks_out_before_first_check": checks.tally.out_before_first_check,
        "note": f"bare is AsyncOpenAI of openai {importlib.metadata.version('openai')} on the same loopback "
        "stream, so it includes HTTP, parsing and the SDK's objects; seconds count from the request",
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chars-per-chunk", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4000, help="4 characters each")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help="be the upstream (internal)")
    args = parser.parse_args(argv)
    if min(args.chars_per_chunk, args.tokens, args.repeat) < 1:
        parser.error("--chars-per-chunk, --tokens and --repeat must be at least 1")
    text = prose(4 * args.tokens)
    if args.serve:
        serve(frames(text, args.chars_per_chunk))
        return 0
    os.environ["NO_PROXY"] = "127.0.0.1"
    with upstream(args.tokens, args.chars_per_chunk) as base_url:
        result = asyncio.run(measure(base_url, text, args.chars_per_chunk, args.repeat))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
