"""What a verdict costs, side by side:

A  the model card's recipe: at each window all is read again, and an analysis is written
B  all is read again, and the label is forced
C  `LocalJudge` in mode "fast"
D  the same for several streams at once

Each in a process of its own, for its peak of memory. A and B are plain transformers.
"""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shieldguard.errors import ConfigError
from shieldguard.evaluation.random_weights import prose
from shieldguard.judges.contract import JUDGMENT, user_message
from shieldguard.windows import Window

ANALYSIS = 300
"""Tokens of analysis that A writes for a verdict; the card's examples have about as many."""

_SAMPLES = 5  # windows of A and B that are run; what is between them is interpolated
_STEPS = 4  # decoding steps timed at each
_QUERY = "Which of the two tariffs is cheaper for me over a year?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`first`, `last`: seconds for these windows, `total`: for all of them, of all streams. `computed`:
    tokens that the judge computed for each token of a thought. `peak`: bytes of the process, weights
    included."""

    name: str
    what: str
    first: float
    last: float
    total: float
    computed: float
    peak: int
    streams: int = 1

    @property
    def share(self) -> float:
        """The seconds for one stream."""
        return self.total / self.streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    tokens: int
    window: int
    rows: Sequence[Row]

    def markdown(self) -> str:
        [c] = [row for row in self.rows if row.name == "C"]
        lines = [
            f"| a thought of {self.tokens} tokens, windows of {self.window} | s/window: first | last | "
            "s for the stream | x C | computed per token | peak |",
            "|---" * 7 + "|",
        ]
        for row in self.rows:
            lines.append(
                f"| {row.name}: {row.what} | {row.first:.2f} | {row.last:.2f} | {row.share:.1f} | "
                f"{row.share / c.total:.2f} | {row.computed:.2f} | {row.peak / 1e9:.1f} GB |"
            )
        return "\n".join(lines)


def measure(
    checkpoint: Path, *, tokens: int, window: int, streams: int = 8, threads: int | None = None
) -> Costs:
    """Run all four. Raises `ConfigError` for windows that do not fit in."""
    if not 0 < window <= tokens:
        raise ConfigError(f"windows of {window!r} tokens in a thought of {tokens!r}; take 1 to {tokens!r}")
    options = (checkpoint, tokens, window, threads)
    c = _apart(_judged, *options, 1)
    d = _apart(_judged, *options, streams)
    a, b = _apart(_a_and_b, *options)
    return Costs(tokens=tokens, window=window, rows=[a, b, c, d])


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def _peak() -> int:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _texts(tokenizer: Any, tokens: int, window: int) -> list[str]:
    """The thought at the end of each window."""
    text = prose(8 * tokens)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [text[: offsets[end - 1][1]] for end in range(window, tokens + 1, window)]


def _judged(checkpoint: Path, tokens: int, window: int, threads: int | None, streams: int) -> Row:
    import torch

    from shieldguard.judges.local import LocalJudge

    if threads is not None:
        torch.set_num_threads(threads)
    judge = LocalJudge(checkpoint)
    texts = _texts(judge.tokenizer, tokens, window)

    async def one(stream: str) -> list[float]:
        seconds = []
        for text in texts:
            began = time.perf_counter()
            await judge.judge(Window(query=_QUERY, text=text, stream=stream))
            seconds.append(time.perf_counter() - began)
        return seconds

    async def everyone() -> list[list[float]]:
        return await asyncio.gather(*(one(str(number)) for number in range(streams)))

    before = judge.usage.tokens
    began = time.perf_counter()
    seconds = asyncio.run(everyone())
    total = time.perf_counter() - began
    computed = judge.usage.tokens - before
    judge.close()
    return Row(
        name="C" if streams == 1 else "D",
        what="LocalJudge, fast" if streams == 1 else f"the same, {streams} streams at once, one's share",
        first=max(each[0] for each in seconds),
        last=max(each[-1] for each in seconds),
        total=total,
        computed=computed / (streams * len(texts) * window),
        peak=_peak(),
        streams=streams,
    )


def _a_and_b(checkpoint: Path, tokens: int, window: int, threads: int | None) -> tuple[Row, Row]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from shieldguard.judges.local.checkpoint import DTYPES, chosen_device, chosen_dtype, prompt_of

    if threads is not None:
        torch.set_num_threads(threads)
    device = chosen_device(None)
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=DTYPES[chosen_dtype(None, device)])
    model.to(device)
    prompt = prompt_of(str(checkpoint))
    texts = _texts(tokenizer, tokens, window)

    def asked(thought: str) -> Any:
        messages = [
            {"role": "system", "content": prompt},
            {"role": "user", "content": user_message(_QUERY, thought)},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text + JUDGMENT, add_special_tokens=False, return_tensors="pt")["input_ids"]
        return ids.to(device)

    @torch.inference_mode()
    def run(ids: Any) -> tuple[float, float]:
        """The seconds of reading everything, and those of writing one token more."""
        began = time.perf_counter()
        output = model(input_ids=ids, use_cache=True, logits_to_keep=1)
        token = int(output.logits[0, -1].argmax())  # which waits for a GPU
        reading = time.perf_counter() - began
        argument = "cache" if "cache" in output else "past_key_values"  # renamed in transformers 5.24
        cache = output[argument]
        steps = []
        for _ in range(_STEPS):
            began = time.perf_counter()
            ids = torch.tensor([[token]], device=device)
            output = model(input_ids=ids, use_cache=True, **{argument: cache})
            token = int(output.logits[0, -1].argmax())
            steps.append(time.perf_counter() - began)
        return reading, statistics.median(steps)

    lengths = [asked(text).shape[1] for text in texts]
    count = min(_SAMPLES, len(texts))
    sampled = sorted({round(at * (len(texts) - 1) / max(1, count - 1)) for at in range(count)})
    run(asked(texts[0]))  # the first pass is not like the others
    found = {at: run(asked(texts[at])) for at in sampled}
    reading, writing = (
        _interpolated({at: pair[part] for at, pair in found.items()}, len(texts)) for part in (0, 1)
    )
    read = sum(lengths) / (len(texts) * window)
    ran = "run whole" if count == len(texts) else f"from {count} of {len(texts)} windows"
    a = Row(
        name="A",
        what=f"the card's recipe, {ANALYSIS} tokens of analysis (extrapolated from unit costs, {ran})",
        first=reading[0] + ANALYSIS * writing[0],
        last=reading[-1] + ANALYSIS * writing[-1],
        total=sum(reading) + ANALYSIS * sum(writing),
        computed=read + ANALYSIS / window,
        peak=_peak(),
    )
    b = Row(
        name="B",
        what=f"all read again ({ran})",
        first=reading[0],
        last=reading[-1],
        total=sum(reading),
        computed=read,
        peak=_peak(),
    )
    return a, b


def _interpolated(known: dict[int, float], count: int) -> list[float]:
    """The values at 0 to count - 1, straight between those that are known."""
    places = sorted(known)
    values = []
    for at in range(count):
        low = max(place for place in places if place <= at)
        high = min(place for place in places if place >= at)
        part = (at - low) / (high - low) if high > low else 0.0
        values.append(known[low] + part * (known[high] - known[low]))
    return values
