"""Guard the official OpenAI client. The model is a local one that recites two traces; give `base_url` and
`model` of your own instead."""

import asyncio
from collections.abc import Sequence

import openai

from shieldguard import Guard
from shieldguard_adapters.clients import guard_client, report_of
from shieldguard_adapters.demo.scripts import ALL
from shieldguard_adapters.demo.server import recite
from shieldguard_adapters.traces import Trace


async def ask(client: openai.AsyncOpenAI, model: str, question: str) -> None:
    stream = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], stream=True
    )
    answer = ""
    async for chunk in stream:
        for choice in chunk.choices:
            answer += choice.delta.content or ""
    report = report_of(stream)
    print(f"Q: {question}\nA: {answer}\n   {report.ended}, highest level {report.level}\n")


async def ask_all(client: openai.AsyncOpenAI, traces: Sequence[Trace]) -> None:
    async with client:
        for trace in traces:
            await ask(client, trace.name, trace.query)


def main() -> None:
    with recite(ALL, pace=0) as server:
        client = guard_client(openai.AsyncOpenAI(base_url=server.url, api_key="none needed"), Guard())
        asyncio.run(ask_all(client, ALL))


if __name__ == "__main__":
    main()
