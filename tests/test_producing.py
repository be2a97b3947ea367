"""A producer in a thread: what it puts comes out in order, it waits for room, and it ends when told."""

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from shieldguard_adapters.producing import Outlet, Produced

ROOT = Path(__file__).resolve().parents[1]


def produced(
    count: int, *, room: int = 4, error: BaseException | None = None, put: list[int] | None = None
) -> Produced[int]:
    seen = [] if put is None else put

    def produce(outlet: Outlet[int]) -> None:
        for number in range(count):
            if outlet.stopped:
                return
            outlet.put(number)
            seen.append(number)
        if error is not None:
            raise error

    return Produced(produce, room=room, name="producing")


def running() -> bool:
    return any(thread.name == "producing" for thread in threading.enumerate())


def comes_true(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 20
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def ends() -> bool:
    return comes_true(lambda: not running())


@pytest.mark.parametrize("room", [1, 4, 100])
def test_all_of_it_comes_in_order(room: int) -> None:
    assert list(produced(50, room=room)) == list(range(50))
    assert ends()


@pytest.mark.anyio
@pytest.mark.parametrize("room", [1, 4, 100])
async def test_all_of_it_comes_in_order_in_an_event_loop(room: int) -> None:
    assert [number async for number in produced(50, room=room)] == list(range(50))
    assert ends()


@pytest.mark.parametrize("error", [ValueError("broke"), KeyboardInterrupt()])
def test_what_it_raises_is_raised_once(error: BaseException) -> None:
    source = produced(2, error=error)
    assert [next(source), next(source)] == [0, 1]
    with pytest.raises(type(error)):
        next(source)
    assert list(source) == []


@pytest.mark.anyio
async def test_what_it_raises_is_raised_in_an_event_loop() -> None:
    source = produced(1, error=ValueError("broke"))
    assert await anext(source) == 0
    with pytest.raises(ValueError, match="broke"):
        await anext(source)
    assert [number async for number in source] == []


def test_it_waits_for_room() -> None:
    put: list[int] = []
    source = produced(50, room=4, put=put)
    assert next(source) == 0
    assert comes_true(lambda: len(put) == 5)
    time.sleep(0.1)
    assert put == [0, 1, 2, 3, 4]
    assert next(source) == 1
    assert comes_true(lambda: len(put) == 6)
    time.sleep(0.1)
    assert len(put) == 6
    source.close()


def test_closed_it_ends_and_gives_nothing_more() -> None:
    source = produced(50)
    next(source)
    source.close()
    source.close()
    assert not running()
    assert list(source) == []


@pytest.mark.anyio
async def test_closed_in_an_event_loop_it_ends_and_gives_nothing_more() -> None:
    source = produced(50)
    await anext(source)
    await source.aclose()
    await source.aclose()
    assert ends()
    assert [number async for number in source] == []


@pytest.mark.anyio
async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    go = threading.Event()

    def produce(outlet: Outlet[int]) -> None:
        go.wait(5)
        outlet.put(1)

    source = Produced(produce, room=1, name="producing")
    with anyio.move_on_after(0.05):
        await anext(source)
    go.set()
    assert await anext(source) == 1
    await source.aclose()


def test_never_read_it_never_begins() -> None:
    put: list[int] = []
    source = produced(50, put=put)
    source.close()
    assert list(source) == put == []


@pytest.mark.anyio
async def test_never_read_it_never_begins_in_an_event_loop() -> None:
    put: list[int] = []
    source = produced(50, put=put)
    await source.aclose()
    assert [number async for number in source] == put == []


def test_no_longer_used_it_ends() -> None:
    source = produced(50)
    next(source)
    del source
    gc.collect()
    assert ends()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_ends_when_the_readers_event_loop_has(backend: str) -> None:
    go = threading.Event()

    def produce(outlet: Outlet[int]) -> None:
        go.wait(5)
        while not outlet.stopped:
            outlet.put(1)

    source = Produced(produce, room=100, name="producing")

    async def read() -> None:
        with anyio.move_on_after(0.05):
            await anext(source)

    anyio.run(read, backend=backend)
    go.set()
    assert ends()
    source.close()


AT_EXIT = """
import threading, time
from shieldguard_adapters.producing import Produced

def produce(outlet):
    while not outlet.stopped:
        outlet.put(1)
        time.sleep(0.01)
    print("stopped")

source = Produced(produce, room=1000, name="producing")
next(source)
print("left")
"""


def test_a_program_that_ends_stops_it_first() -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\nstopped\n", "")
