"""The rows that the embedded judge is trained on, read from a data folder.

Rows under a non-commercial licence are left out here, once and for all: the weights ship to users.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shieldguard.data_folder import code_reasoning, may_ship, question, rows
from shieldguard.events import Channel

TRAINING_SPLITS = frozenset({"train", "val"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One text and its level.

    From character `potential_at` on the text so far rates 0.5 or more, and 1 from `harmful_at` on; each
    sentence that brings it there ends at `…_until`. None where the text never does. `question` is the same
    for rows that may not stand on both sides of a split.
    """

    text: str
    level: float
    source: str
    licence: str
    question: str
    channel: Channel = Channel.REASONING
    potential_at: int | None = None
    potential_until: int | None = None
    harmful_at: int | None = None
    harmful_until: int | None = None


def read(data: Path) -> tuple[list[Row], int]:
    """Every row to train on, and how many were left out for their licence. No row of a test split.

    Raises `ConfigError` where a file is absent or cannot be read.
    """
    found = [
        *_reasoning(data, "train"),
        *_reasoning(data, "val"),
        *_benign(rows(data / "benign" / "ordinary.jsonl.gz")),
        *_benign(rows(data / "benign" / "sensitive.jsonl.gz")),
        *_benign(code_reasoning()),
        *_answers(data),
    ]
    kept = [row for row in found if may_ship(row.licence)]
    return kept, len(found) - len(kept)


def _reasoning(data: Path, split: str) -> Iterator[Row]:
    for row in rows(data / "reasoning" / f"{split}.jsonl.gz"):

        def end(sentence: int | None, spans: Any = row["sentences"]) -> int | None:
            return None if sentence is None else int(spans[sentence][1])

        yield Row(
            text=row["thought"],
            level=float(row["level"]),
            source=row["source"],
            licence=row["licence"],
            question=question(row),
            potential_at=row["onset_half_char"],
            potential_until=end(row["onset_half"]),
            harmful_at=row["onset_one_char"],
            harmful_until=end(row["onset_one"]),
        )


def _benign(rows: Iterable[dict[str, Any]]) -> Iterator[Row]:
    for row in rows:
        if row["split"] not in TRAINING_SPLITS:
            continue
        for channel, text in ((Channel.REASONING, row["thought"]), (Channel.ANSWER, row["answer"])):
            if text:
                yield Row(
                    text=text,
                    level=0.0,
                    source=row["source"],
                    licence=row["licence"],
                    question=question(row),
                    channel=channel,
                )


def _answers(data: Path) -> Iterator[Row]:
    for row in rows(data / "answers" / "qa.jsonl.gz"):
        if row["split"] in TRAINING_SPLITS:
            yield Row(
                text=row["answer"],
                level=float(row["label"]),
                source=row["source"],
                licence=row["licence"],
                question=question(row),
                channel=Channel.ANSWER,
            )
