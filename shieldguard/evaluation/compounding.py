"""How false alarms add up over a stream: measured, beside what independent windows would give."""

from collections.abc import Sequence
from dataclasses import dataclass

from shieldguard.evaluation.streams import Outcome

_AT = (1, 2, 3, 5, 8, 10, 15, 20, 25, 30, 40, 50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compounding:
    """Of one stratum. `rate`: alarms of all windows. `curve`: windows judged, streams still there (at risk),
    the measured chance of an alarm by then, and 1 - (1 - rate)^n."""

    stratum: str
    streams: int
    windows: int
    alarms: int
    curve: Sequence[tuple[int, int, float, float]]

    @property
    def rate(self) -> float:
        return self.alarms / self.windows if self.windows else float("nan")


def compounding(stratum: str, judged: Sequence[Outcome], alarm_from: float) -> Compounding:
    """Of streams whose every window was judged. Streams end at different windows; the measured chance is the
    product-limit (Kaplan-Meier) estimate: those still there and without an alarm, window by window."""
    alarms = [[level is None or level >= alarm_from for level in one.levels] for one in judged]
    windows = sum(map(len, alarms))
    count = sum(map(sum, alarms))
    rate = count / windows if windows else 0.0
    firsts = [(one.index(True) + 1) if True in one else None for one in alarms]
    lengths = [len(one) for one in alarms]
    curve = []
    left = 1.0
    for n in range(1, max(lengths, default=0) + 1):
        at_risk = sum(
            length >= n and (first is None or first >= n)
            for first, length in zip(firsts, lengths, strict=True)
        )
        if at_risk:
            left *= 1 - firsts.count(n) / at_risk
        if n in _AT and sum(length >= n for length in lengths) >= min(20, len(lengths)):
            curve.append((n, at_risk, 1 - left, 1 - (1 - rate) ** n))
    return Compounding(stratum=stratum, streams=len(judged), windows=windows, alarms=count, curve=curve)
