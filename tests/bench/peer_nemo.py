"""What NeMo Guardrails' streaming output check costs per chunk, with a check that allows at once.

Needs an environment with requirements-nemo.txt. No model is configured: the text comes from an async
generator given to `LLMRails.stream_async(generator=...)`. Prints one JSON object.
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
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

CHUNK_SIZE = 200
CONTEXT_SIZE = 50
WORDS = (
    "a the one this river garden letter window teacher morning market paper kettle walked opened carried "
    "found painted counted quiet narrow old bright slowly again before after near under with and then because"
)

CONFIG = """
models: []
rails:
  output:
    flows:
      - instant check
    streaming:
      enabled: true
      chunk_size: {chunk_size}
      context_size: {context_size}
      stream_first: {stream_first}
"""

FLOW = """
define subflow instant check
  $outcome = execute instant_check
  if $outcome.is_blocked
    bot refuse to respond
    stop
"""


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


async def source(chunks: Sequence[str]) -> AsyncIterator[str]:
    for chunk in chunks:
        yield chunk


async def consume(stream: AsyncIterator[str], tally: Tally, expected: str) -> float:
    """Iterate to the end and return the seconds; fail if the text is not the expected one."""
    parts: list[str] = []
    gc.collect()
    start = time.perf_counter()
    async for chunk in stream:
        parts.append(chunk)
        tally.chunks_out += 1
    seconds = time.perf_counter() - start
    if "".join(parts) != expected:
        raise RuntimeError(f"the stream gave {''.join(parts)[-200:]!r} at its end, not the source's text")
    return seconds


class Guarded:
    """LLMRails with one output check that counts and allows."""

    def __init__(self, *, stream_first: bool) -> None:
        os.environ["NEMO_GUARDRAILS_NO_USAGE_STATS"] = "1"  # read when LLMRails is built
        nemo: Any = importlib.import_module("nemoguardrails")
        outcome: Any = importlib.import_module("nemoguardrails.actions.rail_outcome")
        self.tally = Tally()
        allow = outcome.RailOutcome.allow()

        async def instant_check(context: dict[str, Any], **_: Any) -> Any:
            self.tally.record(context["bot_message"])
            return allow

        config = CONFIG.format(
            chunk_size=CHUNK_SIZE, context_size=CONTEXT_SIZE, stream_first=str(stream_first).lower()
        )
        rails_config = nemo.RailsConfig.from_content(yaml_content=config, colang_content=FLOW)
        self._rails: Any = nemo.LLMRails(rails_config)
        self._rails.register_action(instant_check, name="instant_check")

    def stream(self, chunks: Sequence[str]) -> AsyncIterator[str]:
        """Start a guarded run with a fresh tally."""
        self.tally = Tally()
        messages = [{"role": "user", "content": "Tell me a story."}]
        stream: AsyncIterator[str] = self._rails.stream_async(messages=messages, generator=source(chunks))
        return stream


async def measure(text: str, size: int, repeat: int, *, stream_first: bool) -> dict[str, object]:
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    guarded = Guarded(stream_first=stream_first)
    times: dict[str, list[float]] = {"bare": [], "guarded": []}
    for turn in range(repeat + 1):
        for kind in ("bare", "guarded") if turn % 2 else ("guarded", "bare"):
            if kind == "bare":
                seconds = await consume(source(chunks), Tally(), text)
            else:
                stream = guarded.stream(chunks)
                seconds = await consume(stream, guarded.tally, text)
            if turn:  # the first turn warms up
                times[kind].append(seconds)
    bare, over = median(times["bare"]), median(times["guarded"])
    return {
        "name": "NeMo Guardrails, " + ("stream first" if stream_first else "hold back"),
        "version": importlib.metadata.version("nemoguardrails"),
        "chars_per_chunk": size,
        "chunks": len(chunks),
        "seconds_bare": round(bare, 6),
        "seconds_guarded": round(over, 6),
        "us_per_chunk_added": round((over - bare) / len(chunks) * 1e6, 3),
        "ratio_to_bare": round(over / bare, 2),
        "judged_chars": guarded.tally.judged_chars,
        "checks": guarded.tally.checks,
        "chunks_out_before_first_check": guarded.tally.out_before_first_check,
        "note": "bare is the in-memory async generator alone, with no I/O: compare the microseconds, not the "
        f"ratio; chunk_size {CHUNK_SIZE} and context_size {CONTEXT_SIZE} count source chunks",
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chars-per-chunk", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4000, help="4 characters each")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--stream-first", action="store_true", help="deliver chunks before they are checked")
    args = parser.parse_args(argv)
    if min(args.chars_per_chunk, args.tokens, args.repeat) < 1:
        parser.error("--chars-per-chunk, --tokens and --repeat must be at least 1")
    text = prose(4 * args.tokens)
    result = asyncio.run(measure(text, args.chars_per_chunk, args.repeat, stream_first=args.stream_first))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
