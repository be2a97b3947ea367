"""What a run is made of."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from shieldguard.errors import ConfigError

Stage: TypeAlias = Literal["sft", "dpo"]
Precision: TypeAlias = Literal["bfloat16", "float32"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a model is trained.

    `batch`, `accumulation`, `epochs` are the model card's, 2, 8 and 3 (preferences: 2), and so is bfloat16.
    It does not tell the rest, so that is shieldguard's: `learning_rate` with a cosine schedule and a
    warm-up over the first 3 % of the steps, AdamW without weight decay, gradients clipped at a norm of 1,
    `beta` (preferences: how much a distance from the model before counts), `max_length` in tokens of prompt
    and reply together.

    `precision`: what is computed in; by default bfloat16 where the device computes in it, else float32. The
    weights that are being trained are float32 either way.
    `device`: "cuda", "mps" or "cpu"; by default the first that there is.
    `optimiser`: a name that transformers knows; "adafactor" takes less memory.
    `recompute`: activations are computed again where they are needed, which takes a fifth longer and far
    less memory.
    `save_every`: steps between two checkpoints to go on from. The last one is kept.
    """

    epochs: float
    learning_rate: float
    beta: float = 0.1
    batch: int = 2
    accumulation: int = 8
    max_length: int = 4096
    seed: int = 0
    precision: Precision | None = None
    device: str | None = None
    optimiser: str = "adamw_torch"
    recompute: bool = True
    save_every: int = 100

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "beta"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)!r}; give a number above 0")
        for name in ("batch", "accumulation", "max_length", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r}; give 1 or more")
        if self.precision not in (None, "bfloat16", "float32"):
            raise ConfigError(f"precision={self.precision!r}; choose 'bfloat16' or 'float32'")

    def of(self, stage: Stage) -> dict[str, Any]:
        """What makes a run of a stage what it is; it could go on on another device."""
        left_out = {"device", "save_every"} if stage == "dpo" else {"device", "save_every", "beta"}
        return {name: value for name, value in asdict(self).items() if name not in left_out}


SFT = Settings(epochs=3, learning_rate=1e-5)
DPO = Settings(epochs=2, learning_rate=5e-7)
