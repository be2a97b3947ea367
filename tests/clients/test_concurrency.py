"""Many streams at once through one client."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import openai
import pytest

from shieldguard_adapters.clients import guard_client
from tests.clients.rig import PROGRAMS, QUESTION, Outcome, guard, run
from tests.upstream import Script, Upstream, chat

STREAMS = 50


def said(number: int) -> str:
    mark = "HARM" if number % 5 == 0 else "calm"
    sentence = f"Stream {number} thinks of {number} things, one by one, and is {mark} about each of them. "
    return (sentence * 3).replace("HARM", "calm", 2) + sentence


def scripts(upstream: Upstream) -> None:
    for number in range(STREAMS):
        text = said(number)
        pieces = [text[at : at + 12] for at in range(0, len(text), 12)]
        upstream.models[f"m{number}"] = Script(chat(pieces, [f"answer {number}"]), delay=0.001)


def check(number: int, outcome: Outcome) -> None:
    if number % 5 == 0:
        assert outcome.content[0] == outcome.refusal[0]
        assert outcome.content[0].startswith("[Withheld")
        assert said(number).startswith(outcome.reasoning.get(0, ""))
    else:
        assert outcome.reasoning[0] == said(number)
        assert outcome.content[0] == f"answer {number}"


@pytest.mark.parametrize("instant", [True, False], ids=["judge in place", "judge on its loop"])
@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_fifty_tasks_get_each_their_own_stream(program: str, instant: bool, upstream: Upstream) -> None:
    scripts(upstream)
    outcomes = {number: Outcome() for number in range(STREAMS)}

    async def body(client: openai.AsyncOpenAI) -> None:
        async def one(number: int) -> None:
            stream: Any = await client.chat.completions.create(
                model=f"m{number}", messages=QUESTION, stream=True
            )
            async for chunk in stream:
                outcomes[number].chunk(chunk)

        async with anyio.create_task_group() as tasks:
            for number in range(STREAMS):
                tasks.start_soon(one, number)

    run(program, upstream, body, guard(instant=instant, delay=0.0 if instant else 0.002))
    for number, outcome in outcomes.items():
        check(number, outcome)


def test_threads_that_share_a_client_get_each_their_own_stream(upstream: Upstream) -> None:
    scripts(upstream)
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, guard(instant=False))

        def one(number: int) -> None:
            outcome = Outcome()
            for chunk in client.chat.completions.create(model=f"m{number}", messages=QUESTION, stream=True):
                outcome.chunk(chunk)
            check(number, outcome)

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(one, range(STREAMS)))
