"""The rows of files: CSV, JSON lines or Parquet."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

from shieldguard.errors import ConfigError, MissingDependency

Record: TypeAlias = Mapping[str, Any]

_LONGEST = 2**31 - 1  # characters in a cell of CSV; by default fewer than in many a thought

UNREADABLE = (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error)
"""What reading a file's rows may raise, beside the errors of its format."""


def records(file: Path, *, extra: str) -> Iterator[Record] | None:
    """The rows of a file whose name ends in .csv or .jsonl, both also in .gz, or in .parquet; None for
    another name. In CSV a row with more values than the header has columns has them under None.

    `extra` is the one that brings pyarrow. Reading raises `ConfigError` for a line that is no JSON object and
    for what is no Parquet, `MissingDependency` where pyarrow is not installed, and `UNREADABLE`.
    """
    name = file.name.lower()
    match name.removesuffix(".gz").rpartition(".")[2]:
        case "csv":
            return _csv(file)
        case "jsonl" | "ndjson":
            return _json_lines(file)
        case "parquet" if not name.endswith(".gz"):
            return _parquet(file, extra)
    return None


def _csv(file: Path) -> Iterator[Record]:
    before = csv.field_size_limit(_LONGEST)
    try:
        with _opened(file) as lines:
            yield from csv.DictReader(lines, strict=True)
    finally:
        csv.field_size_limit(before)


def _json_lines(file: Path) -> Iterator[Record]:
    with _opened(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                raise ConfigError(f"line {number} of {str(file)!r} is no JSON: {error}") from None
            if not isinstance(found, dict):
                raise ConfigError(f"line {number} of {str(file)!r} is no JSON object: {line.strip()[:80]!r}")
            yield found


def _parquet(file: Path, extra: str) -> Iterator[Record]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency(error.name or "pyarrow", extra) from error
    try:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches():
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise ConfigError(f"cannot read {str(file)!r}: {error}") from None


def _opened(file: Path) -> IO[str]:
    if file.name.lower().endswith(".gz"):
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")
