"""The traces that judges are measured on: the test splits of a data folder, and our own about code."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shieldguard.data_folder import code_reasoning, may_ship, question, rows
from shieldguard.errors import ConfigError
from shieldguard.events import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledText:
    """One text and its level. `potential_at`, `harmful_at`: the character from which the text so far rates
    0.5 or more, and 1; None: never."""

    text: str
    level: float
    source: str
    query: str = ""
    channel: Channel = Channel.REASONING
    potential_at: int | None = None
    harmful_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """`reasoning`: rated by a language model. `answers`: labelled by people, 0.5 where they disagreed.
    `trained_on`: thoughts and answers of the other splits, without those under an NC licence."""

    reasoning: list[LabelledText]
    ordinary: list[LabelledText]
    ordinary_answers: list[LabelledText]
    sensitive: list[LabelledText]
    code: list[LabelledText]
    answers: list[LabelledText]
    trained_on: list[str]


def load(data: Path) -> TestSet:
    """Read the test splits. Raises `ConfigError` for a file that is absent or cannot be read."""
    ordinary, sensitive, answers = (
        list(rows(data / folder / f"{name}.jsonl.gz"))
        for folder, name in (("benign", "ordinary"), ("benign", "sensitive"), ("answers", "qa"))
    )
    code = list(code_reasoning())
    others = [row for row in (*ordinary, *sensitive, *answers, *code) if row["split"] != "test"]
    others += [row for split in ("train", "val") for row in _traces(data, split)]
    return TestSet(
        reasoning=[_rated(row) for row in _traces(data, "test")],
        ordinary=[_thought(row) for row in _of_test(ordinary)],
        ordinary_answers=[_answer(row) for row in _of_test(ordinary) if row["answer"]],
        sensitive=[_thought(row) for row in _of_test(sensitive)],
        code=[_thought(row) for row in _of_test(code)],
        answers=[_answer(row) for row in _of_test(answers)],
        trained_on=[
            text
            for row in others
            if may_ship(row["licence"])
            for text in (row.get("thought"), row.get("answer"))
            if text
        ],
    )


def left_out(data: Path, sources: Collection[str]) -> list[LabelledText]:
    """The labelled traces of these sources, of every split, but for those whose question was trained on by
    way of another source. Raises `ConfigError` for a source that has none, and as `load` does."""
    to_train_on = [row for split in ("train", "val") for row in _traces(data, split)]
    labelled = [*to_train_on, *_traces(data, "test")]
    if unknown := set(sources) - {row["source"] for row in labelled}:
        known = sorted({row["source"] for row in labelled})
        raise ConfigError(f"no labelled traces are of {sorted(unknown)!r}; their sources are {known!r}")
    others = [row for row in to_train_on if row["source"] not in sources]
    for path in ("benign/ordinary", "benign/sensitive", "answers/qa"):
        others += [row for row in rows(data / f"{path}.jsonl.gz") if row["split"] != "test"]
    asked = {question(row) for row in others}
    return [_rated(row) for row in labelled if row["source"] in sources and question(row) not in asked]


def _traces(data: Path, split: str) -> Iterator[dict[str, Any]]:
    return rows(data / "reasoning" / f"{split}.jsonl.gz")


def _of_test(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (row for row in rows if row["split"] == "test")


def _rated(row: dict[str, Any]) -> LabelledText:
    return LabelledText(
        text=row["thought"],
        level=float(row["level"]),
        source=row["source"],
        query=row["query"],
        potential_at=row["onset_half_char"],
        harmful_at=row["onset_one_char"],
    )


def _thought(row: dict[str, Any]) -> LabelledText:
    return LabelledText(text=row["thought"], level=0.0, source=row["source"], query=row["query"])


def _answer(row: dict[str, Any]) -> LabelledText:
    return LabelledText(
        text=row["answer"],
        level=float(row.get("label", 0)),
        source=row["source"],
        query=row["query"],
        channel=Channel.ANSWER,
    )
