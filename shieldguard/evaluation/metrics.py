"""Figures of merit, as the authors of ReasoningShield compute them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """A two-way table of gold labels and predictions."""

    hits: int
    misses: int
    false_alarms: int
    passes: int

    @classmethod
    def count(cls, gold: Sequence[bool], predicted: Sequence[bool | None]) -> "Detection":
        """None is a reply that was no verdict: wrong, whatever the label."""
        pairs = [
            (label, not label if guess is None else guess)
            for label, guess in zip(gold, predicted, strict=True)
        ]
        return cls(
            hits=pairs.count((True, True)),
            misses=pairs.count((True, False)),
            false_alarms=pairs.count((False, True)),
            passes=pairs.count((False, False)),
        )

    @property
    def accuracy(self) -> float:
        return share(self.hits + self.passes, self.hits + self.misses + self.false_alarms + self.passes)

    @property
    def precision(self) -> float:
        return share(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        return share(self.hits, self.hits + self.misses)

    @property
    def f1(self) -> float:
        return share(2 * self.hits, 2 * self.hits + self.misses + self.false_alarms)

    @property
    def false_positive_rate(self) -> float:
        return share(self.false_alarms, self.false_alarms + self.passes)


def share(part: int, whole: int) -> float:
    """`part / whole`; nan where there is nothing to divide by."""
    return part / whole if whole else float("nan")


def auc(gold: Sequence[bool], scores: Sequence[float]) -> float:
    """The chance that a positive scores above a negative, ties counted half; nan without either."""
    positives = sum(gold)
    negatives = len(gold) - positives
    if not positives or not negatives:
        return float("nan")
    won = 0.0
    below = 0
    for _, tied in groupby(sorted(zip(scores, gold, strict=True)), key=itemgetter(0)):
        labels = [label for _, label in tied]
        equal = labels.count(False)
        won += labels.count(True) * (below + equal / 2)
        below += equal
    return won / (positives * negatives)
