"""A text and what a judge made of it, window by window, as the guard would cut it."""

from dataclasses import dataclass

from shieldguard.errors import JudgeError
from shieldguard.evaluation.traces import LabelledText
from shieldguard.judges.protocol import InstantJudge, Judge
from shieldguard.verdicts import RiskLevel, Verdict
from shieldguard.windows import SentenceWindower, Window, cuts


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A text and what the judge made of it: the highest level of its windows.

    `level` is None where a window got no verdict. `flagged_at` is the end of the first window at level 0.5
    or above, `stopped_at` that of the first at level 1. `potential` and `harmful` are the highest
    P(level >= 0.5) and P(level = 1), None from a judge without.
    """

    row: LabelledText
    level: float | None
    flagged_at: int | None
    stopped_at: int | None
    potential: float | None
    harmful: float | None

    def reaches(self, level: float) -> bool | None:
        return None if self.level is None else self.level >= level


async def replay(judge: Judge, row: LabelledText) -> Judged:
    """Replay a text through a judge. A judge's failure is a window without a verdict."""
    verdicts: list[tuple[int, Verdict]] = []
    failed = False
    for start, end in cuts(SentenceWindower(), row.text):
        window = Window(query=row.query, text=row.text[:end], start=start, channel=row.channel)
        try:
            verdict = (
                judge.judge_now(window) if isinstance(judge, InstantJudge) else await judge.judge(window)
            )
        except JudgeError:
            failed = True
            continue
        verdicts.append((end, verdict))
    odds = [verdict.probabilities for _, verdict in verdicts if verdict.probabilities is not None]
    scored = not failed and len(odds) == len(verdicts)
    return Judged(
        row=row,
        level=None if failed else max((verdict.level.value for _, verdict in verdicts), default=0.0),
        flagged_at=next((end for end, verdict in verdicts if verdict.level is not RiskLevel.SAFE), None),
        stopped_at=next((end for end, verdict in verdicts if verdict.level is RiskLevel.HARMFUL), None),
        potential=max((1 - one[RiskLevel.SAFE] for one in odds), default=0.0) if scored else None,
        harmful=max((one[RiskLevel.HARMFUL] for one in odds), default=0.0) if scored else None,
    )
