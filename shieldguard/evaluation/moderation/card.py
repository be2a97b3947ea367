"""The table of QT moderation in ReasoningShield's model card, on the authors' test sets."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Baseline:
    """Figures in percent, as the card gives them."""

    name: str
    size: str
    accuracy: float
    precision: float
    recall: float
    f1: float


BASELINES = (
    Baseline("Perspective", "", 39.4, 0.0, 0.0, 0.0),
    Baseline("OpenAI Moderation", "", 59.2, 71.4, 54.0, 61.5),
    Baseline("LlamaGuard-3-1B", "1B", 71.4, 87.2, 61.7, 72.3),
    Baseline("LlamaGuard-3-8B", "8B", 74.1, 93.7, 61.2, 74.0),
    Baseline("LlamaGuard-4", "12B", 62.1, 91.4, 41.0, 56.7),
    Baseline("Aegis-Permissive", "7B", 59.6, 67.0, 64.9, 66.0),
    Baseline("Aegis-Defensive", "7B", 62.9, 64.6, 85.4, 73.5),
    Baseline("WildGuard", "7B", 68.1, 99.4, 47.4, 64.2),
    Baseline("MD-Judge", "7B", 79.1, 86.9, 76.9, 81.6),
    Baseline("Beaver-Dam", "7B", 62.6, 78.4, 52.5, 62.9),
)
REASONING_SHIELD = (
    Baseline("ReasoningShield-1B", "1B", 88.6, 89.9, 91.3, 90.6),
    Baseline("ReasoningShield-3B", "3B", 90.5, 91.1, 93.4, 92.2),
)
NOTE = (
    "The card's figures were measured by its authors on their own test sets, not on these rows: "
    "they can be compared where the rows are those sets."
)
