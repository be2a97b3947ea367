"""How judges are asked: where, until when, and what becomes of those that fail."""

import asyncio
import gc
import hashlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import anyio
import pytest
from anyio.lowlevel import checkpoint

from shieldguard import (
    AbortCause,
    Aborted,
    Action,
    Answer,
    End,
    Ended,
    Guard,
    GuardedStream,
    JudgeError,
    JudgeTimeout,
    Policy,
    Reasoning,
    ReleasedEvent,
    RiskLevel,
    Rule,
    SizeWindower,
    SourceEvent,
    StreamReport,
    UnparsedVerdict,
    Verdict,
    Window,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge, scripted_stream

pytestmark = pytest.mark.anyio

SAFE = Verdict(level=RiskLevel.SAFE)
CALM = Reasoning("calm calm ")
HARM = Reasoning("HARM HARM ")


class AnyJudge:
    """A judge made of one function."""

    name = "any"

    def __init__(self, answer: Callable[[Window], Awaitable[Any]]) -> None:
        self.answer = answer

    async def judge(self, window: Window) -> Verdict:
        verdict: Verdict = await self.answer(window)
        return verdict


def guard(judge: Any, **policy: Any) -> Guard:
    return Guard(judge=judge, policy=Policy(**policy), windower=SizeWindower(size=10))


async def read(by: Guard, *events: SourceEvent, query: str = "") -> tuple[list[ReleasedEvent], StreamReport]:
    stream = by.stream(scripted_stream(events), query=query)
    return await drained(stream), stream.report


async def drained(stream: GuardedStream) -> list[ReleasedEvent]:
    async with stream:
        return [event async for event in stream]


def text(events: list[ReleasedEvent], kind: type[Reasoning | Answer]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


async def until(happened: Callable[[], object]) -> None:
    for _ in range(5000):
        if happened():
            return
        await anyio.sleep(0.001)
    pytest.fail("it did not happen")


# -- judges that fail ------------------------------------------------------------------------------


async def raises(window: Window) -> None:
    raise LookupError("no such label")


async def has_no_verdict(window: Window) -> None:
    raise JudgeError("no verdict today")


async def times_out_on_its_own(window: Window) -> None:
    raise TimeoutError("the model's server")


async def answers_none(window: Window) -> None:
    return None


async def answers_a_number(window: Window) -> float:
    return 0.0


async def answers_a_word(window: Window) -> str:
    return "safe"


async def answers_a_level(window: Window) -> RiskLevel:
    return RiskLevel.SAFE


async def makes_up_a_level(window: Window) -> Verdict:
    return Verdict(level=0.3)  # type: ignore[arg-type]


async def is_cancelled_from_within(window: Window) -> None:
    raise asyncio.CancelledError


FAILURES: list[Any] = [
    (raises, JudgeError),
    (has_no_verdict, JudgeError),
    (times_out_on_its_own, JudgeError),
    (answers_none, UnparsedVerdict),
    (answers_a_number, UnparsedVerdict),
    (answers_a_word, UnparsedVerdict),
    (answers_a_level, UnparsedVerdict),
    (makes_up_a_level, UnparsedVerdict),
]
each_failure = pytest.mark.parametrize(("answer", "error"), FAILURES)


@each_failure
async def test_a_judge_without_a_verdict_closes(answer: Any, error: type[JudgeError]) -> None:
    [event], report = await read(guard(AnyJudge(answer)), CALM, Answer("Fine."))
    assert isinstance(event, Aborted)
    assert event.cause is AbortCause.JUDGE_FAILURE
    assert type(event.error) is error
    assert report.reasoning.released == report.answer.released == 0


@each_failure
async def test_a_judge_without_a_verdict_may_be_let_pass_and_is_on_record(
    answer: Any, error: type[JudgeError]
) -> None:
    by = guard(AnyJudge(answer), on_failure=Action.FLAG)
    events, report = await read(by, CALM, Answer("Fine."))
    assert events == [CALM, Answer("Fine.")]
    assert [(type(record.error), record.action) for record in report.windows] == [(error, Action.FLAG)] * 2
    assert (report.failures, report.level, report.aborted) == (2, None, None)
    assert (report.reasoning.exposed, report.answer.exposed) == (10, 5)


@pytest.mark.parametrize("on_failure", [Action.ABORT, Action.FLAG])
async def test_what_a_judge_raised_is_the_cause_of_its_error(on_failure: Action) -> None:
    _, report = await read(guard(AnyJudge(raises), on_failure=on_failure), CALM)
    [record] = report.windows
    assert isinstance(record.error, JudgeError)
    assert isinstance(record.error.__cause__, LookupError)
    assert "no such label" in str(record.error)


async def test_a_judge_that_is_cancelled_from_within_closes() -> None:
    [event], _ = await read(guard(AnyJudge(is_cancelled_from_within)), CALM)
    assert isinstance(event, Aborted)
    assert event.cause is AbortCause.JUDGE_FAILURE


class InstantFailure(InstantScriptedJudge):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.reply = answer

    def judge_now(self, window: Window) -> Verdict:
        verdict: Verdict = self.reply(window)
        return verdict


def raise_a_lookup_error(window: Window) -> None:
    raise LookupError("no such label")


def raise_a_judge_error(window: Window) -> None:
    raise JudgeError("no verdict today")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (raise_a_lookup_error, JudgeError),
        (raise_a_judge_error, JudgeError),
        (lambda window: "safe", UnparsedVerdict),
        (lambda window: None, UnparsedVerdict),
    ],
)
async def test_a_judge_asked_in_place_fails_in_the_same_ways(answer: Any, error: type[JudgeError]) -> None:
    [event], _ = await read(guard(InstantFailure(answer)), CALM, Answer("Fine."))
    assert isinstance(event, Aborted)
    assert type(event.error) is error
    events, report = await read(guard(InstantFailure(answer), on_failure="flag"), CALM, Answer("Fine."))
    assert events == [CALM, Answer("Fine.")]
    assert report.failures == 2


async def test_a_judge_that_is_no_coroutine_function_has_no_verdict() -> None:
    class Plain:
        name = "plain"

        def judge(self, window: Window) -> Verdict:
            return SAFE

    [event], _ = await read(guard(Plain()), CALM)
    assert isinstance(event, Aborted)
    assert event.cause is AbortCause.JUDGE_FAILURE


@pytest.mark.parametrize("on_failure", [Action.ABORT, Action.FLAG])
async def test_a_judge_that_hangs_is_cancelled_at_its_deadline(on_failure: Action) -> None:
    cancelled = []

    async def hangs(window: Window) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(window)

    by = guard(AnyJudge(hangs), judge_timeout=0.1, on_failure=on_failure)
    began = time.monotonic()
    _, report = await read(by, CALM)
    assert 0.1 <= time.monotonic() - began < 20
    assert isinstance(report.windows[0].error, JudgeTimeout)
    assert 0.1 <= report.windows[0].latency < 20
    assert len(cancelled) == 1
    assert (report.ended is Ended.ABORTED) == (on_failure is Action.ABORT)


async def test_a_judge_that_will_not_be_cancelled_is_given_up() -> None:
    released = threading.Event()

    async def will_not(window: Window) -> Verdict:
        while not released.is_set():
            try:
                await anyio.sleep(0.05)
            except asyncio.CancelledError:
                pass
        return SAFE

    with anyio.fail_after(20):
        [event], _ = await read(guard(AnyJudge(will_not), judge_timeout=0.1), CALM)
    released.set()
    assert isinstance(event, Aborted)
    assert isinstance(event.error, JudgeTimeout)


async def test_a_judge_is_told_how_long_it_has() -> None:
    judge = ScriptedJudge()
    before = time.monotonic()
    await read(guard(judge, judge_timeout=7), CALM)
    assert before + 7 <= judge.windows[0].deadline <= time.monotonic() + 7


async def test_one_failure_of_many_judgements_is_enough() -> None:
    def third_fails(window: Window) -> Any:
        return JudgeError("no verdict today") if window.end == 30 else 0.0

    events, _ = await read(guard(ScriptedJudge(third_fails), join_after=5), *[CALM] * 6)
    assert events[:-1] == [CALM] * 2
    assert isinstance(events[-1], Aborted)


# -- judges of all kinds ---------------------------------------------------------------------------


async def with_anyio(window: Window) -> Verdict:
    async def nap() -> None:
        await anyio.sleep(0.002)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(nap)
            tasks.start_soon(nap)
    assert await anyio.to_thread.run_sync(lambda: 2) == 2
    return Verdict(level=RiskLevel(float("HARM" in window.new)))


async def with_asyncio(window: Window) -> Verdict:
    async with asyncio.timeout(5), asyncio.Lock():
        await asyncio.gather(asyncio.sleep(0.002), asyncio.to_thread(lambda: None))
    return Verdict(level=RiskLevel(float("HARM" in window.new)))


@pytest.mark.parametrize("answer", [with_anyio, with_asyncio])
async def test_a_judge_may_use_anyio_or_asyncio_whatever_its_caller_uses(answer: Any) -> None:
    events, report = await read(guard(AnyJudge(answer), join_after=5), CALM, CALM, HARM, CALM)
    assert events == [CALM, CALM, report.aborted]
    assert report.level == 1.0


async def test_a_slow_judge_changes_nothing_but_the_time() -> None:
    began = time.monotonic()
    events, report = await read(guard(ScriptedJudge(delay=0.1)), CALM, Answer("Fine."))
    assert events == [CALM, Answer("Fine.")]
    assert time.monotonic() - began >= 0.1
    assert report.windows[0].latency >= 0.1


async def test_of_each_text_one_window_at_a_time_is_judged_and_texts_beside_one_another() -> None:
    at_once: Counter[int] = Counter()
    most: Counter[int] = Counter()
    choices = 0

    async def count(window: Window) -> Verdict:
        nonlocal choices
        at_once[window.choice] += 1
        most[window.choice] = max(most[window.choice], at_once[window.choice])
        choices = max(choices, sum(map(bool, at_once.values())))
        await anyio.sleep(0.02)
        at_once[window.choice] -= 1
        return SAFE

    pieces = [Reasoning("calm calm ", choice=choice) for choice in (0, 1)] * 5
    events, _ = await read(guard(AnyJudge(count)), *pieces)
    assert events == pieces
    assert (most, choices) == ({0: 1, 1: 1}, 2)


# -- asked in place --------------------------------------------------------------------------------


class Where(InstantScriptedJudge):
    """Notes the length of what it is asked, and by which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[tuple[int, str]] = []

    def answer(self, window: Window) -> Verdict:
        self.threads.append((len(window.new), threading.current_thread().name))
        return super().answer(window)


async def test_an_instant_judge_is_asked_in_place_and_about_long_texts_in_the_background() -> None:
    judge = Where()
    here = threading.current_thread().name
    by = Guard(judge=judge, windower=SizeWindower(size=4097))
    await read(by, Reasoning("x" * 4097), Answer("y" * 4096))
    assert sorted(judge.threads) == [(4096, here), (4097, "shieldguard")]


async def test_a_judge_that_is_not_instant_is_asked_in_the_background_always() -> None:
    threads = []

    async def where(window: Window) -> Verdict:
        threads.append(threading.current_thread().name)
        return SAFE

    await read(guard(AnyJudge(where)), CALM)
    assert threads == ["shieldguard"]


class BusyJudge(ScriptedJudge):
    """Computes, for about a millisecond per 100 characters, as an instant judge may."""

    def judge_now(self, window: Window) -> Verdict:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 30 * len(window.new))
        return self.answer(window)

    async def judge(self, window: Window) -> Verdict:
        return self.judge_now(window)


async def gives_others_a_turn(work: Callable[[], Awaitable[object]]) -> bool:
    """Whether the loop is free after 20 milliseconds of work at most, in the best of three runs."""
    for _ in range(3):
        if await longest_wait(work) < 0.020:
            return True
    return False


async def longest_wait(work: Callable[[], Awaitable[object]]) -> float:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.thread_time()  # as other programs run on this machine too
        while True:
            await checkpoint()
            longest = max(longest, time.thread_time() - last)
            last = time.thread_time()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.sleep(0.01)
        await work()
        await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    return longest


async def test_a_long_text_does_not_block_the_loop_of_whoever_asks_an_instant_judge() -> None:
    by = Guard(judge=BusyJudge(), windower=SizeWindower(size=20_000))
    assert await gives_others_a_turn(lambda: read(by, Reasoning("x" * 40_000)))


async def in_small_pieces() -> AsyncIterator[SourceEvent]:
    for _ in range(100):
        yield Reasoning("x" * 100)


async def in_one_piece() -> AsyncIterator[SourceEvent]:
    yield Reasoning("x" * 10_000)


@pytest.mark.parametrize("source", [in_small_pieces, in_one_piece])
async def test_many_short_texts_do_not_block_the_loop_either(source: Any) -> None:
    by = Guard(judge=BusyJudge(), windower=SizeWindower(size=100))

    async def consume() -> None:
        async for _ in by.stream(source()):
            pass

    assert await gives_others_a_turn(consume)


async def test_a_judge_in_the_background_does_not_block_the_loop() -> None:
    by = Guard(judge=ScriptedJudge(), windower=SizeWindower(size=100))
    assert await gives_others_a_turn(lambda: read(by, *[Reasoning("x" * 1000)] * 20))


# -- forgetting ------------------------------------------------------------------------------------


class Forgetful(ScriptedJudge):
    def __init__(self) -> None:
        super().__init__({"HARM": 1.0})
        self.forgotten: list[str] = []

    def forget(self, stream: str) -> None:
        self.forgotten.append(stream)


class InstantForgetful(Forgetful):
    def judge_now(self, window: Window) -> Verdict:
        return self.answer(window)


class Endless:
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SourceEvent:
        await anyio.sleep(0.001)
        return CALM


async def complete(by: Guard) -> str:
    _, report = await read(by, CALM, Answer("Fine."))
    return report.stream


async def aborted(by: Guard) -> str:
    _, report = await read(by, CALM, HARM)
    return report.stream


async def source_failed(by: Guard) -> str:
    stream = by.stream(scripted_stream([CALM, OSError("gone")]))
    with pytest.raises(OSError, match="gone"):
        await drained(stream)
    return stream.report.stream


async def left_early(by: Guard) -> str:
    async with by.stream(Endless()) as stream:
        await anext(stream)
    await stream.aclose()
    return stream.report.stream


async def cancelled(by: Guard) -> str:
    with anyio.move_on_after(0.05):
        async with by.stream(Endless()) as stream:
            async for _ in stream:
                pass
    return stream.report.stream


async def abandoned(by: Guard) -> str:
    stream = by.stream(Endless())
    await anext(stream)
    return stream.report.stream


async def never_read(by: Guard) -> str:
    stream = by.stream(Endless())
    await stream.aclose()
    return stream.report.stream


async def read_by_a_thread(by: Guard) -> str:
    stream = by.stream_sync([CALM, Answer("Fine.")])
    await anyio.to_thread.run_sync(list, stream)
    return stream.report.stream


@pytest.mark.parametrize("judge", [Forgetful, InstantForgetful])
@pytest.mark.parametrize("release", ["hold", "lag", "shadow"])
async def test_a_judge_is_told_once_to_forget_a_stream_however_it_ended(
    release: str, judge: type[Forgetful]
) -> None:
    by = guard(judge(), release=release)
    endings = [
        complete,
        aborted,
        source_failed,
        left_early,
        cancelled,
        abandoned,
        never_read,
        read_by_a_thread,
    ]
    streams = [await ending(by) for ending in endings]
    gc.collect()
    assert isinstance(by.judge, Forgetful)
    forgotten = by.judge.forgotten
    await until(lambda: len(forgotten) >= len(streams))
    last = await complete(by)
    await until(lambda: last in forgotten)
    assert Counter(forgotten) == Counter([*streams, last])


async def test_a_judge_is_told_to_forget_a_stream_after_its_last_window() -> None:
    told: list[tuple[str, str]] = []

    class Judge(Forgetful):
        def answer(self, window: Window) -> Verdict:
            told.append(("asked", window.stream))
            return SAFE

        def forget(self, stream: str) -> None:
            told.append(("forget", stream))

    stream = await left_early(guard(Judge()))
    await until(lambda: ("forget", stream) in told)
    assert told[-1] == ("forget", stream)
    assert told[0] == ("asked", stream)


async def test_a_judge_that_fails_to_forget_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Judge(Forgetful):
        def forget(self, stream: str) -> None:
            super().forget(stream)
            raise OSError("cannot forget")

    judge = Judge()
    events, report = await read(guard(judge), CALM)
    assert (events, report.ended) == ([CALM], Ended.COMPLETE)
    await until(lambda: judge.forgotten and caplog.records)
    assert "cannot forget" in str(caplog.records[0].exc_info)


# -- sharing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", [ScriptedJudge, InstantScriptedJudge])
async def test_a_hundred_streams_share_a_guard_without_mixing(judge: type[ScriptedJudge]) -> None:
    by = guard(judge({"HARM": 1.0}))
    outcomes: dict[int, tuple[list[ReleasedEvent], StreamReport]] = {}

    async def one(number: int) -> None:
        name = f"stream {number}; "
        harm = [HARM] * (number % 2)
        outcomes[number] = await read(by, *[Reasoning(name)] * 10, *harm, Answer(name), query=name)

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(one, number)
    for number, (events, report) in outcomes.items():
        name = f"stream {number}; "
        assert report.query == name
        assert (name * 10 + HARM.text).startswith(text(events, Reasoning))
        assert text(events, Answer) == ("" if number % 2 else name)
        assert (events[-1] == report.aborted) == bool(number % 2)
    assert len({report.stream for _, report in outcomes.values()}) == 100
    assert isinstance(by.judge, ScriptedJudge)
    for window in by.judge.windows:
        assert window.stream == outcomes[int(window.query.split()[1][:-1])][1].stream
        assert (window.query * 10 + HARM.text).startswith(window.text)


def test_variants_of_a_guard_ask_on_its_loop() -> None:
    loops = set()

    class Judge:
        name = "where"

        async def judge(self, window: Window) -> Verdict:
            loops.add(id(asyncio.get_running_loop()))
            return Verdict(level=RiskLevel.HARMFUL, judge=self.name)

    guard = Guard(judge=Judge())
    lenient = guard.variant(policy=Policy(reasoning=Rule(harmful=Action.FLAG)))
    assert (lenient.judge, lenient.observers, guard.variant().policy) == (guard.judge, (), guard.policy)
    for one, ended in ((guard, Ended.ABORTED), (lenient, Ended.COMPLETE)):
        with one.stream_sync([Reasoning("Hm."), End()]) as stream:
            list(stream)
        assert stream.report.ended is ended
    assert len(loops) == 1
