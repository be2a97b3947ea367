"""The doubles: judges that follow a rule, sources that follow a script, and streams cut anew."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import (
    Answer,
    End,
    Guard,
    InstantJudge,
    Judge,
    JudgeError,
    JudgeTimeout,
    Opaque,
    Passthrough,
    Policy,
    Reasoning,
    Relabel,
    RiskLevel,
    SourceEvent,
    ToolCall,
    Verdict,
    Window,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge, rechunk, scripted_stream

pytestmark = pytest.mark.anyio

MARKS = {"DOUBT": 0.5, "HARM": 1.0}

text_events: "st.SearchStrategy[SourceEvent]" = st.builds(
    lambda kind, text, choice: kind(text, choice=choice),
    st.sampled_from([Reasoning, Reasoning, Answer, ToolCall]),
    st.text(alphabet="ab \n词", max_size=60),
    st.sampled_from([0, 0, 0, 1]),
)
other_events: "st.SearchStrategy[SourceEvent]" = st.sampled_from(
    [Passthrough("<think>", choice=0), Passthrough(), Relabel(), Opaque(), End("stop"), End(choice=1)]
)
streams = st.lists(text_events | other_events, max_size=12)
seeds = st.integers(0, 1000)


def window(new: str, before: str = "") -> Window:
    return Window(query="Q", text=before + new, start=len(before))


def is_text(event: SourceEvent) -> bool:
    return isinstance(event, Reasoning | Answer | ToolCall)


def joined(events: Iterable[SourceEvent]) -> list[tuple[SourceEvent, str]]:
    """The events, neighbours that differ in nothing but their text as one: bare, and that text."""

    def bare(numbered: tuple[int, SourceEvent]) -> tuple[int, SourceEvent]:
        at, event = numbered
        return (
            (0, replace(event, text="")) if isinstance(event, Reasoning | Answer | ToolCall) else (at, event)
        )

    return [
        (event, "".join(getattr(one, "text", "") for _, one in run))
        for (_, event), run in groupby(enumerate(events, 1), bare)
    ]


# -- rechunk -----------------------------------------------------------------------------------------


@given(streams, seeds, st.integers(1, 80))
@settings(deadline=None)
def test_a_stream_cut_anew_says_the_same_in_the_same_order(
    stream: list[SourceEvent], seed: int, longest: int
) -> None:
    assert joined(rechunk(stream, seed, longest=longest)) == joined(stream)


@given(streams, seeds, st.integers(1, 80))
@settings(deadline=None)
def test_no_piece_is_longer_than_asked(stream: list[SourceEvent], seed: int, longest: int) -> None:
    assert all(len(text_of(event)) <= longest for event in rechunk(stream, seed, longest=longest))


@given(streams, seeds)
@settings(deadline=None)
def test_events_without_model_text_are_the_same_objects(stream: list[SourceEvent], seed: int) -> None:
    others = [event for event in stream if not is_text(event)]
    kept = [event for event in rechunk(stream, seed) if not is_text(event)]
    assert list(map(id, kept)) == list(map(id, others))


@given(streams, seeds)
@settings(deadline=None)
def test_the_same_seed_cuts_at_the_same_places(stream: list[SourceEvent], seed: int) -> None:
    assert list(rechunk(stream, seed)) == list(rechunk(iter(stream), seed))


def test_another_seed_cuts_elsewhere() -> None:
    assert len({tuple(rechunk([Reasoning("x" * 500)], seed)) for seed in range(10)}) == 10


def test_texts_of_two_blocks_or_choices_are_not_joined() -> None:
    stream: list[SourceEvent] = [Reasoning("a"), Reasoning("b", block=1), Answer("c"), Answer("d", choice=1)]
    assert list(rechunk(stream, 1)) == stream


def test_pieces_are_parted_and_joined() -> None:
    assert list(rechunk([Reasoning("ab"), Reasoning("cd")], 1, longest=1)) == [*map(Reasoning, "abcd")]
    stream = [Reasoning("ab" * 10) for _ in range(10)]
    sizes = {len(text_of(event)) for event in rechunk(stream, 1, longest=40)}
    assert min(sizes) < 20 < max(sizes)


def text_of(event: SourceEvent) -> str:
    return event.text if isinstance(event, Reasoning | Answer | ToolCall) else ""


# -- the scripted judges -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "level"),
    [("calm", 0), ("a DOUBT", 0.5), ("HARM", 1), ("HARM and DOUBT", 1), ("DOUBT and HARM", 1), ("harm", 0)],
)
async def test_the_highest_level_whose_mark_stands_in_the_new_text_is_the_answer(
    new: str, level: float
) -> None:
    verdict = await ScriptedJudge(MARKS).judge(window(new, before="HARM before. "))
    assert verdict == Verdict(level=RiskLevel(level), judge="scripted")


@pytest.mark.parametrize(
    "reply", [1.0, RiskLevel.HARMFUL, Verdict(level=RiskLevel.HARMFUL, judge="scripted")], ids=repr
)
async def test_a_rule_may_answer_with_a_level_or_a_verdict(reply: Any) -> None:
    verdict = await ScriptedJudge(lambda window: reply).judge(window("x"))
    assert verdict == Verdict(level=RiskLevel.HARMFUL, judge="scripted")


async def test_a_rule_sees_the_whole_window() -> None:
    judge = ScriptedJudge(lambda window: float(window.query == "Q" and window.text == "before. x"))
    assert (await judge.judge(window("x", before="before. "))).level is RiskLevel.HARMFUL


async def test_an_error_that_the_rule_gives_is_raised() -> None:
    error = JudgeTimeout("too late")
    with pytest.raises(JudgeTimeout) as raised:
        await ScriptedJudge(lambda window: error).judge(window("x"))
    assert raised.value is error


async def test_without_a_rule_all_is_safe() -> None:
    assert (await ScriptedJudge().judge(window("HARM"))).level is RiskLevel.SAFE


async def test_a_verdict_bears_the_judges_name() -> None:
    assert (await ScriptedJudge(MARKS, name="mine").judge(window("x"))).judge == "mine"


async def test_what_was_asked_is_kept_in_order_what_failed_too() -> None:
    judge = ScriptedJudge(lambda window: JudgeError("no") if window.new == "b" else 0.0)
    asked = [window("a"), window("b"), window("c")]
    for one in asked:
        try:
            await judge.judge(one)
        except JudgeError:
            assert one.new == "b"
    assert judge.windows == asked


async def test_two_judges_keep_their_own_windows() -> None:
    one, other = ScriptedJudge(), ScriptedJudge()
    await one.judge(window("x"))
    assert other.windows == []


async def test_a_judge_takes_its_time() -> None:
    begun = anyio.current_time()
    await ScriptedJudge(delay=0.02).judge(window("x"))
    assert anyio.current_time() - begun >= 0.019
    with anyio.move_on_after(0.01) as scope:
        await ScriptedJudge(delay=60).judge(window("x"))
    assert scope.cancelled_caught


def test_only_the_instant_one_is_instant() -> None:
    assert isinstance(ScriptedJudge(), Judge)
    assert not isinstance(ScriptedJudge(), InstantJudge)
    assert isinstance(InstantScriptedJudge(), InstantJudge)


async def test_the_instant_judge_answers_the_same_at_once() -> None:
    judge = InstantScriptedJudge(MARKS)
    assert judge.judge_now(window("HARM")) == await judge.judge(window("HARM"))
    assert [one.new for one in judge.windows] == ["HARM", "HARM"]
    with pytest.raises(JudgeError, match="no"):
        InstantScriptedJudge(lambda window: JudgeError("no")).judge_now(window("x"))


@pytest.mark.parametrize("kind", [ScriptedJudge, InstantScriptedJudge])
async def test_a_guard_asks_a_scripted_judge_and_acts_on_its_answers(kind: type[ScriptedJudge]) -> None:
    judge = kind(MARKS)
    guard = Guard(judge=judge, policy=Policy(max_wait=None))
    stream = guard.stream(scripted_stream([Reasoning("a HARM"), Answer("Never.")]), query="Q")
    events = [event async for event in stream]
    assert [type(event).__name__ for event in events] == ["Aborted"]
    assert (judge.windows[0].query, judge.windows[0].new) == ("Q", "a HARM")


# -- the scripted source -----------------------------------------------------------------------------


async def test_a_script_is_played_in_order() -> None:
    script: Sequence[SourceEvent | str] = [Reasoning("a"), "b", End("stop"), "c"]
    played = [event async for event in scripted_stream(script)]
    assert list(map(id, played)) == list(map(id, script))


async def test_an_empty_script_ends_at_once() -> None:
    assert [event async for event in scripted_stream([])] == []


@pytest.mark.parametrize("kind", [ConnectionError, ValueError, JudgeError])
async def test_an_error_in_a_script_is_raised_in_its_turn(kind: type[Exception]) -> None:
    played, error = [], kind("lost")

    async def play() -> None:
        async for event in scripted_stream([Reasoning("a"), error, Reasoning("b")]):
            played.append(event)

    with pytest.raises(kind) as raised:
        await play()
    assert raised.value is error
    assert played == [Reasoning("a")]


async def test_a_script_waits_before_each_event() -> None:
    times = [anyio.current_time()]
    async for _ in scripted_stream(["a", "b", "c"], delay=0.02):
        times.append(anyio.current_time())
    assert all(later - earlier >= 0.019 for earlier, later in pairwise(times))


async def test_a_script_lets_others_run_even_without_delay() -> None:
    turns = []

    async def read(name: str) -> None:
        async for _ in scripted_stream(["a"] * 5):
            turns.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, "one")
        tasks.start_soon(read, "other")
    assert turns not in (["one"] * 5 + ["other"] * 5, ["other"] * 5 + ["one"] * 5)
