"""Judges for a proxy in a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from shieldguard import Verdict, Window


@dataclass
class StuckAt:
    """Never answers for a window with one of the marks in it."""

    marks: Sequence[str]
    name: str = "stuck"

    async def judge(self, window: Window) -> Verdict:
        if any(mark in window.new for mark in self.marks):
            await anyio.sleep_forever()
        return Verdict(level=0.0, judge=self.name)  # type: ignore[arg-type]  # which makes a level of it


def stuck_at(marks: Sequence[str]) -> StuckAt:
    return StuckAt(marks)
