"""A client that leaves early: what came is judged, and the upstream closed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from shieldguard import Ended
from shieldguard_adapters.clients import report_of
from tests.clients.rig import PROGRAMS, guard, reasoning
from tests.clients.sdks import Sdk, connections
from tests.upstream import Script, Upstream

THOUGHT = reasoning(sentences=200)


@contextmanager
def left(upstream: Upstream, sdk: Sdk) -> Iterator[None]:
    """The upstream is left in here, long before its end."""
    frames = sdk.frames(THOUGHT, ["It is fine."])
    upstream.play(Script(frames, delay=0.002))
    yield
    assert upstream.finished.wait(20)
    assert upstream.closed_at is not None
    assert upstream.sent < len(frames) / 2


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
def test_sync_programs_leave(leave: Callable[[Any], None], sdk: Sdk, upstream: Upstream) -> None:
    with left(upstream, sdk), sdk.client(upstream, guard(instant=False)) as client:
        stream = sdk.ask(client)
        leave(stream)
        assert not client._client._transport._pool.connections
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
    with anyio.CancelScope() as scope:
        count = 0
        async with stream:
            async for _ in stream:
                count += 1
                if count == 20:
                    scope.cancel()


@pytest.mark.parametrize("leave", [async_by_closing, async_by_leaving_the_block, async_by_cancelling])
@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_async_programs_leave(leave: Any, program: str, sdk: Sdk, upstream: Upstream) -> None:
    async def body(client: Any) -> Any:
        stream = await sdk.ask(client)
        await leave(stream)
        assert not client._client._transport._pool.connections
        return report_of(stream)

    with left(upstream, sdk):
        report = sdk.run(program, upstream, body, guard(instant=False))
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.judged == report.reasoning.seen > 0


@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_a_cancelled_task_leaves_while_the_judge_is_asked(program: str, sdk: Sdk, upstream: Upstream) -> None:
    by = guard(instant=False, delay=1.5)

    async def body(client: Any) -> Any:
        with anyio.fail_after(30):
            stream = await sdk.ask(client)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(async_by_closing, stream)
                while not upstream.sent:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
                await anyio.sleep(0.15)
                tasks.cancel_scope.cancel()
            return report_of(stream)

    with left(upstream, sdk):
        report = sdk.run(program, upstream, body, by)
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.released == 0


def test_leaving_does_not_wait_longer_than_a_judge_may_take(sdk: Sdk, upstream: Upstream) -> None:
    upstream.play(Script([b"".join(sdk.frames(THOUGHT, [])[:40])], hold_open=True))
    with sdk.client(upstream, guard(instant=False, delay=60, judge_timeout=0.1)) as client:
        stream = sdk.ask(client)
        next(iter(stream))
        began = time.monotonic()
        stream.close()
        assert time.monotonic() - began < 20
    assert report_of(stream).reasoning.withheld > 0


def test_a_client_that_leaves_behind_the_first_frame_has_left(sdk: Sdk, upstream: Upstream) -> None:
    upstream.play(Script(sdk.frames(THOUGHT, [])[:1], hold_open=True))
    with sdk.client(upstream, guard()) as client:
        stream = sdk.ask(client)
        next(iter(stream))
        stream.close()
    assert report_of(stream).ended is Ended.CLIENT_LEFT


@pytest.mark.parametrize("silent", ["before the answer", "before its first byte"])
@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_a_task_that_is_cancelled_before_the_first_byte_leaves_nothing(
    program: str, silent: str, sdk: Sdk, upstream: Upstream
) -> None:
    wait = 0.5 if silent == "before the answer" else 0.0
    upstream.play(Script([], wait=wait, hold_open=True))

    async def body(client: Any) -> None:
        async def read() -> None:
            async for _ in await sdk.ask(client):
                pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            with anyio.fail_after(20):
                while not upstream.requests:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()
        assert not client._client._transport._pool.connections

    sdk.run(program, upstream, body, guard(instant=False))
    assert upstream.finished.wait(20)


@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_a_task_that_is_cancelled_at_any_time_of_an_abort_gets_nothing_unjudged(
    program: str, sdk: Sdk, upstream: Upstream
) -> None:
    upstream.play(Script(sdk.frames(["Calm. ", *reasoning(sentences=9, harm_in=0)], ["No."]), delay=0.002))

    async def body(client: Any) -> None:
        for after in range(0, 120, 6):
            said = ""
            with anyio.move_on_after(after / 1000):
                async for event in await sdk.ask(client):
                    said += sdk.said(event)
            assert "HARM" not in said
            assert not connections(client)

    sdk.run(program, upstream, body, guard(instant=False, delay=0.03))
    assert upstream.finished.wait(20)
