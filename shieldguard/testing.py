"""Doubles for tests of what is built on shieldguard, and of shieldguard itself."""

import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import anyio

from shieldguard.errors import JudgeError
from shieldguard.events import Answer, Reasoning, SourceEvent, ToolCall
from shieldguard.verdicts import RiskLevel, Verdict
from shieldguard.windows import Window

Reply = Verdict | JudgeError | RiskLevel | float


@dataclass(slots=True)
class ScriptedJudge:
    """A judge that answers by a rule of the test's own and keeps what it was asked.

    `rule` is a function of the window, or a mapping from marker text to level: the highest level whose
    marker stands in the window's new text, else 0. `delay` is slept in seconds before each answer.
    """

    rule: Callable[[Window], Reply] | dict[str, float] = field(default_factory=dict)
    delay: float = 0.0
    name: str = "scripted"
    windows: list[Window] = field(default_factory=list)

    def answer(self, window: Window) -> Verdict:
        self.windows.append(window)
        if isinstance(self.rule, dict):
            reply: Reply = max(
                (level for mark, level in self.rule.items() if mark in window.new), default=0.0
            )
        else:
            reply = self.rule(window)
        if isinstance(reply, JudgeError):
            raise reply
        if isinstance(reply, Verdict):
            return reply
        return Verdict(level=reply, judge=self.name)  # type: ignore[arg-type]  # which checks it

    async def judge(self, window: Window) -> Verdict:
        if self.delay:
            await anyio.sleep(self.delay)
        return self.answer(window)


class InstantScriptedJudge(ScriptedJudge):
    """The same, asked in place instead of on the guard's own event loop, where it has no `delay`."""

    def judge_now(self, window: Window) -> Verdict:
        return self.answer(window)


def rechunk(events: Iterable[SourceEvent], seed: int, *, longest: int = 40) -> Iterator[SourceEvent]:
    """The same stream, its texts cut anew at random places (joined with their neighbour or parted)."""
    rng = random.Random(seed)
    for event in _joined(events):
        if not isinstance(event, Reasoning | Answer | ToolCall) or not event.text:
            yield event
            continue
        rest = event.text
        while rest:
            size = rng.randint(1, longest)
            yield replace(event, text=rest[:size])
            rest = rest[size:]


def _joined(events: Iterable[SourceEvent]) -> Iterator[SourceEvent]:
    last: SourceEvent | None = None
    for event in events:
        if (
            isinstance(event, Reasoning | Answer | ToolCall)
            and isinstance(last, type(event))
            and replace(last, text="") == replace(event, text="")
        ):
            last = replace(event, text=last.text + event.text)
            continue
        if last is not None:
            yield last
        last = event
    if last is not None:
        yield last


async def scripted_stream(
    events: Sequence[SourceEvent | str | Exception], *, delay: float = 0.0
) -> AsyncIterator[SourceEvent | str]:
    """A source that gives `events` one by one, `delay` seconds apart, and raises those that are errors."""
    for event in events:
        await anyio.sleep(delay)
        if isinstance(event, Exception):
            raise event
        yield event
