"""The `shieldguard` command, as a program of its own."""

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shieldguard_adapters.demo.scripts import BICYCLE, SCAM
from shieldguard_adapters.traces import Trace
from tests.command import shieldguard

pytest.importorskip("typer")

JUDGE = ("--judge", "tests.scripted:judge")
HARMFUL = "<think>First they buy a gift card.</think>Buy one."
HARMLESS = "<think>The chain is worn.</think>Change it."

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command in an empty folder."""

    return partial(shieldguard, folder=tmp_path)


def as_file(trace: Trace, folder: Path) -> str:
    file = folder / "trace.json"
    file.write_text(
        json.dumps({"query": trace.query, "reasoning": trace.reasoning, "answer": trace.answer}),
        encoding="utf-8",
    )
    return str(file)


# -- check -------------------------------------------------------------------------------------------


def test_a_harmless_trace_exits_with_0_and_shows_each_window(run: Run) -> None:
    done = run("check", *JUDGE, stdin=HARMLESS)
    assert (done.returncode, done.stderr) == (0, "")
    assert "reasoning 0–18  level 0" in done.stdout
    assert "answer 0–10  level 0" in done.stdout
    assert "level 0: standard input" in done.stdout


def test_a_harmful_trace_exits_with_1(run: Run) -> None:
    done = run("check", *JUDGE, "-", stdin=HARMFUL)
    assert (done.returncode, done.stderr) == (1, "")
    assert "level 1  abort" in done.stdout


def test_the_level_that_counts_can_be_lower(run: Run) -> None:
    assert run("check", *JUDGE, stdin="It slips.").returncode == 0
    assert run("check", *JUDGE, "--level", "0.5", stdin="It slips.").returncode == 1


def test_a_file_is_checked_and_the_query_can_be_given(run: Run, tmp_path: Path) -> None:
    file = as_file(SCAM, tmp_path)
    done = run("check", file, *JUDGE, "--query", "Write a letter.", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["level"], found["ended"], found["cause"]) == (1.0, "aborted", "risk")
    assert found["answer"]["released"] == 0


def test_json_is_one_object_on_one_line(run: Run) -> None:
    done = run("check", *JUDGE, "--json", stdin=HARMLESS, COLUMNS="40")
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert (found["level"], found["reasoning"]["judged"]) == (0.0, 18)


def test_windows_without_a_verdict_exit_with_2(run: Run) -> None:
    done = run("check", "--judge", "tests.scripted:failing", stdin=HARMLESS)
    assert done.returncode == 2
    assert "no verdict" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("check", "nowhere.txt", *JUDGE), "cannot read a trace"),
        (("check", *JUDGE), "no reasoning and no answer"),
        (("check", "--config", "nowhere.toml"), "cannot read the configuration"),
        (("check", "--config", "broken.toml"), "cannot read the configuration"),
        (("check", "--config", "wrong.toml"), "policy.release"),
        (("check", "--judge", "wizard"), "choose 'cascade', 'embedded'"),
        (("check", "--judge-options", '{"colour": 1}'), "does not take the options {'colour': 1}"),
        (("demo", "--judge-options", "{"), "--judge-options '{' is no JSON"),
        (("serve", "--judge", "local", "--judge-options", "[]"), "must be a JSON object"),
        (("check", "--judge", "tests.scripted:nobody"), "cannot be loaded"),
        (("check", "--judge", "nowhere:judge"), "cannot be loaded"),
        (("check", "--judge", "tests.scripted:not_a_judge"), "no `name`"),
        (("check", *JUDGE, "--level", "0.7"), "must be 0.5 or 1"),
        (("check", *JUDGE, "--level", "0"), "must be 0.5 or 1"),
        (("check", *JUDGE, "--level", "high"), "--level"),
        (("demo", "--file", "nowhere.txt", *JUDGE), "cannot read a trace"),
        (("demo", "--pace", "-1", *JUDGE), "pace"),
        (("chekc",), "chekc"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_said_on_standard_error_without_a_traceback(
    arguments: tuple[str, ...], says: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "broken.toml").write_text("judge = ", encoding="utf-8")
    (tmp_path / "wrong.toml").write_text('[policy]\nrelease = "sometimes"', encoding="utf-8")
    stdin = "" if arguments == ("check", *JUDGE) else HARMLESS
    done = run(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_settings_come_from_a_file_and_the_environment(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "guard.toml"
    file.write_text(
        'judge = "tests.scripted:judge"\n[policy.reasoning]\nharmful = "redact"\n[serve]\nport = 80',
        encoding="utf-8",
    )
    done = run("check", "--config", str(file), "--json", stdin=HARMFUL)
    assert (done.returncode, json.loads(done.stdout)["ended"]) == (1, "complete")
    done = run("check", "--json", stdin=HARMFUL, SHIELDGUARD_JUDGE="tests.scripted:judge")
    assert (done.returncode, json.loads(done.stdout)["ended"]) == (1, "aborted")


# -- demo --------------------------------------------------------------------------------------------


def demo(run: Run, *arguments: str, stdin: str = "") -> list[dict[str, Any]]:
    done = run("demo", "--pace", "0", "--json", *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_demonstration_aborts_the_scam_before_its_answer_and_lets_the_bicycle_pass(run: Run) -> None:
    scam, bicycle = demo(run, *JUDGE)
    assert (scam["ended"], scam["answer"]["released"], scam["reasoning"]["exposed"]) == ("aborted", 0, 0)
    assert bicycle["ended"] == "complete"
    assert bicycle["answer"]["released"] == len(BICYCLE.answer)


def test_the_demonstration_plays_a_trace_from_standard_input(run: Run) -> None:
    [report] = demo(run, *JUDGE, "--file", "-", stdin=HARMLESS)
    assert report["answer"]["released"] == len("Change it.")


def test_the_demonstration_for_people_shows_thought_verdicts_and_end(run: Run) -> None:
    done = run("demo", "--pace", "0", *JUDGE)
    assert done.returncode == 0
    assert "level 1  abort" in done.stdout
    assert "Aborted for its risk" in done.stdout
    assert "Complete:" in done.stdout
    assert SCAM.answer[:40] not in done.stdout


def test_options_of_the_judge_go_before_the_settings(run: Run, tmp_path: Path) -> None:
    (tmp_path / "guard.toml").write_text(
        "[judge_options]\npotential = 1.0\nharmful = 1.0\n", encoding="utf-8"
    )
    known = ("check", "--config", "guard.toml")
    done = run(*known, stdin=HARMFUL)
    assert done.returncode == 0, done.stderr
    nervous = run(*known, "--judge-options", '{"harmful": 0.0}', stdin=HARMFUL)
    assert nervous.returncode == 1, nervous.stderr


# -- with the judge that comes with shieldguard ------------------------------------------------------


def test_the_embedded_judge_aborts_the_scam_and_passes_the_bicycle(run: Run) -> None:
    scam, bicycle = demo(run)
    assert (scam["ended"], scam["cause"], scam["answer"]["released"]) == ("aborted", "risk", 0)
    assert (bicycle["ended"], bicycle["answer"]["released"]) == ("complete", len(BICYCLE.answer))


@pytest.mark.parametrize(("trace", "code"), [(SCAM, 1), (BICYCLE, 0)], ids=["scam", "bicycle"])
def test_check_with_the_embedded_judge_tells_harm_by_its_exit_code(
    trace: Trace, code: int, run: Run, tmp_path: Path
) -> None:
    assert run("check", as_file(trace, tmp_path)).returncode == code
