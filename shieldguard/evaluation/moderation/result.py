"""What a run found, of all its rows and of each part of them."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeAlias

from shieldguard.evaluation.curves import Curves
from shieldguard.evaluation.moderation import QT, Task
from shieldguard.evaluation.moderation.card import BASELINES, NOTE, REASONING_SHIELD, Baseline
from shieldguard.evaluation.moderation.figures import Figures, Judged, confusion, figures, ranked
from shieldguard.evaluation.moderation.journal import Answer, Key
from shieldguard.evaluation.rows import DataSet

Named: TypeAlias = Sequence[tuple[str, Figures]]

_VALUES = 30  # of a column, the rest are one


@dataclass(frozen=True, kw_only=True)
class Result:
    """`judge`: its name. `about`: what was judged by what, as `run.json` has it."""

    task: Task
    judge: str
    about: Mapping[str, Any]
    data: Sequence[DataSet]
    judged: Sequence[Sequence[Judged]]

    @classmethod
    def of(
        cls,
        task: Task,
        judge: str,
        about: Mapping[str, Any],
        data: Sequence[DataSet],
        answers: Mapping[Key, Answer],
        *,
        runs: int,
    ) -> "Result":
        """Every row of the data has an answer in every run."""
        judged = [
            [
                Judged(row=row, answers=tuple(answers[one.name, row.number, run] for run in range(runs)))
                for row in one.rows
            ]
            for one in data
        ]
        return cls(task=task, judge=judge, about=about, data=data, judged=judged)

    @property
    def runs(self) -> int:
        return len(self._all[0].answers)

    @cached_property
    def overall(self) -> Figures:
        """Of all rows as if they were one data set."""
        return figures(self._all)

    @cached_property
    def sets(self) -> Named:
        return [(data.name, figures(judged)) for data, judged in zip(self.data, self.judged, strict=True)]

    @cached_property
    def mean(self) -> Figures | None:
        """Of several data sets, each counting alike."""
        return figures(*self.judged) if len(self.judged) > 1 else None

    @cached_property
    def groups(self) -> Mapping[str, Named]:
        """By column and value, the commonest first; of columns that tell rows apart."""
        return {column: self._by(column) for column, values in self._values.items() if len(values) > 1}

    @property
    def alike(self) -> Mapping[str, str]:
        """By column, what all rows have in common."""
        return {column: min(values) for column, values in self._values.items() if len(values) == 1}

    @cached_property
    def levels(self) -> list[list[int]]:
        return confusion(self._all)

    @cached_property
    def curves(self) -> Curves | None:
        return ranked(self._all)

    @property
    def errors(self) -> Mapping[str, int]:
        """Answers without a verdict, by the kind of error."""
        return dict(Counter(answer.error for answer in self._answers if answer.error).most_common())

    @property
    def seconds(self) -> float:
        """The median time to an answer."""
        return statistics.median(answer.seconds for answer in self._answers)

    @property
    def baselines(self) -> Sequence[Baseline]:
        """The card's rows, which are of QT moderation alone."""
        return [*BASELINES, *REASONING_SHIELD] if self.task is QT else []

    def as_json(self) -> str:
        """All of it, shares between 0 and 1, null where there is nothing to count."""
        found = {
            "task": self.task.name,
            "judge": self.judge,
            "about": self.about,
            "runs": self.runs,
            "overall": asdict(self.overall),
            "sets": {name: asdict(one) for name, one in self.sets},
            "mean_of_sets": asdict(self.mean) if self.mean else None,
            "groups": {
                column: {value: asdict(one) for value, one in rows} for column, rows in self.groups.items()
            },
            "levels": {"rows": [0, 0.5, 1], "columns": [0, 0.5, 1, None], "counts": self.levels},
            "curves": asdict(self.curves) if self.curves else None,
            "alike": self.alike,
            "errors": self.errors,
            "bad_rows": {data.name: data.bad for data in self.data},
            "seconds": self.seconds,
            "card": {"note": NOTE, "percent": [asdict(one) for one in self.baselines]},
        }
        return json.dumps(_finite(found), indent=2) + "\n"

    @cached_property
    def _all(self) -> list[Judged]:
        return [one for judged in self.judged for one in judged]

    @cached_property
    def _values(self) -> Mapping[str, set[str]]:
        columns = dict.fromkeys(column for one in self._all for column in one.row.groups)
        return {column: {one.row.groups.get(column, "none") for one in self._all} for column in columns}

    @property
    def _answers(self) -> list[Answer]:
        return [answer for one in self._all for answer in one.answers]

    def _by(self, column: str) -> Named:
        parts: dict[str, list[Judged]] = {}
        for one in self._all:
            parts.setdefault(one.row.groups.get(column, "none"), []).append(one)
        found = sorted(parts.items(), key=lambda part: (-len(part[1]), part[0]))
        named = [(value, figures(judged)) for value, judged in found[:_VALUES]]
        if rest := [one for _, judged in found[_VALUES:] for one in judged]:
            named.append((f"{len(found) - _VALUES} others", figures(rest)))
        return named


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {str(key): _finite(one) for key, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
    return value
