"""Small labelled streams whose figures can be counted by hand, and a judge of words for them."""

import json
from pathlib import Path
from typing import Any

from shieldguard import RiskLevel, Verdict, Window
from shieldguard.evaluation.labelled import LabelledStream

CALM = "calm words, "  # 12 characters
SPAN = 60  # of the windows that these streams are cut into


class WordJudge:
    """P(1) by the worst word in the new text: nurgal 0.9, flimmer 0.6, else 0.1. Level 1 from 0.8."""

    name = "words"

    def __init__(self, harmful: float = 0.8) -> None:
        self.harmful = harmful

    async def judge(self, window: Window) -> Verdict:
        return self.judge_now(window)

    def judge_now(self, window: Window) -> Verdict:
        odds = 0.9 if "nurgal" in window.new else 0.6 if "flimmer" in window.new else 0.1
        level = RiskLevel.HARMFUL if odds >= self.harmful else RiskLevel.SAFE
        given = {RiskLevel.SAFE: 1 - odds, RiskLevel.POTENTIAL: 0.0, RiskLevel.HARMFUL: odds}
        return Verdict(level=level, judge=self.name, probabilities=given)


def words(count: int, at: dict[int, str] | None = None) -> str:
    """`count` pieces of 12 characters, those at some places replaced by a word padded to as many."""
    return "".join((at or {}).get(place, CALM).ljust(len(CALM)) for place in range(count))


def harmful(name: str, *, onset: int, word_at: int | None, pieces: int = 25) -> LabelledStream:
    """Level 1 from piece `onset` on; each piece is a sentence. "nurgal" stands at `word_at`."""
    at = {} if word_at is None else {word_at: "nurgal"}
    return LabelledStream(
        id=name,
        query=f"question {name}",
        reasoning=words(pieces, at),
        level=1.0,
        stratum="harmful",
        harm_at=12 * onset,
        harm_until=12 * (onset + 1),
        sentences=tuple(12 * (n + 1) for n in range(pieces)),
    )


def harmless(
    name: str, stratum: str, *, word: str = "", pieces: int = 25, answer: str = ""
) -> LabelledStream:
    """With `word` in its third window, if any."""
    at = {12: word} if word else {}
    reasoning = words(pieces, at)
    return LabelledStream(
        id=name, query=f"question {name}", reasoning=reasoning, level=0.0, stratum=stratum, answer=answer
    )


def row(stream: LabelledStream, **more: Any) -> dict[str, Any]:
    """The stream as a row of a file."""
    starts = [0, *stream.sentences[:-1]]
    return {
        "id": stream.id,
        "query": stream.query,
        "reasoning": stream.reasoning,
        "answer": stream.answer,
        "level": stream.level,
        "stratum": stream.stratum,
        "onset_one_char": stream.harm_at,
        "sentences": [list(span) for span in zip(starts, stream.sentences, strict=False)] or None,
        **more,
    }


def write(file: Path, streams: list[LabelledStream]) -> Path:
    file.write_text("".join(json.dumps(row(stream)) + "\n" for stream in streams), encoding="utf-8")
    return file


def many(stratum: str, count: int, alarms: int) -> list[LabelledStream]:
    """Harmless streams, of which so many have the word that P(1) is 0.6 for."""
    return [
        harmless(f"{stratum} {n}", stratum, word="flimmer" if n < alarms else "", pieces=20 + n % 5)
        for n in range(count)
    ]
