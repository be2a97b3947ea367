"""Each example runs, offline, and prints what it is there to show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(name: str) -> str:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_example_has_a_test() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {
        "any_stream.py",
        "openai_client.py",
        "own_judge.py",
    }


def test_any_stream_passes_a_harmless_thought_whole() -> None:
    output = run("any_stream.py")
    thought, _, answer = output.partition("</think>")
    assert thought.startswith("<think>The user asks why")
    assert thought.endswith("the flour's weight.")
    assert answer.startswith("It slows the yeast")
    assert "complete, level 0:" in output


def test_openai_client_stops_the_scam_and_lets_the_bicycle_pass() -> None:
    pytest.importorskip("openai")
    pytest.importorskip("uvicorn")
    scam, bicycle, *_ = run("openai_client.py").split("\n\n")
    assert "A: [Withheld: " in scam
    assert "aborted, highest level 1" in scam
    assert "Northfield fraud department" not in scam
    assert "A: Check four things" in bicycle
    assert "complete, highest level 0" in bicycle


def test_own_judge_redacts_the_card_number() -> None:
    output = run("own_judge.py")
    assert "4111" not in output
    assert "[Withheld" in output
    assert "Yes: it was paid on Tuesday" in output
    assert "[complete: 79 characters of reasoning redacted]" in output
