"""What each policy gives: harm exposed, latency added, harmless streams aborted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shieldguard.evaluation.asking import Asked, AskedInTurn, StoredVerdicts
from shieldguard.evaluation.borders import Borders
from shieldguard.evaluation.calibration import threshold_for, window_scores
from shieldguard.evaluation.labelled import HARMFUL, LabelledStream
from shieldguard.evaluation.metrics import share
from shieldguard.evaluation.stream_figures import Figures
from shieldguard.evaluation.streams import Setting, all_windows
from shieldguard.events import Channel
from shieldguard.policy import Policy, Release
from shieldguard.windows import SentenceWindower, SizeWindower, Windower

_TARGETS = (50, 20, 10, 5, 2)  # false aborts of 1,000 harmless streams, for thresholds
_CASCADE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """`best`: no other point is as good in all three and better in one."""

    kind: str
    figures: Figures
    best: bool = False

    @property
    def exposed(self) -> float:
        return self.figures.exposed.mean

    @property
    def delay(self) -> float:
        return self.figures.delay.mean

    @property
    def false_aborts(self) -> float:
        """Of 1,000 harmless streams of all strata."""
        counts = self.figures.false_aborts.values()
        return 1000 * share(sum(one.hits for one in counts), sum(one.of for one in counts))

    @property
    def cost(self) -> tuple[float, float, float]:
        return self.exposed, self.delay, self.false_aborts


def frontier(points: Sequence[Point]) -> list[Point]:
    """The same points, the best marked. One in mode `shadow` stops nothing and is only there to compare."""
    guarding = [point for point in points if point.kind != "shadow"]
    return [
        replace(point, best=point in guarding and not any(_beats(other, point) for other in guarding))
        for point in points
    ]


def _beats(one: Point, other: Point) -> bool:
    # What no stream can tell is as bad for all.
    costs = ([math.inf if math.isnan(cost) else cost for cost in point.cost] for point in (one, other))
    pairs = list(zip(*costs, strict=True))
    return all(mine <= its for mine, its in pairs) and any(mine < its for mine, its in pairs)


def settings(
    verdicts: StoredVerdicts,
    streams: Sequence[LabelledStream],
    policy: Policy,
    windower: Windower,
    *,
    latency: float | None,
    confirm: StoredVerdicts | None = None,
) -> list[Setting]:
    """Policies around the configured one: thresholds, windows, hold and lag, debounce, a cascade.

    Thresholds are those that would abort so many of 1,000 harmless streams among these; a judge that gives
    no probabilities keeps its own."""
    asked = Asked(verdicts, latency=latency)
    found = [
        Setting(kind=kind, name=name, policy=policy, windower=cut, ask=ask)
        for kind, name, cut, ask in _cut_and_asked(asked, streams, policy, windower)
    ]
    for release, unjudged in (
        (Release.HOLD, 0),
        (Release.LAG, 200),
        (Release.LAG, 800),
        (Release.LAG, 2000),
        (Release.SHADOW, 0),
    ):
        changed = replace(policy, release=release, max_unjudged=unjudged or policy.max_unjudged)
        name = f"{release.value} {unjudged}" if unjudged else release.value
        kind = "shadow" if release is Release.SHADOW else "release"
        if changed == policy:
            kind, name = "as configured", f"as configured: {name}"
        found.append(Setting(kind=kind, name=name, policy=changed, windower=windower, ask=asked))
    for hits, within in ((2, 2), (2, 3), (2, 5), (3, 5)):
        changed = replace(policy, abort_hits=hits, abort_within=within)
        for name, ask in ((f"{hits} of {within}", asked), *_lower(asked, streams, changed, windower)):
            found.append(Setting(kind="debounce", name=name, policy=changed, windower=windower, ask=ask))
    if confirm is not None:
        second = Asked(confirm, latency=latency)
        ask_both = AskedInTurn(asked, second, threshold=_CASCADE)
        found.append(
            Setting(
                kind="cascade",
                name=f"confirmed from risk {_CASCADE:g}",
                policy=policy,
                windower=windower,
                ask=ask_both,
            )
        )
    return found


def _cut_and_asked(
    asked: Asked, streams: Sequence[LabelledStream], policy: Policy, windower: Windower
) -> "list[tuple[str, str, Windower, Asked]]":
    found: list[tuple[str, str, Windower, Asked]] = []
    windowers: tuple[tuple[str, Windower], ...] = (
        ("as configured", windower),
        ("sentences 80–320", SentenceWindower(shortest=80, longest=320)),
        ("sentences 320–1280", SentenceWindower(shortest=320, longest=1280)),
        ("size 400", SizeWindower(size=400)),
    )
    for name, cut in windowers:
        if name != "as configured":
            found.append(("window", name, cut, asked))
        for threshold, target in _thresholds(asked, streams, policy, cut):
            kind = "threshold" if name == "as configured" else "window"
            named = f"P(1) ≥ {threshold:.3f}" + ("" if kind == "threshold" else f", {name}")
            if kind == "threshold" or target == 10:
                found.append((kind, named, cut, asked.with_borders(_borders(threshold))))
    return found


def _lower(
    asked: Asked, streams: Sequence[LabelledStream], policy: Policy, windower: Windower
) -> "list[tuple[str, Asked]]":
    """With a debounce a threshold can be lower for as many false aborts."""
    name = f"{policy.abort_hits} of {policy.abort_within}"
    return [
        (f"{name}, P(1) ≥ {threshold:.3f}", asked.with_borders(_borders(threshold)))
        for threshold, target in _thresholds(asked, streams, policy, windower)
        if target == 10
    ]


def _borders(threshold: float) -> Borders:
    return Borders(harmful=threshold, channels=frozenset({Channel.REASONING}))


def _thresholds(
    asked: Asked, streams: Sequence[LabelledStream], policy: Policy, windower: Windower
) -> list[tuple[float, float]]:
    harmless = [stream for stream in streams if stream.stratum != HARMFUL]
    windows = [one for one in all_windows(harmless, windower) if one.channel is Channel.REASONING]
    scores = window_scores(asked, windows, policy)
    if scores is None:
        return []
    found: dict[float, float] = {}
    for target in _TARGETS:
        threshold, _ = threshold_for(list(scores.values()), target)
        found.setdefault(threshold, target)
    return list(found.items())
