"""Labelled streams from files."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shieldguard import ConfigError
from shieldguard.evaluation.labelled import halves, load_files, load_folder
from tests import tiny_data
from tests.streams.traces import harmful, harmless, row, write

THOUGHT = "First I wonder. Then I plan it. Then it is done. "


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    streams = [harmful("a", onset=10, word_at=10), harmless("b", "ordinary", answer="So.")]
    assert load_files([write(tmp_path / "rows.jsonl", streams)]) == streams
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write((tmp_path / "rows.jsonl").read_text())
    assert load_files([tmp_path / "rows.jsonl.gz"]) == streams


def test_a_folder_has_its_strata_by_split(tmp_path: Path) -> None:
    found = load_folder(tiny_data.make(tmp_path), "test")
    assert {one.stratum for one in found} == {"harmful", "refused", "ordinary", "sensitive", "code"}
    known = [one for one in found if one.harm_at is not None]
    assert len(known) == 10
    assert all(one.harm_at in [0, *one.sentences] and one.harm_until in one.sentences for one in known)
    with pytest.raises(ConfigError, match="split='all'"):
        load_folder(tmp_path, "all")
    with pytest.raises(ConfigError, match="cannot read the streams"):
        load_folder(tmp_path / "absent", "test")


def test_rows_with_the_same_id_are_told_apart_and_halves_share_no_question(tmp_path: Path) -> None:
    streams = [harmless("same", "ordinary") for _ in range(3)]
    found = load_files([write(tmp_path / "rows.jsonl", streams)])
    assert len({one.id for one in found}) == 3
    many = [harmless(f"{n % 20}", "ordinary") for n in range(60)]
    first, second = halves(many)
    assert len(first) + len(second) == 60
    assert first
    assert second
    assert not {one.query for one in first} & {one.query for one in second}
    assert halves(many) == (first, second)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reasoning": ""}, "row 1 .*no reasoning"),
        ({"reasoning": 3}, "row 1 .*no reasoning"),
        ({"level": 0.7}, r"row 1 .*level is 0\.7"),
        ({"level": None}, "row 1 .*it has no level"),
        ({"onset_one_char": 9999}, "row 1 .*onset_one_char is 9999"),
    ],
)
def test_rows_that_cannot_be_used_are_named(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row(harmful("a", onset=1, word_at=1), **change)))
    with pytest.raises(ConfigError, match=says):
        load_files([file])


@pytest.mark.parametrize(
    ("text", "says"), [("[1]\n", "no JSON object"), ("{\n", "cannot read"), ("", "no streams")]
)
def test_files_that_are_none_are_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_files([tmp_path / "rows.jsonl"])


def sentence_labelled(folder: Path) -> tuple[Path, Path]:
    """A row as sentence-labelled sets have it, and a tokenizer of bytes, one token a character."""
    tokenizers = pytest.importorskip("tokenizers")
    content = f"<think>\n{THOUGHT}</think>\nDone."
    text = f"<user>How?</user><assistant>{content}"
    letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=letters, merges=[]))
    tokenizer.decoder = tokenizers.decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    start = text.index("Then I plan it.")
    made = {
        "unique_id": "loc-1",
        "source": "made up",
        "message": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": content}],
        "label": "Unsafe",
        "input_ids": [letters[letter] for letter in text],
        "unsafe_start_index": start,
        "unsafe_end_index": start + len("Then I plan it.") - 1,
    }
    file = folder / "thinking_loc.jsonl"
    file.write_text(json.dumps(made))
    return file, folder / "tokenizer.json"


def test_an_onset_in_tokens_is_found_in_the_reasoning(tmp_path: Path) -> None:
    file, tokenizer = sentence_labelled(tmp_path)
    (found,) = load_files([file], tokenizer)
    assert found.query == "How?"
    assert found.reasoning.strip() == THOUGHT.strip()
    assert found.harm_at is not None
    assert found.reasoning[found.harm_at : found.harm_until] == "Then I plan it."
    assert len(found.tokens) == len(found.reasoning)
    assert found.level == 1


def test_a_tokenizer_counts_the_tokens_of_any_stream(tmp_path: Path) -> None:
    _, tokenizer = sentence_labelled(tmp_path)
    made = replace(harmless("a", "ordinary"), reasoning="How is it done?")
    file = write(tmp_path / "rows.jsonl", [made])
    (found,) = load_files([file], tokenizer)
    assert list(found.tokens) == list(range(1, len(made.reasoning) + 1))
    assert load_files([file]) == [made]
    folder = load_folder(tiny_data.make(tmp_path), "test", tokenizer)
    assert all(one.tokens[-1] <= len(one.reasoning) for one in folder)
    with pytest.raises(ConfigError, match="cannot read the tokenizer"):
        load_folder(tmp_path, "test", tmp_path / "absent.json")


def test_an_onset_without_sentences_is_in_none(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row(harmful("a", onset=1, word_at=1), sentences=None)))
    (found,) = load_files([file])
    assert found.harm_at is not None
    assert found.harm_until is None


def test_without_its_tokenizer_it_is_refused(tmp_path: Path) -> None:
    file, tokenizer = sentence_labelled(tmp_path)
    with pytest.raises(ConfigError, match="--tokenizer"):
        load_files([file])
    tokenizer.write_text("{}")
    with pytest.raises(ConfigError, match="cannot read the tokenizer"):
        load_files([file], tokenizer)
