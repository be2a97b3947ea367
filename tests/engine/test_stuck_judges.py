"""Judges whose event loop does not run: blocked by the judge itself, or lost in a fork."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shieldguard import (
    Aborted,
    Action,
    Answer,
    Guard,
    JudgeTimeout,
    Policy,
    Reasoning,
    RiskLevel,
    SourceEvent,
    Verdict,
    Window,
)
from shieldguard.testing import scripted_stream

ROOT = Path(__file__).parents[2]
SOURCE: list[SourceEvent] = [Reasoning("A thought that is judged."), Answer("The answer.")]


class Blocking:
    """Does not give way, as a judge that calls a blocking client does not."""

    name = "blocking"

    def __init__(self) -> None:
        self.freed = threading.Event()

    async def judge(self, window: Window) -> Verdict:
        until = time.monotonic() + 20
        while not self.freed.is_set() and time.monotonic() < until:
            pass
        return Verdict(level=RiskLevel.SAFE)


@pytest.mark.anyio
async def test_a_judge_that_blocks_its_loop_is_given_up() -> None:
    judge = Blocking()
    guard = Guard(judge=judge, policy=Policy(judge_timeout=0.05))
    async with guard.stream(scripted_stream(SOURCE)) as stream:
        [event] = [event async for event in stream]
    judge.freed.set()
    assert isinstance(event, Aborted)
    assert isinstance(event.error, JudgeTimeout)


def test_a_judge_that_blocks_its_loop_is_given_up_without_await_too() -> None:
    judge = Blocking()
    with Guard(judge=judge, policy=Policy(judge_timeout=0.05)).stream_sync(SOURCE) as stream:
        [event] = stream
    judge.freed.set()
    assert isinstance(event, Aborted)
    assert isinstance(event.error, JudgeTimeout)


def test_a_judge_that_was_given_up_may_fail_open_on_request() -> None:
    judge = Blocking()
    policy = Policy(judge_timeout=0.05, on_failure=Action.FLAG)
    with Guard(judge=judge, policy=policy).stream_sync(SOURCE) as stream:
        assert list(stream) == SOURCE
    judge.freed.set()
    assert stream.report.failures == 2


FORK = """
import os
from shieldguard import Answer, Guard, Policy, Reasoning
from shieldguard.testing import ScriptedJudge

guard = Guard(judge=ScriptedJudge(delay=0.001), policy=Policy(judge_timeout=15))

def run():
    with guard.stream_sync([Reasoning("A thought."), Answer("The answer.")]) as stream:
        return list(stream)[-1] == Answer("The answer.")

assert run()
child = os.fork()
if child == 0:
    os._exit(0 if run() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert run()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_a_guard_that_was_used_works_in_a_forked_process() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
