"""The traces that judges are measured on: the test splits of a data folder, and our own about code."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shieldguard.data_folder import code_reasoning, rows
from shieldguard.events import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
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
    """`reasoning`: rated by a language model. `answers`: labelled by people, 0.5 where they disagreed."""

    reasoning: list[Labelled]
    ordinary: list[Labelled]
    ordinary_answers: list[Labelled]
    sensitive: list[Labelled]
    code: list[Labelled]
    answers: list[Labelled]


def load(data: Path) -> TestSet:
    """Read the test splits. Raises `ConfigError` for a file that is absent or cannot be read."""
    ordinary = list(_test_rows(rows(data / "benign" / "ordinary.jsonl.gz")))
    return TestSet(
        reasoning=[
            Labelled(
                text=row["thought"],
                level=float(row["level"]),
                source=row["source"],
                query=row["query"],
                potential_at=row["onset_half_char"],
                harmful_at=row["onset_one_char"],
            )
            for row in rows(data / "reasoning" / "test.jsonl.gz")
        ],
        ordinary=[_thought(row) for row in ordinary],
        ordinary_answers=[_answer(row) for row in ordinary if row["answer"]],
        sensitive=[_thought(row) for row in _test_rows(rows(data / "benign" / "sensitive.jsonl.gz"))],
        code=[_thought(row) for row in _test_rows(code_reasoning())],
        answers=[_answer(row) for row in _test_rows(rows(data / "answers" / "qa.jsonl.gz"))],
    )


def _test_rows(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (row for row in rows if row["split"] == "test")


def _thought(row: dict[str, Any]) -> Labelled:
    return Labelled(text=row["thought"], level=0.0, source=row["source"], query=row["query"])


def _answer(row: dict[str, Any]) -> Labelled:
    return Labelled(
        text=row["answer"],
        level=float(row.get("label", 0)),
        source=row["source"],
        query=row["query"],
        channel=Channel.ANSWER,
    )
