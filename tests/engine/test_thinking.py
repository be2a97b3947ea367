"""Thinking between tags: wherever the pieces part a text, it comes out whole and on the same channels."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import (
    Answer,
    Channel,
    ConfigError,
    Marker,
    Passthrough,
    Reasoning,
    Relabel,
    Thinking,
    ThinkSplitter,
    tag_pair,
)
from shieldguard.thinking import (
    COHERE,
    DEFAULT_MARKERS,
    IMPLIED,
    KIMI,
    MINIMAX,
    MISTRAL,
    SEED,
    THINK,
    THINKING,
)

Event = Reasoning | Answer | Passthrough | Relabel
Runs = list[tuple[str, str]]

PAIRS = {
    "think": THINK,
    "thinking": THINKING,
    "Kimi": KIMI,
    "MiniMax": MINIMAX,
    "Cohere": COHERE,
    "Mistral": MISTRAL,
    "Seed": SEED,
}
MARKS = [marker.text for marker in DEFAULT_MARKERS]
QUOTES = list("`'\"“‘")

scraps = st.sampled_from([part for mark in MARKS for part in (mark[:1], mark[:-1], mark[1:])])
words = st.sampled_from(["a", "é", "🙂", " ", "\n", "\r\n", "<", "</", "|>", "<|", "so. ", "\t", *QUOTES])
soups = st.lists(st.sampled_from(MARKS) | scraps | words, max_size=12).map("".join)
cuts = st.lists(st.integers(0, 300), max_size=8)
modes = st.sampled_from(Thinking)


def split(*pieces: str, mode: Thinking | str = Thinking.AUTO, **options: Any) -> list[Event]:
    splitter = ThinkSplitter(mode, **options)
    return [event for piece in pieces for event in splitter.feed(piece)] + splitter.flush()


def pieces_of(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def parted(text: str, cuts: Sequence[int]) -> list[str]:
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    return [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]


def said(event: Event) -> str:
    return "" if isinstance(event, Relabel) else event.text


def kind(event: Event) -> str:
    tentative = isinstance(event, Answer) and event.tentative
    return "tentative" if tentative else type(event).__name__.lower()


def runs(events: Iterable[Event]) -> Runs:
    """What comes out, neighbours of one kind as one."""
    return [(name, "".join(map(said, run))) for name, run in groupby(events, kind)]


def on(events: Iterable[Event], channel: type[Reasoning] | type[Answer]) -> str:
    return "".join(event.text for event in events if isinstance(event, channel))


# -- whatever the text -------------------------------------------------------------------------------


@given(soups, modes, cuts)
@settings(deadline=None, max_examples=300)
def test_any_chunking_says_the_same_as_one_piece(text: str, mode: Thinking, cuts: list[int]) -> None:
    assert runs(split(*parted(text, cuts), mode=mode)) == runs(split(text, mode=mode))


@given(soups, modes)
@settings(deadline=None)
def test_a_character_at_a_time_says_the_same_as_one_piece(text: str, mode: Thinking) -> None:
    assert runs(split(*text, mode=mode)) == runs(split(text, mode=mode))


@given(soups, modes, cuts)
@settings(deadline=None)
def test_what_comes_out_is_what_went_in_and_only_markers_pass_unjudged(
    text: str, mode: Thinking, cuts: list[int]
) -> None:
    events = split(*parted(text, cuts), mode=mode)
    assert "".join(map(said, events)) == text
    assert all(event.text in MARKS for event in events if isinstance(event, Passthrough))
    assert all(event.text for event in events if isinstance(event, Reasoning | Answer))


@given(soups, modes)
@settings(deadline=None)
def test_only_what_may_become_a_marker_is_kept_back(text: str, mode: Thinking) -> None:
    splitter = ThinkSplitter(mode)
    given_out = ""
    for at, character in enumerate(text):
        given_out += "".join(map(said, splitter.feed(character)))
        kept = text[len(given_out) : at + 1]
        assert kept == "" or any(mark.startswith(kept) and mark != kept for mark in MARKS)


@given(soups, cuts)
@settings(deadline=None)
def test_an_empty_piece_gives_nothing_and_changes_nothing(text: str, cuts: list[int]) -> None:
    pieces = [piece for part in parted(text, cuts) for piece in (part, "")]
    splitter = ThinkSplitter()
    assert splitter.feed("") == []
    assert runs(split(*pieces)) == runs(split(text))


# -- how a text begins -------------------------------------------------------------------------------

BEGINNINGS: dict[str, tuple[str, str, Runs]] = {
    "explicit, with its tag": (
        "explicit",
        "<think>a</think>b",
        [("passthrough", "<think>"), ("reasoning", "a"), ("passthrough", "</think>"), ("answer", "b")],
    ),
    "explicit, without": ("explicit", "b", [("answer", "b")]),
    "explicit, a closing tag alone": (
        "explicit",
        "a</think>b",
        [("answer", "a"), ("passthrough", "</think>"), ("answer", "b")],
    ),
    "preopened": (
        "preopened",
        "a</think>b",
        [("reasoning", "a"), ("passthrough", "</think>"), ("answer", "b")],
    ),
    "preopened, and opened again": (
        "preopened",
        "<think>a</think>b",
        [("passthrough", "<think>"), ("reasoning", "a"), ("passthrough", "</think>"), ("answer", "b")],
    ),
    "auto, with its tag": (
        "auto",
        "<think>a</think>b",
        [("passthrough", "<think>"), ("reasoning", "a"), ("passthrough", "</think>"), ("answer", "b")],
    ),
    "auto, blanks before its tag": (
        "auto",
        " \n  <think>a",
        [("tentative", " \n  "), ("passthrough", "<think>"), ("reasoning", "a")],
    ),
    "auto, without": ("auto", "b", [("tentative", "b")]),
    "auto, a closing tag alone": (
        "auto",
        "a</think>b",
        [("tentative", "a"), ("relabel", ""), ("passthrough", "</think>"), ("answer", "b")],
    ),
}


@pytest.mark.parametrize(("mode", "text", "expected"), BEGINNINGS.values(), ids=BEGINNINGS.keys())
def test_a_text_begins_as_its_mode_says(mode: str, text: str, expected: Runs) -> None:
    for size in range(1, len(text) + 1):
        assert runs(split(*pieces_of(text, size), mode=mode)) == expected


def test_the_mode_is_auto_unless_told() -> None:
    assert ThinkSplitter().feed("b") == [Answer("b", tentative=True)]


def test_text_that_begins_no_marker_comes_at_once() -> None:
    splitter = ThinkSplitter(Thinking.EXPLICIT)
    assert splitter.feed("1 < 2, and") == [Answer("1 < 2, and")]
    assert splitter.feed(" so") == [Answer(" so")]


def test_every_event_belongs_to_the_choice() -> None:
    events = split("a</think>b\n<think>c", choice=3)
    assert {event.choice for event in events} == {3}
    assert Relabel(choice=3) in events


def test_what_was_thought_to_be_answer_is_relabelled_once() -> None:
    events = split("a</think>b</think>c")
    assert events.count(Relabel()) == 1
    assert on(events, Answer) == "abc"


def test_once_settled_a_text_is_the_answer_and_never_relabelled() -> None:
    splitter = ThinkSplitter()
    splitter.settle()
    assert splitter.feed("a</think>b") == [Answer("a"), Passthrough("</think>", choice=0), Answer("b")]


def test_a_settled_text_may_still_open_a_thought() -> None:
    splitter = ThinkSplitter()
    splitter.settle()
    assert on(splitter.feed("<think>a"), Reasoning) == "a"


# -- each vocabulary ---------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [True, False], ids=["on its own", "among the others"])
@pytest.mark.parametrize("mode", ["auto", "explicit"])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_tags_are_found_wherever_they_are_parted(pair: tuple[Marker, Marker], mode: str, own: bool) -> None:
    opening, closing = (marker.text for marker in pair)
    text = f"{opening}\nI wonder.{closing}\n\nSo."
    for size in range(1, len(text) + 1):
        events = split(*pieces_of(text, size), mode=mode, markers=pair if own else DEFAULT_MARKERS)
        assert runs(events) == [
            ("passthrough", opening),
            ("reasoning", "\nI wonder."),
            ("passthrough", closing),
            ("answer", "\n\nSo."),
        ]


def test_tags_of_another_vocabulary_are_text() -> None:
    assert split("<think>a</think>b", mode="explicit", markers=KIMI) == [Answer("<think>a</think>b")]


@given(st.text(alphabet="[]a \n", max_size=20), modes, cuts)
@settings(deadline=None)
def test_tags_of_ones_own_are_found_however_they_are_parted(
    text: str, mode: Thinking, cuts: list[int]
) -> None:
    markers = tag_pair("[[", "]]")
    events = split(*parted(text, cuts), mode=mode, markers=markers)
    assert "".join(map(said, events)) == text
    assert runs(events) == runs(split(text, mode=mode, markers=markers))


def test_tags_of_ones_own_part_a_text() -> None:
    events = split("[[a]]]b", mode="explicit", markers=tag_pair("[[", "]]"))
    assert (on(events, Reasoning), on(events, Answer)) == ("a", "]b")


@pytest.mark.parametrize("at", range(7))
def test_where_one_marker_begins_another_the_longer_is_found(at: int) -> None:
    text, markers = "<t>\n\na", (Marker("<t>", Channel.REASONING), Marker("<t>\n\n", Channel.REASONING))
    assert runs(split(text[:at], text[at:], markers=markers)) == [
        ("passthrough", "<t>\n\n"),
        ("reasoning", "a"),
    ]


@pytest.mark.parametrize("marker", [marker.text for marker in IMPLIED])
def test_a_tool_call_ends_the_thought_and_is_judged_with_the_answer(marker: str) -> None:
    text = f"<think>I look it up.{marker}{{}}"
    for size in range(1, len(text) + 1):
        assert runs(split(*pieces_of(text, size))) == [
            ("passthrough", "<think>"),
            ("reasoning", "I look it up."),
            ("answer", f"{marker}{{}}"),
        ]


@pytest.mark.parametrize("marker", [marker.text for marker in IMPLIED])
def test_a_tool_call_in_what_may_be_answer_settles_nothing(marker: str) -> None:
    text = f"I look it up.{marker}{{}}"
    assert runs(split(text)) == [("tentative", text)]
    assert Relabel() in split(text + "</think>So.")


HARMONY_TEXT = (
    "<|channel|>analysis<|message|>I wonder.<|end|>"
    '<|start|>assistant<|channel|>commentary to=functions.find <|constrain|>json<|message|>{"q":1}<|call|>'
    "<|start|>assistant<|channel|>final<|message|>So.<|return|>"
)


@pytest.mark.parametrize("size", [*range(1, 40), len(HARMONY_TEXT)])
def test_all_channels_of_harmony_but_the_final_one_are_reasoning(size: int) -> None:
    events = split(*pieces_of(HARMONY_TEXT, size))
    call = ' to=functions.find <|constrain|>json<|message|>{"q":1}'
    assert on(events, Reasoning) == f"I wonder.{call}"
    assert on(events, Answer) == "So."


@pytest.mark.parametrize(
    "final", ["<|channel|>final<|message|>", "<|channel|>final <|constrain|>json<|message|>"]
)
def test_the_final_channel_of_harmony_is_the_answer_in_a_form_of_its_own_too(final: str) -> None:
    text = f'<|channel|>analysis<|message|>I wonder.<|end|><|start|>assistant{final}{{"a": 1}}<|return|>'
    for size in range(1, len(text) + 1):
        events = split(*pieces_of(text, size))
        assert (on(events, Reasoning), on(events, Answer)) == ("I wonder.", '{"a": 1}')


def test_a_preamble_in_commentary_is_reasoning() -> None:
    events = split("<|channel|>commentary<|message|>First I look.<|end|>")
    assert on(events, Answer) == ""
    assert "First I look." in on(events, Reasoning)


def test_harmony_switches_in_the_middle_of_a_line() -> None:
    events = split("So.<|channel|>analysis<|message|>Hm.", mode="explicit")
    assert (on(events, Answer), on(events, Reasoning)) == ("So.", "Hm.")


# -- tags that are none, or come at odd places -------------------------------------------------------


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_closing_tag_does_not_end_the_thought(quote: str) -> None:
    text = f"A {quote}</think> would end this.</think>So."
    for size in range(1, len(text) + 1):
        events = split(*pieces_of(text, size), mode="preopened")
        assert on(events, Reasoning) == f"A {quote}</think> would end this."
        assert on(events, Answer) == "So."


@pytest.mark.parametrize("end", ['I answer "yes."', "I answer 'yes'", "I run `ls`", "It is “so”", '("a")'])
def test_a_thought_that_ends_with_a_quotation_is_closed(end: str) -> None:
    for size in range(1, len(end) + 12):
        events = split(*pieces_of(f"{end}</think>So.", size), mode="preopened")
        assert (on(events, Reasoning), on(events, Answer)) == (end, "So.")


@pytest.mark.parametrize("mode", ["auto", "explicit"])
@pytest.mark.parametrize("before", [*QUOTES, "Write ", "a\nWrite ", "- ", "a\n*"])
def test_a_quoted_opening_tag_or_one_in_mid_line_does_not_begin_a_thought(before: str, mode: str) -> None:
    text = f"{before}<think> to begin one."
    for size in range(1, len(text) + 1):
        events = split(*pieces_of(text, size), mode=mode)
        assert on(events, Answer) == text


@pytest.mark.parametrize("before", ["`", "Write "])
def test_what_follows_an_opening_tag_taken_for_text_may_still_turn_out_to_be_reasoning(before: str) -> None:
    events = split(f"{before}<think>a</think>b", mode="explicit")
    assert runs(events)[0][0] == "answer"
    assert [event.tentative for event in events if isinstance(event, Answer) and "a" in event.text] == [True]
    assert Relabel() in events


@pytest.mark.parametrize("between", ["", "\n", " \t", "b\n", "b\r\n  "])
def test_an_answer_may_give_way_to_another_thought_at_the_beginning_of_a_line(between: str) -> None:
    text = f"a</think>{between}<think>c</think>d"
    for size in range(1, len(text) + 1):
        events = split(*pieces_of(text, size), mode="preopened")
        assert (on(events, Reasoning), on(events, Answer)) == ("ac", f"{between}d")


def test_the_first_closing_tag_closes_however_many_were_opened() -> None:
    events = split("<think>a<think>b</think>c</think>d")
    assert (on(events, Reasoning), on(events, Answer)) == ("ab", "cd")


@pytest.mark.parametrize("end", ["", "<", "</", "</think", "<|end|", " </ think>"])
def test_a_thought_whose_closing_tag_never_comes_is_reasoning_to_its_end(end: str) -> None:
    events = split(f"<think>On and on{end}")
    assert on(events, Reasoning) == f"On and on{end}"
    assert on(events, Answer) == ""


def test_a_preopened_text_without_any_tag_is_all_reasoning() -> None:
    assert runs(split("On ", "and ", "on", mode="preopened")) == [("reasoning", "On and on")]


@pytest.mark.parametrize("mode", Thinking)
def test_a_flush_gives_the_rest_and_a_second_one_nothing(mode: Thinking) -> None:
    splitter = ThinkSplitter(mode)
    splitter.feed("a<thi")
    assert [said(event) for event in splitter.flush()] == ["<thi"]
    assert splitter.flush() == []


def test_a_flush_of_nothing_gives_nothing() -> None:
    assert ThinkSplitter().flush() == []


# -- settings that cannot work -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["maybe", "AUTO", "", None, 1])
def test_a_mode_that_is_none_is_refused_and_the_modes_are_named(mode: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        ThinkSplitter(mode)
    assert str(refused.value) == f"thinking={mode!r}; choose one of 'explicit', 'preopened', 'auto'"


@pytest.mark.parametrize("markers", [(), [Marker("", Channel.REASONING)], [*THINK, Marker("", None)]])
def test_markers_that_mark_nothing_are_refused(markers: Sequence[Marker]) -> None:
    with pytest.raises(ConfigError, match="give at least one, none of them empty"):
        ThinkSplitter(markers=markers)
