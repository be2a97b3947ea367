"""How far two judges agree, and whether the probabilities of the first say when: `fast` against `full`.

ReasoningShield was trained to analyse first. How much a verdict without an analysis loses is a question of
the real weights and of your own traces; this is how to find out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shieldguard.errors import ConfigError, JudgeError
from shieldguard.evaluation.metrics import auc, share
from shieldguard.judges.protocol import Judge
from shieldguard.verdicts import RiskLevel, Verdict
from shieldguard.windows import Window

_LEVELS = tuple(RiskLevel)
_BINS = 5


@dataclass(frozen=True, slots=True)
class Pair:
    """Both verdicts on one text; None where a judge gave none."""

    first: Verdict | None
    second: Verdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    first: str
    second: str
    pairs: Sequence[Pair]

    @property
    def judged(self) -> list[tuple[Verdict, Verdict]]:
        """What both gave a verdict on."""
        return [(pair.first, pair.second) for pair in self.pairs if pair.first and pair.second]

    @property
    def exact(self) -> float:
        """The share with the same level."""
        return share(sum(one.level is other.level for one, other in self.judged), len(self.judged))

    @property
    def binary(self) -> float:
        """The share on which they agree whether it is harmful (0.5 or 1), as the authors count."""
        alike = sum((one.level > 0) == (other.level > 0) for one, other in self.judged)
        return share(alike, len(self.judged))

    @property
    def kappa(self) -> float:
        """Cohen's kappa of the levels: agreement beyond that of chance; nan where chance alone agrees."""
        count = len(self.judged)
        by_chance = sum(
            share(sum(one.level is level for one, _ in self.judged), count)
            * share(sum(other.level is level for _, other in self.judged), count)
            for level in _LEVELS
        )
        return (self.exact - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")

    @property
    def area(self) -> float:
        """How well the first one's risk ranks what the second calls harmful: area under the ROC curve."""
        scored = self._scored()
        return auc([harmful for _, harmful in scored], [risk for risk, _ in scored])

    @property
    def calibration_error(self) -> float:
        """How far, on average, P(level >= 0.5) is from the share that the second calls harmful."""
        scored = self._scored()
        return sum(
            share(len(found), len(scored)) * abs(_mean([p for p, _ in found]) - _mean([h for _, h in found]))
            for found in self._bins()
            if found
        )

    def markdown(self) -> str:
        unjudged = len(self.pairs) - len(self.judged)
        lines = [
            f"`{self.first}` against `{self.second}` on {len(self.pairs)} texts, {unjudged} of them without "
            "a verdict of both.",
            "",
            "| same level | same side of 0.5 | Cohen's kappa | AUC | calibration error |",
            "|---|---|---|---|---|",
            f"| {self.exact:.3f} | {self.binary:.3f} | {self.kappa:.3f} | {self.area:.3f} | "
            f"{self.calibration_error:.3f} |",
            "",
            f"| {self.first} | {self.second}: 0 | 0.5 | 1 | none |",
            "|---|---|---|---|---|",
        ]
        for mine in (*_LEVELS, None):
            counts = [self._count(mine, theirs) for theirs in (*_LEVELS, None)]
            lines.append(f"| {'none' if mine is None else mine} | {' | '.join(map(str, counts))} |")
        lines += ["", "| P(level >= 0.5) | texts | mean | called harmful |", "|---|---|---|---|"]
        for at, found in enumerate(self._bins()):
            if found:
                lines.append(
                    f"| {at / _BINS:.1f} to {(at + 1) / _BINS:.1f} | {len(found)} | "
                    f"{_mean([p for p, _ in found]):.3f} | {_mean([h for _, h in found]):.3f} |"
                )
        return "\n".join(lines)

    def _count(self, mine: RiskLevel | None, theirs: RiskLevel | None) -> int:
        return sum(
            (pair.first.level if pair.first else None) is mine
            and (pair.second.level if pair.second else None) is theirs
            for pair in self.pairs
        )

    def _scored(self) -> list[tuple[float, bool]]:
        """The first one's P(level >= 0.5), and whether the second calls it harmful."""
        return [
            (1 - one.probabilities[RiskLevel.SAFE], other.level > 0)
            for one, other in self.judged
            if one.probabilities is not None
        ]

    def _bins(self) -> list[list[tuple[float, bool]]]:
        bins: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
        for risk, harmful in self._scored():
            bins[min(int(risk * _BINS), _BINS - 1)].append((risk, harmful))
        return bins


async def compare(
    first: Judge, second: Judge, traces: Sequence[tuple[str, str]], *, points: int = 1
) -> Agreement:
    """Ask both about each trace (query, thought), read up to `points` places: its end, and before it.

    Raises `ConfigError` where there is nothing to judge.
    """
    if points < 1 or not traces:
        raise ConfigError(f"nothing to judge: {len(traces)!r} traces at points={points!r}; take 1 or more")
    pairs = []
    for number, (query, thought) in enumerate(traces):
        for point in range(1, points + 1):
            text = thought[: len(thought) * point // points]
            if text:
                window = Window(query=query, text=text, stream=f"agreement {number}")
                pairs.append(Pair(await _asked(first, window), await _asked(second, window)))
        for judge in (first, second):
            forget = getattr(judge, "forget", None)
            if forget is not None:
                forget(f"agreement {number}")
    return Agreement(first=first.name, second=second.name, pairs=pairs)


async def _asked(judge: Judge, window: Window) -> Verdict | None:
    try:
        return await judge.judge(window)
    except JudgeError:
        return None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
