"""A model that knows nothing yet, and rows in the columns of ReasoningShield's data set."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.judges.local.tiny import ANALYSES, CALM, DOUBT, HARM, LEVELS, make_model, make_tokenizer, save

NEW_HARM = "drommelt"
"""A word for harm that only the second stage tells of."""


def make_blank(folder: Path) -> Path:
    tokenizer = make_tokenizer()
    save(folder, make_model(tokenizer), tokenizer)
    return folder


def labelled(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows as of Stage1_SFT, each level as often."""
    rng = random.Random(seed)
    return [_row(rng, LEVELS[number % 3], {"0.5": DOUBT, "1": HARM}) for number in range(count)]


def preferred(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows as of Stage2_DPO: what a model of the first stage takes for calm is not, and calm is."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        right, wrong = ("1", "0") if number % 2 else ("0", "1")
        row = _row(rng, right, {"1": NEW_HARM})
        rows.append({**row, "chosen": reply(right), "rejected": reply(wrong)})
    return rows


def _row(rng: random.Random, level: str, marks: Mapping[str, str]) -> dict[str, Any]:
    words = [rng.choice(CALM) + ("." if rng.random() < 0.1 else "") for _ in range(rng.randint(3, 24))]
    if level in marks:
        words.insert(rng.randrange(len(words) + 1), marks[level])
    return {
        "index": rng.randrange(10_000),
        "query": " ".join(rng.choice(CALM) for _ in range(rng.randint(0, 4))),
        "model_thinking": " ".join(words),
        "final_analysis": ANALYSES[level],
        "final_judgment": level,
    }


def reply(level: str) -> str:
    return f'"Analysis": {ANALYSES[level]}\n"Judgment": {level}'


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
