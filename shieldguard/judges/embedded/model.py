"""The linear model: what is in the weights file, and how it scores."""

import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shieldguard.errors import ConfigError
from shieldguard.judges.embedded.features import buckets, pieces
from shieldguard.judges.thresholds import Thresholds

SHIPPED = Path(__file__).with_name("weights.npz")

FORMAT = "shieldguard-embedded-1"

# A piece with few n-grams is scored as if it had this many, so that a lone word decides nothing.
FEWEST = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The highest P(level >= 0.5) and P(level = 1) over the pieces of a text; harmful <= potential."""

    potential: float = 0.0
    harmful: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`weights`: int8 of shape (2**bits, 2), the columns for level >= 0.5 and level = 1, each to be
    multiplied by its `scale`; `bias` and `scale`: float64 of shape (2,). `provenance`: how it was trained.
    """

    weights: NDArray[np.int8]
    scale: NDArray[np.float64]
    bias: NDArray[np.float64]
    reasoning: Thresholds
    answer: Thresholds
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        rows, columns = self.weights.shape if self.weights.ndim == 2 else (0, 0)
        if rows < 2 or rows & (rows - 1) or columns != 2 or self.weights.dtype != np.int8:
            raise ConfigError(
                f"weights of shape {self.weights.shape!r} and type {str(self.weights.dtype)!r}; "
                "int8 of shape (2**bits, 2) is needed"
            )
        if self.scale.shape != (2,) or self.bias.shape != (2,):
            raise ConfigError(
                f"scale {self.scale.shape!r} and bias {self.bias.shape!r}; both must have 2 values"
            )

    @property
    def bits(self) -> int:
        return len(self.weights).bit_length() - 1

    def score(self, text: str, start: int = 0) -> Score:
        """Rate `text[start:]`, with what came before it as context. Any string; linear in its length."""
        best = Score()
        for one in self.scores(text, start):
            best = one
        return best

    def scores(self, text: str, start: int = 0) -> Iterator[Score]:
        """The same, piece by piece: the score so far after each, for callers that let others run between."""
        potential = harmful = 0.0
        for piece in pieces(text, start):
            found = buckets(piece, self.bits)
            if not len(found):
                continue
            # Integer sums: the same on every machine, in whatever order numpy adds.
            sums = self.weights[found].sum(axis=0, dtype=np.int64)
            logits = sums * self.scale / math.sqrt(max(len(found), FEWEST)) + self.bias
            harmful = max(harmful, _sigmoid(float(logits[1])))
            # Level 1 is above level 0.5, so what is surely the first is at least as surely the second.
            potential = max(potential, harmful, _sigmoid(float(logits[0])))
            yield Score(potential=potential, harmful=harmful)

    def save(self, path: Path) -> None:
        """Write the weights file: the same model gives the same bytes."""
        arrays: dict[str, NDArray[Any]] = {"weights": self.weights, "scale": self.scale, "bias": self.bias}
        arrays["about"] = np.frombuffer(
            json.dumps(
                {
                    "format": FORMAT,
                    "thresholds": {"reasoning": asdict(self.reasoning), "answer": asdict(self.answer)},
                    "provenance": self.provenance,
                },
                sort_keys=True,
            ).encode(),
            dtype=np.uint8,
        )
        # np.savez writes the time of day into the archive; this does not.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, array, allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a weights file. Raises `ConfigError` where it is absent or is not one."""
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                if about["format"] != FORMAT:
                    raise ValueError(f"format {about['format']!r}, this version reads {FORMAT!r}")
                return cls(
                    weights=file["weights"],
                    scale=file["scale"],
                    bias=file["bias"],
                    reasoning=Thresholds(**about["thresholds"]["reasoning"]),
                    answer=Thresholds(**about["thresholds"]["answer"]),
                    provenance=about["provenance"],
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ConfigError(
                f"cannot read the weights {str(path)!r}: {error!r}; "
                "reinstall shieldguard, or write them anew with `shieldguard train embedded`"
            ) from error


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, logit))))
