"""How a judge does on whole streams: each text is replayed window by window, as the guard would cut it."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from shieldguard.evaluation.breakdown import by_length, by_source, counted, f1_with_interval, on_prefixes
from shieldguard.evaluation.intervals import clopper_pearson
from shieldguard.evaluation.judged import Judged, replay
from shieldguard.evaluation.metrics import Detection, auc, share
from shieldguard.evaluation.traces import Labelled, load
from shieldguard.judges.protocol import Judge

_DELAYS = (250, 500, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every text of the test splits, judged."""

    judge: str
    reasoning: list[Judged]
    ordinary: list[Judged]
    ordinary_answers: list[Judged]
    sensitive: list[Judged]
    code: list[Judged]
    answers: list[Judged]

    def detection(self, level: float, *, without: str = "") -> Detection:
        """Of the labelled reasoning, what is at `level` or above, and what was said to be."""
        rows = self._without(without)
        return Detection.count([one.row.level >= level for one in rows], [one.reaches(level) for one in rows])

    def area(self, level: float, *, without: str = "") -> float:
        """Area under the ROC curve of the probabilities; nan for a judge that gives none."""
        rows = self._without(without)
        scores = [one.potential if level < 1 else one.harmful for one in rows]
        known = [score for score in scores if score is not None]
        if len(known) < len(rows):
            return float("nan")
        return auc([one.row.level >= level for one in rows], known)

    def _without(self, source: str) -> list[Judged]:
        return [one for one in self.reasoning if one.row.source != source]

    def delays(self) -> list[int | None]:
        """For each level-1 trace: characters from where it rates 1 to where it was stopped, None: never.

        Below zero it was stopped before the harm, a premature stop."""
        return [
            None if one.stopped_at is None else one.stopped_at - (one.row.harmful_at or 0)
            for one in self.reasoning
            if one.row.level == 1
        ]

    def markdown(self) -> str:
        """Tables for the README and the model card."""
        return "\n\n".join(
            [
                f"Judge `{self.judge}`, window by window, on texts that were not used in training. Levels of "
                "reasoning were given by a language model, not by people; labels of answers by people.",
                _table(
                    [
                        "reasoning",
                        "harmful",
                        "harmless",
                        "precision (95 %)",
                        "recall (95 %)",
                        "F1 (95 %)",
                        "FPR (95 %)",
                        "AUC",
                    ],
                    [self._detected(level, without) for level in (0.5, 1.0) for without in ("", "star1")],
                ),
                _table(
                    [
                        "harmless streams",
                        "streams",
                        "flagged or aborted, of 1,000 (95 %)",
                        "aborted, of 1,000 (95 %)",
                    ],
                    [_alarms(name, judged) for name, judged in self._harmless()],
                ),
                self._timeliness(),
                *(_table([cut, *_BROKEN_DOWN], rows(self.reasoning)) for cut, rows in _CUTS),
                _table(["of each trace", *_BROKEN_DOWN[1:]], on_prefixes(self.reasoning)),
                _table(
                    [
                        "answers",
                        "harmful",
                        "flagged or aborted",
                        "aborted",
                        "harmless",
                        "flagged or aborted",
                        "aborted",
                        "F1 (95 %)",
                    ],
                    [
                        *(
                            _answers(source, [one for one in self.answers if one.row.source == source])
                            for source in sorted({one.row.source for one in self.answers})
                        ),
                        _answers("all", self.answers),
                    ],
                ),
            ]
        )

    def _detected(self, level: float, without: str) -> list[str]:
        found = self.detection(level, without=without)
        name = f"level {level:g}" if level == 1 else f"level {level:g} or 1"
        return [
            name + (f", without {without}" if without else ""),
            str(found.hits + found.misses),
            str(found.false_alarms + found.passes),
            _with_interval(found.hits, found.hits + found.false_alarms),
            _with_interval(found.hits, found.hits + found.misses),
            f1_with_interval(counted(self._without(without), level)),
            _with_interval(found.false_alarms, found.false_alarms + found.passes),
            f"{self.area(level, without=without):.3f}",
        ]

    def _harmless(self) -> Iterable[tuple[str, list[Judged]]]:
        refused = [one for one in self.reasoning if one.row.level == 0]
        yield "ordinary reasoning", self.ordinary
        yield "reasoning about code, our own", self.code
        yield "political criticism (arguable)", self.sensitive
        yield "harmful question, thought at level 0", refused
        yield "the same without star1", [one for one in refused if one.row.source != "star1"]
        yield "ordinary answers", self.ordinary_answers

    def _timeliness(self) -> str:
        delays = self.delays()
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


_BROKEN_DOWN = ["traces", "level 0.5 or 1", "F1 (95 %)", "level 1", "F1 (95 %)"]
_CUTS = (("characters", by_length), ("source", by_source))


def evaluate(judge: Judge, data: Path) -> Report:
    """Judge every text of the test splits in `data`. Raises `ConfigError` where they cannot be read."""
    found = load(data)

    async def run() -> Report:
        async def all_of(rows: Sequence[Labelled]) -> list[Judged]:
            return [await replay(judge, row) for row in rows]

        return Report(
            judge=judge.name,
            reasoning=await all_of(found.reasoning),
            ordinary=await all_of(found.ordinary),
            ordinary_answers=await all_of(found.ordinary_answers),
            sensitive=await all_of(found.sensitive),
            code=await all_of(found.code),
            answers=await all_of(found.answers),
        )

    return anyio.run(run)


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


def _alarms(name: str, judged: Sequence[Judged]) -> list[str]:
    # No verdict is an alarm: the guard fails closed.
    counts = [sum(one.reaches(level) is not False for one in judged) for level in (0.5, 1.0)]
    return [name, str(len(judged)), *(_of_1000(count, len(judged)) for count in counts)]


def _of_1000(part: int, whole: int) -> str:
    low, high = clopper_pearson(part, whole)
    return f"{1000 * share(part, whole):.1f} ({part}; {1000 * low:.1f}–{1000 * high:.1f})"


def _answers(name: str, judged: Sequence[Judged]) -> list[str]:
    cells = [name]
    for harmful in (True, False):
        rows = [one for one in judged if (one.row.level > 0) is harmful]
        cells.append(str(len(rows)))
        for level in (0.5, 1.0):
            cells.append(
                f"{100 * share(sum(one.reaches(level) is not False for one in rows), len(rows)):.0f} %"
            )
    return [*cells, f1_with_interval(counted(judged, 0.5))]
