"""A threshold for so many false aborts, chosen on some streams and verified on others."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shieldguard.errors import ConfigError, JudgeError
from shieldguard.evaluation.asking import Asked, StoredVerdicts
from shieldguard.evaluation.borders import Borders
from shieldguard.evaluation.intervals import streams_needed, upper_bound
from shieldguard.evaluation.labelled import HARMFUL, LabelledStream
from shieldguard.evaluation.stream_figures import Figures, figures
from shieldguard.evaluation.streams import Pace, Setting, all_windows, run
from shieldguard.events import Channel
from shieldguard.policy import Policy
from shieldguard.verdicts import RiskLevel
from shieldguard.windows import Window, Windower

_DIGITS = 4


def threshold_for(scores: Sequence[float], target: float) -> tuple[float, int]:
    """The lowest threshold, to four places, at which at most `target` of 1,000 scores reach it; and how many
    of these do. 1.0 where too many scores are that high."""
    allowed = math.floor(target * len(scores) / 1000 + 1e-9)
    ranked = sorted(scores, reverse=True)
    too_many = ranked[allowed] if allowed < len(ranked) else 0.0
    threshold = round(too_many, _DIGITS)
    while threshold <= too_many < 1:
        threshold = round(threshold + 10**-_DIGITS, _DIGITS)
    return threshold, sum(score >= threshold for score in scores)


def window_scores(asked: Asked, windows: Sequence[Window], policy: Policy) -> dict[str, float] | None:
    """For each stream the threshold on P(level = 1) up to which this policy aborts it, by its windows in
    order: the highest, or the k-th highest within n where it debounces. A window without a verdict aborts a
    stream at any threshold. None from a judge that gives no probabilities."""
    found: dict[str, list[float]] = defaultdict(list)
    for window in windows:
        outcome, _ = asked(window)
        if isinstance(outcome, JudgeError):
            found[window.stream].append(math.inf)
        elif outcome.probabilities is None:
            return None
        else:
            found[window.stream].append(outcome.probabilities.get(RiskLevel.HARMFUL, 0.0))
    return {stream: _score(odds, policy.abort_hits, policy.abort_within) for stream, odds in found.items()}


def _score(odds: Sequence[float], hits: int, within: int) -> float:
    best = 0.0
    for end in range(1, len(odds) + 1):
        near = sorted(odds[max(0, end - within) : end], reverse=True)
        if len(near) >= hits:
            best = max(best, near[hits - 1])
    return best


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """False aborts of 1,000 streams in one part of the data. `bound`: with 95 % confidence there are fewer.
    `needed`: streams that it would take to show the target, if none of them were aborted."""

    streams: int
    aborted: int
    bound: float
    needed: int

    @classmethod
    def count(cls, streams: int, aborted: int, target: float) -> "Checked":
        return cls(
            streams=streams,
            aborted=aborted,
            bound=1000 * upper_bound(aborted, streams),
            needed=streams_needed(target / 1000),
        )

    @property
    def rate(self) -> float:
        return 1000 * self.aborted / self.streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """`about`: what was measured, by name. `by_stratum`: on the streams of verification. `harmful`: what the
    threshold catches there. `scores`: for the streams chosen on ("chosen"), those verified on ("verified")
    and those of level 1 among the latter ("harmful"), the threshold up to which each is aborted."""

    judge: str
    about: Mapping[str, str]
    target: float
    stratum: str
    threshold: float
    fitted: Checked
    verified: Checked
    by_stratum: dict[str, Checked]
    harmful: Figures
    scores: Mapping[str, Sequence[float]]

    @property
    def shown(self) -> bool:
        """Whether the streams of verification show, with 95 % confidence, that the target is kept."""
        return self.verified.bound <= self.target

    @property
    def kept(self) -> bool:
        """Whether the target is kept there, shown or not."""
        return self.verified.rate <= self.target


def calibrate(
    verdicts: StoredVerdicts,
    fit: Sequence[LabelledStream],
    verify: Sequence[LabelledStream],
    *,
    target: float,
    stratum: str,
    policy: Policy,
    windower: Windower,
    about: Mapping[str, str] | None = None,
) -> Calibration:
    """Choose the threshold on P(level = 1) of reasoning by the harmless streams of `stratum` in `fit`, and
    play those of `verify` at it, their reasoning alone. `about`: what the report is to say of judge and data.

    Raises `ConfigError` where there are none, where a stream is in both, and for a judge that gives no
    probabilities.
    """
    chosen = _of(fit, stratum, "to choose on")
    shown = _of(verify, stratum, "to verify on")
    if both := {_text(one) for one in chosen} & {_text(one) for one in shown}:
        raise ConfigError(
            f"{len(both)} streams are both among those to choose on and those to verify on; part them"
        )
    reasoning_only = replace(policy, answer=None, tool_call=None)
    asked = Asked(verdicts, latency=0.0)
    scores: dict[str, list[float]] = {}
    for name, streams in (
        ("chosen", chosen),
        ("verified", shown),
        ("harmful", [one for one in verify if one.level == 1]),
    ):
        windows = [one for one in all_windows(streams, windower) if one.channel is Channel.REASONING]
        found = window_scores(asked, windows, policy)
        if found is None:
            raise ConfigError(
                f"the judge {verdicts.judge.name!r} gives no probabilities, so it has no threshold to choose"
            )
        scores[name] = list(found.values())
    threshold, aborted = threshold_for(scores["chosen"], target)
    setting = Setting(
        name=f"P(1) ≥ {threshold}",
        policy=reasoning_only,
        windower=windower,
        ask=asked.with_borders(Borders(harmful=threshold, channels=frozenset({Channel.REASONING}))),
    )
    outcomes = run([replace(one, answer="") for one in verify], setting, Pace())
    measured = figures(setting.name, outcomes)
    by_stratum = {
        name: Checked.count(one.of, one.hits, target) for name, one in measured.false_aborts.items()
    }
    return Calibration(
        judge=verdicts.judge.name,
        about=about or {},
        target=target,
        stratum=stratum,
        threshold=threshold,
        fitted=Checked.count(len(chosen), aborted, target),
        verified=by_stratum[stratum],
        by_stratum=by_stratum,
        harmful=measured,
        scores=scores,
    )


def _of(streams: Sequence[LabelledStream], stratum: str, what: str) -> list[LabelledStream]:
    found = [one for one in streams if one.stratum == stratum]
    if not found or stratum == HARMFUL:
        known = sorted({one.stratum for one in streams} - {HARMFUL})
        raise ConfigError(f"there are no harmless streams {stratum!r} {what}; choose one of {known!r}")
    return found


def _text(stream: LabelledStream) -> str:
    return f"{stream.query}\n{stream.reasoning}"
