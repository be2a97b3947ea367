"""The thread that a guard's judge runs in: one, when needed, for as long as it is needed."""

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from typing import Any

import anyio
import pytest

from shieldguard import (
    Aborted,
    Answer,
    Ended,
    Guard,
    Passthrough,
    Policy,
    Reasoning,
    SizeWindower,
    StreamReport,
    Verdict,
    Window,
    WindowJudged,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge, scripted_stream

CALM = Reasoning("calm calm ")
FINE = Answer("Fine.")


def guard(judge: Any, observers: Any = (), **policy: Any) -> Guard:
    return Guard(judge=judge, policy=Policy(**policy), windower=SizeWindower(size=10), observers=observers)


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "shieldguard"}


@pytest.fixture
def new() -> Callable[[], set[threading.Thread]]:
    """The threads of the guards of this test, as those of others may not have ended yet."""
    gc.collect()
    before = threads()
    return lambda: threads() - before


def ends(new: Callable[[], object], within: float = 20.0) -> bool:
    until = time.monotonic() + within
    while new() and time.monotonic() < until:
        time.sleep(0.01)
        gc.collect()
    return not new()


def test_a_guard_has_no_thread_before_it_needs_one(new: Callable[[], set[threading.Thread]]) -> None:
    slow, instant = guard(ScriptedJudge()), guard(InstantScriptedJudge())
    assert list(instant.stream_sync([CALM, FINE])) == [CALM, FINE]
    assert list(slow.stream_sync([])) == []
    assert new() == set()
    assert list(slow.stream_sync([CALM, FINE])) == [CALM, FINE]
    assert len(new()) == 1


def test_the_thread_does_not_keep_the_program_alive(new: Callable[[], set[threading.Thread]]) -> None:
    by = guard(ScriptedJudge())
    list(by.stream_sync([CALM]))
    assert [thread.daemon for thread in new()] == [True]


def test_all_streams_of_a_guard_share_one_thread(new: Callable[[], set[threading.Thread]]) -> None:
    judged_by = set()

    class Judge(ScriptedJudge):
        def answer(self, window: Window) -> Verdict:
            judged_by.add(threading.current_thread())
            return super().answer(window)

    by = guard(Judge())

    def read_async(backend: str) -> None:
        async def read() -> None:
            async with by.stream(scripted_stream([CALM, FINE])) as stream:
                assert [event async for event in stream] == [CALM, FINE]

        anyio.run(read, backend=backend)

    def read_sync() -> None:
        assert list(by.stream_sync([CALM, FINE])) == [CALM, FINE]

    with ThreadPoolExecutor(9) as pool:
        tasks = [pool.submit(read_sync) for _ in range(20)]
        tasks += [pool.submit(read_async, backend) for backend in ("asyncio", "trio") for _ in range(5)]
        for task in tasks:
            task.result()
    assert judged_by == new()
    assert len(judged_by) == 1


def test_each_guard_has_a_thread_of_its_own(new: Callable[[], set[threading.Thread]]) -> None:
    guards = [guard(ScriptedJudge()) for _ in range(3)]
    for by in guards:
        list(by.stream_sync([CALM]))
    assert len(new()) == 3


def test_the_threads_of_guards_that_are_gone_end(new: Callable[[], set[threading.Thread]]) -> None:
    for _ in range(20):
        by = guard(ScriptedJudge(delay=0.001))
        assert list(by.stream_sync([CALM, FINE])) == [CALM, FINE]
    assert new()
    del by
    assert ends(new)


@pytest.mark.anyio
async def test_the_threads_of_guards_that_async_streams_were_read_with_end(
    new: Callable[[], set[threading.Thread]],
) -> None:
    for _ in range(20):
        async with guard(ScriptedJudge(delay=0.001)).stream(scripted_stream([CALM, FINE])) as stream:
            assert [event async for event in stream] == [CALM, FINE]
    del stream
    assert await anyio.to_thread.run_sync(ends, new)


def test_a_stream_keeps_the_thread_it_needs(new: Callable[[], set[threading.Thread]]) -> None:
    stream = guard(ScriptedJudge(delay=0.005)).stream_sync([CALM] * 5)
    first = next(stream)
    gc.collect()
    assert [first, *stream] == [CALM] * 5
    assert len(new()) == 1
    del stream
    assert ends(new)


def test_a_judgement_in_flight_is_given_up_with_its_stream_and_its_guard(
    new: Callable[[], set[threading.Thread]],
) -> None:
    asked, cancelled = threading.Event(), threading.Event()

    class Hangs(ScriptedJudge):
        async def judge(self, window: Window) -> Verdict:
            try:
                asked.set()
                await anyio.sleep(60)
                return self.answer(window)
            finally:
                cancelled.set()

    stream = guard(Hangs(), release="lag").stream_sync([CALM] * 5)
    next(stream)
    assert asked.wait(20)
    del stream
    assert cancelled.wait(20)
    assert ends(new)


def test_verdicts_of_a_shadow_are_recorded_though_its_guard_is_gone(
    new: Callable[[], set[threading.Thread]],
) -> None:
    reports = Reports()
    by = guard(ScriptedJudge(delay=0.05), [reports], release="shadow")
    assert list(by.stream_sync([CALM] * 3)) == [CALM] * 3
    del by
    gc.collect()
    assert reports.closed.wait(20)
    assert reports[0].reasoning.judged == 30
    assert ends(new)


class Reports(list[StreamReport]):
    """An observer that keeps the final reports."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Event()

    def window_judged(self, event: WindowJudged) -> None:
        pass

    def stream_closed(self, report: StreamReport) -> None:
        self.append(report)
        self.closed.set()


class Forgetful(ScriptedJudge):
    def forget(self, stream: str) -> None:
        pass


class Slow:
    """Takes its time to go, so that the loop has ended by the time the stream is asked to."""

    def __del__(self) -> None:
        time.sleep(0.1)


def test_a_guard_and_a_stream_collected_together_are_reported_all_the_same() -> None:
    reports = Reports()
    cycle: list[Any] = [Slow()]
    stream = guard(Forgetful(), [reports]).stream_sync(chain([CALM], repeat(Passthrough())))
    assert next(stream) == CALM
    cycle += [cycle, stream]
    del cycle, stream
    gc.collect()
    assert [report.ended for report in reports] == [Ended.ABANDONED]


def test_a_guard_goes_on_after_a_judge_has_hung(new: Callable[[], set[threading.Thread]]) -> None:
    class Judge(ScriptedJudge):
        async def judge(self, window: Window) -> Verdict:
            await anyio.sleep(60 if window.query == "hang" else 0)
            return self.answer(window)

    by = guard(Judge(), judge_timeout=1.5)
    [event] = by.stream_sync([CALM], query="hang")
    assert isinstance(event, Aborted)
    assert list(by.stream_sync([CALM], query="go on")) == [CALM]
    assert len(new()) == 1


PROGRAM = """
import anyio
from shieldguard import Guard, Policy, Reasoning
from shieldguard.testing import ScriptedJudge

class Hangs(ScriptedJudge):
    async def judge(self, window):
        await anyio.sleep_forever()

by = Guard(judge=Hangs(), policy=Policy(release="shadow"))
print(len(list(by.stream_sync([Reasoning("calm")]))))
"""


def test_a_program_ends_though_a_judge_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
