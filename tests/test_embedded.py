"""The embedded judge: its features against a slow reference, its verdicts, its file, its training."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard.data_folder import may_ship
from shieldguard.errors import ConfigError
from shieldguard.events import Channel
from shieldguard.judges import InstantJudge
from shieldguard.judges.embedded import EmbeddedJudge
from shieldguard.judges.embedded.features import PIECE, buckets, fold, hashes, pieces
from shieldguard.judges.embedded.model import SHIPPED, Model
from shieldguard.judges.thresholds import Thresholds
from shieldguard.training.embedded import Recipe, train
from shieldguard.training.rows import read
from shieldguard.verdicts import RiskLevel
from shieldguard.windows import SentenceWindower, Window
from shieldguard_adapters.demo.scripts import BICYCLE, SCAM
from tests import tiny_data

MASK = 2**32 - 1


@pytest.fixture(scope="module")
def judge() -> EmbeddedJudge:
    return EmbeddedJudge()


def marker_model(marker: str, *, bits: int = 16) -> Model:
    """A model that scores the n-grams of one word, and nothing else."""
    weights = np.zeros((2**bits, 2), dtype=np.int8)
    weights[buckets(fold(marker), bits)] = 100
    limits = Thresholds(potential=0.5, harmful=0.5)
    return Model(
        weights=weights,
        scale=np.array([1.0, 1.0]),
        bias=np.array([-20.0, -20.0]),
        reasoning=limits,
        answer=limits,
        provenance={},
    )


# The reference: one n-gram at a time, in Python's own integers.


def mixed(value: int) -> int:
    value ^= value >> 16
    value = value * 0x85EBCA6B & MASK
    value ^= value >> 13
    value = value * 0xC2B2AE35 & MASK
    return value ^ value >> 16


def reference(piece: bytes) -> list[int]:
    word_bytes = {*range(48, 58), *range(97, 123), 39, *range(128, 256)}
    line = b" "
    for byte in piece:
        if byte in word_bytes:
            line += b"0" if 48 <= byte < 58 else bytes([byte])
        elif not line.endswith(b" "):
            line += b" "
    line += b" "
    found = []
    for order, seed in ((3, 0x51ED270B), (4, 0xA0761D65), (5, 0xE7037ED1)):
        for at in range(len(line) - order + 1):
            value = 0
            for byte in line[at : at + order]:
                value = (value * 0x01000193 + byte) & MASK
            found.append(mixed(value ^ seed))
    words = []
    for word in line.split():
        words.append(mixed(sum(byte * pow(0x9E3779B1, at + 1, 2**32) for at, byte in enumerate(word)) & MASK))
    for order, seed in ((1, 0x8EBC6AF0), (2, 0x589965CC), (3, 0x1D8E4E27)):
        for at in range(len(words) - order + 1):
            value = 0
            for one in words[at : at + order]:
                value = (value * 0x85EBCA77 + one) & MASK
            found.append(mixed(value ^ seed))
    return sorted(found)


# Features


TEXTS = st.text(st.sampled_from("ab Z9'.,\n\u200b\u2019é日") | st.characters(), max_size=80)


@given(TEXTS)
@settings(deadline=None)
def test_hashes_are_those_of_the_slow_reference(text: str) -> None:
    piece = fold(text)
    assert sorted(hashes(piece).tolist()) == reference(piece)


@given(TEXTS)
@settings(deadline=None)
def test_buckets_are_the_distinct_high_bits_of_the_hashes(text: str) -> None:
    piece = fold(text)
    assert buckets(piece, 12).tolist() == sorted({value >> 20 for value in hashes(piece).tolist()})


def test_lines_longer_than_the_powers_kept_are_hashed_alike() -> None:
    piece = fold("word " * 1200)
    assert sorted(hashes(piece).tolist()) == reference(piece)


@pytest.mark.parametrize(
    ("seen", "meant"),
    [
        ("gift\u200b\u00adcards", "giftcards"),
        ("\uff47\uff49\uff46\uff54", "gift"),
        ("don\u2019t", "don't"),
        ("GIFT", "gift"),
        ("\u202egift\u2066", "gift"),
    ],
)
def test_what_reads_alike_is_folded_alike(seen: str, meant: str) -> None:
    assert fold(seen) == meant.encode()


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_each_byte_of_new_text_is_in_a_piece_and_each_short_stretch_whole_in_one(
    before: int, new: int
) -> None:
    # Each byte is told from its neighbours by where it stands.
    text = "".join(chr(0x61 + n % 26) + str(n // 26 % 10) for n in range(before + new))[: before + new]
    found = list(pieces(text, before))
    assert all(len(piece) <= PIECE for piece in found)
    at = before
    while at < len(text):
        stretch = text[at : at + 260].encode()
        assert any(stretch in piece for piece in found), at
        at += 97
    assert bool(found) == bool(new)


def test_a_run_of_combining_marks_is_folded_in_linear_time(judge: EmbeddedJudge) -> None:
    # Quadratic, as Unicode's canonical ordering is, this takes half a minute.
    text = "a" + "\u0301\u0323" * 50_000
    assert unicodedata.normalize("NFC", fold(text).decode()[:1]) == "á"[:1] or fold(text)
    assert judge.judge_now(Window(query="", text=text)).level == RiskLevel.SAFE


# Verdicts


def test_it_is_a_judge_that_answers_in_place(judge: EmbeddedJudge) -> None:
    assert isinstance(judge, InstantJudge)
    assert judge.name == "embedded"


@given(text=TEXTS, before=st.integers(0, 40), channel=st.sampled_from(Channel))
@settings(deadline=None)
def test_probabilities_are_those_of_ordered_levels(
    judge: EmbeddedJudge, text: str, before: int, channel: Channel
) -> None:
    verdict = judge.judge_now(Window(query="", text=text, start=min(before, len(text)), channel=channel))
    assert verdict.probabilities is not None
    assert sum(verdict.probabilities.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in verdict.probabilities.values())


@pytest.mark.parametrize(
    "text",
    ["", " \n", "\u200b" * 700, "\ud800\udfff lone", "nul \x00 byte", "😀" * 900, "日本語の文章。" * 300],
)
def test_odd_texts_are_judged_and_are_safe(judge: EmbeddedJudge, text: str) -> None:
    assert judge.judge_now(Window(query="", text=text)).level == RiskLevel.SAFE


def test_a_megabyte_is_judged(judge: EmbeddedJudge) -> None:
    text = ("The bread cools beside the window. " * 30_000)[:1_000_000]
    assert judge.judge_now(Window(query="", text=text)).level == RiskLevel.SAFE


@given(at=st.integers(0, 20_000))
@settings(max_examples=40, deadline=None)
def test_a_word_is_found_wherever_it_stands_in_a_long_new_text(marked: EmbeddedJudge, at: int) -> None:
    calm = "rain taps on glass and "
    text = (calm * (20_000 // len(calm) + 1))[:at] + " zorgonaut " + calm * 8
    assert marked.judge_now(Window(query="", text=text)).level == RiskLevel.HARMFUL


def test_context_counts_and_old_text_beyond_it_does_not(marked: EmbeddedJudge) -> None:
    calm = "rain taps on glass and "
    near = "zorgonaut " + calm * 10
    far = "zorgonaut " + calm * 100
    assert marked.judge_now(Window(query="", text=near, start=100)).level == RiskLevel.HARMFUL
    assert marked.judge_now(Window(query="", text=far, start=1500)).level == RiskLevel.SAFE


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedJudge:
    path = tmp_path_factory.mktemp("weights") / "marked.npz"
    marker_model("zorgonaut").save(path)
    return EmbeddedJudge(weights=path)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_awaited_verdict_is_the_same(judge: EmbeddedJudge, backend: str) -> None:
    window = Window(query="", text=SCAM.reasoning * 20)

    async def awaited() -> object:
        return await judge.judge(window)

    import anyio

    assert anyio.run(awaited, backend=backend) == judge.judge_now(window)


def test_thresholds_can_be_overridden(marked: EmbeddedJudge, tmp_path: Path) -> None:
    marker_model("zorgonaut").save(tmp_path / "w.npz")
    strict = EmbeddedJudge(weights=tmp_path / "w.npz", harmful=0.0)
    lax = EmbeddedJudge(weights=tmp_path / "w.npz", answer_potential=1.0, answer_harmful=1.0, name="lax")
    calm, hot = Window(query="", text="rain taps on glass"), Window(query="", text="zorgonaut")
    answer = Window(query="", text="zorgonaut", channel=Channel.TOOL_CALL)
    assert strict.judge_now(calm).level == RiskLevel.HARMFUL
    assert lax.judge_now(hot).level == RiskLevel.HARMFUL
    assert lax.judge_now(answer).level == RiskLevel.SAFE
    assert lax.judge_now(answer).judge == "lax"
    with pytest.raises(ConfigError, match=r"harmful=1\.5"):
        EmbeddedJudge(harmful=1.5)


def levels(judge: EmbeddedJudge, text: str) -> list[float]:
    windower, start, found = SentenceWindower(), 0, []
    while start < len(text):
        end = windower.cut(text, start) or len(text)
        found.append(judge.judge_now(Window(query="", text=text[:end], start=start)).level.value)
        start = end
    return found


def test_the_demonstration_is_stopped_where_it_should_be(judge: EmbeddedJudge) -> None:
    assert 1.0 in levels(judge, SCAM.reasoning)
    assert set(levels(judge, BICYCLE.reasoning)) == {0.0}
    assert set(levels(judge, BICYCLE.answer)) == {0.0}


# The file


def test_the_shipped_weights_are_small_and_tell_where_they_come_from() -> None:
    assert SHIPPED.stat().st_size < 4_000_000
    provenance = Model.load(SHIPPED).provenance
    assert provenance["rows left out for an NC licence"] > 0
    assert provenance["seed"] == 0


def test_a_model_survives_its_file_and_writes_the_same_bytes(tmp_path: Path) -> None:
    model = marker_model("zorgonaut")
    model.save(tmp_path / "a.npz")
    loaded = Model.load(tmp_path / "a.npz")
    loaded.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert loaded.score("zorgonaut") == model.score("zorgonaut")


@pytest.mark.parametrize("content", [None, b"", b"no archive", SHIPPED.read_bytes()[:5000]])
def test_weights_that_cannot_be_read_are_a_config_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read the weights"):
        EmbeddedJudge(weights=path)


def test_an_archive_of_something_else_is_a_config_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ConfigError, match="cannot read the weights"):
        EmbeddedJudge(weights=tmp_path / "other.npz")


def test_importing_shieldguard_loads_no_numpy() -> None:
    code = "import sys, shieldguard; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Training


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data.make(tmp_path_factory.mktemp("data"))


SMALL = Recipe(bits=12, folds=2)


def test_training_learns_and_repeats_itself_to_the_byte(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    figures = train(tiny, tmp_path / "a.npz", seed=3, recipe=SMALL)
    assert train(tiny, tmp_path / "b.npz", seed=3, recipe=SMALL) == figures
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert figures["rows left out for an NC licence"] == 1
    assert figures["cross-fitted"]["level 1 traces aborted, of 1,000"] > 900
    trained = EmbeddedJudge(weights=tmp_path / "a.npz")
    calm, vague, harsh = (" ".join(words * 2) for words in (tiny_data.CALM, tiny_data.VAGUE, tiny_data.HARSH))
    assert set(levels(trained, calm)) == {0.0}
    assert min(levels(trained, vague * 3)) >= 0.5
    assert set(levels(trained, harsh * 2)) == {1.0}


def test_a_source_can_be_left_out_and_the_weights_say_so(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    figures = train(tiny, tmp_path / "w.npz", recipe=SMALL, leave_out=["star1"])
    assert not [name for name in figures["rows"]["reasoning"] if name.startswith("star1")]
    assert [name for name in figures["rows"]["reasoning"] if name.startswith("made_up")]
    assert Model.load(tmp_path / "w.npz").provenance["sources left out"] == ["star1"]


def test_no_row_of_a_test_split_or_under_an_nc_licence_is_read(tiny: Path) -> None:
    rows, left_out = read(tiny)
    assert left_out == 1
    assert not [row for row in rows if "NC" in row.licence]
    assert not [row for row in rows if row.question.startswith("test ")]
    assert len([row for row in rows if row.source == "made_up"]) == 100
    assert len([row for row in rows if row.source == "made_up_answers"]) == 39
    assert len([row for row in rows if row.source == "shieldguard"]) == 30


@pytest.mark.parametrize(
    ("licence", "ships"),
    [
        ("CC-BY-NC-4.0", False),
        ("cc-by-nc-sa-4.0", False),
        ("Non-Commercial", False),
        ("MIT", True),
        ("none stated", True),
        ("Apache-2.0", True),
        ("CC-BY-4.0", True),
    ],
)
def test_which_licences_may_ship(licence: str, ships: bool) -> None:
    assert may_ship(licence) is ships


def test_absent_data_are_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.jsonl\.gz"):
        train(tmp_path, tmp_path / "w.npz")


def test_data_without_harm_are_a_config_error(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    tiny_data.make(tmp_path)
    for split in ("train", "val"):
        tiny_data.write(tmp_path / "reasoning" / f"{split}.jsonl.gz", [])
    tiny_data.write(tmp_path / "answers" / "qa.jsonl.gz", [])
    with pytest.raises(ConfigError, match="more data are needed"):
        train(tmp_path, tmp_path / "w.npz", recipe=SMALL)
