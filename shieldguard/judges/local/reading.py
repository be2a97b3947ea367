"""Two ways to get a verdict: from the probabilities of the labels, or from what the model writes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from shieldguard.errors import JudgeError
from shieldguard.judges.contract import analysis_of, category_of, is_final, left_out_note, parse
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
    """Reads the level from the model's odds for the label strings behind a forced `"Judgment": `."""

    layout: Layout
    thresholds: Thresholds
    name: str

    def __call__(self, window: Window, growing: GrowingText) -> Reading:
        labels = self.layout.labels
        context = self.layout.context(window.query, window.text, growing, reserve=len(labels.probe))
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
        odds = torch.stack(scores).softmax(0).tolist()
        if not all(0 <= one <= 1 for one in odds):
            raise JudgeError(f"the model's probabilities are {odds!r}; its weights or its dtype do not work")
        probabilities = dict(zip(labels.leaves, odds, strict=True))
        harmful = probabilities[RiskLevel.HARMFUL]
        return Verdict(
            level=self.way.thresholds.level(probabilities[RiskLevel.POTENTIAL] + harmful, harmful),
            judge=self.way.name,
            probabilities=probabilities,
            analysis=self.note,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """Has the model write its analysis, greedily, up to its judgment, which is parsed."""

    layout: Layout
    decode: Callable[[list[int]], str]
    ends: frozenset[int]
    most: int
    name: str
    on_analysis: OnAnalysis | None = None

    def __call__(self, window: Window, growing: GrowingText) -> Reading:
        reserve = len(self.layout.turn) + self.most
        context = self.layout.context(window.query, window.text, growing, reserve=reserve)
        return _FullReading(
            tokens=context.tokens + self.layout.turn,
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
        token = int(logits[-1].argmax())
        if token not in self.way.ends:
            self.written.append(token)
            self._tell(self.way.decode(self.written))
            if len(self.written) < self.way.most and not is_final(self.reply):
                self.tokens.append(token)
                return None
        level = parse(self.reply)
        analysis = analysis_of(self.reply)
        return Verdict(
            level=level,
            judge=self.way.name,
            category=category_of(analysis, level),
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
"""`Fast` or `Full`: begins to read a window."""
