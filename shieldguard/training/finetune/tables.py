"""The rows of all files that are to be learnt from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shieldguard.errors import ConfigError
from shieldguard.tables import UNREADABLE, records


@dataclass(frozen=True, slots=True)
class Record:
    """One row. `where` names it: the file, and its number among the rows, counted from 1."""

    where: str
    values: Mapping[str, Any]


def read(files: Sequence[Path], columns: Sequence[str]) -> list[Record]:
    """All rows of all files, each of which has these columns.

    A name ends in .csv, .jsonl, both also in .gz, or in .parquet. Raises `ConfigError` for what cannot be
    read, what has no rows, and what lacks a column, and `MissingDependency` without pyarrow.
    """
    found: list[Record] = []
    for file in files:
        try:
            rows = list(_rows(file))
        except UNREADABLE as error:
            raise ConfigError(f"cannot read {str(file)!r}: {error}") from None
        if not rows:
            raise ConfigError(f"{str(file)!r} has no rows")
        there = {name: None for row in rows for name in row if name is not None}
        if missing := [name for name in columns if name not in there]:
            raise ConfigError(
                f"{str(file)!r} has no column {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(repr, there))}; say which is which, as in --column thought=reasoning"
            )
        found += [Record(f"{file.name}, row {number}", row) for number, row in enumerate(rows, start=1)]
    return found


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    found = records(file, extra="finetune")
    if found is None:
        raise ConfigError(
            f"{str(file)!r} is of no known kind; give .csv, .jsonl (both also in .gz) or .parquet"
        )
    return found
