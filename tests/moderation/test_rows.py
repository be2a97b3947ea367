"""Labelled rows from files: what is read, and what is said of the rest."""

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shieldguard.errors import ConfigError
from shieldguard.evaluation.moderation import QA, QT
from shieldguard.evaluation.rows import Columns, DataSet, read
from shieldguard.verdicts import RiskLevel

COLUMNS = Columns(question="query", text="thought", label="label", groups=("kind", "absent"))
ROWS: list[dict[str, Any]] = [
    {"query": "one?", "thought": 'a "quoted" line\nand another', "label": 0, "kind": "a"},
    {"query": "", "thought": "zwei, ü", "label": 0.5, "kind": "b"},
    {"query": "three?", "thought": "x" * 200_000, "label": 1.0, "kind": ""},
]


def as_csv(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return written(file, out.getvalue())


def as_json(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    return written(file, "".join(json.dumps(row) + "\n" for row in rows))


def written(file: Path, text: str) -> Path:
    content = text.encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


def as_parquet(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(
        pyarrow.Table.from_pylist([{**row, "label": float(row["label"])} for row in rows]), file
    )
    return file


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.csv", as_csv),
        ("a.csv.gz", as_csv),
        ("a.jsonl", as_json),
        ("a.jsonl.gz", as_json),
        ("a.parquet", as_parquet),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_format_gives_the_same_rows(name: str, write: Any, tmp_path: Path) -> None:
    data = read(write(tmp_path / name, ROWS), COLUMNS)
    assert data.name == "a"
    assert [(row.number, row.question, row.text) for row in data.rows] == [
        (1, "one?", 'a "quoted" line\nand another'),
        (2, "", "zwei, ü"),
        (3, "three?", "x" * 200_000),
    ]
    assert [row.level for row in data.rows] == list(RiskLevel)
    assert [row.groups for row in data.rows] == [{"kind": "a"}, {"kind": "b"}, {"kind": "none"}]
    assert data.bad == {}


@pytest.mark.parametrize(
    ("label", "level"),
    [
        (0, 0), ("0", 0), ("0.0", 0), (" 1 ", 1), ("1.0", 1), ("0.5", 0.5), (0.5, 0.5), (True, 1), (False, 0),
        ("true", 1), ("False", 0), ("Safe", 0), ("unsafe", 1), ("Potentially Harmful", 0.5), ("harmful", 1),
    ],
)  # fmt: skip
def test_labels_are_numbers_or_words(label: object, level: float, tmp_path: Path) -> None:
    [row] = read(as_json(tmp_path / "a.jsonl", [{**ROWS[0], "label": label}]), COLUMNS).rows
    assert row.level == level


BAD: list[dict[str, Any]] = [
    ROWS[0],
    {**ROWS[0], "label": 0.7},
    {**ROWS[0], "label": None},
    {**ROWS[0], "label": "maybe"},
    {**ROWS[0], "label": "nan"},
    {**ROWS[0], "thought": " \n"},
    {**ROWS[0], "thought": ["a", "list"]},
    {"query": "no thought at all"},
]


def test_rows_that_cannot_be_used_are_named_by_their_number(tmp_path: Path) -> None:
    file = as_json(tmp_path / "a.jsonl", BAD)
    with pytest.raises(ConfigError) as caught:
        read(file, COLUMNS)
    said = str(caught.value)
    assert said.startswith(
        f"7 of the 8 rows of {str(file)!r} cannot be used: row 2: 'label' is 0.7, and neither"
    )
    for part in ("row 3: 'label' is None", "row 4: 'label' is 'maybe'", "row 5: 'label' is 'nan'",
                 "row 6: nothing in 'thought'", "row 7: 'thought' is no text but 'list'", "row 8: nothing in",
                 "--skip-bad"):  # fmt: skip
        assert part in said


def test_they_can_be_left_out_and_are_known(tmp_path: Path) -> None:
    data = read(as_json(tmp_path / "a.jsonl", BAD), COLUMNS, skip_bad=True)
    assert [row.number for row in data.rows] == [1]
    assert list(data.bad) == [2, 3, 4, 5, 6, 7, 8]


def test_an_error_names_ten_bad_rows_at_most(tmp_path: Path) -> None:
    file = as_json(tmp_path / "a.jsonl", [{**ROWS[0], "label": 7}] * 13)
    with pytest.raises(ConfigError, match=r"row 10: .*; and 3 more;") as caught:
        read(file, COLUMNS)
    assert "row 11" not in str(caught.value)


def test_a_row_with_more_values_than_columns_is_a_bad_one(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("query,thought,label\nq,a thought, with a comma,1\nq,t,1\n")
    assert read(file, COLUMNS, skip_bad=True).bad == {1: "more values than the header has columns"}


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("\ufeffquery,thought,label\r\nq,t,1\r\n".encode())
    assert read(file, COLUMNS).rows[0].question == "q"


def test_rows_can_be_chosen_by_a_value(tmp_path: Path) -> None:
    file = as_csv(tmp_path / "a.csv", ROWS)
    assert [row.number for row in read(file, COLUMNS, where={"kind": "b"}).rows] == [2]
    with pytest.raises(ConfigError, match=r"has no rows with {'kind': 'z'}"):
        read(file, COLUMNS, where={"kind": "z"})
    with pytest.raises(ConfigError, match="no column 'colour'"):
        read(file, COLUMNS, where={"colour": "b"})


def test_a_sample_is_the_same_each_time_and_keeps_the_order(tmp_path: Path) -> None:
    data = read(as_json(tmp_path / "a.jsonl", ROWS * 20), COLUMNS)
    drawn = [row.number for row in data.sample(10).rows]
    assert drawn == sorted(drawn) == [row.number for row in data.sample(10).rows]
    assert len(set(drawn)) == 10
    assert data.sample(60) is data


CUT = gzip.compress(b'{"query": "", "thought": "", "label": 0}\n' * 9, mtime=0)[:-9]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"", "in no known format"),
        ("a.parquet.gz", b"", "in no known format"),
        ("absent.csv", None, "No such file"),
        ("a.csv", b"", "has no rows to judge"),
        ("a.csv", b"query,thought\nq,t\n", r"no column 'label'; its columns are \['query', 'thought'\]"),
        ("a.csv", b'query,thought,label\nq,"open,1\n', "cannot read .*unexpected end of data"),
        ("a.csv", b"query,thought,label\nq,\xff,1\n", "cannot read .*utf-8"),
        ("a.csv.gz", b"no gzip", "cannot read .*gzip"),
        ("a.jsonl.gz", CUT, "cannot read .*end-of-stream"),
        ("a.jsonl", b'{"query": "q", "thought": "t", "label": 1}\n\n{"que\n', "line 3 of .* is no JSON"),
        ("a.jsonl", b"[1]\n", r"line 1 of .* is no JSON object: '\[1\]'"),
    ],
    ids=["kind", "kind.gz", "absent", "empty", "column", "quote", "UTF-8", "gzip", "cut", "JSON", "list"],
)  # fmt: skip
def test_files_that_cannot_be_read_are_config_errors(
    name: str, content: bytes | None, says: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read(tmp_path / name, COLUMNS)


def test_a_broken_parquet_file_is_a_config_error(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ConfigError, match="cannot read"):
        read(tmp_path / "a.parquet", COLUMNS)


def test_reading_leaves_the_limit_of_csv_fields_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    read(as_csv(tmp_path / "a.csv", ROWS), COLUMNS)
    assert csv.field_size_limit() == before


def fingerprint(folder: Path, **changed: Any) -> str:
    return read(as_json(folder / "a.jsonl", [{**ROWS[0], **changed}]), COLUMNS).fingerprint


def test_the_fingerprint_is_of_what_is_judged_and_counted(tmp_path: Path) -> None:
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path, kind="another") == before
    changes: list[dict[str, Any]] = [{"query": "other"}, {"thought": "other"}, {"label": 0.5}]
    assert len({before, *(fingerprint(tmp_path, **change) for change in changes)}) == 4


@pytest.mark.parametrize("task", [QT, QA], ids=lambda task: task.name)
def test_the_samples_that_come_along_have_the_authors_columns_and_every_level(task: Any) -> None:
    data: DataSet = read(task.sample, task.columns)
    assert {row.level for row in data.rows} == set(RiskLevel)
    assert all(row.question and row.groups["class"] for row in data.rows)
