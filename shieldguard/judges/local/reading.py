"""Ways to get a verdict: from the probabilities of the labels, from what the model writes, or from the scores
of a classifier."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from shieldguard.errors import JudgeError, UnparsedVerdict
from shieldguard.judges.contract import left_out_note
from shieldguard.judges.dialects import Dialect, of_levels
from shieldguard.judges.local.layout import Layout
from shieldguard.judges.local.text import GrowingText
from shieldguard.judges.thresholds import Thresholds
from shieldguard.verdicts import RiskLevel, Verdict
from shieldguard.windows import Window

logger = logging.getLogger("shieldguard")

OnAnalysis: TypeAlias = Callable[[Window, str], None]


class Reading(Protocol):
    """One window being read. `tokens` are to be computed; of the last `wanted` the logits are taken."""

    tokens: list[int]
    wanted: int

    def take(self, logits: Tensor) -> Verdict | None:
        """The verdict; None where `tokens` have grown and have to be computed further."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fast:
    """Reads the level from the model's odds for the label strings, put behind what comes before them."""

    layout: Layout
    dialect: Dialect
    thresholds: Thresholds
    name: str

    def __call__(self, window: Window, growing: GrowingText) -> Reading:
        labels = self.layout.labels
        context = self.layout.context(
            window.query, window.text, growing, reserve=len(labels.probe), tail=labels.tail
        )
        return _FastReading(
            tokens=context.tokens + labels.probe,
            wanted=len(labels.path),
            way=self,
            note=left_out_note(context.of_thought, context.of_query),
        )


@dataclass(slots=True, kw_only=True)
class _FastReading:
    tokens: list[int]
    wanted: int
    way: Fast
    note: str

    def take(self, logits: Tensor) -> Verdict:
        labels = self.way.layout.labels
        guesses = logits.double().log_softmax(-1)
        scores = []
        for at, token in labels.leaves.values():
            score = sum((guesses[step, labels.path[step]] for step in range(at)), guesses.new_zeros(()))
            if token is None:  # it ends here: whatever comes, it is not what makes it another label
                score = score + torch.log1p(-guesses[at, labels.path[at]].exp())
            else:
                score = score + guesses[at, token]
            scores.append(score)
        stacked = torch.stack(scores)
        odds = stacked.softmax(0).tolist()
        if not all(0 <= one <= 1 for one in odds):
            raise JudgeError(f"the model's probabilities are {odds!r}; its weights or its dtype do not work")
        dialect = self.way.dialect
        if (share := float(stacked.exp().sum())) < dialect.least:
            raise UnparsedVerdict(
                f"the model expects none of its labels {list(labels.leaves)!r} (together {share:.2g}); it is "
                f"no {dialect.title}, or its prompt is not the one that it was trained on"
            )
        chances: dict[RiskLevel, float] = {}
        for label, one in zip(labels.leaves, odds, strict=True):
            level = dialect.labels[label]
            chances[level] = chances.get(level, 0.0) + one
        return _verdict(chances, self.way.thresholds, self.way.name, self.note)


def _verdict(chances: Mapping[RiskLevel, float], thresholds: Thresholds, name: str, analysis: str) -> Verdict:
    probabilities = of_levels(chances)
    harmful = probabilities[RiskLevel.HARMFUL]
    return Verdict(
        level=thresholds.level(probabilities[RiskLevel.POTENTIAL] + harmful, harmful),
        judge=name,
        probabilities=probabilities,
        analysis=analysis,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Reads a classifier's scores at `end`, the token that its training put behind each text. `names` are
    those of its categories."""

    layout: Layout
    dialect: Dialect
    thresholds: Thresholds
    names: Sequence[str]
    end: int
    name: str

    def __call__(self, window: Window, growing: GrowingText) -> Reading:
        tail = self.layout.tail
        end = [] if tail.tokens[-1:] == [self.end] else [self.end]
        context = self.layout.context(
            window.query, window.text, growing, reserve=len(tail.tokens) + 1, tail=tail
        )
        return _ScoresReading(
            tokens=context.tokens + tail.tokens + end,
            way=self,
            note=left_out_note(context.of_thought, context.of_query),
        )


@dataclass(slots=True, kw_only=True)
class _ScoresReading:
    tokens: list[int]
    way: Scores
    note: str
    wanted: int = 1

    def take(self, logits: Tensor) -> Verdict:
        check_numbers(logits[-1])
        scores = logits[-1].double().sigmoid()
        at = int(scores.argmax())
        highest = float(scores[at])
        said = f"{self.way.names[at]}: {highest:.2g}"
        return _verdict(
            {RiskLevel.SAFE: 1 - highest, self.way.dialect.yields: highest},
            self.way.thresholds,
            self.way.name,
            f"{self.note}\n{said}" if self.note else said,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """Has the model write its reply, greedily, up to its judgment, which is parsed."""

    layout: Layout
    dialect: Dialect
    decode: Callable[[list[int]], str]
    ends: frozenset[int]
    most: int
    name: str
    on_analysis: OnAnalysis | None = None

    def __call__(self, window: Window, growing: GrowingText) -> Reading:
        tail = self.layout.tail
        context = self.layout.context(
            window.query, window.text, growing, reserve=len(tail.tokens) + self.most, tail=tail
        )
        return _FullReading(
            tokens=context.tokens + tail.tokens,
            way=self,
            window=window,
            note=left_out_note(context.of_thought, context.of_query),
        )


@dataclass(slots=True, kw_only=True)
class _FullReading:
    tokens: list[int]
    way: Full
    window: Window
    note: str
    wanted: int = 1
    written: list[int] = field(default_factory=list)
    reply: str = ""

    def take(self, logits: Tensor) -> Verdict | None:
        check_numbers(logits[-1])
        dialect = self.way.dialect
        token = int(logits[-1].argmax())
        if token not in self.way.ends:
            self.written.append(token)
            self._tell(self.way.decode(self.written))
            if len(self.written) < self.way.most and not dialect.ends(self.reply):
                self.tokens.append(token)
                return None
        level = dialect.level(self.reply)
        category, analysis = dialect.told(self.reply, level)
        return Verdict(
            level=level,
            judge=self.way.name,
            category=category,
            analysis=f"{self.note}\n{analysis}" if self.note else analysis,
        )

    def _tell(self, reply: str) -> None:
        """Pass on what is new, but for a character whose bytes are not all there yet."""
        if reply.endswith("\ufffd"):
            return
        new, self.reply = reply[len(self.reply) :], reply
        if self.way.on_analysis is not None and new:
            try:
                self.way.on_analysis(self.window, new)
            except BaseException:  # whatever ended this thread would end the judgement of every stream
                logger.exception("shieldguard: %r raised and was ignored", self.way.on_analysis)


def check_numbers(logits: Tensor) -> None:
    """Raise `JudgeError` for what is no number, which no verdict can be read from."""
    if bool(logits.isnan().any()):
        raise JudgeError("the model computes no numbers (NaN); its weights or its dtype do not work")


Way: TypeAlias = Callable[[Window, GrowingText], Reading]
"""`Fast`, `Full` or `Scores`: begins to read a window."""
