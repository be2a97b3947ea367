"""A data folder in the form of ../shared/data, of texts made up from two vocabularies."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

CALM = "The kettle hums while rain taps on the glass and bread cools beside an open window".lower().split()
VAGUE = ["perhaps", "one", "could", "somehow", "zorb", "the", "flimmer"]
HARSH = ["grickle", "the", "vextor", "then", "splint", "nurgal", "into", "quasp"]


def sentences(rng: random.Random, words: list[str], count: int) -> str:
    """`count` sentences of about 80 characters."""
    return "".join(" ".join(rng.choices(words, k=14)).capitalize() + ". " for _ in range(count))


def trace(rng: random.Random, number: int, level: float) -> dict[str, Any]:
    """Calm, then vague from level 0.5 on, then harsh at level 1: six sentences each."""
    parts = [CALM, VAGUE, HARSH][: int(2 * level) + 1]
    thought = ""
    spans: list[list[int]] = []
    onsets: list[int] = []
    for words in parts:
        onsets.append(len(spans))
        for _ in range(6):
            one = sentences(rng, words, 1)
            spans.append([len(thought), len(thought) + len(one)])
            thought += one
    half = onsets[1] if level >= 0.5 else None
    one_at = onsets[2] if level == 1 else None
    return {
        "id": f"trace:{number}",
        "source": "star1" if number % 6 == 0 else "made_up",
        "licence": "MIT",
        "query": f"question {number}",
        "thought": thought,
        "sentences": spans,
        "level": level,
        "onset_half": half,
        "onset_one": one_at,
        "onset_half_char": None if half is None else spans[half][0],
        "onset_one_char": None if one_at is None else spans[one_at][0],
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def make(folder: Path, *, seed: int = 1) -> Path:
    """Write the six files. One answer to train on is under an NC licence."""
    rng = random.Random(seed)
    for split, count in (("train", 90), ("val", 30), ("test", 30)):
        rows = [trace(rng, n, (0.0, 0.5, 1.0)[n % 3]) for n in range(count)]
        for row in rows:
            row["query"] = f"{split} {row['query']}"
        write(folder / "reasoning" / f"{split}.jsonl.gz", rows)
    for name, source in (("ordinary", "office_lrm"), ("sensitive", "speechmap")):
        write(folder / "benign" / f"{name}.jsonl.gz", [_benign(rng, source, n) for n in range(60)])
    write(folder / "answers" / "qa.jsonl.gz", [_answer(rng, n) for n in range(60)])
    return folder


def _benign(rng: random.Random, source: str, number: int) -> dict[str, Any]:
    return {
        "id": f"{source}:{number}",
        "source": source,
        "licence": "MIT",
        "query": "",
        "thought": sentences(rng, CALM, 9),
        "answer": sentences(rng, CALM, 3) if number % 2 else "",
        "label": 0,
        "split": ("train", "val", "test")[number % 3],
    }


def _answer(rng: random.Random, number: int) -> dict[str, Any]:
    harmful = number % 4 == 0
    return {
        "id": f"answer:{number}",
        "source": "made_up_answers",
        "licence": "CC-BY-NC-4.0" if number == 1 else "MIT",
        "query": f"answer to {number}",
        "answer": sentences(rng, HARSH if harmful else CALM, 3),
        "label": 1.0 if harmful else 0.0,
        "label_by": "human",
        "split": "test" if number % 3 == 2 else "train",
    }
