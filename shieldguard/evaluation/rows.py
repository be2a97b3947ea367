"""Labelled texts from a file: CSV, JSON lines or Parquet, with the columns that it has."""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from shieldguard.errors import ConfigError
from shieldguard.tables import UNREADABLE, Record, records
from shieldguard.verdicts import RiskLevel

_WORDS = {
    "safe": RiskLevel.SAFE,
    "false": RiskLevel.SAFE,
    "potentially harmful": RiskLevel.POTENTIAL,
    "harmful": RiskLevel.HARMFUL,
    "unsafe": RiskLevel.HARMFUL,
    "true": RiskLevel.HARMFUL,
}
_SHOWN = 10  # bad rows that an error lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The names of a file's columns. `groups`: those to break figures down by, where a file has them."""

    question: str
    text: str
    label: str
    groups: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`number`: of the file's rows, the first one below a header is 1. `groups`: its value in each column
    to break down by."""

    number: int
    question: str
    text: str
    level: RiskLevel
    groups: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """`bad`: what is wrong with the rows that were left out, by their number."""

    name: str
    rows: Sequence[Row]
    bad: Mapping[int, str]

    @property
    def fingerprint(self) -> str:
        """A hash of all that is judged and counted."""
        found = hashlib.sha256()
        for row in self.rows:
            parts = [row.number, row.question, row.text, row.level.value]
            found.update(json.dumps(parts).encode() + b"\n")
        return found.hexdigest()

    def sample(self, size: int) -> "DataSet":
        """So many of its rows, drawn once and for all, in their order."""
        if size >= len(self.rows):
            return self
        drawn = random.Random(0).sample(self.rows, size)
        return replace(self, rows=sorted(drawn, key=lambda row: row.number))


def read(
    file: Path, columns: Columns, *, where: Mapping[str, str] | None = None, skip_bad: bool = False
) -> DataSet:
    """Read a file whose name ends in .csv, .jsonl or .parquet, the first two also in .gz.

    `where`: a row counts if it has these values. A label is 0, 0.5 or 1, as a number or as text, or a word
    for it: safe, potentially harmful, harmful; true and false stand for 1 and 0. The question may be empty.
    `skip_bad` leaves out the rows that cannot be used; without it they are an error.

    Raises `ConfigError` for a file that cannot be read, columns that are not there and rows without a text
    or a label, and `MissingDependency` for a Parquet file where pyarrow is not installed.
    """
    rows: list[Row] = []
    bad: dict[int, str] = {}
    where = where or {}
    try:
        for number, record in enumerate(_records(file), start=1):
            if number == 1:
                _check_columns(file, record, columns, where)
            if all(_shown(record.get(column)) == value for column, value in where.items()):
                try:
                    rows.append(_row(number, record, columns))
                except ValueError as error:
                    bad[number] = str(error)
    except UNREADABLE as error:
        raise ConfigError(f"cannot read {str(file)!r}: {error}") from None
    if bad and not skip_bad:
        first = "; ".join(f"row {number}: {what}" for number, what in islice(bad.items(), _SHOWN))
        rest = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise ConfigError(
            f"{len(bad)} of the {len(bad) + len(rows)} rows of {str(file)!r} cannot be used: {first}{rest}; "
            "correct them, or leave them out (--skip-bad)"
        )
    if not rows:
        chosen = f" with {dict(where)!r}" if where else ""
        raise ConfigError(f"{str(file)!r} has no rows{chosen} to judge")
    return DataSet(name=_stem(file), rows=rows, bad=bad)


def _records(file: Path) -> Iterator[Record]:
    found = records(file, extra="eval")
    if found is None:
        raise ConfigError(
            f"{str(file)!r} is in no known format; give .csv, .jsonl (either may end in .gz) or .parquet"
        )
    return found


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").rpartition(".")[0]


def _check_columns(file: Path, record: Record, columns: Columns, where: Mapping[str, str]) -> None:
    missing = [name for name in (columns.question, columns.text, columns.label, *where) if name not in record]
    if missing:
        there = sorted(str(name) for name in record)
        raise ConfigError(
            f"{str(file)!r} has no column {missing[0]!r}; its columns are {there!r}: name one of them"
        )


def _row(number: int, record: Record, columns: Columns) -> Row:
    if None in record:
        raise ValueError("more values than the header has columns")
    text = _text(columns.text, record.get(columns.text))
    if not text.strip():
        raise ValueError(f"nothing in {columns.text!r} to judge")
    return Row(
        number=number,
        question=_text(columns.question, record.get(columns.question)),
        text=text,
        level=_level(columns.label, record.get(columns.label)),
        groups={name: _shown(record.get(name)) or "none" for name in columns.groups if name in record},
    )


def _text(column: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    raise ValueError(f"{column!r} is no text but {type(value).__name__!r}")


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _level(column: str, value: Any) -> RiskLevel:
    word = str(value).strip().lower()
    try:
        return _WORDS[word] if word in _WORDS else RiskLevel(float(value))
    except (TypeError, ValueError):
        raise ValueError(f"{column!r} is {value!r}, and neither 0 nor 0.5 nor 1") from None
