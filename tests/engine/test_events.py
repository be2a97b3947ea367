"""What travels through a stream, and the tree of errors."""

import inspect
import re
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import (
    AbortCause,
    Aborted,
    Answer,
    Channel,
    ConfigError,
    End,
    Guard,
    JudgeError,
    JudgeTimeout,
    MissingDependency,
    Opaque,
    Passthrough,
    Reasoning,
    Redacted,
    Relabel,
    ShieldguardError,
    SourceEvent,
    ToolCall,
    errors,
)
from shieldguard.events import cut
from shieldguard.testing import InstantScriptedJudge

TEXTS = [
    Reasoning("I wonder.", choice=1, block=2, origin=object()),
    Answer("So.", choice=1, block=2, tentative=True, origin=object()),
    ToolCall("find", choice=1, block=2, origin=object()),
]
CARRIERS: list[Any] = [
    Reasoning("x"),
    Answer("x"),
    ToolCall("x"),
    Opaque(),
    Passthrough("x"),
    End("stop"),
    Redacted("x", Channel.REASONING),
]


# -- cutting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", TEXTS, ids=repr)
def test_the_halves_of_a_cut_event_differ_from_it_in_nothing_but_their_text(event: Any) -> None:
    for at in range(len(event.text) + 1):
        halves = cut(event, at)
        assert [half.text for half in halves] == [event.text[:at], event.text[at:]]
        assert all(replace(half, text=event.text) == event for half in halves)
        assert all(half.origin is event.origin for half in halves)


@given(st.text(), st.integers(0, 50))
@settings(deadline=None)
def test_nothing_is_lost_at_a_cut(text: str, at: int) -> None:
    first, second = cut(Reasoning(text), at)
    assert first.text + second.text == text


def test_an_event_that_was_cut_is_itself_unchanged() -> None:
    event = Reasoning("I wonder.")
    cut(event, 2)
    assert event == Reasoning("I wonder.")


# -- equality and identity ---------------------------------------------------------------------------


@pytest.mark.parametrize("event", CARRIERS, ids=repr)
def test_where_an_event_came_from_does_not_count_nor_show(event: Any) -> None:
    elsewhere = replace(event, origin=["a frame that has no hash"])
    assert elsewhere == event
    assert elsewhere is not event
    assert hash(elsewhere) == hash(event)
    assert repr(elsewhere) == repr(event)


@pytest.mark.parametrize("event", [*CARRIERS, Relabel()], ids=repr)
def test_the_choice_counts(event: Any) -> None:
    assert replace(event, choice=5) != event


def test_the_channel_of_a_text_counts() -> None:
    assert len({Reasoning("x"), Answer("x"), Answer("x", tentative=True), ToolCall("x")}) == 4


def test_a_passthrough_is_the_whole_responses_and_a_text_the_first_choices_unless_told() -> None:
    assert Passthrough().choice is None
    assert (Reasoning("x").choice, Reasoning("x").block) == (0, 0)


@pytest.mark.parametrize(
    "event", [*CARRIERS, Relabel(), Aborted(cause=AbortCause.RISK, notice="x")], ids=repr
)
def test_an_event_does_not_change(event: Any) -> None:
    for field in fields(event):
        with pytest.raises(FrozenInstanceError):
            setattr(event, field.name, None)


@pytest.mark.parametrize("kind", [Reasoning, Answer, ToolCall])
def test_only_the_text_of_an_event_is_positional(kind: Any) -> None:
    match kind("x", choice=1):
        case Reasoning(text) | Answer(text) | ToolCall(text):
            assert text == "x"
        case _:
            pytest.fail("does not match")
    with pytest.raises(TypeError):
        kind("x", 1)


def test_an_event_that_is_released_whole_is_the_object_that_came() -> None:
    source: list[SourceEvent] = [
        Passthrough(origin="role"),
        Reasoning("I wonder.", origin=1),
        Reasoning(" Hm.", origin=2),
        Answer("So.", origin=3),
        ToolCall("find", origin=4),
        End("stop", origin=5),
    ]
    with Guard(judge=InstantScriptedJudge()).stream_sync(source) as stream:
        assert list(map(id, stream)) == list(map(id, source))


# -- errors ------------------------------------------------------------------------------------------

CLASSES = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def drawn() -> dict[str, str]:
    """Each class in the drawing, and the one that it hangs from."""
    above: dict[int, str] = {}
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"([│├└─ ]*)(\w+)(?: \((\w+)\))?(?:  |$)", line):
            depth = len(match[1]) // 4
            found[match[2]] = above.get(depth - 1, "Exception") + (f" {match[3]}" if match[3] else "")
            above[depth] = match[2]
    return found


def test_the_drawing_of_the_tree_is_the_tree() -> None:
    tree = {name: " ".join(base.__name__ for base in kind.__bases__) for name, kind in CLASSES.items()}
    assert drawn() == tree


@pytest.mark.parametrize("kind", CLASSES.values())
def test_every_error_can_be_caught_at_the_root(kind: type[Exception]) -> None:
    assert issubclass(kind, ShieldguardError)


def test_a_setting_that_cannot_work_is_a_value_error_and_a_late_judge_a_judge_error() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(JudgeTimeout, JudgeError)


def test_a_missing_package_is_named_with_the_extra_to_install() -> None:
    with pytest.raises(ImportError) as missing:
        raise MissingDependency("typer", "cli")
    assert str(missing.value) == "'typer' is not installed; run: pip install 'shieldguard[cli]'"
