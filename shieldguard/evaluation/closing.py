"""Some streams through the real guard in real time: how soon it closes its source, and whether virtual time
told the truth."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import anyio

from shieldguard.evaluation.stream_figures import Spread
from shieldguard.evaluation.streams import Outcome, Pace
from shieldguard.events import Channel, SourceEvent
from shieldguard.guard import Guard
from shieldguard.judges.protocol import Judge
from shieldguard.observers import StreamReport
from shieldguard.policy import Policy
from shieldguard.windows import Windower


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """`closed`: seconds from the aborting verdict to the source being closed. `same`: streams of which the
    real guard judged the same windows at the same levels and ended alike."""

    streams: int
    same: int
    closed: Spread


def measure(outcomes: Sequence[Outcome], judge: Judge, policy: Policy, windower: Windower) -> Closing:
    """Play streams again in real time, as fast as they can be read."""
    guard = Guard(judge=judge, policy=policy, windower=windower)

    async def run() -> list[StreamReport]:
        return [await _guarded(guard, one) for one in outcomes]

    reports = anyio.run(run)
    return Closing(
        streams=len(reports),
        same=sum(_alike(one, report) for one, report in zip(outcomes, reports, strict=True)),
        closed=Spread.over(report.closed_after for report in reports if report.closed_after is not None),
    )


async def _guarded(guard: Guard, outcome: Outcome) -> StreamReport:
    async def source() -> AsyncIterator[SourceEvent]:
        for _, event in Pace().arrivals(outcome.stream):
            await anyio.lowlevel.checkpoint()
            yield event

    async with guard.stream(source(), query=outcome.stream.query) as stream:
        async for _ in stream:
            pass
    return await stream.final_report()


def _alike(outcome: Outcome, report: StreamReport) -> bool:
    windows = [one for one in report.windows if one.channel is Channel.REASONING]
    levels = [None if one.verdict is None else one.verdict.level.value for one in windows]
    ends = [one.end for one in windows]
    same = (ends, levels) == (list(outcome.ends), list(outcome.levels))
    return same and outcome.aborted == (report.aborted is not None)
