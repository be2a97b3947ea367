"""Judges for benchmarks: "safe" at once, or after a while."""

import anyio

from shieldguard import RiskLevel, Verdict, Window

_SAFE = Verdict(level=RiskLevel.SAFE, judge="bench")


class Instant:
    name = "instant"

    def judge_now(self, window: Window) -> Verdict:
        return _SAFE

    async def judge(self, window: Window) -> Verdict:
        return _SAFE


class Slow:
    name = "slow"

    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def judge(self, window: Window) -> Verdict:
        await anyio.sleep(self._delay)
        return _SAFE


def judge(*, delay: float) -> Instant | Slow:
    return Slow(delay) if delay else Instant()
