"""Guard a LlamaIndex model. The model server here is a local one that recites two traces; give a model of
your own instead, of any of LlamaIndex's classes."""

import asyncio
from dataclasses import replace

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI

from shieldguard import Guard
from shieldguard_adapters.demo.scripts import ALL
from shieldguard_adapters.demo.server import recite
from shieldguard_adapters.llama_index import GuardedLLM

MODEL = "gpt-4o"  # its class knows OpenAI's models alone


async def ask(llm: GuardedLLM, question: str) -> None:
    answer = ""
    async for chunk in await llm.astream_chat([ChatMessage(question)]):
        answer += chunk.delta or ""
    print(f"Q: {question}\nA: {answer}\n")


def main() -> None:
    guard = Guard()
    for trace in ALL:
        with recite([replace(trace, name=MODEL)], pace=0) as server:
            llm = GuardedLLM(OpenAI(MODEL, api_base=server.url, api_key="none needed"), guard)
            asyncio.run(ask(llm, trace.query))


if __name__ == "__main__":
    main()
