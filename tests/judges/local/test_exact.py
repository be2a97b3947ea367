"""What the judge keeps changes no verdict: at every window its odds are those of a fresh forward pass."""

import asyncio
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from shieldguard import RiskLevel, Verdict, Window
from shieldguard.judges.local import LocalJudge, attention, rows, store, text
from shieldguard.judges.local.text import GrowingText
from tests.judges.local.reference import Reference
from tests.judges.local.tiny import CALM, DOUBT, HARM, SPECIAL, make_tokenizer

TOLERANCE = 2e-5  # of a logarithm, in float32
CONTEXT = 512

PIECES = st.sampled_from(
    [
        *CALM,
        DOUBT,
        HARM,
        *SPECIAL,
        *(" ", "  ", "\n", "\n\n", " \n ", "\t", "\r\n", "."),
        *("17", " 3.14", "12345", "'s", "'ll", "don't", "...", "?!\n", '"Judgment": 0\n', "\nQuery: "),
        *("é", "e\u0301", "ß", "水は", "我们", "🙂", "\ud83d", "\x00", "ǅ", "٣", "\u200d", "ﬁ"),
    ]
)
TEXTS = st.lists(PIECES | st.just(" "), min_size=1, max_size=30).map("".join)

Streams = list[tuple[str, str, list[int]]]


@st.composite
def streams(draw: st.DrawFn) -> Streams:
    """Some streams: a query, a thought, and where it is cut, in the middle of words too."""
    made = []
    for _ in range(draw(st.integers(1, 4))):
        thought = draw(TEXTS)
        cuts = draw(st.lists(st.integers(1, len(thought)), max_size=4))
        made.append((draw(TEXTS | st.just("")), thought, sorted({*cuts, len(thought)})))
    return made


def windows(given: Streams) -> list[list[Window]]:
    return [
        [
            Window(query=query, text=thought[:end], start=start, stream=f"stream {number}")
            for start, end in zip([0, *cuts], cuts, strict=False)
        ]
        for number, (query, thought, cuts) in enumerate(given)
    ]


def judged(judge: LocalJudge, lanes: Sequence[Sequence[Window]]) -> list[tuple[Window, Verdict]]:
    """Every stream's windows one after the other, all streams at once."""

    async def one(lane: Sequence[Window]) -> list[tuple[Window, Verdict]]:
        return [(window, await judge.judge(window)) for window in lane]

    async def everyone() -> list[list[tuple[Window, Verdict]]]:
        return await asyncio.gather(*map(one, lanes))

    return [pair for pairs in asyncio.run(everyone()) for pair in pairs]


def difference(reference: Reference, pairs: Sequence[tuple[Window, Verdict]]) -> float:
    """The largest difference between a label's log-odds and those of a fresh forward pass."""
    largest = 0.0
    for window, verdict in pairs:
        assert verdict.probabilities is not None
        expected = reference.log_odds(readable(window.query), readable(window.text))
        for level, odds in expected.items():
            largest = max(largest, abs(math.log(verdict.probabilities[level]) - odds))
    return largest


def readable(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


SETUPS: dict[str, dict[str, Any]] = {
    "roomy": {},
    "evicting": {"memory": "one context"},
    "in small steps": {"step_tokens": 16, "max_batch": 3},
}


@pytest.fixture(scope="module", params=SETUPS)
def judge(request: pytest.FixtureRequest, checkpoint: Path) -> Iterator[LocalJudge]:
    options = dict(SETUPS[request.param])
    if options.get("memory"):
        options["memory"] = CONTEXT * 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, size, bytes
    judge = LocalJudge(checkpoint, dtype="float32", device="cpu", context=CONTEXT, **options)
    judged(judge, windows(FIXED * 2))  # more than one context has room for
    yield judge
    assert (judge.usage.evictions > 0) is (request.param == "evicting")
    judge.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=streams())
def test_the_odds_are_those_of_a_fresh_forward_pass(
    judge: LocalJudge, reference: Reference, given: Streams
) -> None:
    assume(all(len(reference.tokens(readable(q), readable(t))) < CONTEXT - 20 for q, t, _ in given))
    assert difference(reference, judged(judge, windows(given))) < TOLERANCE


CALM_TEXT = " ".join(CALM * 4)
FIXED: Streams = [
    ("", f"{CALM_TEXT} then {HARM} and the kettle hums 12345 times", [3, 50, 51, 52, 130, 250, 333]),
    ("what hums?", f"the rain... {CALM_TEXT} don't 3.14159\n\n\nit  taps", [1, 17, 90, 91, 200, 210, 300]),
    ("水は?", f"{CALM_TEXT[:97]}{DOUBT}{CALM_TEXT[97:180]}🙂🙂 open", [40, 95, 100, 101, 140, 181, 182, 188]),
]


def test_in_one_batch_over_many_windows(fast: LocalJudge, reference: Reference) -> None:
    before = fast.usage
    pairs = judged(fast, windows(FIXED))
    assert difference(reference, pairs) < TOLERANCE
    assert fast.usage.steps - before.steps < len(pairs)  # some windows did share a forward pass


def test_the_reference_reads_what_the_card_does(reference: Reference) -> None:
    for query, thought, cuts in FIXED:
        for cut in cuts:
            tokens = reference.tokens(query, thought[:cut])
            assert tokens == reference.whole(query, thought[:cut])
            assert tokens.count(reference.tokenizer.bos_token_id) == 1


def _keeps_one_more(self: rows.Rows, length: int) -> None:
    del self.tokens[length + 1 :]


def _shorter(one: Sequence[int], other: Sequence[int]) -> int:
    return min(len(one), len(other))


def _no_mask(*_: object) -> None:
    return None


def _forgets_the_rest(
    self: GrowingText, text: str, encode: Callable[[str], list[int]], behind: str = ""
) -> list[int]:
    """Tokenises each chunk by itself."""
    self._tokens += encode(text[len(self._text) :])
    self._text = text
    return self._tokens


@pytest.mark.parametrize(
    ("where", "name", "broken"),
    [
        pytest.param(store, "common_prefix", _shorter, id="the probe is not rolled back"),
        pytest.param(rows.Rows, "crop", _keeps_one_more, id="one row of the probe stays"),
        pytest.param(attention, "_causal", _no_mask, id="tokens see what comes behind them"),
        pytest.param(text.GrowingText, "tokens", _forgets_the_rest, id="a chunk is tokenised by itself"),
    ],
)
def test_a_judge_that_is_broken_on_purpose_is_found_out(
    where: Any,
    name: str,
    broken: Any,
    checkpoint: Path,
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge = LocalJudge(checkpoint, dtype="float32", device="cpu")
    monkeypatch.setattr(where, name, broken)
    assert difference(reference, judged(judge, windows(FIXED))) > 10 * TOLERANCE
    judge.close()


# -- tokens ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["words", "across words"])
def layout(request: pytest.FixtureRequest) -> Any:
    from shieldguard.judges.local.layout import Layout

    return Layout(make_tokenizer(splits_words=request.param), "Rate.", limit=100_000)


@settings(max_examples=200, deadline=None)
@given(thought=TEXTS, cuts=st.lists(st.integers(0, 300), max_size=8), query=TEXTS)
def test_a_text_in_pieces_has_the_tokens_of_the_whole(
    layout: Any, thought: str, cuts: list[int], query: str
) -> None:
    growing = GrowingText()
    for cut in [*sorted(cuts), len(thought), *cuts]:  # and back to shorter ones
        in_pieces = layout.context(query, thought[:cut], growing, reserve=0).tokens
        assert in_pieces == layout.context(query, thought[:cut], GrowingText(), reserve=0).tokens


def test_the_strides_of_other_kernels_change_nothing(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the one that CUDA takes where there is a mask."""

    def other_strides(*arguments: Any, **options: Any) -> Any:
        output = scaled_dot_product_attention(*arguments, **options)
        return output.transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", other_strides)
    judge = LocalJudge(checkpoint, dtype="float32")
    verdict = asyncio.run(judge.judge(Window(query="", text=f"the kettle {HARM}", stream="s")))
    assert verdict.level is RiskLevel.HARMFUL
    judge.close()
