"""A cheap judge first; what it doubts, a better one confirms before anyone acts.

False alarms compound over a stream: a judge that is wrong about one window in ten is wrong about two
streams of three. So a screen may be nervous, as long as somebody looks again.
"""

import logging
import math
import time
from dataclasses import replace

import anyio

from shieldguard.errors import ConfigError, JudgeTimeout
from shieldguard.judges.protocol import Judge
from shieldguard.verdicts import RiskLevel, Verdict, checked
from shieldguard.windows import Window

logger = logging.getLogger("shieldguard")

# What is left of the window's own deadline to act on the screen's verdict, in seconds.
_TO_ACT = 0.05


class Cascade:
    """Asks `screen`, and `confirm` where the screen's verdict is not level 0, or its risk is `threshold` or
    above. Either may be a cascade itself.

    `screen_timeout`, `confirm_timeout`: seconds for each; by default half of what is left until the window's
    deadline for the screen, and all that is then left for the other. A confirmation that fails or takes
    too long leaves the screen's verdict, with `confirmed=False`. A screen that does so leaves the verdict to
    the confirming judge.

    Raises `ConfigError` for what is no judge, a threshold outside [0, 1] and a timeout that is not above 0.
    """

    def __init__(
        self,
        screen: Judge,
        confirm: Judge,
        *,
        threshold: float = 0.1,
        screen_timeout: float | None = None,
        confirm_timeout: float = math.inf,
        name: str | None = None,
    ) -> None:
        for part, judge in (("screen", screen), ("confirm", confirm)):
            if not isinstance(judge, Judge):
                raise ConfigError(f"{part}={judge!r} is no judge: it has no `name` and `async judge(window)`")
        if not 0 <= threshold <= 1:
            raise ConfigError(f"threshold={threshold!r} is no risk; take a number in [0, 1]")
        for option, value in (("screen_timeout", screen_timeout), ("confirm_timeout", confirm_timeout)):
            if value is not None and not value > 0:
                raise ConfigError(f"{option}={value!r}; give a number of seconds above 0")
        self.name = name or f"{screen.name}, then {confirm.name}"
        self._screen = screen
        self._confirm = confirm
        self._threshold = threshold
        self._screen_timeout = screen_timeout
        self._confirm_timeout = confirm_timeout

    async def judge(self, window: Window) -> Verdict:
        seconds = self._screen_timeout
        if seconds is None:
            seconds = (window.deadline - time.monotonic()) / 2
        try:
            verdict = await _ask(self._screen, window, seconds)
        except Exception as error:
            logger.warning("shieldguard: no verdict from the screen %r: %s", self._screen.name, error)
            return await _ask(self._confirm, window, self._confirm_timeout)
        if not self._is_doubtful(verdict):
            return verdict
        left = window.deadline - time.monotonic() - _TO_ACT
        try:
            return await _ask(self._confirm, window, min(self._confirm_timeout, left))
        except Exception as error:
            logger.warning("shieldguard: no confirmation from %r: %s", self._confirm.name, error)
            return replace(verdict, confirmed=False)

    def forget(self, stream: str) -> None:
        for judge in (self._screen, self._confirm):
            forget = getattr(judge, "forget", None)
            if forget is not None:
                forget(stream)

    def _is_doubtful(self, verdict: Verdict) -> bool:
        risk = verdict.risk
        return verdict.level is not RiskLevel.SAFE or (risk is not None and risk >= self._threshold)


async def _ask(judge: Judge, window: Window, seconds: float) -> Verdict:
    now = time.monotonic()
    deadline = min(window.deadline, now + seconds)
    with anyio.move_on_after(deadline - now):
        return checked(await judge.judge(replace(window, deadline=deadline)))
    raise JudgeTimeout(f"no verdict from {judge.name!r} within {max(0.0, deadline - now):.3g} seconds")
