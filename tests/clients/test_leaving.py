"""A client that leaves early: what came is judged, and the upstream closed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import openai
import pytest

from shieldguard import Ended
from shieldguard_adapters.clients import guard_client, report_of
from tests.clients.rig import PROGRAMS, QUESTION, guard, reasoning, run
from tests.upstream import Script, Upstream, chat

ENDLESS = chat(reasoning(sentences=200), ["It is fine."])


@contextmanager
def left(upstream: Upstream) -> Iterator[None]:
    """The upstream is left in here, long before its end."""
    upstream.play(Script(ENDLESS, delay=0.002))
    yield
    assert upstream.finished.wait(2)
    assert upstream.closed_at is not None
    assert upstream.sent < len(ENDLESS) / 2


def by_closing(stream: Any) -> None:
    for count, _ in enumerate(stream):
        if count == 20:
            break
    stream.close()


def by_leaving_the_block(stream: Any) -> None:
    with stream:
        for _ in range(20):
            next(stream)


def by_an_error(stream: Any) -> None:
    with pytest.raises(AttributeError):
        _misread(stream)


def _misread(stream: Any) -> None:
    with stream:
        for count, one in enumerate(stream):
            assert count < 20 or one.no_such_field


@pytest.mark.parametrize("leave", [by_closing, by_leaving_the_block, by_an_error])
def test_sync_programs_leave(leave: Callable[[Any], None], upstream: Upstream) -> None:
    with left(upstream), openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, guard(instant=False))
        stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        leave(stream)
        assert not client._client._transport._pool.connections  # type: ignore[attr-defined]
        report = report_of(stream)
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.judged == report.reasoning.seen > 0


async def async_by_closing(stream: Any) -> None:
    count = 0
    async for _ in stream:
        count += 1
        if count == 20:
            break
    await stream.close()


async def async_by_leaving_the_block(stream: Any) -> None:
    async with stream:
        for _ in range(20):
            await anext(stream)


async def async_by_cancelling(stream: Any) -> None:
    with anyio.move_on_after(0.1):
        async with stream:
            async for _ in stream:
                pass


@pytest.mark.parametrize("leave", [async_by_closing, async_by_leaving_the_block, async_by_cancelling])
@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_async_programs_leave(leave: Any, program: str, upstream: Upstream) -> None:
    async def body(client: openai.AsyncOpenAI) -> Any:
        stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        await leave(stream)
        assert not client._client._transport._pool.connections  # type: ignore[attr-defined]
        return report_of(stream)

    with left(upstream):
        report = run(program, upstream, body, guard(instant=False))
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.judged == report.reasoning.seen > 0


@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_a_cancelled_task_leaves_while_the_judge_is_asked(program: str, upstream: Upstream) -> None:
    async def body(client: openai.AsyncOpenAI) -> Any:
        with anyio.fail_after(5):
            stream = await client.chat.completions.create(model="m", messages=QUESTION, stream=True)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(async_by_closing, stream)
                await anyio.sleep(0.15)
                tasks.cancel_scope.cancel()
            return report_of(stream)

    with left(upstream):
        report = run(program, upstream, body, guard(instant=False, delay=0.4))
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.released == 0


def test_leaving_does_not_wait_longer_than_a_judge_may_take(upstream: Upstream) -> None:
    upstream.play(Script([b"".join(ENDLESS[:40])], hold_open=True))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, guard(instant=False, delay=60, judge_timeout=0.1))
        stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        next(iter(stream))
        began = time.monotonic()
        stream.close()
        assert time.monotonic() - began < 2
    assert report_of(stream).reasoning.withheld > 0


def test_a_client_that_leaves_behind_the_role_has_left(upstream: Upstream) -> None:
    upstream.play(Script(ENDLESS[:1], hold_open=True))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        stream = guard_client(client, guard()).chat.completions.create(
            model="m", messages=QUESTION, stream=True
        )
        next(iter(stream))
        stream.close()
    assert report_of(stream).ended is Ended.CLIENT_LEFT
