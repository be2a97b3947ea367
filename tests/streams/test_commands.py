"""`shieldguard eval stream`, `calibrate` and `replay`, as programs."""

import json
import subprocess
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

from shieldguard.config import GuardConfig
from shieldguard.evaluation.labelled import LabelledStream
from tests.command import shieldguard
from tests.streams.traces import harmful, harmless, many, write

pytest.importorskip("typer")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
JUDGE = ("--judge", "tests.streams.judges:words")
HARMFUL = "<think>First they buy a gift card.</think>Buy one."


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return partial(shieldguard, folder=tmp_path)


class Tags(HTMLParser):
    """Fails on what is not closed, and collects what is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_eval_stream_on_a_file(run: Run, tmp_path: Path) -> None:
    streams = [*many("ordinary", 9, 3), *(harmful(f"h{n}", onset=10, word_at=10 + n) for n in range(4))]
    file = write(tmp_path / "streams.jsonl", [*streams, harmless("r", "refused", word="nurgal", pieces=40)])
    command = ["eval", "stream", file, *JUDGE, "--latency", "0.05", "--chunk", "12", "--out", "out"]
    done = run(*command, "--verdicts", "kept.jsonl")
    assert done.returncode == 0, done.stderr
    assert "harmful streams aborted: 100.0 % (4 of 4 with a known onset, 0 before it)" in done.stdout
    assert "ordinary, aborted of 1,000: 0.0 (0 of 9" in done.stdout
    assert "refused, aborted of 1,000: 1000.0 (1 of 1" in done.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["figures"]["timeliness"]["at_all"]["hits"] == 4
    assert report["about"]["judge"] == "tests.streams.judges:words"
    assert report["about"]["data"].startswith("streams.jsonl: 14 streams, SHA-256")
    assert {point["kind"] for point in report["points"]} >= {"threshold", "window", "release", "debounce"}
    written = (tmp_path / "out" / "report.md").read_text()
    assert "| words, measured | 88.9 |" in written  # 4 found, 1 refusal stopped
    assert "| Qwen3Guard-Stream, on thinking | 81.6–85.4 | 4.7–21.6 |" in written
    page = Tags()
    page.feed((tmp_path / "out" / "report.html").read_text())
    assert page.open == []
    assert page.loaded == []
    assert "calm words" not in (tmp_path / "out" / "report.html").read_text()
    assert "calm words" not in (tmp_path / "kept.jsonl").read_text()


def test_eval_stream_gives_the_same_again_from_kept_verdicts(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "streams.jsonl", [*many("ordinary", 4, 1), harmful("h", onset=10, word_at=11)])
    command = ["eval", "stream", file, *JUDGE, "--no-frontier", "--verdicts", "kept.jsonl"]
    first, second = (run(*command, "--out", f"out{n}") for n in range(2))
    assert first.returncode == second.returncode == 0
    reports = [json.loads((tmp_path / f"out{n}" / "report.json").read_text()) for n in range(2)]
    for report in reports:
        del report["closing"]  # which is real time
    assert reports[0] == reports[1]
    other = run("eval", "stream", file, "--judge", "tests.scripted:judge", "--verdicts", "kept.jsonl")
    assert other.returncode == 2
    assert "holds verdicts of the judge 'words'" in other.stderr


def test_of_kept_verdicts_a_torn_last_one_is_asked_again(run: Run, tmp_path: Path) -> None:
    command = ["eval", "stream", *JUDGE, "--no-frontier", "--verdicts", "kept.jsonl"]
    assert run(*command).returncode == 0
    kept = tmp_path / "kept.jsonl"
    whole = kept.read_text()
    kept.write_text(whole[:-30])
    assert run(*command).returncode == 0
    assert set(map(key, kept.read_text().splitlines())) == set(map(key, whole.splitlines()))
    foreign = tmp_path / "notes.txt"
    foreign.write_text("a note\nand another")
    assert run(*command[:-1], foreign).returncode == 2
    assert foreign.read_text() == "a note\nand another"


def key(line: str) -> str:
    return str(json.loads(line).get("key"))


@pytest.mark.parametrize("streams", [many("ordinary", 3, 1), [harmful("h", onset=10, word_at=11)]])
def test_what_no_stream_can_tell_is_left_out(streams: list[LabelledStream], run: Run, tmp_path: Path) -> None:
    done = run("eval", "stream", write(tmp_path / "streams.jsonl", streams), *JUDGE, "--out", "out")
    assert done.returncode == 0, done.stderr
    texts = [(tmp_path / "out" / f"report.{kind}").read_text() for kind in ("html", "md", "json")]
    assert not any("nan" in text.lower() for text in texts)
    guarding = [one for one in json.loads(texts[2])["points"] if one["kind"] != "shadow"]
    assert not all(one["best"] for one in guarding)


def test_kept_verdicts_are_those_of_one_threshold(run: Run, tmp_path: Path) -> None:
    command = ["eval", "stream", "--no-frontier", "--verdicts", "kept.jsonl", "--judge", "embedded"]
    assert run(*command).returncode == 0
    other = run(*command, "--judge-options", '{"harmful": 0.99}')
    assert other.returncode == 2
    assert "'embedded' with other options, weights or code" in other.stderr


def test_the_sample_is_played_where_no_file_is_given(run: Run) -> None:
    done = run("eval", "stream", "--no-frontier", "--latency", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# embedded: a guard on labelled streams")
    assert "## When harm is stopped" in done.stdout
    calibrated = run("calibrate", "--target", "100")
    assert calibrated.returncode == 0, calibrated.stderr
    assert "So few streams cannot show it" in calibrated.stdout


def test_calibrate_writes_settings_that_are_taken(run: Run, tmp_path: Path) -> None:
    fit = write(tmp_path / "fit.jsonl", many("ordinary", 50, 4))
    others = [harmless(f"other {n}", "ordinary") for n in range(30)]
    verify = write(tmp_path / "verify.jsonl", [*others, harmful("h", onset=5, word_at=5)])
    files = ("--fit", fit, "--verify", verify)
    done = run("calibrate", *files, *JUDGE, "--target", "20", "--write", "guard.toml", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "threshold on P(level = 1): 0.6001" in done.stdout
    assert GuardConfig.load(tmp_path / "guard.toml").judge_options == {"harmful": 0.6001}
    played = run("eval", "stream", verify, "--config", "guard.toml", "--no-frontier")
    assert "harmful streams aborted: **100.0 %**" in played.stdout
    assert json.loads((tmp_path / "out" / "report.json").read_text())["kept"] is True


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("eval", "stream", "absent.jsonl"), "cannot read the streams in 'absent.jsonl'"),
        (("eval", "stream", "--data", "absent"), "cannot read the streams"),
        (("eval", "stream", "absent.jsonl", "--data", "absent"), "not both"),
        (("eval", "stream", "--judge-options", "[]"), "must be a JSON object"),
        (("eval", "stream", "--judge-options", "{"), "are no JSON"),
        (("eval", "stream", "--judge", "none"), "judge='none'"),
        (("eval", "stream", "--verdicts", "."), "cannot keep verdicts in '.'"),
        (("calibrate", "--fit", "a.jsonl"), "go together"),
        (("calibrate", "--stratum", "none"), "no harmless streams 'none'"),
        (("replay", "absent.jsonl"), "cannot read the recording"),
    ],
)
def test_bad_input_is_said(arguments: tuple[str, ...], says: str, run: Run) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("shieldguard: ")
    assert says in done.stderr.replace("\n", " ")


@pytest.fixture
def recording(run: Run, tmp_path: Path) -> Path:
    done = run("check", "--judge", "tests.scripted:judge", "--record", "one.jsonl", stdin=HARMFUL)
    assert done.returncode == 1, done.stderr
    return tmp_path / "one.jsonl"


def test_replay_shows_what_was_recorded(run: Run, recording: Path) -> None:
    done = run("replay", recording, "--text")
    assert done.returncode == 0, done.stderr
    assert "as it was" in done.stdout
    assert "reasoning 0–27" in done.stdout
    assert "aborted for its risk: 35 characters had come, 0 had left" in done.stdout
    assert "gift card" not in done.stdout
    assert run("replay", recording).stdout == run("replay", recording).stdout


def test_replay_under_another_policy_says_what_would_be(run: Run, recording: Path, tmp_path: Path) -> None:
    lag = run("replay", recording, "--policy", "release=lag", "--policy", "reasoning.harmful=flag", "--json")
    assert lag.returncode == 0, lag.stderr
    plain = json.loads(lag.stdout)
    assert plain["was"]["ended"] == "aborted"
    assert plain["timeline"][-1]["ended"] == "unknown"  # of the answer there is no verdict
    (tmp_path / "guard.toml").write_text('[policy]\nrelease = "shadow"\n')
    shadow = run("replay", recording, "--config", "guard.toml")
    assert "under another policy" in shadow.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--window", "10"), "name a judge to ask"),
        (("--window", "ten"), "neither SHORTEST:LONGEST nor a size"),
        (("--policy", "release"), "has no value"),
        (("--policy", "release=fast"), "release"),
        (("--policy", "nonsense=1"), "nonsense"),
        (("--harmful", "0.5"), "gave no probabilities"),
        (("--stream", "zzz"), "none of the 1 recorded streams"),
    ],
)
def test_what_cannot_be_replayed_is_said(
    arguments: tuple[str, ...], says: str, run: Run, recording: Path
) -> None:
    done = run("replay", recording, *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_replay_asks_a_judge_for_other_windows(run: Run, recording: Path) -> None:
    done = run("replay", recording, "--window", "12", "--judge", "tests.scripted:judge", "--latency", "0.5")
    assert done.returncode == 0, done.stderr
    assert "reasoning 0–12" in done.stdout
    assert "500.0 ms after it was asked" in done.stdout
