"""Guard LiteLLM's `acompletion`. The model server here is a local one that recites two traces; give a `model`
and an `api_base` of your own instead, of any of LiteLLM's providers."""

import asyncio

from shieldguard import Guard
from shieldguard_adapters.demo.scripts import ALL
from shieldguard_adapters.demo.server import recite
from shieldguard_adapters.litellm import acompletion
from shieldguard_adapters.traces import Trace


async def ask(guard: Guard, trace: Trace, url: str) -> None:
    chunks = await acompletion(
        guard,
        model=f"hosted_vllm/{trace.name}",
        api_base=url,
        messages=[{"role": "user", "content": trace.query}],
        stream=True,
    )
    answer = ""
    async for chunk in chunks:
        answer += chunk.choices[0].delta.content or ""
    print(f"Q: {trace.query}\nA: {answer}\n")


def main() -> None:
    with recite(ALL, pace=0) as server:
        for trace in ALL:
            asyncio.run(ask(Guard(), trace, server.url))


if __name__ == "__main__":
    main()
