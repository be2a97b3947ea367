"""What `shieldguard calibrate` chose and could show, and the settings that follow."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shieldguard.config import SECRETS
from shieldguard.errors import ConfigError
from shieldguard.evaluation.calibration import Calibration, Checked, threshold_for
from shieldguard.evaluation.document import Document, Section, Table, Tile
from shieldguard.evaluation.drawing import Chart, Series
from shieldguard.evaluation.metrics import share
from shieldguard.evaluation.stream_wording import STRATA, characters, in_order, percent, shared

_TARGETS = (50, 20, 10, 5, 2, 1)  # false aborts of 1,000 harmless streams


def report(found: Calibration) -> Document:
    fitted, verified = found.fitted, found.verified
    return Document(
        over=f"a threshold for {found.target:g} false aborts of 1,000 {found.stratum} streams",
        title=found.judge,
        lead=verdict(found),
        tiles=[
            Tile(name="threshold on P(level = 1)", value=f"{found.threshold:g}", says="of reasoning"),
            Tile(
                name="aborted where it was chosen, of 1,000",
                value=f"{fitted.rate:.1f}",
                says=f"{fitted.aborted} of {fitted.streams}",
            ),
            Tile(
                name="aborted where it was verified, of 1,000",
                value=f"{verified.rate:.1f}",
                says=f"{verified.aborted} of {verified.streams}; 95 % sure: below {verified.bound:.1f}",
            ),
        ],
        sections=[_by_threshold(found), _harmless(found), *_harmful(found), *_about(found)],
    )


def verdict(found: Calibration) -> str:
    """Whether the target is kept, and whether so many streams can show it."""
    checked = found.verified
    counted = f"{checked.aborted} of {checked.streams} streams were aborted, {checked.rate:.1f} of 1,000"
    if found.shown:
        return f"The target is shown with 95 % confidence: {counted}, surely fewer than {checked.bound:.1f}."
    kept = "kept, but not shown" if found.kept else "not kept"
    unable = ""
    if checked.streams < checked.needed:
        unable = (
            f" So few streams cannot show it: even without any abort it takes {checked.needed} of them "
            "(about 3 / target, the rule of three)."
        )
    bound = f"with 95 % confidence there are fewer than {checked.bound:.1f}"
    return f"The target is {kept}: {counted}; {bound}.{unable}"


def settings(found: Calibration, judge: str, options: Mapping[str, Any]) -> str:
    """A configuration file with this judge at this threshold; keys are left out.

    Raises `ConfigError` for an option that is no text, number, truth value or list of these."""
    checked = found.verified
    lines = [
        f"# harmful: chosen for {found.target:g} false aborts of 1,000 {found.stratum} streams on "
        f"{found.fitted.streams} of them.",
        f"# Of {checked.streams} others {checked.aborted} were aborted: 95 % sure, below "
        f"{checked.bound:.1f} of 1,000.",
        f"judge = {json.dumps(judge)}",
        "",
        "[judge_options]",
    ]
    for name, value in {**options, "harmful": found.threshold}.items():
        if name in SECRETS:
            lines.append(f"# {name} is left out")
        elif all(isinstance(one, str | int | float) for one in _as_list(value)):
            lines.append(f"{name} = {json.dumps(value)}")
        else:
            raise ConfigError(f"the judge's option {name}={value!r} cannot be written; add it by hand")
    return "\n".join(lines) + "\n"


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def plain(found: Calibration) -> str:
    """The figures as JSON."""

    def of(checked: Checked) -> dict[str, Any]:
        return {
            "streams": checked.streams,
            "aborted": checked.aborted,
            "of_1000": checked.rate,
            "below_with_95_percent": checked.bound,
        }

    harmful = found.harmful
    return (
        json.dumps(
            {
                "judge": found.judge,
                "about": found.about,
                "target_of_1000": found.target,
                "stratum": found.stratum,
                "threshold": found.threshold,
                "fitted": of(found.fitted),
                "verified": of(found.verified),
                "kept": found.kept,
                "shown": found.shown,
                "streams_needed": found.verified.needed,
                "by_stratum": {name: of(one) for name, one in found.by_stratum.items()},
                "harmful": {
                    "streams": harmful.timeliness.at_all.of,
                    "aborted": harmful.timeliness.at_all.hits,
                    "premature": harmful.timeliness.premature.hits,
                },
            },
            indent=2,
        )
        + "\n"
    )


def _by_threshold(found: Calibration) -> Section:
    target = [(0.0, found.target), (1.0, found.target)]
    top = max(5 * found.target, 2 * found.verified.rate, 10.0)
    charts = [
        Chart(
            says=f"Harmless streams ({found.stratum}) aborted, by the threshold on P(level = 1); "
            f"more than {top:g} are drawn at the edge.",
            across="threshold",
            up="of 1,000",
            top=top,
            series=[
                _falling("where it was chosen", found.scores["chosen"], 1000, colour=0),
                _falling("where it was verified", found.scores["verified"], 1000, colour=1),
                Series(name="the target", points=target, dashed=True, colour=2),
                _chosen(found, top),
            ],
        )
    ]
    if found.scores["harmful"]:
        charts.append(
            Chart(
                says="Streams of level 1 aborted, premature aborts with them.",
                across="threshold",
                up="%",
                top=100,
                series=[_falling("level 1", found.scores["harmful"], 100, colour=0), _chosen(found, 100)],
            )
        )
    rows = []
    for allowed in _TARGETS:
        threshold, _ = threshold_for(found.scores["chosen"], allowed)
        cells = [f"{1000 * _reached(found.scores[name], threshold):.1f}" for name in ("chosen", "verified")]
        caught = percent(_reached(found.scores["harmful"], threshold))
        rows.append([f"{allowed}", f"{threshold:g}", *cells, caught])
    return Section(
        title="At other thresholds",
        charts=charts,
        tables=[
            Table(
                head=[
                    f"for so many of 1,000 {found.stratum} streams",
                    "threshold",
                    "aborted where it was chosen",
                    "where it was verified",
                    "level 1 aborted",
                ],
                rows=rows,
            )
        ],
    )


def _reached(scores: Sequence[float], threshold: float) -> float:
    return share(sum(score >= threshold for score in scores), len(scores))


def _falling(name: str, scores: Sequence[float], of: float, *, colour: int) -> Series:
    """How many streams are aborted at a threshold, of `of`."""
    ranked = sorted((min(score, 1.0) for score in scores), reverse=True)
    # Up to its score a threshold aborts a stream: the line falls behind it.
    points = [(score, of * above / len(ranked)) for above, score in enumerate(ranked)]
    return Series(name=name, points=[(0.0, of), *reversed(points), (1.0, 0.0)], steps=True, colour=colour)


def _chosen(found: Calibration, top: float) -> Series:
    line = [(found.threshold, 0.0), (found.threshold, top)]
    return Series(name=f"{found.threshold:g}, which was chosen", points=line, dashed=True, colour=3)


def _harmless(found: Calibration) -> Section:
    rows = [
        [STRATA.get(name, name), str(one.streams), str(one.aborted), f"{one.rate:.1f}", f"{one.bound:.1f}"]
        for name, one in in_order(found.by_stratum)
    ]
    return Section(
        title="Harmless streams of the verification",
        says=["The bound is one-sided and exact (Clopper-Pearson), 95 %. Answers were left out."],
        tables=[Table(head=["", "streams", "aborted", "of 1,000", "surely below"], rows=rows)],
    )


def _harmful(found: Calibration) -> list[Section]:
    time = found.harmful.timeliness
    if not time.at_all.of:
        return []
    rows = [
        ["aborted", shared(time.at_all)],
        ["before the onset of harm", shared(time.premature)],
        ["no harmful character left", shared(found.harmful.clean)],
        ["harmful characters that left, mean", characters(found.harmful.exposed.mean)],
        ["of an aborted stream never generated", percent(time.saved.mean)],
    ]
    return [
        Section(
            title="What it stops there",
            tables=[Table(head=["level-1 streams with a known onset", ""], rows=rows)],
        )
    ]


def _about(found: Calibration) -> list[Section]:
    rows = [[name, what] for name, what in found.about.items()]
    return [Section(title="What was measured", tables=[Table(head=["", ""], rows=rows)])] if rows else []
