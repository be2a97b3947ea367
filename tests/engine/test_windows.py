"""Where a growing text is cut: at a place that the text alone decides, and in time."""

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import Channel, ConfigError, SentenceWindower, SizeWindower, Window, Windower

characters = st.sampled_from('a词ไ。।؟.!…,،)"” \t\n\u3000\u00a0\u0301🙂')
phrases = st.sampled_from(["word", "！？", "3.14", "e.g.,", ". ", "\n\n", "\r\n", ": ", "```\n"])
texts = st.lists(characters | phrases, max_size=40).map("".join)


@st.composite
def sentence_windowers(draw: st.DrawFn) -> SentenceWindower:
    shortest = draw(st.integers(1, 12))
    return SentenceWindower(shortest=shortest, longest=draw(st.integers(2 * shortest, 40)))


windowers = sentence_windowers() | st.integers(1, 20).map(lambda size: SizeWindower(size=size))
starts = st.integers(0, 30)


def windows_of(text: str, windower: Windower) -> list[str]:
    """The windows of a whole text, its uncut rest last."""
    start, found = 0, []
    while end := windower.cut(text, start):
        found.append(text[start:end])
        start = end
    return [*found, text[start:]]


def first_window(text: str, shortest: int, longest: int) -> str:
    return text[: SentenceWindower(shortest=shortest, longest=longest).cut(text, 0)]


# -- whatever the text -------------------------------------------------------------------------------


@given(texts, windowers, starts)
@settings(deadline=None)
def test_a_cut_once_named_stays_whatever_text_follows(text: str, windower: Windower, start: int) -> None:
    named = 0
    for length in range(start, len(text) + 1):
        cut = windower.cut(text[:length], start)
        assert cut == named or named == 0
        named = cut


@given(texts, sentence_windowers(), starts)
@settings(deadline=None)
def test_a_window_is_neither_shorter_nor_longer_than_its_bounds(
    text: str, windower: SentenceWindower, start: int
) -> None:
    if cut := windower.cut(text, start):
        assert windower.shortest <= cut - start <= windower.longest
        assert cut <= len(text)


@given(texts, sentence_windowers(), starts)
@settings(deadline=None)
def test_text_longer_than_the_longest_window_is_cut(
    text: str, windower: SentenceWindower, start: int
) -> None:
    text += "x" * max(0, start + windower.longest + 1 - len(text))
    assert windower.cut(text, start) > start


@given(texts, windowers, starts)
@settings(deadline=None)
def test_a_cut_does_not_depend_on_what_came_before_the_window(
    text: str, windower: Windower, start: int
) -> None:
    start = min(start, len(text))
    alone = windower.cut(text[start:], 0)
    assert windower.cut(text, start) == (start + alone if alone else 0)


@given(texts, st.integers(1, 20))
@settings(deadline=None)
def test_windows_by_size_have_that_size(text: str, size: int) -> None:
    *cut, rest = windows_of(text, SizeWindower(size=size))
    assert {len(window) for window in cut} <= {size}
    assert len(rest) < size


# -- where sentences end -----------------------------------------------------------------------------

SENTENCES = {
    "a full stop": ("We mix it. Then we bake it.", "We mix it."),
    "a question": ("Is it done? Not yet.", "Is it done?"),
    "two marks": ("Is it done?! Not yet.", "Is it done?!"),
    "three dots": ("I wonder... It may be.", "I wonder..."),
    "an ellipsis": ("I wonder… It may be.", "I wonder…"),
    "a decimal": ("Pi is 3.14 or so. More of it.", "Pi is 3.14 or so."),
    "a version": ("Use 3.11.2 here. It works.", "Use 3.11.2 here."),
    "an abbreviation before a comma": ("Fruit, e.g., a plum. Or two.", "Fruit, e.g., a plum."),
    "an address": ("See example.com/a.html first. Then go.", "See example.com/a.html first."),
    "a quote behind the stop": ('He said "no." Then he left.', 'He said "no."'),
    "a curly quote": ("He said “no.” Then he left.", "He said “no.”"),
    "brackets behind the stop": ("We left (it was late.) Then rain.", "We left (it was late.)"),
    "quote and bracket": ("We left ('it was late.') Then rain.", "We left ('it was late.')"),
    "a line's end": ("def bake():\n    return 1", "def bake():\n"),
    "an empty line": ("A heading\n\nThe text.", "A heading\n\n"),
    "a stop at a line's end": ("We mix it.\nThen we bake it.", "We mix it."),
    "Chinese": ("今天的天气很好。我们去公园。", "今天的天气很好。"),
    "Chinese, two marks": ("今天真的很好吗？！我不知道。", "今天真的很好吗？！"),
    "Japanese": ("今日は良い天気です。行きましょう。", "今日は良い天気です。"),
    "Hindi": ("यह एक वाक्य है। यह दूसरा है।", "यह एक वाक्य है।"),
    "Arabic": ("هل هذا صحيح؟ نعم، هو كذلك.", "هل هذا صحيح؟"),
    "Burmese": ("ဒါက စာကြောင်းပါ။ နောက်တစ်ခု။", "ဒါက စာကြောင်းပါ။"),
    "Amharic": ("ይህ ዓረፍተ ነገር ነው። ሁለተኛ ነው።", "ይህ ዓረፍተ ነገር ነው።"),
    "Urdu": ("یہ ایک جملہ ہے۔ یہ دوسرا ہے۔", "یہ ایک جملہ ہے۔"),
}


@pytest.mark.parametrize(("text", "window"), SENTENCES.values(), ids=SENTENCES.keys())
def test_a_window_ends_with_its_sentence(text: str, window: str) -> None:
    assert first_window(text, shortest=6, longest=200) == window


@pytest.mark.parametrize(
    "text", ["Pi is about 3.", "Fruit, e.g.", 'He said "no."', "A heading\n", "今天的天气很好。"]
)
def test_a_cut_waits_for_the_character_behind_the_stop(text: str) -> None:
    assert SentenceWindower(shortest=6, longest=200).cut(text, 0) == 0


def test_a_sentence_end_before_the_shortest_window_is_passed_over() -> None:
    assert first_window("No. No. No. At last. So.", shortest=12, longest=200) == "No. No. No. At last."


def test_a_sentence_end_right_at_a_bound_counts() -> None:
    assert first_window("We mix it. Then.", shortest=5, longest=10) == "We mix it."
    assert first_window("We mix it. Then.", shortest=10, longest=200) == "We mix it."
    assert first_window("We mix it. Then. So.", shortest=11, longest=200) == "We mix it. Then."


UNENDING = {
    "one endless line": ("a" * 100, "a" * 30),
    "a space": ("aaaa " * 20, "aaaa " * 6),
    "a comma before a later space": ("aaaa bbbb cccc, dddd eeee ffff gggg", "aaaa bbbb cccc,"),
    "nothing behind the shortest": ("aa, aa " + "b" * 60, "aa, aa " + "b" * 23),
    "Thai": ("วันนี้อากาศดีมาก เราจะไปสวนสาธารณะ แล้วกลับบ้าน", "วันนี้อากาศดีมาก "),
    "Chinese commas": ("天气很好天气很好天气很好，" * 4, "天气很好天气很好天气很好，" * 2),
}


@pytest.mark.parametrize(("text", "window"), UNENDING.values(), ids=UNENDING.keys())
def test_without_a_sentence_end_a_window_ends_at_a_clause_else_a_word_else_its_bound(
    text: str, window: str
) -> None:
    assert first_window(text, shortest=10, longest=30) == window


def test_a_code_block_is_cut_at_the_ends_of_its_lines() -> None:
    block = "".join(f"    value_{line} = table[{line}] * 3.5\n" for line in range(20))
    *cut, _ = windows_of(f"```python\n{block}```\n", SentenceWindower(shortest=40, longest=160))
    assert len(cut) > 5
    assert all(window.endswith("\n") for window in cut)


def test_blank_lines_without_end_are_cut_at_the_bound() -> None:
    windows = windows_of("\n" * 75, SentenceWindower(shortest=10, longest=30))
    assert [len(window) for window in windows] == [30, 30, 15]


# -- settings that cannot work -----------------------------------------------------------------------


@pytest.mark.parametrize(("shortest", "longest"), [(0, 640), (-1, 640), (160, 319), (1, 1), (160, 0)])
def test_bounds_that_leave_no_room_are_refused(shortest: int, longest: int) -> None:
    with pytest.raises(ConfigError, match=f"shortest={shortest} and longest={longest} leave no room"):
        SentenceWindower(shortest=shortest, longest=longest)


def test_the_narrowest_bounds_cut() -> None:
    assert windows_of("abcd", SentenceWindower(shortest=1, longest=2)) == ["ab", "cd"]


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_that_cuts_nothing_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"size={size} cuts nothing"):
        SizeWindower(size=size)


@pytest.mark.parametrize(
    ("windower", "name"),
    [(SentenceWindower(), "shortest"), (SentenceWindower(), "longest"), (SizeWindower(), "size")],
)
def test_a_windower_does_not_change(windower: Windower, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(windower, name, 1)


# -- windows -----------------------------------------------------------------------------------------


def test_a_window_tells_its_new_text_from_what_came_before() -> None:
    window = Window(query="Q", text="Judged. New.", start=8)
    assert (window.new, window.end) == ("New.", 12)


@pytest.mark.parametrize(
    ("characters", "context"),
    [(0, "New."), (1, " New."), (4, "ed. New."), (8, "Judged. New."), (9, "Judged. New.")],
)
def test_the_context_of_a_window_is_its_new_text_with_some_before_it(characters: int, context: str) -> None:
    assert Window(query="", text="Judged. New.", start=8).context(characters) == context


def test_a_window_is_reasoning_with_no_deadline_unless_told() -> None:
    window = Window(query="Q", text="All of it.")
    assert (window.channel, window.new, window.deadline) == (Channel.REASONING, "All of it.", float("inf"))
