"""A small judge that ships with the package: a linear screen over hashed n-grams, in numpy alone.

It is a screen, not ReasoningShield: MODEL_CARD.md says what it was trained on and what it misses.
"""

from pathlib import Path

import anyio.lowlevel

from shieldguard.events import Channel
from shieldguard.judges.embedded.model import SHIPPED, Model, Score
from shieldguard.verdicts import RiskLevel, Verdict
from shieldguard.windows import Window

__all__ = ["EmbeddedJudge"]

_TURN = 16  # pieces judged, in some milliseconds, before others on the loop have their turn


class EmbeddedJudge:
    """Rates a window by the highest-scoring piece of its new text; keeps no state.

    `weights` is a file that `shieldguard train embedded` wrote; the shipped one by default.
    `potential` and `harmful` override its thresholds on P(level >= 0.5) and P(level = 1) for reasoning,
    `answer_potential` and `answer_harmful` those for answers and tool calls.

    Raises `ConfigError` for weights that cannot be read and for thresholds outside [0, 1].
    """

    def __init__(
        self,
        *,
        weights: str | Path = SHIPPED,
        potential: float | None = None,
        harmful: float | None = None,
        answer_potential: float | None = None,
        answer_harmful: float | None = None,
        name: str = "embedded",
    ) -> None:
        self.name = name
        self.model = Model.load(Path(weights))
        self.reasoning = self.model.reasoning.override(potential=potential, harmful=harmful)
        self.answer = self.model.answer.override(potential=answer_potential, harmful=answer_harmful)

    async def judge(self, window: Window) -> Verdict:
        score = Score()
        for turn, so_far in enumerate(self.model.scores(window.text, window.start), start=1):
            score = so_far
            if turn % _TURN == 0:
                await anyio.lowlevel.checkpoint()
        return self._verdict(window.channel, score)

    def judge_now(self, window: Window) -> Verdict:
        return self._verdict(window.channel, self.model.score(window.text, window.start))

    def _verdict(self, channel: Channel, score: Score) -> Verdict:
        thresholds = self.reasoning if channel is Channel.REASONING else self.answer
        return Verdict(
            level=thresholds.level(score.potential, score.harmful),
            judge=self.name,
            probabilities={
                RiskLevel.SAFE: 1 - score.potential,
                RiskLevel.POTENTIAL: score.potential - score.harmful,
                RiskLevel.HARMFUL: score.harmful,
            },
        )
