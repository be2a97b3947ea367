"""Rows to what a model is taught: about a thought the reply to give, or two of which one is preferred."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

from shieldguard.errors import ConfigError, UnparsedVerdict
from shieldguard.judges.contract import parse, reply_of, split_reply
from shieldguard.training.finetune.tables import Record, read
from shieldguard.verdicts import RiskLevel

_SHOWN = 10  # bad rows that an error lists

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The names of a file's columns; by default those of ReasoningShield's data set."""

    query: str = "query"
    thought: str = "model_thinking"
    analysis: str = "final_analysis"
    judgment: str = "final_judgment"
    chosen: str = "chosen"
    rejected: str = "rejected"

    @classmethod
    def named(cls, names: Mapping[str, str]) -> Self:
        """With other names for some. Raises `ConfigError` for what is none of them."""
        known = [field.name for field in fields(cls)]
        if strangers := [name for name in names if name not in known]:
            raise ConfigError(f"there is no column {strangers[0]!r} to name; choose one of {known!r}")
        return cls(**names)


class Replies(StrEnum):
    """What a model is taught to write: the analysis and then the judgment, as the published ones are; the
    judgment alone, which is what a judge in mode `fast` reads; or each of them for every row."""

    ANALYSIS = "analysis"
    JUDGMENT = "judgment"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A reply to learn."""

    where: str
    query: str
    thought: str
    reply: str

    @property
    def replies(self) -> tuple[str, ...]:
        return (self.reply,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two replies, of which the first is preferred."""

    where: str
    query: str
    thought: str
    chosen: str
    rejected: str

    @property
    def replies(self) -> tuple[str, ...]:
        return (self.chosen, self.rejected)


def lessons(files: Sequence[Path], columns: Columns, replies: Replies) -> list[Lesson]:
    """The lessons of labelled rows. Raises `ConfigError` that names the rows which are none."""

    def of(record: Record) -> list[Lesson]:
        query, thought = _asked(record, columns)
        level = _level(record, columns.judgment)
        return [
            Lesson(where=record.where, query=query, thought=thought, reply=reply_of(analysis, level))
            for analysis in _analyses(record, columns, replies, level)
        ]

    return _each(read(files, _labelled(columns, replies)), of)


def pairs(files: Sequence[Path], columns: Columns) -> list[Pair]:
    """The pairs of rows that have both replies. Raises `ConfigError` that names the rows which are none."""

    def of(record: Record) -> list[Pair]:
        query, thought = _asked(record, columns)
        chosen, rejected = _reply(record, columns.chosen), _reply(record, columns.rejected)
        try:
            level = parse(chosen)
        except UnparsedVerdict as error:
            raise ValueError(f"{columns.chosen!r} is no reply of a judge: {error}") from None
        if record.values.get(columns.judgment) not in (None, ""):
            _check_same(columns.chosen, level, columns.judgment, _level(record, columns.judgment))
        if chosen == rejected:
            raise ValueError(f"{columns.chosen!r} and {columns.rejected!r} are the same")
        return [Pair(where=record.where, query=query, thought=thought, chosen=chosen, rejected=rejected)]

    return _each(read(files, (columns.query, columns.thought, columns.chosen, columns.rejected)), of)


def pairs_from_labels(
    files: Sequence[Path], columns: Columns, replies: Replies, *, seed: int = 0
) -> list[Pair]:
    """Pairs made of labelled rows: the right judgment, and one of the two wrong ones behind the same
    analysis. Raises `ConfigError` that names the rows that cannot be used."""
    rng = random.Random(seed)

    def of(record: Record) -> list[Pair]:
        query, thought = _asked(record, columns)
        level = _level(record, columns.judgment)
        wrong = rng.choice([other for other in RiskLevel if other is not level])
        return [
            Pair(
                where=record.where,
                query=query,
                thought=thought,
                chosen=reply_of(analysis, level),
                rejected=reply_of(analysis, wrong),
            )
            for analysis in _analyses(record, columns, replies, level)
        ]

    return _each(read(files, _labelled(columns, replies)), of)


def _labelled(columns: Columns, replies: Replies) -> list[str]:
    analysis = [] if replies is Replies.JUDGMENT else [columns.analysis]
    return [columns.query, columns.thought, *analysis, columns.judgment]


def _each(records: Sequence[Record], of: Callable[[Record], list[T]]) -> list[T]:
    found: list[T] = []
    bad: list[str] = []
    for record in records:
        try:
            if None in record.values:
                raise ValueError("it has more values than the header has columns")
            found += of(record)
        except (ValueError, UnparsedVerdict) as error:
            bad.append(f"{record.where}: {error}")
    if bad:
        rest = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise ConfigError(
            f"{len(bad)} of {len(records)} rows cannot be used; {'; '.join(islice(bad, _SHOWN))}{rest}; "
            "correct them or take them out"
        )
    return found


def _asked(record: Record, columns: Columns) -> tuple[str, str]:
    return _text(record, columns.query, may_be_empty=True), _text(record, columns.thought)


def _text(record: Record, column: str, *, may_be_empty: bool = False) -> str:
    value = record.values.get(column)
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise ValueError(f"{column!r} is no text but {type(value).__name__!r}")
    if not (may_be_empty or value.strip()):
        raise ValueError(f"{column!r} is empty")
    return value


def _level(record: Record, column: str) -> RiskLevel:
    value = record.values.get(column)
    try:
        if isinstance(value, bool):
            raise ValueError
        return RiskLevel(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{column!r} is {value!r}, and neither 0 nor 0.5 nor 1") from None


def _analyses(record: Record, columns: Columns, replies: Replies, level: RiskLevel) -> list[str]:
    """What stands before the judgment in each reply; empty for a judgment alone."""
    if replies is Replies.JUDGMENT:
        return [""]
    analysis, judged = split_reply(_text(record, columns.analysis))
    if not analysis:
        raise ValueError(f"{columns.analysis!r} has no analysis")
    if judged is not None:
        _check_same(columns.analysis, judged, columns.judgment, level)
    return [analysis] if replies is Replies.ANALYSIS else [analysis, ""]


def _check_same(column: str, level: RiskLevel, other: str, said: RiskLevel) -> None:
    if level is not said:
        raise ValueError(f"{column!r} judges {level}, but {other!r} is {said}")


def _reply(record: Record, column: str) -> str:
    """A reply as text, or as a conversation that ends with it."""
    value: Any = record.values.get(column)
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    return _text(Record(record.where, {column: value}), column).strip()
