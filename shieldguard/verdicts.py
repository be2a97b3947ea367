"""What a judge answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from shieldguard.errors import UnparsedVerdict


class RiskLevel(float, Enum):
    """ReasoningShield's three levels (the model card's labels)."""

    SAFE = 0.0
    POTENTIAL = 0.5
    HARMFUL = 1.0

    def __str__(self) -> str:
        return f"{self.value:g}"


class RiskCategory(StrEnum):
    """The model card's risk categories."""

    VIOLENCE = "Violence & Physical Harm"
    HATE = "Hate & Toxicity"
    DECEPTION = "Deception & Misinformation"
    RIGHTS = "Rights-Related Risks"
    SEXUAL = "Sexual Content & Exploitation"
    CHILD = "Child-Related Harm"
    CYBERSECURITY = "Cybersecurity & Malware Threats"
    PROHIBITED = "Prohibited Items"
    ECONOMIC = "Economic Harm"
    POLITICAL = "Political Risks"
    SAFE = "Safe"
    OTHER = "Other Risks"


def _level(value: float) -> RiskLevel:
    try:
        return RiskLevel(value)
    except ValueError:
        raise UnparsedVerdict(f"a level must be 0, 0.5 or 1, not {value!r}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One judgement of one window.

    `level` is the judge's own decision: thresholds on probabilities belong to the judge.
    `probabilities`, where the judge has them, map each level to a number in [0, 1] and sum to 1.
    Raises `UnparsedVerdict` for a level that is none of 0, 0.5 and 1, and for a category that is none.
    """

    level: RiskLevel
    judge: str = ""
    probabilities: Mapping[RiskLevel, float] | None = field(default=None, hash=False)
    category: RiskCategory | None = None
    analysis: str = ""
    confirmed: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", _level(self.level))
        if self.probabilities is not None:
            copied = {_level(level): p for level, p in self.probabilities.items()}
            object.__setattr__(self, "probabilities", copied)
        if self.category is not None:
            try:
                object.__setattr__(self, "category", RiskCategory(self.category))
            except ValueError:
                raise UnparsedVerdict(f"no category is called {self.category!r}") from None

    @property
    def risk(self) -> float | None:
        """The expected level, P(0.5)/2 + P(1), in [0, 1]; None where there are no probabilities."""
        if self.probabilities is None:
            return None
        return sum(level.value * p for level, p in self.probabilities.items())


def checked(reply: object) -> Verdict:
    """What a judge answered. Raises `UnparsedVerdict` where that is no verdict."""
    if not isinstance(reply, Verdict):
        raise UnparsedVerdict(f"a judge must answer with a Verdict, not {reply!r}")
    return reply
