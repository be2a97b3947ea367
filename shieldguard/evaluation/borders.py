"""Verdicts at other thresholds: from the probabilities that a judge gave with them."""

from dataclasses import dataclass, replace

from shieldguard.errors import ConfigError, JudgeError
from shieldguard.events import Channel
from shieldguard.verdicts import RiskLevel, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Borders:
    """From which P(level >= 0.5) a window is at 0.5, and from which P(level = 1) at 1. None: as it was
    judged. `channels`: those that they are for; None for all."""

    potential: float | None = None
    harmful: float | None = None
    channels: frozenset[Channel] | None = None

    def __post_init__(self) -> None:
        for name in ("potential", "harmful"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"the threshold {name}={value!r} is no probability; take one in [0, 1]")

    def judged_again(self, outcome: Verdict | JudgeError, channel: Channel) -> Verdict | JudgeError:
        """The same verdict with the level that these thresholds give it.

        Raises `ConfigError` where it came without probabilities."""
        if isinstance(outcome, JudgeError) or (self.channels is not None and channel not in self.channels):
            return outcome
        odds = outcome.probabilities
        if odds is None:
            raise ConfigError(
                f"the judge {outcome.judge!r} gave no probabilities, so no threshold can be moved"
            )
        harmful = outcome.level is RiskLevel.HARMFUL
        if self.harmful is not None:
            harmful = odds.get(RiskLevel.HARMFUL, 0.0) >= self.harmful
        potential = outcome.level is not RiskLevel.SAFE
        if self.potential is not None:
            potential = 1 - odds.get(RiskLevel.SAFE, 0.0) >= self.potential
        level = RiskLevel.HARMFUL if harmful else RiskLevel.POTENTIAL if potential else RiskLevel.SAFE
        return replace(outcome, level=level)
