"""The report's part on policies: how false alarms add up, and what others would give."""

import math
from collections.abc import Sequence

from shieldguard.evaluation.compounding import Compounding
from shieldguard.evaluation.document import Section, Table
from shieldguard.evaluation.drawing import Chart, Series
from shieldguard.evaluation.frontier import Point
from shieldguard.evaluation.stream_evaluation import Evaluation
from shieldguard.evaluation.stream_wording import characters, in_order, milliseconds, percent, rate, tenths

_KINDS = ("as configured", "threshold", "window", "release", "debounce", "cascade", "shadow")


def compounding(found: Sequence[Compounding]) -> Section:
    at = sorted({n for one in found for n, *_ in one.curve})
    rows = []
    for n in at:
        row = [str(n)]
        for one in found:
            cells = [(m, p) for count, _, m, p in one.curve if count == n]
            row += [f"{percent(m)} / {percent(p)}" for m, p in cells] or ["–"]
        rows.append(row)
    counted = [f"{one.stratum} {one.alarms} in {one.windows}, {rate(one.rate)}" for one in found]
    return Section(
        title="How false alarms add up",
        says=[
            "The chance that a harmless stream has been stopped by its n-th window, had every window been "
            "judged, beside 1 - (1 - p)^n for independent windows with the same rate of alarms p. Streams "
            "end at different windows: the measured curve is the product-limit estimate. Where it lies "
            "below, the alarms come in the same streams.",
            f"Alarms in windows: {'; '.join(counted)}.",
        ],
        charts=[
            Chart(
                says=f"{one.stratum}, {one.streams} streams",
                across="windows judged",
                up="% with a false alarm",
                series=[
                    Series(
                        name="measured", points=[(float(n), 100 * m) for n, _, m, _ in one.curve], colour=0
                    ),
                    Series(
                        name=f"1 - (1 - p)^n, p = {rate(one.rate)}",
                        points=[(float(n), 100 * p) for n, _, _, p in one.curve],
                        dashed=True,
                        colour=1,
                    ),
                ],
            )
            for one in found
            if one.alarms and one.curve
        ],
        tables=[
            Table(
                head=["windows judged", *(f"{one.stratum}: measured / independent" for one in found)],
                rows=rows,
            )
        ],
    )


def frontier(found: Evaluation) -> Section:
    points = sorted(found.points, key=lambda point: (_KINDS.index(point.kind), point.false_aborts))
    rows = [_point(point) for point in points]
    sample = (
        "all streams"
        if found.of_each is None
        else f"at most {found.of_each} streams of each harmless stratum"
    )

    def chart(up: str, value: str, says: str) -> list[Chart]:
        shown = [p for p in points if math.isfinite(p.false_aborts) and math.isfinite(_measure(p, value))]
        kinds = [kind for kind in _KINDS if kind != "shadow" and any(p.kind == kind for p in shown)]
        if not kinds:
            return []
        found = Chart(
            says=says,
            across="false aborts of 1,000 harmless streams",
            up=up,
            series=[
                Series(
                    name=kind,
                    lines=False,
                    colour=_KINDS.index(kind),
                    points=[(p.false_aborts, _measure(p, value)) for p in shown if p.kind == kind],
                    names=[p.figures.setting for p in shown if p.kind == kind],
                )
                for kind in kinds
            ],
        )
        return [found]

    return Section(
        title="Other policies: exposure, latency, false aborts",
        says=[
            f"Each policy played on {sample} and on every harmful one with a known onset; false aborts are "
            "of all the harmless ones. Marked: no other policy is as good in all three and better in one. "
            "Verdicts on the same text were asked for once.",
        ],
        charts=[
            *chart(
                "harmful characters that left, mean",
                "exposed",
                "Exposure against false aborts; lower left is better.",
            ),
            *chart("delay of a character, ms", "delay", "Latency against false aborts."),
        ],
        tables=[
            Table(
                head=[
                    "policy",
                    "harmful aborted",
                    "none left",
                    "characters that left, mean",
                    "p90",
                    "added to a character",
                    "to the first",
                    "false aborts of 1,000",
                    *(name for name, _ in in_order(found.figures.false_aborts)),
                ],
                rows=rows,
                marked=frozenset(number for number, point in enumerate(points) if point.best),
            )
        ],
    )


def _measure(point: Point, value: str) -> float:
    return point.exposed if value == "exposed" else 1000 * point.delay


def _point(point: Point) -> list[str]:
    figures = point.figures
    name = (
        figures.setting
        if point.kind in ("as configured", "release", "shadow")
        else f"{point.kind}: {figures.setting}"
    )
    return [
        name + (" ◂" if point.best else ""),
        percent(figures.timeliness.at_all.value),
        percent(figures.clean.value),
        characters(figures.exposed.mean),
        characters(figures.exposed.p90),
        milliseconds(figures.delay.mean),
        milliseconds(figures.added_reasoning.p50),
        tenths(point.false_aborts),
        *(tenths(1000 * one.value) for _, one in in_order(figures.false_aborts)),
    ]
