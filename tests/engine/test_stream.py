"""Guarded streams read with `async for`, bare and inside `async with`, on asyncio and on trio."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import FrozenInstanceError
from typing import Any, TypeAlias

import anyio
import pytest
from anyio.lowlevel import checkpoint

from shieldguard import (
    AbortCause,
    Aborted,
    Action,
    Answer,
    BoundExceeded,
    Channel,
    ConfigError,
    End,
    Ended,
    Guard,
    GuardedStream,
    Passthrough,
    Policy,
    Reasoning,
    Redacted,
    ReleasedEvent,
    Rule,
    SizeWindower,
    SourceEvent,
    ToolCall,
    WireError,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge, rechunk, scripted_stream

pytestmark = pytest.mark.anyio

Read: TypeAlias = Callable[[GuardedStream], Awaitable[list[ReleasedEvent]]]


async def bare(stream: GuardedStream) -> list[ReleasedEvent]:
    return [event async for event in stream]


async def entered(stream: GuardedStream) -> list[ReleasedEvent]:
    async with stream:
        return [event async for event in stream]


async def in_batches(stream: GuardedStream) -> list[ReleasedEvent]:
    events: list[ReleasedEvent] = []
    while batch := await stream.next_batch():
        events += batch
    return events


each_way = pytest.mark.parametrize("read", [bare, entered, in_batches])
each_judge = pytest.mark.parametrize("judge", [ScriptedJudge, InstantScriptedJudge])

RESPONSE: list[SourceEvent] = [
    Passthrough("role", choice=0),
    Reasoning("First I look at the question. "),
    Reasoning("Then I think of what to say."),
    Answer("It is fine, "),
    ToolCall("look_up"),
    ToolCall('{"what": "weather"}'),
    Answer("and so is the weather."),
    End("stop"),
    Passthrough("usage"),
]


def guard(judge: type[ScriptedJudge] = InstantScriptedJudge, **policy: Any) -> Guard:
    return Guard(
        judge=judge({"HARM": 1.0, "DOUBT": 0.5}), policy=Policy(**policy), windower=SizeWindower(size=10)
    )


def text(events: list[ReleasedEvent], kind: type[Reasoning | Answer | ToolCall]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


@each_judge
@each_way
async def test_harmless_events_leave_in_order_and_are_the_very_same(
    read: Read, judge: type[ScriptedJudge]
) -> None:
    stream = Guard(judge=judge()).stream(scripted_stream(RESPONSE))
    events = await read(stream)
    assert list(map(id, events)) == list(map(id, RESPONSE))
    assert stream.report.ended is Ended.COMPLETE


@each_judge
@each_way
async def test_a_harmful_thought_ends_the_response_before_its_answer(
    read: Read, judge: type[ScriptedJudge]
) -> None:
    source = scripted_stream([Reasoning("calm calm "), Reasoning("HARM HARM "), Answer("Do this.")])
    stream = guard(judge).stream(source)
    *before, last = await read(stream)
    assert before == [Reasoning("calm calm ")]
    assert isinstance(last, Aborted)
    assert (last.cause, last.channel) == (AbortCause.RISK, Channel.REASONING)
    assert stream.report.aborted is last
    assert stream.report.ended is Ended.ABORTED


@each_way
async def test_a_doubtful_thought_is_replaced_by_one_notice(read: Read) -> None:
    source = scripted_stream([Reasoning("calm calm "), Reasoning("DOUBT it. "), Reasoning("and more. ")])
    policy = Policy(reasoning=Rule(potential=Action.REDACT), notice="[cut]")
    stream = Guard(judge=ScriptedJudge({"DOUBT": 0.5}), policy=policy, windower=SizeWindower(size=10)).stream(
        source
    )
    assert await read(stream) == [Reasoning("calm calm "), Redacted("[cut]", Channel.REASONING)]
    assert stream.report.aborted is None


@each_way
async def test_a_redaction_aborts_where_the_reader_can_take_no_notice(read: Read) -> None:
    by = guard(reasoning=Rule(potential=Action.REDACT))
    stream = by.stream(scripted_stream([Reasoning("DOUBT it. ")]), redactable=False)
    [event] = await read(stream)
    assert isinstance(event, Aborted)


@each_judge
@each_way
async def test_a_text_with_think_tags_is_told_apart(read: Read, judge: type[ScriptedJudge]) -> None:
    pieces = ["<thi", "nk>calm calm", " thought</th", "ink>All ", "is well."]
    events = await read(guard(judge).stream(scripted_stream(pieces)))
    assert text(events, Reasoning) == "calm calm thought"
    assert text(events, Answer) == "All is well."


@each_way
async def test_a_text_may_begin_inside_the_thought(read: Read) -> None:
    source = scripted_stream(["HARM, first of all", "</think>Hello"])
    *_, last = await read(guard().stream(source, thinking="preopened"))
    assert isinstance(last, Aborted)
    assert last.channel is Channel.REASONING


async def test_a_beginning_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="'maybe'"):
        guard().stream(scripted_stream([]), thinking="maybe")


@each_way
async def test_a_text_that_ends_in_half_a_tag_is_not_lost(read: Read) -> None:
    events = await read(guard().stream(scripted_stream(["One is less", " than </thi"])))
    assert text(events, Answer) == "One is less than </thi"


async def several_at_once(events: list[SourceEvent]) -> Any:
    await checkpoint()
    yield events[:4]
    await checkpoint()
    yield events[4:]


@each_judge
@each_way
async def test_a_source_may_give_several_events_at_once(read: Read, judge: type[ScriptedJudge]) -> None:
    assert await read(Guard(judge=judge()).stream(several_at_once(RESPONSE))) == RESPONSE


async def test_a_batch_is_all_that_may_leave_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shieldguard.driving.TURN", 60.0)  # as this machine may be slow
    stream = Guard(judge=InstantScriptedJudge()).stream(several_at_once(RESPONSE))
    assert await stream.next_batch() == RESPONSE[:3]
    assert await stream.next_batch() == RESPONSE[3:]
    assert await stream.next_batch() == []
    assert stream.report.ended is Ended.COMPLETE


async def test_events_and_batches_can_be_asked_for_in_turn() -> None:
    stream = Guard(judge=InstantScriptedJudge()).stream(scripted_stream(RESPONSE))
    events = [await anext(stream) for _ in range(5)]
    events += await stream.next_batch()
    events += await bare(stream)
    assert events == RESPONSE


async def test_a_stream_begun_bare_can_be_entered() -> None:
    stream = Guard(judge=ScriptedJudge()).stream(scripted_stream(RESPONSE))
    first = await anext(stream)
    assert [first, *await entered(stream)] == RESPONSE


@each_way
async def test_behind_the_end_there_is_nothing(read: Read) -> None:
    stream = guard().stream(scripted_stream(RESPONSE))
    await read(stream)
    assert await read(stream) == []
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


@each_way
async def test_a_source_without_events_is_complete(read: Read) -> None:
    stream = guard().stream(scripted_stream([]))
    assert await read(stream) == []
    assert stream.report.ended is Ended.COMPLETE


@each_judge
@pytest.mark.parametrize("entering", [False, True])
async def test_an_error_of_the_source_comes_bare_and_after_what_was_released(
    entering: bool, judge: type[ScriptedJudge]
) -> None:
    gone = OSError("the line is dead")
    stream = guard(judge).stream(scripted_stream([Reasoning("calm calm "), Reasoning("tail"), gone]))
    events: list[ReleasedEvent] = []

    async def consume() -> None:
        async with stream if entering else nullcontext():
            async for event in stream:
                events.append(event)

    with pytest.raises(OSError, match="the line is dead") as raised:
        await consume()
    assert raised.value is gone
    assert text(events, Reasoning) == "calm calm tail"
    assert stream.report.ended is Ended.SOURCE_FAILED
    assert await bare(stream) == []


@each_way
async def test_a_source_that_cannot_be_guarded_is_an_abort_and_no_exception(read: Read) -> None:
    error = WireError("no such frame")
    stream = guard().stream(scripted_stream([Reasoning("calm calm "), error]))
    *_, last = await read(stream)
    assert isinstance(last, Aborted)
    assert (last.cause, last.error) == (AbortCause.SOURCE, error)


@each_way
async def test_something_that_is_no_event_is_an_error_of_the_source(read: Read) -> None:
    async def source() -> Any:
        await checkpoint()
        yield Reasoning("calm calm ")
        yield b"bytes"

    stream = guard().stream(source())
    with pytest.raises(TypeError, match="b'bytes', which is no event"):
        await read(stream)
    assert stream.report.ended is Ended.SOURCE_FAILED


async def test_what_is_no_async_iterable_is_refused_at_once() -> None:
    with pytest.raises(TypeError):
        guard().stream([Reasoning("calm")])  # type: ignore[arg-type]


@pytest.mark.parametrize("read", [bare, entered])
async def test_a_tool_call_over_the_bound_ends_the_response(read: Read) -> None:
    stream = guard(max_held=50, max_wait=0.1).stream(scripted_stream([ToolCall("x" * 60), Answer("Done.")]))
    with anyio.fail_after(20):
        [event] = await read(stream)
    assert isinstance(event, Aborted)
    assert event.cause is AbortCause.BOUND
    assert isinstance(event.error, BoundExceeded)


@pytest.mark.parametrize("max_wait", [60, None])
@pytest.mark.parametrize("read", [bare, entered])
async def test_a_text_that_reaches_the_bound_before_a_cut_goes_on_at_once(
    read: Read, max_wait: float | None
) -> None:
    source = scripted_stream([Reasoning("x" * 60), Answer("Done.")])
    policy = Policy(max_held=50, max_wait=max_wait)
    with anyio.fail_after(20):
        events = await read(Guard(judge=InstantScriptedJudge(), policy=policy).stream(source))
    assert text(events, Answer) == "Done."


@each_judge
@each_way
@pytest.mark.parametrize("seed", range(3))
async def test_how_a_text_came_in_pieces_changes_nothing(
    seed: int, read: Read, judge: type[ScriptedJudge]
) -> None:
    thought = "calm " * 20 + "DOUBT " + "calm " * 20 + "HARM " + "calm " * 20
    whole: list[SourceEvent] = [Reasoning(thought), Answer("Never.")]
    expected, by = guard(join_after=60), guard(judge, join_after=60)
    *before, last = await bare(expected.stream(scripted_stream(whole)))
    *released, end = await read(by.stream(scripted_stream(list(rechunk(whole, seed)))))
    assert (text(released, Reasoning), end) == (text(before, Reasoning), last)
    assert judged_thoughts(by) == judged_thoughts(expected)


def judged_thoughts(by: Guard) -> list[str]:
    assert isinstance(by.judge, ScriptedJudge)
    return [window.new for window in by.judge.windows if window.channel is Channel.REASONING]


@each_way
async def test_the_judge_is_told_the_question_and_the_thought_so_far(read: Read) -> None:
    judge = ScriptedJudge()
    by = Guard(judge=judge, windower=SizeWindower(size=10))
    stream = by.stream(scripted_stream([Reasoning("0123456789abcdefghij")]), query="Which digits?")
    await read(stream)
    assert {(window.query, window.stream) for window in judge.windows} == {
        ("Which digits?", stream.report.stream)
    }
    assert [(window.text, window.new) for window in judge.windows] == [
        ("0123456789", "0123456789"),
        ("0123456789abcdefghij", "abcdefghij"),
    ]


async def test_a_guard_is_immutable_and_keeps_its_own_observers() -> None:
    observers: list[Any] = []
    by = Guard(judge=ScriptedJudge(), observers=observers)
    observers.append(None)
    assert by.observers == ()
    with pytest.raises(FrozenInstanceError):
        by.policy = Policy()  # type: ignore[misc]


@pytest.mark.parametrize("judge", [None, "a judge", object()])
async def test_what_cannot_judge_is_refused(judge: Any) -> None:
    with pytest.raises(ConfigError, match="give a Judge"):
        Guard(judge=judge)
