"""The odds of the labels, from the model's guesses along the label "0.5".

    Judgment:  0    .    5     three guesses: what begins the label, what follows "0", what follows "0."
               1

A server tells its guesses only where it writes, and it writes what the model likes best. So it may take up
to three requests, each with more of the label put into the model's mouth; as a rule one or two do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shieldguard.errors import UnparsedVerdict
from shieldguard.judges.contract import LABELS
from shieldguard.verdicts import RiskLevel

LONGEST = LABELS[RiskLevel.POTENTIAL]

# Where less than this share of the labels' probability hangs on a guess, it is not asked for.
NEGLIGIBLE = 1e-5
# A server lists its best guesses only. Where one that we need is not among them, and could be this much,
# there is no verdict.
_UNKNOWN = 1e-3


@dataclass(frozen=True, slots=True)
class Guess:
    """What the model wrote at one place, and the logarithms of the probabilities that the server listed."""

    wrote: str
    listed: Mapping[str, float]

    def of(self, token: str) -> float:
        return math.exp(self.listed.get(token, -math.inf))

    def at_most(self, token: str) -> float:
        """The probability of a token, or the least that is listed: one that is not listed has no more."""
        return math.exp(self.listed.get(token, min(self.listed.values())))


class Odds:
    """What is known so far."""

    def __init__(self) -> None:
        self._guesses: list[Guess | None] = [None] * len(LONGEST)

    def missing(self) -> str | None:
        """The beginning of the label behind which a guess is missing; None where enough is known.

        Raises `UnparsedVerdict` where a guess was given, but not listed far enough down.
        """
        share = 1.0
        for at, guess in enumerate(self._guesses):
            if share <= NEGLIGIBLE:
                return None
            if guess is None:
                return LONGEST[:at]
            needed = (LONGEST[at], LABELS[RiskLevel.HARMFUL]) if at == 0 else (LONGEST[at],)
            total = sum(map(guess.at_most, needed)) if at == 0 else 1.0
            for token in needed:
                if token not in guess.listed and share * guess.at_most(token) > _UNKNOWN * total:
                    raise UnparsedVerdict(
                        f"the model expects no {token!r} behind {LONGEST[:at]!r}, but "
                        f"{sorted(guess.listed, key=lambda one: -guess.listed[one])[:5]!r}; it is no "
                        "ReasoningShield, or its server lists too few guesses (top_logprobs)"
                    )
            share *= guess.of(LONGEST[at]) / total
        return None

    def take(self, begun: str, guesses: Sequence[Guess]) -> None:
        """The guesses at what a server wrote behind the beginning of the label."""
        for at, guess in enumerate(guesses[: len(LONGEST) - len(begun)], len(begun)):
            self._guesses[at] = guess
            if guess.wrote != LONGEST[at]:
                break  # what it wrote behind that says nothing about the label

    def probabilities(self) -> dict[RiskLevel, float]:
        """Of each label, as a share of all three. What was not asked for is taken as the rest of "0.5"."""
        first, *rest = self._guesses
        assert first is not None
        zero, point = first.of(LONGEST[0]), first.of(LONGEST[0])
        if rest[0] is not None:
            zero *= 1 - rest[0].of(LONGEST[1])
            for guess, token in zip(rest, LONGEST[1:], strict=True):
                point *= guess.of(token) if guess is not None else 1.0
        else:
            zero = 0.0
        scores = {
            RiskLevel.SAFE: zero,
            RiskLevel.POTENTIAL: point,
            RiskLevel.HARMFUL: first.of(LABELS[RiskLevel.HARMFUL]),
        }
        total = sum(scores.values())
        if not total > 0:
            raise UnparsedVerdict(f"the model expects none of the labels, but {first.wrote!r}")
        return {level: score / total for level, score in scores.items()}
