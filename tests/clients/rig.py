"""The real SDK against the loopback server, in each of its ways to ask, from each kind of program."""

import warnings
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

import anyio
import openai

from shieldguard import Guard, Policy, StreamReport
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge
from shieldguard_adapters.clients import guard_client, report_of
from tests.upstream import Upstream

T = TypeVar("T")

#: What the SDK at hand sits on: openai 2 on httpx, openai 3 on httpx2.
HTTP: ModuleType = import_module("httpx2" if int(openai.__version__.partition(".")[0]) >= 3 else "httpx")

MARKS = {"HARM": 1.0, "DOUBT": 0.5}
QUESTION: list[Any] = [{"role": "user", "content": "What do you think?"}]
PROGRAMS = ["sync", "asyncio", "trio"]
STREAMED = ["create", "helper", "raw response", "streaming response"]


def guard(marks: Any = MARKS, *, instant: bool = True, delay: float = 0.0, **policy: Any) -> Guard:
    judge = (InstantScriptedJudge if instant else ScriptedJudge)(marks, delay=delay)
    return Guard(judge=judge, policy=Policy(**policy))


def reasoning(*, sentences: int = 8, harm_in: int | None = None) -> list[str]:
    """Pieces of a thought; each sentence is a window of its own."""
    marks = ["HARM" if number == harm_in else "calm" for number in range(sentences)]
    text = " ".join(
        f"Sentence {number} of the thought is {mark}, and it goes on for quite a while so that it is long "
        "enough to be a window for the judge on its own, whatever else may come behind it."
        for number, mark in enumerate(marks)
    )
    return [text[at : at + 16] for at in range(0, len(text), 16)]


@dataclass
class Outcome:
    """What a caller got, by choice."""

    content: dict[int, str] = field(default_factory=dict)
    reasoning: dict[int, str] = field(default_factory=dict)
    refusal: dict[int, str] = field(default_factory=dict)
    finish_reason: dict[int, str] = field(default_factory=dict)
    tool_calls: int = 0
    usage: int | None = None
    report: StreamReport | None = None

    def chunk(self, chunk: Any) -> None:
        for choice in chunk.choices:
            self.text(choice.index, choice.delta)
            if choice.finish_reason:
                self.finish_reason[choice.index] = choice.finish_reason
        if chunk.usage:
            self.usage = chunk.usage.total_tokens

    def completion(self, completion: Any) -> None:
        for choice in completion.choices:
            self.text(choice.index, choice.message)
            self.finish_reason[choice.index] = choice.finish_reason
        self.usage = completion.usage.total_tokens if completion.usage else None

    def text(self, index: int, message: Any) -> None:
        thought = getattr(message, "reasoning_content", None)
        for field_, text in (
            (self.content, message.content),
            (self.refusal, message.refusal),
            (self.reasoning, thought),
        ):
            if text:
                field_[index] = field_.get(index, "") + text
        self.tool_calls += len(message.tool_calls or ())

    @property
    def account(self) -> StreamReport:
        assert self.report is not None
        return self.report


def ask(program: str, way: str, upstream: Upstream, by: Guard | None, **request: Any) -> Outcome:
    """Ask once, in one of the ways of `STREAMED`, or "whole"."""
    request = {"model": "m", "messages": QUESTION, **request}
    if program == "sync":
        with openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
            return _ask(guard_client(client, by) if by else client, way, request)
    return run(program, upstream, partial(_ask_async, way=way, request=request), by)


def run(
    program: str, upstream: Upstream, body: Callable[[openai.AsyncOpenAI], Awaitable[T]], by: Guard | None
) -> T:
    """Run `body` with a client of its own, guarded by `by`."""

    async def main() -> T:
        async with openai.AsyncOpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
            return await body(guard_client(client, by) if by else client)

    return run_async(program, main)


def run_async(program: str, main: Callable[[], Awaitable[T]]) -> T:
    with warnings.catch_warnings():
        # The SDKs leave their generators, and httpx's, where a stream ends early; trio says so.
        warnings.filterwarnings("ignore", "Async generator '(openai|anthropic|http)", ResourceWarning)
        return anyio.run(main, backend=program)


def _ask(client: openai.OpenAI, way: str, request: dict[str, Any]) -> Outcome:
    outcome = Outcome()
    completions = client.chat.completions
    if way == "helper":
        with completions.stream(**request) as helper:
            for _ in helper:
                pass
            outcome.completion(helper.get_final_completion())
            outcome.report = _report(helper._response)
    elif way == "raw response":
        raw = completions.with_raw_response.create(**request, stream=True)
        _each(outcome, raw.parse())
        outcome.report = _report(raw)
    elif way == "streaming response":
        with completions.with_streaming_response.create(**request, stream=True) as response:
            _each(outcome, response.parse())
            outcome.report = _report(response)
    elif way == "whole":
        whole = completions.with_raw_response.create(**request)
        outcome.completion(whole.parse())
        outcome.report = _report(whole)
    else:
        stream = completions.create(**request, stream=True)
        _each(outcome, stream)
        outcome.report = _report(stream)
    return outcome


async def _ask_async(client: openai.AsyncOpenAI, way: str, request: dict[str, Any]) -> Outcome:
    outcome = Outcome()
    completions = client.chat.completions
    if way == "helper":
        async with completions.stream(**request) as helper:
            async for _ in helper:
                pass
            outcome.completion(await helper.get_final_completion())
            outcome.report = _report(helper._response)
    elif way == "raw response":
        raw = await completions.with_raw_response.create(**request, stream=True)
        await _each_async(outcome, raw.parse())
        outcome.report = _report(raw)
    elif way == "streaming response":
        async with completions.with_streaming_response.create(**request, stream=True) as response:
            await _each_async(outcome, await response.parse())
            outcome.report = _report(response)
    elif way == "whole":
        whole = await completions.with_raw_response.create(**request)
        outcome.completion(whole.parse())
        outcome.report = _report(whole)
    else:
        stream = await completions.create(**request, stream=True)
        await _each_async(outcome, stream)
        outcome.report = _report(stream)
    return outcome


def _each(outcome: Outcome, stream: Iterable[Any]) -> None:
    for chunk in stream:
        outcome.chunk(chunk)


async def _each_async(outcome: Outcome, stream: Any) -> None:
    async for chunk in stream:
        outcome.chunk(chunk)


def _report(response: Any) -> StreamReport | None:
    """None where nobody guards."""
    try:
        return report_of(response)
    except Exception:
        return None


def raw_bytes(upstream: Upstream, by: Guard | None, *, stream: bool = True) -> bytes:
    """The body of a response as it comes from the HTTP client."""
    with openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
        if by:
            guard_client(client, by)
        asked = client.chat.completions.with_streaming_response
        with asked.create(model="m", messages=QUESTION, stream=stream) as response:
            return b"".join(response.iter_bytes())
