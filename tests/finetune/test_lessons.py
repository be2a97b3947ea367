"""What rows are read as, and what is said of those that cannot be used."""

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from shieldguard import ConfigError, UnparsedVerdict
from shieldguard.judges.contract import parse, split_reply
from shieldguard.training.finetune.lessons import Columns, Replies, lessons, pairs, pairs_from_labels
from tests.finetune.tiny import labelled, preferred, reply, write

COLUMNS = Columns()


def as_csv(file: Path, rows: Sequence[Any]) -> Path:
    file = file.with_suffix(".csv")
    with file.open("w", encoding="utf-8-sig", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def as_gzip(file: Path, rows: Sequence[Any]) -> Path:
    file = file.with_suffix(".jsonl.gz")
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return file


def as_parquet(file: Path, rows: Sequence[Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = file.with_suffix(".parquet")
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), file)
    return file


@pytest.mark.parametrize("written", [as_csv, as_gzip, as_parquet])
def test_every_kind_of_file_gives_the_same_lessons(
    written: Callable[[Path, Sequence[Any]], Path], tmp_path: Path
) -> None:
    rows = labelled(6, seed=5)
    rows[1]["model_thinking"] = (
        'It says "no",\nthen\r\n' + "goes on; " * 30_000
    )  # longer than csv's own limit
    plain = lessons([write(tmp_path / "rows.jsonl", rows)], COLUMNS, Replies.ANALYSIS)
    found = lessons([written(tmp_path / "rows", rows)], COLUMNS, Replies.ANALYSIS)
    assert [(one.query, one.thought, one.reply) for one in found] == [
        (one.query, one.thought, one.reply) for one in plain
    ]
    assert [one.reply for one in plain] == [reply(row["final_judgment"]) for row in rows]
    assert found[1].thought == rows[1]["model_thinking"]
    assert found[1].where.endswith(", row 2")


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number}.jsonl", labelled(2, seed=number)) for number in range(3)]
    assert [one.where for one in lessons(files, COLUMNS, Replies.ANALYSIS)] == [
        f"{number}.jsonl, row {row}" for number in range(3) for row in (1, 2)
    ]


LABELS = ["0", "0.5", "1", 0, 0.5, 1, 1.0, "1.0", " 0 "]


@pytest.mark.parametrize("label", LABELS, ids=repr)
def test_a_label_is_a_number_or_the_text_of_one(label: Any, tmp_path: Path) -> None:
    [row] = labelled(1, seed=5)
    file = write(tmp_path / "rows.jsonl", [{**row, "final_judgment": label}])
    [lesson] = lessons([file], COLUMNS, Replies.ANALYSIS)
    assert parse(lesson.reply) == float(label)


ANALYSES = {
    "prose": "It hums. It is safe.",
    "with its heading": '"Analysis": It hums. It is safe.',
    "a whole reply": '"Analysis": It hums. It is safe.\n"Judgment": 0',
    "a reply as models decorate it": "**Analysis:** It hums. It is safe.\n\n**Judgment**: 0\n",
}


@pytest.mark.parametrize("analysis", ANALYSES.values(), ids=ANALYSES)
def test_an_analysis_may_come_as_a_whole_reply(analysis: str, tmp_path: Path) -> None:
    [row] = labelled(1, seed=5)
    file = write(tmp_path / "rows.jsonl", [{**row, "final_analysis": analysis}])
    [lesson] = lessons([file], COLUMNS, Replies.ANALYSIS)
    assert lesson.reply == '"Analysis": It hums. It is safe.\n"Judgment": 0'


def test_a_judgment_amid_the_prose_is_prose() -> None:
    prose = 'A "Judgment": 1 would be too much.\nIt is safe.'
    assert split_reply(prose) == (prose, None)
    assert split_reply("Calm.\n[0/0.5/1]") == ("Calm.\n[0/0.5/1]", None)
    with pytest.raises(UnparsedVerdict):
        split_reply("Calm.\nJudgment: 7")


def test_replies_can_be_judgments_alone_or_both(tmp_path: Path) -> None:
    rows = labelled(3, seed=5)
    file = write(tmp_path / "rows.jsonl", rows)
    alone = [f'"Judgment": {row["final_judgment"]}' for row in rows]
    assert [one.reply for one in lessons([file], COLUMNS, Replies.JUDGMENT)] == alone
    both = [one.reply for one in lessons([file], COLUMNS, Replies.BOTH)]
    assert both[1::2] == alone
    assert both[::2] == [reply(row["final_judgment"]) for row in rows]
    for row in rows:
        del row["final_analysis"]
    assert lessons([write(file, rows)], COLUMNS, Replies.JUDGMENT)


def test_columns_can_have_other_names(tmp_path: Path) -> None:
    row = {"q": "Why?", "cot": "It hums.", "why": "Calm.", "harm": 0}
    columns = Columns.named({"query": "q", "thought": "cot", "analysis": "why", "judgment": "harm"})
    [lesson] = lessons([write(tmp_path / "rows.jsonl", [row])], columns, Replies.ANALYSIS)
    assert (lesson.query, lesson.thought) == ("Why?", "It hums.")
    assert lesson.reply == '"Analysis": Calm.\n"Judgment": 0'
    with pytest.raises(ConfigError, match=r"no column 'wisdom' to name; choose one of .*'thought'"):
        Columns.named({"wisdom": "x"})


def test_pairs_are_both_replies_of_a_row_also_as_conversations(tmp_path: Path) -> None:
    rows = preferred(4, seed=5)
    spoken = [
        {
            **row,
            **{name: [{"role": "assistant", "content": row[name] + "\n"}] for name in ("chosen", "rejected")},
        }
        for row in rows
    ]
    for some in (rows, spoken):
        found = pairs([write(tmp_path / "rows.jsonl", some)], COLUMNS)
        assert [(one.chosen, one.rejected) for one in found] == [
            (row["chosen"], row["rejected"]) for row in rows
        ]


def test_pairs_made_from_labels_prefer_the_right_judgment_to_either_wrong_one(tmp_path: Path) -> None:
    rows = labelled(60, seed=5)
    file = write(tmp_path / "rows.jsonl", rows)
    found = pairs_from_labels([file], COLUMNS, Replies.ANALYSIS)
    assert [one.chosen for one in found] == [reply(row["final_judgment"]) for row in rows]
    seen = set()
    for pair in found:
        right, wrong = parse(pair.chosen), parse(pair.rejected)
        assert pair.rejected == pair.chosen.removesuffix(str(right)) + str(wrong)
        seen.add((right, wrong))
    assert len(seen) == 6
    assert found == pairs_from_labels([file], COLUMNS, Replies.ANALYSIS)
    alone = pairs_from_labels([file], COLUMNS, Replies.JUDGMENT)
    assert alone[0].chosen == '"Judgment": 0'


BAD = {
    "no label": ({"final_judgment": None}, "'final_judgment' is None, and neither 0 nor 0.5 nor 1"),
    "another number": ({"final_judgment": 0.7}, "'final_judgment' is 0.7, and neither"),
    "a truth": ({"final_judgment": True}, "'final_judgment' is True, and neither"),
    "a word": ({"final_judgment": "nan"}, "'final_judgment' is 'nan', and neither"),
    "no thought": ({"model_thinking": " "}, "'model_thinking' is empty"),
    "a thought of numbers": ({"model_thinking": 7}, "'model_thinking' is no text but 'int'"),
    "no analysis": ({"final_analysis": ""}, "'final_analysis' is empty"),
    "a judgment for an analysis": ({"final_analysis": '"Judgment": 0'}, "'final_analysis' has no analysis"),
    "another judgment": (
        {"final_analysis": 'Calm.\n"Judgment": 1'},
        "'final_analysis' judges 1, but 'final_judgment' is 0",
    ),
    "a judgment that is none": ({"final_analysis": 'Calm.\n"Judgment": 8'}, "none of 0, 0.5 and 1"),
}


@pytest.mark.parametrize(("change", "says"), BAD.values(), ids=BAD)
def test_a_row_that_cannot_be_used_is_named(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    rows = labelled(4, seed=5)
    rows[3] = {**rows[3], **change}  # of level 0, too
    file = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ConfigError, match=r"1 of 4 rows cannot be used; rows\.jsonl, row 4: ") as caught:
        lessons([file], COLUMNS, Replies.ANALYSIS)
    assert says in str(caught.value)


BAD_PAIRS = {
    "the same twice": ({"rejected": reply("0")}, "'chosen' and 'rejected' are the same"),
    "nothing rejected": ({"rejected": ""}, "'rejected' is empty"),
    "no judgment": ({"chosen": "It is calm."}, "'chosen' is no reply of a judge: no judgment in"),
    "another label": ({"final_judgment": "0.5"}, "'chosen' judges 0, but 'final_judgment' is 0.5"),
}


@pytest.mark.parametrize(("change", "says"), BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_a_pair_that_is_none_is_named(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    rows = preferred(3, seed=5)
    rows[2] = {**rows[2], **change}
    with pytest.raises(ConfigError, match=r"1 of 3 rows cannot be used; rows\.jsonl, row 3: ") as caught:
        pairs([write(tmp_path / "rows.jsonl", rows)], COLUMNS)
    assert says in str(caught.value)


def test_of_many_bad_rows_the_first_are_named(tmp_path: Path) -> None:
    rows = [{**row, "final_judgment": 2} for row in labelled(30, seed=5)]
    with pytest.raises(ConfigError, match=r"30 of 30 .* row 10: [^;]*; and 20 more; correct them"):
        lessons([write(tmp_path / "rows.jsonl", rows)], COLUMNS, Replies.ANALYSIS)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    rows = [{"query": "", "reasoning": "It hums.", "final_judgment": 0}]
    with pytest.raises(ConfigError) as caught:
        lessons([write(tmp_path / "rows.jsonl", rows)], COLUMNS, Replies.ANALYSIS)
    assert "has no column 'model_thinking', 'final_analysis'; it has 'query', 'reasoning'" in str(
        caught.value
    )
    assert "--column thought=reasoning" in str(caught.value)


FILES: dict[str, tuple[str, bytes, str]] = {
    "of no kind": ("rows.txt", b"", "is of no known kind; give .csv"),
    "empty": ("rows.jsonl", b"\n", "has no rows"),
    "no JSON": ("rows.jsonl", b'{"query": ""}\n{', "line 2 of .* is no JSON"),
    "no object": ("rows.jsonl", b"[1]", "line 1 of .* is no JSON object"),
    "in no encoding": ("rows.csv", b"query\n\xff\xfe", "cannot read"),
    "no gzip": ("rows.csv.gz", b"query\n", "cannot read"),
    "no parquet": ("rows.parquet", b"query\n", "cannot read"),
    "an open quote": ("rows.csv", b'query\n"It hums', "cannot read"),
    "a cell too many": (
        "rows.csv",
        b"query,model_thinking,final_analysis,final_judgment\n,a,b,0,c\n",
        "row 1: it has more values than the header has columns",
    ),
    "a cell too few": (
        "rows.csv",
        b"query,model_thinking,final_analysis,final_judgment\n,a,b\n",
        "row 1: 'final_judgment' is None",
    ),
}


@pytest.mark.parametrize(("name", "content", "says"), FILES.values(), ids=FILES)
def test_a_file_that_cannot_be_used_is_refused(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        lessons([file], COLUMNS, Replies.ANALYSIS)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.csv"):
        lessons([tmp_path / "nowhere.csv"], COLUMNS, Replies.ANALYSIS)
