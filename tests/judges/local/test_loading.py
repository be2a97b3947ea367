"""Checkpoints that cannot be used, and settings that cannot work: each says what to do."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from shieldguard import ConfigError
from shieldguard.config import load_judge
from shieldguard.judges.contract import FALLBACK_PROMPT
from shieldguard.judges.local import LocalJudge
from tests.judges.local.tiny import PROMPT

Broken = Callable[[Path], object]


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def _not_numbers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


BROKEN: dict[str, tuple[Broken, str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "cannot load the checkpoint"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot load the checkpoint"),
    "half the weights": (_truncated, "cannot load the checkpoint"),
    "a layer too many": (lambda folder: _config(folder, num_hidden_layers=3), "lacks 9 weights"),
    "another shape": (lambda folder: _config(folder, intermediate_size=320), "cannot load the checkpoint"),
    "weights that are no numbers": (_not_numbers, "cannot be run .* computes no numbers"),
    "no kind": (lambda folder: _config(folder, model_type="wizard"), "cannot load the checkpoint"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "cannot load the checkpoint"),
    "a tokenizer that is none": (
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        "cannot load the checkpoint",
    ),
    "no chat template": (lambda folder: (folder / "chat_template.jinja").unlink(), "chat template"),
    "a chat template that is none": (
        lambda folder: (folder / "chat_template.jinja").write_text("{{ nothing.of.this }}"),
        "chat template",
    ),
    "no special tokens": (
        lambda folder: (folder / "chat_template.jinja").write_text(
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        ),
        "special tokens",
    ),
    "two beginnings": (
        lambda folder: (folder / "chat_template.jinja").write_text(
            "{{ bos_token }}" + (folder / "chat_template.jinja").read_text()
        ),
        "2 begin-of-text tokens",
    ),
    "a prompt in no encoding": (
        lambda folder: (folder / "reasoningshield_prompt.txt").write_bytes(b"\xff\xfe\xfa"),
        "reasoningshield_prompt.txt",
    ),
}


@pytest.mark.parametrize(("broken", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_checkpoint_is_refused(copied: Path, broken: Broken, says: str) -> None:
    broken(copied)
    with pytest.raises(ConfigError, match=says):
        LocalJudge(copied)


def test_a_checkpoint_that_is_nowhere_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a folder with config") as caught:
        LocalJudge(tmp_path / "nowhere")
    assert "nowhere" in str(caught.value)


def test_without_a_network_a_name_of_the_hub_says_so(tmp_path: Path) -> None:
    code = "from shieldguard.judges.local import LocalJudge; LocalJudge('ReasoningShield/ReasoningShield-1B')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    last = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert any(
        "ConfigError: cannot load the checkpoint 'ReasoningShield/ReasoningShield-1B'" in x for x in last
    )
    assert "which needs a network" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "slow"},
        {"dtype": "float7"},
        {"device": "abacus"},
        {"device": "cuda:99"},
        {"context": 60},
        {"context": 99_999},
        {"memory": 1000},
        {"queue": 0},
        {"max_batch": 0},
        {"step_tokens": 1},
        {"max_analysis": 0},
        {"potential": 2.0},
        {"mode": "full", "context": 512},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(checkpoint: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(list(options.values())[-1])):
        LocalJudge(checkpoint, **options)


def test_the_prompt_is_that_of_the_checkpoint_else_our_own(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judge = LocalJudge(copied)
    assert judge._checkpoint.prompt == PROMPT
    judge.close()
    assert not caplog.records
    (copied / "reasoningshield_prompt.txt").unlink()
    judge = LocalJudge(copied)
    assert judge._checkpoint.prompt == FALLBACK_PROMPT
    assert "a prompt of our own is used" in caplog.text
    judge.close()


def test_the_prompt_is_computed_once_and_its_date_stays(checkpoint: Path) -> None:
    judge = LocalJudge(checkpoint)
    assert judge.usage.tokens == len(judge._layout.head)
    assert "26 Jul 2024" in judge._checkpoint.tokenizer.decode(judge._layout.head)
    judge.close()


def test_a_judge_has_its_name_in_a_configuration(checkpoint: Path) -> None:
    judge = load_judge("local", checkpoint=str(checkpoint), mode="full", name="shield")
    assert isinstance(judge, LocalJudge)
    assert judge.name == "shield"
    judge.close()
    with pytest.raises(ConfigError, match="does not take the options"):
        load_judge("local", checkpoint=str(checkpoint), wisdom=3)
    with pytest.raises(ConfigError, match="does not take the options"):
        load_judge("local")
