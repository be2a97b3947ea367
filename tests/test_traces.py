"""Traces from files: JSON under several names, or text with think tags."""

import io
import json
from pathlib import Path

import pytest

from shieldguard import ConfigError
from shieldguard_adapters.traces import Trace, load_trace


def loaded(tmp_path: Path, text: str) -> Trace:
    file = tmp_path / "one.txt"
    file.write_text(text, encoding="utf-8")
    return load_trace(str(file))


@pytest.mark.parametrize(
    "row",
    [
        {"query": "Q", "reasoning": "R", "answer": "A"},
        {"question": "Q", "thought": "R", "response": "A"},
        {"prompt": "Q", "model_thinking": "R", "model_response": "A"},
        {"query": "Q", "reasoning_content": "R", "content": "A", "score": 3},
    ],
)
def test_rows_of_the_common_data_sets_are_read(row: dict[str, object], tmp_path: Path) -> None:
    assert loaded(tmp_path, json.dumps(row)) == Trace("Q", "R", "A", "one.txt")


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("I wonder.", "I wonder.", ""),
        ("<think>I wonder.</think>So.", "I wonder.", "So."),
        ("I wonder.</think>So.", "I wonder.", "So."),
        ("<think>I wonder.", "I wonder.", ""),
        ("Is 1 < 2?", "Is 1 < 2?", ""),
    ],
)
def test_text_is_parted_at_its_tags_and_is_reasoning_without(
    text: str, reasoning: str, answer: str, tmp_path: Path
) -> None:
    trace = loaded(tmp_path, text)
    assert (trace.reasoning, trace.answer) == (reasoning, answer)


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("I wonder."))
    assert load_trace("-") == Trace("", "I wonder.", "", "standard input")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no reasoning and no answer"),
        (" \n", "no reasoning and no answer"),
        ('{"reasoning": ""}', "no reasoning and no answer"),
        ("{not json", "begins like JSON"),
        ('{"query": "Q"}', "'reasoning' or 'answer'"),
    ],
)
def test_what_holds_nothing_to_judge_is_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        loaded(tmp_path, text)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_trace(str(tmp_path / "none.txt"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read"):
        load_trace(str(tmp_path / "bytes"))
