"""Whether the judge answers."""

import math
import time
from collections.abc import AsyncIterator

import anyio

from shieldguard import Guard, JudgeError, Policy, Reasoning, WindowJudged
from shieldguard import StreamReport as Report

_FRESH = 5.0  # seconds for which an answer says that the judge is there
_AGAIN = 0.5  # seconds after which one that failed is asked anew


class Readiness:
    """An observer that knows it of the windows judged, and has one judged where that was long ago."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard.variant(policy=Policy(judge_timeout=guard.policy.judge_timeout), observers=())
        self._error: JudgeError | None = None
        self._at = -math.inf
        self._asking = anyio.Lock()

    def window_judged(self, event: WindowJudged) -> None:
        self._error, self._at = event.error, time.monotonic()

    def stream_closed(self, report: Report) -> None:
        pass

    async def error(self) -> JudgeError | None:
        """None where the judge answers."""
        async with self._asking:
            if time.monotonic() > self._at + (_FRESH if self._error is None else _AGAIN):
                self._error = await self._ask()
                self._at = time.monotonic()
            return self._error

    async def _ask(self) -> JudgeError | None:
        """Have a harmless thought judged, whatever it is rated."""

        async def thought() -> AsyncIterator[Reasoning]:
            yield Reasoning("Is anybody there?")

        async with self._guard.stream(thought()) as stream:
            while await stream.next_batch():
                pass
        return next((window.error for window in stream.report.windows if window.error), None)
