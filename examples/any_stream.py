"""Guard any async iterator of text: here a model that thinks between <think> tags."""

import asyncio
from collections.abc import AsyncIterator

from shieldguard import Aborted, Answer, Guard, Passthrough, Reasoning


async def model(text: str) -> AsyncIterator[str]:
    """Stands for your model: a few characters at a time."""
    for start in range(0, len(text), 12):
        yield text[start : start + 12]
        await asyncio.sleep(0.001)


HARMLESS = (
    "<think>The user asks why bread needs salt. Salt slows the yeast, so that the dough rises evenly, and "
    "it strengthens the gluten, so that the loaf keeps its shape. It also brings out the taste. I will give "
    "these three reasons, briefly, and say how much is usual: two parts in a hundred of the flour's weight."
    "</think>It slows the yeast, strengthens the gluten and brings out the taste; 2 % is usual."
)


async def main() -> None:
    guard = Guard()
    async with guard.stream(model(HARMLESS), query="Why does bread need salt?") as stream:
        async for event in stream:
            match event:
                case Reasoning(text) | Answer(text) | Passthrough(text):
                    print(text, end="", flush=True)
                case Aborted(notice=notice):
                    print(f"\n{notice}")
    report = stream.report
    print(f"\n{report.ended}, level {report.level}: {report.reasoning.judged} characters of reasoning judged")


if __name__ == "__main__":
    asyncio.run(main())
