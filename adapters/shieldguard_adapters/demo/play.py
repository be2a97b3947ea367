"""Plays traces through the whole path: server, HTTP, the OpenAI SDK, the guard."""

from collections.abc import Sequence
from dataclasses import replace

import anyio

from shieldguard import Guard, MissingDependency, StreamReport
from shieldguard_adapters.clients import guard_client
from shieldguard_adapters.demo.server import Recital, recite
from shieldguard_adapters.demo.show import Screen
from shieldguard_adapters.traces import Trace

try:
    import openai
except ImportError:
    raise MissingDependency("openai", "demo") from None


def play(traces: Sequence[Trace], guard: Guard, screen: Screen, *, pace: float) -> list[StreamReport]:
    """Play each trace at `pace` characters a second, and give the reports."""
    watched = replace(guard, observers=(*guard.observers, screen))
    with recite(traces, pace=pace) as recital:
        client = guard_client(openai.AsyncOpenAI(base_url=recital.url, api_key="not needed"), watched)

        async def all_of_them() -> list[StreamReport]:
            async with client:
                return [await _play_one(client, trace, screen, recital) for trace in traces]

        return anyio.run(all_of_them)


async def _play_one(
    client: openai.AsyncOpenAI, trace: Trace, screen: Screen, recital: Recital
) -> StreamReport:
    screen.begin(trace)
    stream = await client.chat.completions.create(
        model=trace.name, messages=[{"role": "user", "content": trace.query}], stream=True
    )
    async for chunk in stream:
        for choice in chunk.choices:
            screen.text("reasoning", getattr(choice.delta, "reasoning_content", None) or "")
            screen.text("refusal" if choice.delta.refusal else "answer", choice.delta.content or "")
    screen.end(recital)
    assert screen.report is not None
    return screen.report
