"""What `shieldguard eval screen` found, in tables for the README and the model card."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence

from shieldguard.evaluation.breakdown import (
    answers_on_prefixes,
    by_length,
    by_source,
    counted,
    f1_with_interval,
    on_prefixes,
)
from shieldguard.evaluation.intervals import clopper_pearson
from shieldguard.evaluation.judged import Judged
from shieldguard.evaluation.metrics import share
from shieldguard.evaluation.screen import NEAR, Report, detection, ranking, without

_DELAYS = (250, 500, 1000)
_LIKE = (NEAR, 0.8, 1.0)
_BROKEN_DOWN = ["traces", "level 0.5 or 1", "F1 (95 %)", "level 1", "F1 (95 %)"]


def markdown(report: Report) -> str:
    return "\n\n".join(_parts(report))


def left_out_table(judged: Sequence[Judged]) -> str:
    """By source that was left out of training."""
    return _table(["source left out", *_BROKEN_DOWN], by_source(judged))


def _parts(report: Report) -> Iterator[str]:
    yield (
        f"Judge `{report.judge}`, window by window, on texts that were not used in training. Levels of "
        "reasoning were given by a language model, not by people; labels of answers by people."
    )
    head = ["reasoning", "harmful", "harmless", "precision (95 %)", "recall (95 %)"]
    yield _table([*head, "F1 (95 %)", "FPR (95 %)", "AUC (95 %)"], list(_detections(report)))
    yield _table(
        ["harmless streams", "streams", "flagged or aborted, of 1,000 (95 %)", "aborted, of 1,000 (95 %)"],
        [_alarms(name, judged) for name, judged in _harmless(report)],
    )
    yield _timeliness(report.delays())
    yield _table(["characters", *_BROKEN_DOWN], by_length(report.reasoning))
    yield _table(["source", *_BROKEN_DOWN], by_source(report.reasoning))
    yield _table(["of each trace", *_BROKEN_DOWN[1:]], on_prefixes(report.reasoning))
    alarms = ["flagged or aborted", "aborted"]
    yield _table(
        ["answers", "harmful", *alarms, "harmless", *alarms, "F1 (95 %)"], list(_answer_sets(report))
    )
    yield _table(["of each answer", "F1 (95 %)"], answers_on_prefixes(report.answers))
    yield _near_duplicates(report)


def _detections(report: Report) -> Iterator[list[str]]:
    for level, name in ((0.5, "level 0.5 or 1"), (1.0, "level 1")):
        for of, judged in (
            ("", report.reasoning),
            (", without star1", without("star1", report.reasoning)),
            (", without near-duplicates", report.unlike(report.reasoning)),
        ):
            found, ranked = detection(judged, level), ranking(judged, level)
            area = ranked and ranked.roc_area
            yield [
                name + of,
                str(found.hits + found.misses),
                str(found.false_alarms + found.passes),
                _with_interval(found.hits, found.hits + found.false_alarms),
                _with_interval(found.hits, found.hits + found.misses),
                f1_with_interval(counted(judged, level)),
                _with_interval(found.false_alarms, found.false_alarms + found.passes),
                f"{area.value:.3f} ({area.low:.3f}–{area.high:.3f})" if area else "-",
            ]


def _harmless(report: Report) -> Iterable[tuple[str, list[Judged]]]:
    refused = [one for one in report.reasoning if one.row.level == 0]
    yield "ordinary reasoning", report.ordinary
    yield "reasoning about code, our own", report.code
    yield "political criticism (arguable)", report.sensitive
    yield "harmful question, thought at level 0", refused
    yield "the same without star1", without("star1", refused)
    yield "ordinary answers", report.ordinary_answers


def _alarms(name: str, judged: Sequence[Judged]) -> list[str]:
    # No verdict is an alarm: the guard fails closed.
    counts = [sum(one.reaches(level) is not False for one in judged) for level in (0.5, 1.0)]
    return [name, str(len(judged)), *(_of_1000(count, len(judged)) for count in counts)]


def _timeliness(delays: Sequence[int | None]) -> str:
    stopped = [delay for delay in delays if delay is not None]
    early = sum(delay <= 0 for delay in stopped)

    def within(limit: float) -> list[str]:
        late = sum(0 < delay <= limit for delay in stopped)
        return [_of(late, len(delays)), _of(early + late, len(delays))]

    rows = [["before the text rates 1 (premature)", "-", _of(early, len(delays))]]
    rows += [[f"at most {limit} characters behind", *within(limit)] for limit in _DELAYS]
    rows.append(["at all", *within(float("inf"))])
    never = [float("inf")] * delays.count(None)
    for name, more in (("median of those stopped", []), ("median, never as infinite", never)):
        all_of = [*stopped, *more]
        cells = [_middle([delay for delay in all_of if delay > 0]), _middle(all_of)]
        rows.append([f"{name}, characters behind", *cells])
    return _table(["level-1 traces stopped (95 %)", "premature apart", "premature counted in"], rows)


def _answer_sets(report: Report) -> Iterator[list[str]]:
    for source in sorted({one.row.source for one in report.answers}):
        yield _answers(source, [one for one in report.answers if one.row.source == source])
    yield _answers("all", report.answers)
    yield _answers("all without near-duplicates", report.unlike(report.answers))


def _answers(name: str, judged: Sequence[Judged]) -> list[str]:
    cells = [name]
    for harmful in (True, False):
        rows = [one for one in judged if (one.row.level > 0) is harmful]
        cells.append(str(len(rows)))
        for level in (0.5, 1.0):
            alarms = sum(one.reaches(level) is not False for one in rows)
            cells.append(f"{100 * share(alarms, len(rows)):.0f} %")
    return [*cells, f1_with_interval(counted(judged, 0.5))]


def _near_duplicates(report: Report) -> str:
    groups = {
        "labelled traces": report.reasoning,
        "ordinary reasoning": report.ordinary,
        "political criticism": report.sensitive,
        "reasoning about code": report.code,
        "ordinary answers": report.ordinary_answers,
        "harmful answers": [one for one in report.answers if one.row.level > 0],
        "harmless answers": [one for one in report.answers if one.row.level == 0],
    }
    rows = []
    for name, judged in groups.items():
        found = [report.alike[one.row.text] for one in judged]
        rows.append([name, str(len(found)), *(str(sum(one >= like for one in found)) for like in _LIKE)])
    head = ["share their runs of five words with a text to train on", "texts"]
    return _table([*head, "half or more (near-duplicates)", "four fifths or more", "all"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _middle(delays: Sequence[float]) -> str:
    middle = statistics.median(delays) if delays else float("nan")
    return f"{middle:.0f}" if math.isfinite(middle) else "never" if delays else "-"


def _with_interval(part: int, whole: int) -> str:
    low, high = clopper_pearson(part, whole)
    return f"{share(part, whole):.3f} ({low:.3f}–{high:.3f})"


def _of(part: int, whole: int) -> str:
    low, high = clopper_pearson(part, whole)
    return f"{100 * share(part, whole):.1f} % ({part} of {whole}; {100 * low:.1f}–{100 * high:.1f})"


def _of_1000(part: int, whole: int) -> str:
    low, high = clopper_pearson(part, whole)
    return f"{1000 * share(part, whole):.1f} ({part}; {1000 * low:.1f}–{1000 * high:.1f})"
