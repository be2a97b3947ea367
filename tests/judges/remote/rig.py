"""Servers that answer what a test tells them to, and the replies of a model that is sure of its levels."""

import json
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from shieldguard import Window
from shieldguard.judges.remote import RemoteJudge
from tests.upstream import DONE, Script, Upstream, chunk, serve

JSON = "application/json"


def window(text: str = "calm", *, stream: str = "s", seconds: float = 10, query: str = "") -> Window:
    return Window(query=query, text=text, stream=stream, deadline=time.monotonic() + seconds)


def completion(*tokens: dict[str, float], kind: str = "columns") -> Script:
    """A model that writes the likeliest of each token's probabilities, as either kind of server tells it."""
    written = [max(token, key=lambda text: token[text]) for token in tokens]
    logs = [{text: math.log(p) for text, p in token.items()} for token in tokens]
    logprobs: dict[str, Any]
    if kind == "columns":
        logprobs = {
            "tokens": written,
            "token_logprobs": [log[text] for text, log in zip(written, logs, strict=True)],
            "top_logprobs": logs,
            "text_offset": [0] * len(written),
        }
    else:
        logprobs = {
            "content": [
                {
                    "token": text,
                    "logprob": log[text],
                    "top_logprobs": [{"token": one, "logprob": value} for one, value in log.items()],
                }
                for text, log in zip(written, logs, strict=True)
            ]
        }
    choice = {"index": 0, "text": "".join(written), "finish_reason": "length", "logprobs": logprobs}
    return reply({"object": "text_completion", "choices": [choice]})


def reply(body: Any, **script: Any) -> Script:
    return Script([json.dumps(body).encode()], content_type=JSON, **script)


def analysis(*pieces: str, ended: str | None = "stop", **script: Any) -> Script:
    """A streamed chat completion."""
    frames = [chunk({"role": "assistant"}), *(chunk({"content": piece}) for piece in pieces)]
    if ended is not None:
        frames += [chunk(finish_reason=ended), DONE]
    return Script(frames, **script)


SAFE = completion({"0": 0.9, "1": 0.1}, {"\n": 0.999999, ".": 0.000001})
HARMFUL = completion({"1": 0.9999999, "0": 0.0000001}, {"\n": 1.0})
WRITTEN = ('"Analysis": It is calm.', '\n"Judgment": 0')


@contextmanager
def servers(count: int, *, answer: Script = SAFE) -> Iterator[list[Upstream]]:
    if count == 0:
        yield []
        return
    with serve() as first, servers(count - 1, answer=answer) as others:
        first.play(answer)
        yield [first, *others]


def make(upstreams: Sequence[Upstream] | str, **options: Any) -> RemoteJudge:
    urls = upstreams if isinstance(upstreams, str) else [one.url for one in upstreams]
    return RemoteJudge(urls, model="shield", prompt="Rate it.", **options)


@asynccontextmanager
async def judging(upstreams: Sequence[Upstream] | str, **options: Any) -> AsyncIterator[RemoteJudge]:
    judge = make(upstreams, **options)
    try:
        yield judge
    finally:
        await judge.aclose()
