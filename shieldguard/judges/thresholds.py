"""Where probabilities become levels: each judge has its own."""

from dataclasses import dataclass, replace

from shieldguard.errors import ConfigError
from shieldguard.verdicts import RiskLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From which P(level >= 0.5) a window is at level 0.5, and from which P(level = 1) it is at level 1."""

    potential: float
    harmful: float

    def __post_init__(self) -> None:
        for name in ("potential", "harmful"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ConfigError(f"the threshold {name}={value!r} is no probability; take one in [0, 1]")

    def override(self, *, potential: float | None, harmful: float | None) -> "Thresholds":
        return replace(
            self,
            potential=self.potential if potential is None else potential,
            harmful=self.harmful if harmful is None else harmful,
        )

    def level(self, potential: float, harmful: float) -> RiskLevel:
        """The level of a window with these probabilities of being at 0.5 or above, and at 1."""
        if harmful >= self.harmful:
            return RiskLevel.HARMFUL
        return RiskLevel.POTENTIAL if potential >= self.potential else RiskLevel.SAFE
