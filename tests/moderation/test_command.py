"""`shieldguard eval qt` and `eval qa`, as programs of their own."""

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.command import ROOT, shieldguard

pytest.importorskip("typer")

NUMBERS = ("--judge", "tests.moderation.judges:numbers")
COLUMNS = ("query", "model_thinking", "human_majority")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(shieldguard, "eval", folder=tmp_path)


def rows(file: Path, *lines: Sequence[object], columns: Sequence[str] = COLUMNS) -> Path:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([columns, *lines])
    return file


FOUR = [("q", "a 0.1", 0), ("q", "a 0.6", 0.5), ("q", "a 0.95", "1.0"), ("q", "none", 0)]


def report(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = json.loads((folder / "report.json").read_text())
    return found


def test_a_file_with_the_authors_columns_needs_no_options(run: Run, tmp_path: Path) -> None:
    done = run("qt", *NUMBERS, rows(tmp_path / "test_qt.csv", *FOUR), "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "QT moderation by `numbers`: 4 traces, 2 of them harmful." in done.stdout
    assert "| test_qt | 4 | 2 | 75.0 (" in done.stdout
    assert "reports: out/report.html, out/report.md, out/report.json" in done.stdout
    for kind in ("html", "md", "json"):
        assert (tmp_path / "out" / f"report.{kind}").stat().st_size > 500
    assert report(tmp_path / "out")["overall"]["table"] == {
        "hits": 2,
        "misses": 0,
        "false_alarms": 1,
        "passes": 1,
    }


def test_answers_are_judged_as_answers(run: Run, tmp_path: Path) -> None:
    file = rows(tmp_path / "qa.csv", ("q", "a 0.6", "True"), columns=("query", "response", "unsafe_label"))
    done = run("qa", *NUMBERS, file, "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "QA moderation by `numbers`: 1 answers, 1 of them harmful." in done.stdout


@pytest.mark.parametrize("dash", ["-", "_"])
def test_the_authors_options_name_columns(dash: str, run: Run, tmp_path: Path) -> None:
    file = rows(tmp_path / "a.csv", ("q", "a 0.6", 1), columns=("prompt", "cot", "gold"))
    names = [f"--question{dash}col", "prompt", f"--answer{dash}col", "cot", f"--label{dash}col", "gold"]
    done = run("qt", *NUMBERS, file, *names, f"--batch{dash}size", 2, "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("task", ["qt", "qa"])
def test_without_a_file_the_sample_is_judged_by_the_embedded_judge(
    task: str, run: Run, tmp_path: Path
) -> None:
    done = run(task, "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"| sample_{task} |" in done.stdout
    assert "Cybersecurity & Malware Threats" in (tmp_path / "out" / "report.md").read_text()


def test_the_same_command_again_asks_nothing_and_writes_the_same_reports(run: Run, tmp_path: Path) -> None:
    command = ("qt", *NUMBERS, rows(tmp_path / "a.csv", *FOUR), "--out", "out")
    first = run(*command)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert run(*command).stdout == first.stdout
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    # More runs go on from there; another breakdown needs no verdicts.
    assert run(*command, "--runs", 3, "--by", "human_majority").returncode == 0
    assert len((tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()) == 12


def test_five_runs_have_a_mean_and_a_deviation(run: Run, tmp_path: Path) -> None:
    one = rows(tmp_path / "one.csv", *FOUR * 5)
    other = rows(tmp_path / "other.csv", *FOUR * 5)
    done = run("qt", "--judge", "tests.moderation.judges:MoodyJudge", one, other, "--runs", 5, "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("one", "other", "mean of the data sets", "all rows"):
        assert f"| {name} |" in done.stdout
    assert report(tmp_path / "out")["overall"]["estimates"]["f1"]["deviation"] > 0  # type: ignore[index]


def test_files_of_one_name_are_told_apart(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    one, other = rows(tmp_path / "a.csv", *FOUR), rows(tmp_path / "sub" / "a.csv", *FOUR[:3])
    done = run("qt", *NUMBERS, one, other, "--out", "out")
    assert f"| {other} | 3 |" in done.stdout


SLOWLY = (
    *(sys.executable, "-m", "shieldguard_adapters.cli", "eval", "qt", "--out", "out"),
    *("--judge", "tests.moderation.judges:slow", "--concurrency", "2"),
)
ENVIRONMENT = {"PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}", "PATH": ""}


def start(folder: Path, file: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*SLOWLY, str(file)],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Tests that run in the background of a shell are deaf to it, and so would be what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(file: Path, lines: int) -> None:
    for _ in range(1200):
        if file.exists() and file.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.05)
    raise AssertionError(f"{file} did not come to {lines} lines")


def test_a_run_that_is_killed_loses_nothing_and_goes_on(run: Run, tmp_path: Path) -> None:
    file = rows(tmp_path / "a.csv", *FOUR * 25)
    verdicts = tmp_path / "out" / "verdicts.jsonl"
    killed = start(tmp_path, file)
    wait_for(verdicts, 7)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    kept = verdicts.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    assert 7 <= kept.count(b"\n") < 100

    done = run("qt", "--judge", "tests.moderation.judges:slow", file, "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert verdicts.read_bytes().startswith(kept)
    keys = [(found["row"], found["run"]) for found in map(json.loads, verdicts.read_text().splitlines())]
    assert sorted(keys) == [(row, 0) for row in range(1, 101)]
    assert "| a | 100 | 50 | 75.0 (" in done.stdout


def test_a_run_that_is_interrupted_says_how_to_go_on(tmp_path: Path) -> None:
    stopped = start(tmp_path, rows(tmp_path / "a.csv", *FOUR * 25))
    wait_for(tmp_path / "out" / "verdicts.jsonl", 3)
    stopped.send_signal(signal.SIGINT)
    out, error = stopped.communicate(timeout=60)
    assert (stopped.returncode, out) == (2, b"")
    assert error.startswith(b"shieldguard: stopped; ")
    assert b"of 100 verdicts are kept in 'out', and the same command goes on with the rest\n" in error
    assert b"Traceback" not in error


def test_progress_is_shown_where_somebody_looks(tmp_path: Path) -> None:
    file = rows(tmp_path / "a.csv", *FOUR * 10)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*SLOWLY, str(file)],
        cwd=tmp_path,
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # at the end, on Linux
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert b"40/40" in shown
    assert b"a second" in shown
    assert b"judging" not in out


@pytest.fixture(scope="module")
def judged_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    for name in ("a.csv", "b.csv"):
        rows(folder / name, *(("0", *line[1:]) for line in FOUR))
    assert shieldguard("eval", "qt", *NUMBERS, "a.csv", "--out", "out", folder=folder).returncode == 0
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("qt", "a.csv", "--judge", "tests.moderation.judges:slow"), "its judge.judge was"),
        (("qt", "a.csv", *NUMBERS, "--judge-options", '{"seconds": 0}'), "its judge.options.seconds was"),
        (("qt", "b.csv", *NUMBERS), "its data[0].name was 'a', and is now 'b'"),
        (("qt", "a.csv", *NUMBERS, "--sample", "3"), "its data[0].rows was 4"),
        (("qt", "a.csv", *NUMBERS, "--label-col", "query"), "its data[0].fingerprint was"),
        (("qa", "a.csv", *NUMBERS, "--answer-col", COLUMNS[1], "--label-col", COLUMNS[2]), "its task was"),
    ],
    ids=["judge", "options", "file", "sample", "column", "task"],
)  # fmt: skip
def test_verdicts_of_another_run_are_refused(change: tuple[str, ...], says: str, judged_once: Path) -> None:
    done = shieldguard("eval", *change, "--out", "out", folder=judged_once)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "give another folder" in done.stderr


def test_a_changed_row_or_file_of_the_judge_is_refused(run: Run, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_text("one")
    file = rows(tmp_path / "a.csv", *FOUR)
    command = ("qt", *NUMBERS, file, "--judge-options", json.dumps({"weights": str(weights)}), "--out", "out")
    assert run(*command).returncode == 0
    weights.write_text("two")
    assert "its judge.files" in run(*command).stderr
    weights.write_text("one")
    assert run(*command).returncode == 0
    rows(file, *FOUR[:3], ("q", "another 0.1", 0))
    assert "its data[0].fingerprint" in run(*command).stderr


def test_a_judges_changed_code_is_refused(run: Run, tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text("from tests.moderation.judges import numbers\n")
    command = ("qt", "--judge", "mine:numbers", rows(tmp_path / "a.csv", *FOUR), "--out", "out")
    path = f"{ROOT}:{ROOT / 'adapters'}:{tmp_path}"
    assert run(*command, PYTHONPATH=path).returncode == 0
    code.write_text("from tests.moderation.judges import numbers\nTHRESHOLD = 0.4\n")
    assert "its judge.code.mine:numbers was" in run(*command, PYTHONPATH=path).stderr


def test_a_judge_of_the_configuration_is_measured_and_its_secrets_are_not_kept(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "guard.toml").write_text(
        'judge = "cascade"\n[judge_options]\nthreshold = 0.3\nscreen = { judge = "embedded" }\n'
        'confirm = { judge = "tests.moderation.judges:numbers", api_key = "hush" }\n'
    )
    file = rows(tmp_path / "a.csv", ("q", "Hello there, nothing to see. 0.1", 0))
    done = run("qt", "--config", "guard.toml", file, "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    about = (tmp_path / "out" / "run.json").read_text()
    assert sorted(json.loads(about)["judge"]["code"]) == [
        "cascade",
        "embedded",
        "tests.moderation.judges:numbers",
    ]
    assert not any("hush" in kept.read_text() for kept in (tmp_path / "out").iterdir())


def test_a_judge_that_cannot_be_reached_stops_the_run_unless_it_is_to_count(run: Run, tmp_path: Path) -> None:
    command = (
        "qt",
        "--judge",
        "tests.moderation.judges:unreachable",
        rows(tmp_path / "a.csv", *FOUR),
        "--out",
        "out",
    )
    done = run(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "broke at row" in done.stderr
    assert "refused the connection; 0 of 4 verdicts are kept in 'out'" in done.stderr
    done = run(*command, "--count-failures")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[4].endswith("| 100.0 |")
    assert "JudgeUnreachable 4" in (tmp_path / "out" / "report.md").read_text()


def test_bad_rows_are_an_error_or_left_out_and_named(run: Run, tmp_path: Path) -> None:
    file = rows(tmp_path / "a.csv", FOUR[0], ("q", "a 0.3", "maybe"), FOUR[2], ("q", "", 1))
    done = run("qt", *NUMBERS, file, "--out", "out")
    assert done.returncode == 2
    assert "row 2: 'human_majority' is 'maybe'" in done.stderr
    assert "row 4: nothing in 'model_thinking' to judge" in done.stderr
    assert not (tmp_path / "out").exists()
    done = run("qt", *NUMBERS, file, "--out", "out", "--skip-bad")
    assert done.returncode == 0
    assert "left out row 2 of a: 'human_majority' is 'maybe'" in done.stderr
    assert "could not be used: 2 rows (2, 4)" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("qt", "nowhere.csv", "--out", "out"), "cannot read 'nowhere.csv'"),
        (("qt", "a.csv"), "--out"),
        (("qt", "a.csv", "--out", "a.csv"), "cannot keep verdicts in 'a.csv'"),
        (("qt", "a.csv", "--out", "out", "--judge-options", "{"), "is no JSON"),
        (("qt", "a.csv", "--out", "out", "--judge-options", "[]"), "must be a JSON object"),
        (("qt", "a.csv", "--out", "out", "--judge-options", '{"colour": 1}'), "does not take the options"),
        (("qt", "a.csv", "--out", "out", "--where", "query"), "names no value; write COLUMN=VALUE"),
        (("qt", "a.csv", "--out", "out", "--runs", "0"), "--runs"),
        (("qt", "a.csv", "--out", "out", "--timeout", "0"), "timeout=0.0; give a number of seconds above 0"),
        (("qa", "a.csv", "--out", "out"), "no column 'response'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_said_without_a_traceback(
    arguments: tuple[str, ...], says: str, run: Run, tmp_path: Path
) -> None:
    rows(tmp_path / "a.csv", *FOUR)
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
