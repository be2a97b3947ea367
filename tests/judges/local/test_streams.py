"""Many streams, one model: order, deadlines, bounds, failures, and what is freed when."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch

from shieldguard import JudgeBusy, JudgeError, JudgeTimeout, RiskLevel, Verdict, Window
from shieldguard.judges.local import LocalJudge
from tests.judges.local.tiny import CALM, DOUBT, HARM

ROOT = Path(__file__).resolve().parents[3]
CALM_TEXT = " ".join(CALM)


def window(stream: str, text: str = CALM_TEXT, **rest: Any) -> Window:
    return Window(query="", text=text, stream=stream, **rest)


class Gate:
    """Holds the model's next forward passes until it is opened, and notes how many tokens each has. It
    hangs on the real model, as a hook. A pass fails that has the token `poison` in it, and as many of the
    next ones as `short_of_memory` says."""

    def __init__(self, judge: LocalJudge) -> None:
        self.passes: list[int] = []
        self.poison: int | None = None
        self.short_of_memory = 0
        self._open = threading.Event()
        self._open.set()
        self.reached = threading.Event()
        self.hook = judge._checkpoint.model.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, _: object, arguments: object, options: dict[str, Any]) -> None:
        tokens = options["input_ids"][0].tolist()
        self.passes.append(len(tokens))
        self.reached.set()
        assert self._open.wait(20)
        if self.poison in tokens:
            raise RuntimeError("a bad token")
        if self.short_of_memory:
            self.short_of_memory -= 1
            raise torch.OutOfMemoryError("no room")

    def shut(self) -> None:
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def judge(checkpoint: Path) -> Iterator[LocalJudge]:
    judge = LocalJudge(checkpoint, dtype="float32", device="cpu", queue=6, max_batch=3)
    yield judge
    judge.close()


@pytest.fixture
def gate(judge: LocalJudge) -> Iterator[Gate]:
    gate = Gate(judge)
    yield gate
    gate.open()


async def started(judge: LocalJudge, gate: Gate, one: Window) -> "asyncio.Task[Verdict]":
    """A window that the model has begun with, and does not get on with."""
    gate.shut()
    task = asyncio.create_task(judge.judge(one))
    assert await asyncio.to_thread(gate.reached.wait, 20)
    return task


def test_streams_at_once_share_a_forward_pass(judge: LocalJudge, gate: Gate) -> None:
    async def main() -> None:
        first = await started(judge, gate, window("0"))
        others = [asyncio.create_task(judge.judge(window(str(n), f"{n} {HARM}"))) for n in range(1, 4)]
        await asyncio.sleep(0)
        gate.open()
        assert (await first).level is RiskLevel.SAFE
        assert {(await other).level for other in others} == {RiskLevel.HARMFUL}

    asyncio.run(main())
    assert len(gate.passes) == 2


def test_each_streams_first_window_goes_before_any_streams_second(judge: LocalJudge, gate: Gate) -> None:
    order: list[str] = []

    async def one(name: str, lane: int) -> None:
        await judge.judge(window(name, block=lane))
        order.append(name)

    async def main() -> None:
        first = await started(judge, gate, window("first"))
        tasks = [asyncio.create_task(one("greedy", lane)) for lane in range(4)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(one("modest", 0)))
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, *tasks)

    asyncio.run(main())
    assert "modest" in order[:3]  # in the first batch, though four came before it


def test_a_long_recomputation_holds_up_nobody(checkpoint: Path) -> None:
    judge = LocalJudge(checkpoint, dtype="float32", step_tokens=64)
    gate = Gate(judge)

    async def main() -> float:
        long = await started(judge, gate, window("long", CALM_TEXT * 40))
        begun = len(gate.passes)
        short = asyncio.create_task(judge.judge(window("short")))
        await asyncio.sleep(0)
        gate.open()
        await short
        passes = len(gate.passes) - begun
        assert not long.done()
        assert (await long).level is RiskLevel.SAFE
        return passes

    assert asyncio.run(main()) <= 4
    assert max(gate.passes) <= 64
    judge.close()


def test_a_window_past_its_deadline_is_dropped_unjudged(judge: LocalJudge, gate: Gate) -> None:
    async def main() -> None:
        first = await started(judge, gate, window("first"))
        late = asyncio.create_task(judge.judge(window("late", deadline=time.monotonic() + 0.05)))
        await asyncio.sleep(0.1)
        gate.open()
        assert await first
        with pytest.raises(JudgeTimeout):
            await late

    asyncio.run(main())
    assert len(gate.passes) == 1


def test_one_window_too_many_is_refused_at_once(judge: LocalJudge, gate: Gate) -> None:
    async def main() -> None:
        first = await started(judge, gate, window("first"))
        waiting = [asyncio.create_task(judge.judge(window(str(number)))) for number in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(JudgeBusy, match="queue=6"):
            await judge.judge(window("one more"))
        waiting[2].cancel()  # who leaves makes room
        await asyncio.sleep(0)
        again = asyncio.create_task(judge.judge(window("one more")))
        await asyncio.sleep(0)
        gate.open()
        assert await asyncio.gather(first, again, *waiting[:2], *waiting[3:])

    asyncio.run(main())


def test_one_streams_failure_harms_no_other(judge: LocalJudge, gate: Gate) -> None:
    [gate.poison] = judge._layout.encode(f" {DOUBT}")

    async def main() -> None:
        first = await started(judge, gate, window("first"))
        bad = asyncio.create_task(judge.judge(window("bad", f"{CALM_TEXT} {DOUBT}")))
        worse = asyncio.create_task(judge.judge(Window(query=3, text="x", stream="worse")))  # type: ignore[arg-type]
        good = asyncio.create_task(judge.judge(window("good", HARM)))
        await asyncio.sleep(0)
        gate.open()
        assert await first
        assert (await good).level is RiskLevel.HARMFUL
        for failing in (bad, worse):
            with pytest.raises(JudgeError, match="could not judge"):
                await failing
        gate.poison = None
        assert (await judge.judge(window("bad", f"{CALM_TEXT} {DOUBT}"))).level is RiskLevel.POTENTIAL

    asyncio.run(main())


@pytest.mark.parametrize(("times", "passes"), [(1, 2), (2, 2)])
def test_where_memory_is_short_what_was_kept_makes_room(
    judge: LocalJudge, gate: Gate, times: int, passes: int
) -> None:
    async def main() -> None:
        await judge.judge(window("kept"))
        gate.short_of_memory = times
        gate.passes.clear()
        if times == 1:
            assert (await judge.judge(window("new", HARM))).level is RiskLevel.HARMFUL
        else:
            with pytest.raises(JudgeError, match="no room"):
                await judge.judge(window("new", HARM))
        assert (len(gate.passes), judge.usage.texts) == (passes, 1)

    asyncio.run(main())


def test_a_stream_that_ends_frees_what_was_kept_of_it(judge: LocalJudge, gate: Gate) -> None:
    async def main() -> None:
        for block in range(3):
            await judge.judge(window("kept", block=block))
        await judge.judge(window("other"))
        assert judge.usage.texts == 4
        judge.forget("kept")
        judge.forget("never heard of")
        await judge.judge(window("other", f"{CALM_TEXT} and"))
        assert judge.usage.texts == 1
        # In the midst of a window, too: nobody waits for it any more.
        task = await started(judge, gate, window("ends"))
        judge.forget("ends")
        gate.open()
        with pytest.raises(JudgeError, match="has ended"):
            await task
        await judge.judge(window("other", f"{CALM_TEXT} and then"))
        assert judge.usage.texts == 1

    asyncio.run(main())


def test_the_memory_stays_within_its_budget(checkpoint: Path) -> None:
    row = 2 * 2 * 2 * 16 * 4
    judge = LocalJudge(checkpoint, dtype="float32", context=1024, memory=1024 * row)

    async def main() -> None:
        for number in range(12):
            for end in (100, 500, 900):
                await judge.judge(window(str(number), (CALM_TEXT * 12)[:end]))
                assert judge.usage.bytes <= 1024 * row
        assert judge.usage.evictions >= 6
        assert judge.usage.texts >= 2

    asyncio.run(main())
    judge.close()


LONG = "the kettle hums " * 600


@pytest.mark.parametrize("streams", [["a", "b", "c", "d", "e"], ["same"] * 3])
def test_what_takes_many_steps_and_more_memory_than_there_is_comes_to_its_end(
    checkpoint: Path, streams: list[str]
) -> None:
    row = 2 * 2 * 2 * 16 * 4  # keys and values x layers x heads x size x bytes
    judge = LocalJudge(checkpoint, dtype="float32", context=2048, memory=3 * 2048 * row, step_tokens=128)

    async def all_at_once() -> list[Verdict]:
        deadline = time.monotonic() + 30
        windows = [
            window(stream, f"{number} {LONG}", deadline=deadline) for number, stream in enumerate(streams)
        ]
        return await asyncio.gather(*map(judge.judge, windows))

    assert len(asyncio.run(all_at_once())) == len(streams)
    assert judge.usage.tokens < 2 * len(streams) * len(judge.tokenizer(LONG)["input_ids"])
    judge.close()


def test_a_callback_that_wants_to_end_its_thread_ends_nobodys_judgement(judge: LocalJudge) -> None:
    def leave(window: Window, piece: str) -> None:
        raise SystemExit

    full = judge.in_mode("full", on_analysis=leave)
    for one in (full, judge):
        assert asyncio.run(one.judge(window("s", deadline=time.monotonic() + 30))).level is RiskLevel.SAFE


_FORKED = """
import asyncio, os, sys
from shieldguard import JudgeError, Window
from shieldguard.judges.local import LocalJudge

judge = LocalJudge(sys.argv[1], dtype="float32")
window = Window(query="", text="The kettle hums.", stream="s")
child = os.fork()
if child:
    asyncio.run(judge.judge(window))
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    asyncio.run(judge.judge(window))
except JudgeError as error:
    os._exit(0 if "make one in each process" in str(error) else 3)
os._exit(4)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_a_forked_process_is_told_to_make_its_own(checkpoint: Path) -> None:
    command = [sys.executable, "-c", _FORKED, str(checkpoint)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr


def test_a_cancelled_window_is_not_computed(judge: LocalJudge, gate: Gate) -> None:
    async def main() -> None:
        first = await started(judge, gate, window("first"))
        given_up = asyncio.create_task(judge.judge(window("given up")))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        gate.open()
        await first

    asyncio.run(main())
    judge.close()
    assert len(gate.passes) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_loop_goes_on_while_the_model_computes(judge: LocalJudge, gate: Gate, backend: str) -> None:
    async def main() -> None:
        gate.shut()
        verdicts: list[Verdict] = []

        async def ask() -> None:
            verdicts.append(await judge.judge(window("one", HARM)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            assert await anyio.to_thread.run_sync(gate.reached.wait, 20)
            for _ in range(50):  # the model hangs, the loop does not
                await anyio.sleep(0.001)
            assert not verdicts
            gate.open()
        assert [verdict.level for verdict in verdicts] == [RiskLevel.HARMFUL]
        gate.shut()
        with anyio.move_on_after(0.05) as scope:
            await judge.judge(window("cancelled"))
        assert scope.cancelled_caught
        gate.open()

    anyio.run(main, backend=backend)


def test_loops_in_several_threads_share_a_judge(judge: LocalJudge) -> None:
    found: list[Verdict] = []

    def program(backend: str, stream: str) -> None:
        found.append(anyio.run(partial(judge.judge, window(stream, HARM)), backend=backend))

    threads = [
        threading.Thread(target=program, args=(backend, f"{backend} {number}"))
        for backend in ("asyncio", "trio")
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [verdict.level for verdict in found] == [RiskLevel.HARMFUL] * 4


def test_a_closed_judge_says_so_and_its_thread_ends(judge: LocalJudge, gate: Gate) -> None:
    async def main() -> None:
        first = await started(judge, gate, window("first"))
        waiting = asyncio.create_task(judge.judge(window("waiting")))
        await asyncio.sleep(0)
        closing = threading.Thread(target=judge.close)
        closing.start()
        with pytest.raises(JudgeError, match="was closed"):
            await waiting
        gate.open()
        closing.join()
        with pytest.raises(JudgeError, match="was closed"):
            await first
        with pytest.raises(JudgeError, match="was closed"):
            await judge.judge(window("another"))

    asyncio.run(main())
    assert judge.usage.texts == 0


def test_a_judge_nobody_uses_any_more_ends_its_thread(checkpoint: Path) -> None:
    judge = LocalJudge(checkpoint, dtype="float32")
    other = judge.in_mode("full")
    thread = judge._worker._thread
    del judge
    gc.collect()
    assert asyncio.run(other.judge(window("s", HARM))).level is RiskLevel.HARMFUL
    del other
    gc.collect()
    thread.join(timeout=20)
    assert not thread.is_alive()
