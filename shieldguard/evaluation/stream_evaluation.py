"""`shieldguard eval stream`: one guard, and the policies around it, on labelled streams."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

from shieldguard.evaluation import capacity, closing
from shieldguard.evaluation.asking import StoredVerdicts
from shieldguard.evaluation.compounding import Compounding, compounding
from shieldguard.evaluation.frontier import Point, frontier, settings
from shieldguard.evaluation.labelled import HARMFUL, LabelledStream
from shieldguard.evaluation.stream_figures import Detected, Figures, Share, detections, figures
from shieldguard.evaluation.streams import Outcome, Pace, all_windows, as_configured, everything_judged, run
from shieldguard.policy import Action, Policy
from shieldguard.verdicts import RiskLevel
from shieldguard.windows import Windower

_IN_REAL_TIME = 20  # streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """`about`: what was measured, by name. `latency`: the seconds that a verdict takes, None for those
    measured. `guard`: its settings.
    `unjudged`: windows without a verdict, of all. `points`: empty where no frontier was asked for."""

    judge: str
    about: Mapping[str, str]
    guard: Mapping[str, Any]
    pace: Pace
    latency: float | None
    streams: int
    figures: Figures
    detections: Sequence[Detected]
    unjudged: Share
    compounding: Sequence[Compounding]
    capacity: capacity.Capacity
    closing: closing.Closing | None
    points: Sequence[Point]
    of_each: int | None

    def as_json(self) -> str:
        """Everything, with the derived figures beside what they come of; nan and infinity are null."""
        return json.dumps(_plain(self), indent=2) + "\n"


def evaluate(
    streams: Sequence[LabelledStream],
    verdicts: StoredVerdicts,
    policy: Policy,
    windower: Windower,
    *,
    pace: Pace,
    latency: float | None = None,
    with_frontier: bool = True,
    of_each: int | None = None,
    confirm: StoredVerdicts | None = None,
    at_once: int = 8,
    lag: float = 0.25,
    about: Mapping[str, str] | None = None,
    stage: "Callable[[str, int], Callable[[], None]]" = lambda what, count: lambda: None,
) -> Evaluation:
    """Play `streams` under the configured guard, and a sample of them under the policies around it.

    `latency`: seconds of a verdict; None for what it took. `of_each`: streams of each stratum for the
    frontier, always the same; None for all. `lag`: see `Capacity`. `about`: what the report is to say of
    judge and data. `stage(what, count)` gives what to call as each of `count` steps is done.
    """
    setting = as_configured(verdicts, policy, windower, latency=latency)
    windows = all_windows(streams, windower)
    used = capacity.measure(
        streams,
        windows,
        verdicts,
        pace=pace,
        lag=lag,
        at_once=at_once,
        told=stage("judging windows", len(windows)),
    )
    judged = run(streams, everything_judged(setting), pace, stage("playing, only looking on", len(streams)))
    outcomes = run(streams, setting, pace, stage("playing as configured", len(streams)))
    levels = [level for one in judged for level in one.levels]
    alarm = _alarm_from(policy)
    strata = sorted({stream.stratum for stream in streams} - {HARMFUL})
    in_real_time = _spread_out([one for one in outcomes if one.for_risk], _IN_REAL_TIME)
    points: list[Point] = []
    if with_frontier:
        points = _frontier(streams, verdicts, policy, windower, pace, latency, of_each, confirm, stage)
    return Evaluation(
        judge=verdicts.judge.name,
        about=about or {},
        guard={"policy": _plain(policy), "windower": repr(windower)},
        pace=pace,
        latency=latency,
        streams=len(streams),
        figures=figures(setting.name, outcomes),
        detections=detections(judged),
        unjudged=Share.count(level is None for level in levels),
        compounding=[
            compounding(name, [one for one in judged if one.stream.stratum == name], alarm) for name in strata
        ],
        capacity=used,
        closing=closing.measure(in_real_time, verdicts.judge, policy, windower) if in_real_time else None,
        points=points,
        of_each=of_each,
    )


def _frontier(
    streams: Sequence[LabelledStream],
    verdicts: StoredVerdicts,
    policy: Policy,
    windower: Windower,
    pace: Pace,
    latency: float | None,
    of_each: int | None,
    confirm: StoredVerdicts | None,
    stage: "Callable[[str, int], Callable[[], None]]",
) -> list[Point]:
    sample = _sample(streams, of_each)
    around = settings(verdicts, sample, policy, windower, latency=latency, confirm=confirm)
    told = stage(f"playing {len(around)} policies", len(around) * len(sample))
    return frontier(
        [Point(kind=one.kind, figures=figures(one.name, run(sample, one, pace, told))) for one in around]
    )


def _sample(streams: Sequence[LabelledStream], of_each: int | None) -> list[LabelledStream]:
    """So many of each harmless stratum, and all harmful ones with a known onset."""
    found = [one for one in streams if one.harm_at is not None]
    for name in sorted({one.stratum for one in streams} - {HARMFUL}):
        rows = [one for one in streams if one.stratum == name]
        drawn = sorted(rows, key=lambda one: sha256(one.id.encode()).digest())[:of_each]
        found += drawn
    return found


def _spread_out(outcomes: Sequence[Outcome], count: int) -> list[Outcome]:
    step = max(1, len(outcomes) // count)
    return list(outcomes[::step][:count])


def _alarm_from(policy: Policy) -> float:
    """The lowest level of reasoning that aborts."""
    levels = [level.value for level in RiskLevel if policy.reasoning.action(level) is Action.ABORT]
    return min(levels, default=math.inf)


_DERIVED = ("value", "rate", "false_aborts", "exposed", "delay", "precision", "recall", "f1")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        fields = {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__ if name[0] != "_"}
        derived = {
            name: _plain(getattr(value, name))
            for name in _DERIVED
            if name not in fields and isinstance(getattr(type(value), name, None), property)
        }
        return {**fields, **derived}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
