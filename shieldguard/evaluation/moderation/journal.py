"""Verdicts on disk, each written as it comes, so that a run that was cut off goes on where it was.

A folder with `run.json`, which says what is judged by what, and `verdicts.jsonl`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias

from shieldguard.errors import ConfigError
from shieldguard.verdicts import RiskLevel, Verdict

Key: TypeAlias = tuple[str, int, int]
"""The data set, the row's number in it, and the run, from 0."""

_LEVELS = tuple(RiskLevel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a judge made of one row. `level` is None where it gave no verdict: then `error` is the kind, and
    `message` says more. `probabilities`: of the levels 0, 0.5 and 1. `seconds`: until it came."""

    set: str
    row: int
    run: int
    seconds: float
    level: float | None = None
    probabilities: list[float] | None = None
    category: str | None = None
    analysis: str = ""
    confirmed: bool = True
    error: str = ""
    message: str = ""

    @classmethod
    def verdict(cls, key: Key, verdict: Verdict, seconds: float) -> Self:
        odds = verdict.probabilities
        return cls(
            set=key[0],
            row=key[1],
            run=key[2],
            seconds=seconds,
            level=verdict.level.value,
            probabilities=None if odds is None else [odds.get(level, 0.0) for level in _LEVELS],
            category=None if verdict.category is None else verdict.category.value,
            analysis=verdict.analysis,
            confirmed=verdict.confirmed,
        )

    @classmethod
    def none(cls, key: Key, error: Exception, seconds: float) -> Self:
        kind, message = type(error).__name__, str(error)
        return cls(set=key[0], row=key[1], run=key[2], seconds=seconds, error=kind, message=message)

    @property
    def key(self) -> Key:
        return self.set, self.row, self.run

    @property
    def score(self) -> float | None:
        """P(level >= 0.5); None from a judge that gives no probabilities."""
        return None if self.probabilities is None else 1 - self.probabilities[0]


@dataclass(slots=True)
class Journal:
    """The answers of a folder, and the way to add to them."""

    folder: Path
    answers: dict[Key, Answer] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, about: Mapping[str, Any]) -> Self:
        """Begin a run in a folder, or go on with the one that it holds.

        `about`: JSON that says what is judged by what. Raises `ConfigError` for a folder that holds a run
        about something else or cannot be used.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            journal = cls(folder)
            if journal._about.exists():
                journal._check(about)
            elif journal._verdicts.exists():
                raise ConfigError(f"{str(folder)!r} has verdicts and no run.json; give another folder")
            else:
                written = journal._about.with_suffix(".new")
                written.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
                written.replace(journal._about)
            journal._load()
        except OSError as error:
            raise ConfigError(f"cannot keep verdicts in {str(folder)!r}: {error}") from None
        return journal

    def add(self, answer: Answer) -> None:
        """Written through at once: what was added outlives the process, however it ends."""
        with self._verdicts.open("ab", buffering=0) as file:
            file.write(json.dumps(asdict(answer)).encode() + b"\n")
        self.answers[answer.key] = answer

    @property
    def _about(self) -> Path:
        return self.folder / "run.json"

    @property
    def _verdicts(self) -> Path:
        return self.folder / "verdicts.jsonl"

    def _check(self, about: Mapping[str, Any]) -> None:
        try:
            found = json.loads(self._about.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{str(self._about)!r} is no JSON: {error}; give another folder") from None
        now = json.loads(json.dumps(about))
        if found != now:
            raise ConfigError(
                f"{str(self.folder)!r} has verdicts of another run: {_difference(found, now)}; "
                "give another folder, or what that run was given"
            )

    def _load(self) -> None:
        if not self._verdicts.exists():
            return
        text = self._verdicts.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):  # the last line of a run that was killed
            with self._verdicts.open("r+b") as file:
                file.truncate(whole)
        for number, line in enumerate(text[:whole].splitlines(), start=1):
            try:
                answer = Answer(**json.loads(line))
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"line {number} of {str(self._verdicts)!r} is no verdict: {error}; "
                    "remove it, and its row is judged again"
                ) from None
            self.answers.setdefault(answer.key, answer)


def _difference(found: Any, now: Any, where: str = "") -> str:
    """The first thing in which they differ."""
    if isinstance(found, dict) and isinstance(now, dict):
        for name in [*found, *now]:
            if found.get(name) != now.get(name):
                return _difference(found.get(name), now.get(name), f"{where}.{name}" if where else name)
    if isinstance(found, list) and isinstance(now, list) and len(found) == len(now):
        for at, (one, other) in enumerate(zip(found, now, strict=True)):
            if one != other:
                return _difference(one, other, f"{where}[{at}]")
    return f"its {where} was {found!r}, and is now {now!r}"
