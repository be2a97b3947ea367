"""How a judge does on whole streams: each text is replayed window by window, as the guard would cut it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from shieldguard.errors import ConfigError
from shieldguard.evaluation.curves import Curves, curves
from shieldguard.evaluation.duplicates import likeness
from shieldguard.evaluation.judged import Judged, replay
from shieldguard.evaluation.metrics import Detection
from shieldguard.evaluation.traces import LabelledText, left_out, load
from shieldguard.judges.embedded import EmbeddedJudge
from shieldguard.judges.protocol import Judge

NEAR = 0.5
"""From this likeness on a text counts as a near-duplicate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every text of the test splits, judged. `alike`: by text, how like it is to the one of those to train on
    that it is most like."""

    judge: str
    reasoning: list[Judged]
    ordinary: list[Judged]
    ordinary_answers: list[Judged]
    sensitive: list[Judged]
    code: list[Judged]
    answers: list[Judged]
    alike: Mapping[str, float]

    def unlike(self, judged: Sequence[Judged]) -> list[Judged]:
        """Those that are no near-duplicates of a text to train on."""
        return [one for one in judged if self.alike[one.row.text] < NEAR]

    def delays(self) -> list[int | None]:
        """For each level-1 trace: characters from where it rates 1 to where it was stopped, None: never.

        Below zero it was stopped before the harm, a premature stop."""
        return [
            None if one.stopped_at is None else one.stopped_at - (one.row.harmful_at or 0)
            for one in self.reasoning
            if one.row.level == 1
        ]


def without(source: str, judged: Sequence[Judged]) -> list[Judged]:
    return [one for one in judged if one.row.source != source]


def detection(judged: Sequence[Judged], level: float) -> Detection:
    """What is at `level` or above, and what was said to be."""
    return Detection.count([one.row.level >= level for one in judged], [one.reaches(level) for one in judged])


def ranking(judged: Sequence[Judged], level: float) -> Curves | None:
    """By the probabilities. None from a judge that gives none, and where all texts are at the level or none
    is."""
    scores = [one.potential if level < 1 else one.harmful for one in judged]
    return None if None in scores else curves([one.row.level >= level for one in judged], scores)


def evaluate(judge: Judge, data: Path) -> Report:
    """Judge every text of the test splits in `data`. Raises `ConfigError` where they cannot be read."""
    found = load(data)
    groups = {
        "reasoning": found.reasoning,
        "ordinary": found.ordinary,
        "ordinary_answers": found.ordinary_answers,
        "sensitive": found.sensitive,
        "code": found.code,
        "answers": found.answers,
    }
    texts = list({row.text: None for rows in groups.values() for row in rows})
    return Report(
        judge=judge.name,
        alike=dict(zip(texts, likeness(texts, found.trained_on), strict=True)),
        **{name: _judged(judge, rows) for name, rows in groups.items()},
    )


def evaluate_left_out(judge: Judge, data: Path, sources: Collection[str]) -> list[Judged]:
    """Judge the labelled traces of sources that the judge was not trained on, but for those whose question
    another source has.

    Raises `ConfigError` where they cannot be read, and for an embedded judge whose weights do not say that
    the sources were left out."""
    if isinstance(judge, EmbeddedJudge):
        kept_out = judge.model.provenance.get("sources left out", [])
        if trained := sorted(set(sources) - set(kept_out)):
            options = " ".join(f"--leave-out {source}" for source in trained)
            raise ConfigError(
                f"the weights of the judge {judge.name!r} were trained on {trained!r}; train others with "
                f"`shieldguard train embedded {options}`, and give them in --judge-options as 'weights'"
            )
    return _judged(judge, left_out(data, sources))


def _judged(judge: Judge, rows: Sequence[LabelledText]) -> list[Judged]:
    async def run() -> list[Judged]:
        return [await replay(judge, row) for row in rows]

    return anyio.run(run)
