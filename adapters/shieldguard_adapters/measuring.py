"""A judge asked about labelled texts, with its progress shown, and the reports written."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from shieldguard import ShieldguardError
from shieldguard.config import load_judge
from shieldguard.evaluation import moderation
from shieldguard.evaluation.moderation.asking import Asking
from shieldguard.evaluation.moderation.html import html
from shieldguard.evaluation.moderation.identity import identity
from shieldguard.evaluation.moderation.journal import Journal
from shieldguard.evaluation.moderation.markdown import markdown, summary
from shieldguard.evaluation.moderation.result import Result
from shieldguard.evaluation.rows import Columns, DataSet, read
from shieldguard_adapters.choosing import write_reports
from shieldguard_adapters.progress import stages

_REPORTS: dict[str, Callable[[Result], str]] = {"html": html, "md": markdown, "json": Result.as_json}


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Which rows of which files; see `read`. `sample`: so many rows of each."""

    files: Sequence[Path]
    columns: Columns
    where: Mapping[str, str]
    skip_bad: bool
    sample: int | None

    def read(self) -> list[DataSet]:
        """Says on standard error which rows are left out."""
        found = [read(file, self.columns, where=self.where, skip_bad=self.skip_bad) for file in self.files]
        names = Counter(one.name for one in found)
        data = [
            replace(one, name=one.name if names[one.name] == 1 else str(file))
            for file, one in zip(self.files, found, strict=True)
        ]
        for one in data:
            for number, what in one.bad.items():
                print(f"shieldguard: left out row {number} of {one.name}: {what}", file=sys.stderr)
        return data if self.sample is None else [one.sample(self.sample) for one in data]


def measure(
    task: moderation.Task,
    data: Data,
    judge: str,
    options: Mapping[str, Any],
    out: Path,
    *,
    runs: int,
    **asking: Any,
) -> str:
    """Judge what the folder `out` has no verdict on yet, and write the reports there; what is to be printed.

    `asking`: the other options of `Asking`. Raises `ShieldguardError` for what cannot be done.
    """
    sets = data.read()
    asked = load_judge(judge, **options)
    about = {
        "task": task.name,
        "judge": identity(judge, options),
        "name": asked.name,
        "data": [{"name": one.name, "rows": len(one.rows), "fingerprint": one.fingerprint} for one in sets],
    }
    journal = Journal.open(out, about)
    _ask(Asking(judge=asked, task=task, sets=sets, journal=journal, runs=runs, **asking))
    result = Result.of(task, asked.name, about, sets, journal.answers, runs=runs)
    written = write_reports(out, {suffix: render(result) for suffix, render in _REPORTS.items()})
    return f"{summary(result)}\n\n{written}"


def _ask(asking: Asking) -> None:
    with stages() as stage:
        told = stage("judging", asking.total, done=asking.total - len(asking.left))
        try:
            anyio.run(asking.run, lambda answer: told())
        except KeyboardInterrupt:
            raise ShieldguardError(f"stopped; {asking.kept}") from None
