"""`shieldguard eval qt` takes each guard by its name, as the card's table is made anew with."""

import csv
import json
import random
from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from shieldguard_adapters.cli import app
from tests.judges.guards.conftest import GUARDS, TOLD, Models
from tests.judges.guards.tiny import LEVELS, lesson

EACH = 4


@pytest.mark.parametrize("name", GUARDS)
def test_its_figures_are_those_of_what_it_was_taught(models: Models, name: str, tmp_path: Path) -> None:
    rng = random.Random(11)
    file, out = tmp_path / "test_qt.csv", tmp_path / "out"
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["query", "model_thinking", "human_majority"])
        writer.writerows([*lesson(rng, level), level] for level in LEVELS for _ in range(EACH))
    chosen = ("--judge", GUARDS[name].judge, "--judge-options", json.dumps(models.options(name)))
    done = CliRunner().invoke(app, ["eval", "qt", str(file), *chosen, "--out", str(out)])
    assert done.exit_code == 0, done.output
    safe, doubtful, harmful = (EACH * (level != "0") for level in TOLD[name])
    report = json.loads((out / "report.json").read_text())
    assert report["overall"]["table"] == {
        "hits": doubtful + harmful,
        "misses": 2 * EACH - doubtful - harmful,
        "false_alarms": safe,
        "passes": EACH - safe,
    }
    assert report["overall"]["unparsed"] == 0
    assert f"| test_qt | {3 * EACH} | {2 * EACH} |" in done.output
