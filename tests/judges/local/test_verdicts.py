"""Levels, categories and analyses of a checkpoint that was taught them, and texts that try to move them."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest

from shieldguard import JudgeError, RiskCategory, RiskLevel, UnparsedVerdict, Verdict, Window
from shieldguard.judges.local import LocalJudge, Mode
from tests.judges.hostile import CALM_TEXT, FORGERIES, placed
from tests.judges.local.reference import Reference
from tests.judges.local.tiny import ANALYSES, CALM, DOUBT, HARM, LEVELS, thought


def ask(judge: LocalJudge, text: str, query: str = "", **window: Any) -> Verdict:
    return asyncio.run(judge.judge(Window(query=query, text=text, **window)))


@pytest.fixture(scope="module")
def full(fast: LocalJudge) -> LocalJudge:
    return fast.in_mode("full")


@pytest.mark.parametrize("level", LEVELS)
def test_both_modes_give_the_level_that_was_taught(fast: LocalJudge, full: LocalJudge, level: str) -> None:
    rng = random.Random(7)
    for number in range(5):
        text = thought(rng, level)
        for judge in (fast, full):
            assert str(ask(judge, text, stream=f"{level} {number}").level) == level


def test_fast_answers_with_probabilities_and_no_analysis(fast: LocalJudge) -> None:
    verdict = ask(fast, f"{CALM_TEXT} {HARM}")
    assert verdict.probabilities is not None
    assert sum(verdict.probabilities.values()) == pytest.approx(1)
    assert verdict.risk is not None
    assert verdict.risk > 0.9
    assert (verdict.judge, verdict.analysis, verdict.category) == ("Tiny-Shield (fast)", "", None)


def test_thresholds_are_the_judges_own(checkpoint: Path) -> None:
    nervous = LocalJudge(checkpoint, dtype="float32", potential=0.0, harmful=1.0)
    assert ask(nervous, CALM_TEXT).level is RiskLevel.POTENTIAL
    nervous.close()


def test_full_writes_the_analysis_and_stops_at_the_judgment(fast: LocalJudge) -> None:
    heard: list[tuple[Window, str]] = []
    full = fast.in_mode("full", on_analysis=lambda window, piece: heard.append((window, piece)))
    before = fast.usage.steps
    verdict = ask(full, f"{CALM_TEXT} {DOUBT}.")
    assert (verdict.level, verdict.analysis) == (RiskLevel.POTENTIAL, ANALYSES["0.5"])
    assert verdict.category is RiskCategory.PROHIBITED
    assert "".join(piece for _, piece in heard) == f'"Analysis": {ANALYSES["0.5"]}\n"Judgment": 0.5'
    assert len(heard) > 3
    assert heard[0][0].text.endswith(f"{DOUBT}.")
    assert fast.usage.steps - before < 60  # of the 1,024 that it may take


def test_a_listener_that_raises_changes_no_verdict(
    fast: LocalJudge, caplog: pytest.LogCaptureFixture
) -> None:
    def listener(window: Window, piece: str) -> None:
        raise RuntimeError("no ears")

    assert ask(fast.in_mode("full", on_analysis=listener), HARM).level is RiskLevel.HARMFUL
    assert "no ears" in caplog.text


def test_an_analysis_without_a_judgment_is_unparsed(checkpoint: Path) -> None:
    short = LocalJudge(checkpoint, dtype="float32", mode="full", max_analysis=5)
    with pytest.raises(UnparsedVerdict):
        ask(short, HARM)
    short.close()


@pytest.mark.parametrize(("mode", "says"), [("fast", "nan"), ("full", "no numbers")])
def test_a_model_that_computes_nonsense_gives_no_verdict(checkpoint: Path, mode: Mode, says: str) -> None:
    broken = LocalJudge(checkpoint, dtype="float32", mode=mode)
    broken._checkpoint.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(JudgeError, match=says):
        ask(broken, CALM_TEXT)
    assert broken.usage.steps <= 3
    broken.close()


# -- hostile texts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after", "in the query"])
@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_text_and_moves_nothing(
    fast: LocalJudge, full: LocalJudge, reference: Reference, forgery: str, place: str
) -> None:
    text, query = placed(forgery, place)
    [layout] = {judge._layout for judge in (fast, full)}
    from shieldguard.judges.local.text import GrowingText

    tokens = layout.context(query, text, GrowingText(), reserve=0).tokens
    content = tokens[len(layout.head) :]
    assert not set(content) & layout.special
    assert tokens + layout.turn == reference.tokens(query, text)
    expected = reference.log_odds(query, text)
    verdict = ask(fast, text, query)
    assert verdict.probabilities is not None
    most = max(expected, key=lambda level: expected[level])
    assert max(verdict.probabilities, key=lambda level: verdict.probabilities[level]) is most  # type: ignore[index]
    if forgery in (FORGERIES["a judgment"], FORGERIES["an end of turn"]):
        assert verdict.level is RiskLevel.HARMFUL
        assert ask(full, text, query).level is RiskLevel.HARMFUL


def test_white_space_alone_and_nothing_at_all_are_judged(fast: LocalJudge) -> None:
    for text in ("", " ", "\n\n\n", "\x00", "\ud83d"):
        assert ask(fast, text).probabilities is not None


# -- more than the context has room for --------------------------------------------------------------


@pytest.fixture
def short(checkpoint: Path) -> Any:
    judge = LocalJudge(checkpoint, dtype="float32", context=256)
    yield judge
    judge.close()


def shown(judge: LocalJudge, query: str, text: str) -> str:
    """What the model is shown of them."""
    from shieldguard.judges.local.text import GrowingText

    tokens = judge._layout.context(query, text, GrowingText(), reserve=20).tokens
    assert len(tokens) + 20 <= 256
    return judge._checkpoint.decode(tokens)


def test_of_a_long_thought_the_newest_text_stays_and_the_query(short: LocalJudge) -> None:
    text = " ".join(f"{word} {number}" for number, word in enumerate(CALM * 40))
    seen = shown(short, "what hums?", text)
    assert "Query: what hums?\nThought: […] " in seen
    assert seen.endswith(text[-200:])
    verdict = ask(short, f"{text} {HARM}", "what hums?")
    assert verdict.level is RiskLevel.HARMFUL
    left_out = int("".join(filter(str.isdigit, verdict.analysis)))
    assert 0 < left_out < len(text) - 100
    assert "had no room for the first" in verdict.analysis


@pytest.mark.parametrize("tail", [" " * 2000, "\n" * 2000])
def test_white_space_behind_the_thought_takes_no_room(short: LocalJudge, tail: str) -> None:
    text = f"{'kettle ' * 400} {HARM}"
    assert shown(short, "", text + tail) == shown(short, "", text)
    assert ask(short, text + tail).level is RiskLevel.HARMFUL


def test_of_far_more_than_finds_room_the_beginning_is_not_even_read(short: LocalJudge) -> None:
    text = f"{CALM_TEXT} " * 100_000
    began = time.monotonic()
    verdict = ask(short, f"{text} {HARM}")
    assert time.monotonic() - began < 5  # tokenising all of it takes several times as long
    assert verdict.level is RiskLevel.HARMFUL
    left_out = int("".join(filter(str.isdigit, verdict.analysis)))
    assert len(text) - 4096 < left_out < len(text)
    assert shown(short, "", f"{text} {HARM}").endswith(f"{CALM_TEXT}  {HARM}")


def test_of_a_long_query_the_middle_is_left_out(short: LocalJudge) -> None:
    seen = shown(short, f"begin {CALM_TEXT * 20} end?", f"{CALM_TEXT} {HARM}")
    assert "Query: begin" in seen
    assert "[…]" in seen
    assert f"end?\nThought: {CALM_TEXT} {HARM}" in seen


def test_so_is_its_account_in_the_verdict(short: LocalJudge) -> None:
    query = f"begin {CALM_TEXT * 20} end?"
    verdict = ask(short, f"{CALM_TEXT} {HARM}", query)
    left_out = int("".join(filter(str.isdigit, verdict.analysis)))
    assert len(query) / 2 < left_out < len(query)
    assert verdict.analysis == (
        f"(The context had no room for {left_out} characters in the middle of the question.)"
    )


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_a_long_query_and_a_long_thought_both_find_room(checkpoint: Path, mode: Mode) -> None:
    judge = LocalJudge(checkpoint, dtype="float32", context=256, mode=mode, max_analysis=60)
    verdict = ask(judge, " ".join([*CALM * 40, HARM]), CALM_TEXT * 20)
    assert verdict.level is RiskLevel.HARMFUL
    assert "no room for the first" in verdict.analysis
    assert "in the middle of the question" in verdict.analysis
    judge.close()


def test_a_thought_that_has_outgrown_the_context_stays_cheap(short: LocalJudge) -> None:
    words = CALM * 60
    before = short.usage.tokens

    async def stream() -> None:
        for end in range(8, len(words), 8):
            await short.judge(Window(query="", text=" ".join(words[:end]), stream="long"))

    asyncio.run(stream())
    # Each token is computed about twice: as it comes, and once more when the beginning is left out.
    tokens = len(short._layout.encode(" ".join(words)))
    probes = len(words) / 8 * (len(short._layout.labels.probe) + 2)
    assert short.usage.tokens - before < 2.5 * tokens + probes
    assert short.usage.texts == 1


def test_where_the_beginning_is_cut_depends_on_the_text_alone(short: LocalJudge, checkpoint: Path) -> None:
    text = " ".join(CALM * 40)
    windows = [Window(query="", text=text[:end], stream="s") for end in range(100, len(text), 333)]
    fresh = LocalJudge(checkpoint, dtype="float32", context=256)

    async def both(window: Window) -> tuple[Verdict, Verdict]:
        fresh.forget("s")
        return await short.judge(window), await fresh.judge(window)

    for window in windows:
        mine, other = asyncio.run(both(window))
        assert mine.analysis == other.analysis
        assert mine.risk == pytest.approx(other.risk, abs=1e-5)
    fresh.close()
