"""Judges for `--judge`, whose verdicts can be told from the text, and rows for them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio

from shieldguard import JudgeError, JudgeUnreachable, RiskLevel, UnparsedVerdict, Verdict
from shieldguard.evaluation.moderation.figures import Judged
from shieldguard.evaluation.moderation.journal import Answer
from shieldguard.evaluation.rows import Row
from shieldguard.windows import Window


@dataclass(slots=True)
class NumberJudge:
    """Reads the score from the text's last word and calls 0.5 and above its level; "none" is no verdict."""

    name: str = "numbers"
    seconds: float = 0.0
    asked: list[Window] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def judge(self, window: Window) -> Verdict:
        self.asked.append(window)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.at_once -= 1
        word = window.text.split()[-1]
        if word == "none":
            raise UnparsedVerdict("no judgment in the reply")
        return scored(float(word))

    def forget(self, stream: str) -> None:
        self.forgotten.append(stream)


def scored(score: float) -> Verdict:
    level = RiskLevel.HARMFUL if score >= 0.9 else RiskLevel.POTENTIAL if score >= 0.5 else RiskLevel.SAFE
    odds = {RiskLevel.SAFE: 1 - score, RiskLevel.POTENTIAL: score / 2, RiskLevel.HARMFUL: score / 2}
    return Verdict(level=level, judge="numbers", probabilities=odds)


def numbers(**options: Any) -> NumberJudge:
    options.pop("api_key", None)
    options.pop("weights", None)
    return NumberJudge(**options)


def slow() -> NumberJudge:
    return NumberJudge(seconds=0.05)


class RaisingJudge:
    name = "raising"

    def __init__(self, error: Callable[[], Exception]) -> None:
        self.error = error

    async def judge(self, window: Window) -> Verdict:
        raise self.error()


def unreachable() -> RaisingJudge:
    return RaisingJudge(lambda: JudgeUnreachable("http://127.0.0.1:1: refused the connection"))


def buggy() -> RaisingJudge:
    return RaisingJudge(lambda: KeyError("oops"))


def silent() -> RaisingJudge:
    return RaisingJudge(lambda: JudgeError("no verdict today"))


class MoodyJudge:
    """Rates at random."""

    name = "moody"

    def __init__(self) -> None:
        self.random = random.Random(4)

    async def judge(self, window: Window) -> Verdict:
        return scored(self.random.random())


def judged(gold: Sequence[float], *runs: Sequence[float | None], group: str = "") -> list[Judged]:
    """Rows with these labels, and the scores of each run, None for no verdict."""
    rows = []
    for at, label in enumerate(gold):
        level = RiskLevel(label)
        row = Row(
            number=at + 1, question="", text="text", level=level, groups={"kind": group} if group else {}
        )
        answers = []
        for run, scores in enumerate(runs):
            key, score = ("set", at + 1, run), scores[at]
            if score is None:
                answers.append(Answer.none(key, UnparsedVerdict("no judgment"), 0.5))
            else:
                answers.append(Answer.verdict(key, scored(score), 0.5))
        rows.append(Judged(row=row, answers=tuple(answers)))
    return rows
