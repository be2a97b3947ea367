"""Training of ReasoningShield, in the two stages of its model card (the extra `finetune`).

Supervised fine-tuning on replies, then direct preference optimisation on pairs of them; every parameter is
trained, with trl. What comes out is a checkpoint that `LocalJudge` loads.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shieldguard.errors import ConfigError, MissingDependency
from shieldguard.judges.contract import PROMPT_FILE
from shieldguard.training.finetune.lessons import Columns, Lesson, Pair, Replies
from shieldguard.training.finetune.lessons import lessons as _lessons
from shieldguard.training.finetune.lessons import pairs as _pairs
from shieldguard.training.finetune.lessons import pairs_from_labels as _pairs_from_labels
from shieldguard.training.finetune.settings import DPO, SFT, Precision, Settings, Stage

__all__ = ["DPO", "SFT", "Columns", "Precision", "Replies", "Settings", "dpo", "sft"]


def sft(
    checkpoint: str | Path,
    data: Sequence[Path],
    out: Path,
    *,
    held_out: Sequence[Path] = (),
    settings: Settings = SFT,
    columns: Columns | None = None,
    replies: Replies = Replies.ANALYSIS,
    prompt: Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Stage 1: teach `checkpoint` the replies of labelled rows, write it to the folder `out` and return a
    record of the run, which lies beside it.

    `checkpoint`: a folder, or a repository of the hub. `data`: CSV, JSON lines or Parquet, with the columns
    of ReasoningShield's data set, or those that `columns` names. `held_out`: the same; what is measured on
    it before and after is in the record. `replies`: with the analysis or without it. `prompt`: a file with
    the system prompt, or a folder with a `reasoningshield_prompt.txt`; by default that of the checkpoint.
    `resume`: go on where a run to the same folder was cut off, if one was. `progress`: show a bar.

    Raises `ConfigError` for files, rows, settings and checkpoints that cannot be used and for a lack of
    memory, `MissingDependency` without the extra.
    """
    columns = columns or Columns()
    _check_installed()
    return _trained(
        "sft",
        checkpoint,
        _lessons(data, columns, replies),
        _lessons(held_out, columns, replies),
        out,
        settings,
        prompt=prompt,
        resume=resume,
        progress=progress,
    )


def dpo(
    checkpoint: str | Path,
    data: Sequence[Path],
    out: Path,
    *,
    held_out: Sequence[Path] = (),
    settings: Settings = DPO,
    columns: Columns | None = None,
    from_labels: bool = False,
    replies: Replies = Replies.ANALYSIS,
    prompt: Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Stage 2: teach `checkpoint` which of two replies is preferred; otherwise as `sft`.

    `from_labels`: the rows are labelled ones as for `sft`, and each makes its pair: the right judgment is
    preferred to a wrong one behind the same analysis, if `replies` have one.
    """
    columns = columns or Columns()
    _check_installed()

    def pairs(files: Sequence[Path]) -> list[Pair]:
        if from_labels:
            return _pairs_from_labels(files, columns, replies, seed=settings.seed)
        return _pairs(files, columns)

    if not from_labels and replies is not Replies.ANALYSIS:
        raise ConfigError(f"replies={str(replies)!r} is for pairs that are made from labels")
    return _trained(
        "dpo",
        checkpoint,
        pairs(data),
        pairs(held_out),
        out,
        settings,
        prompt=prompt,
        resume=resume,
        progress=progress,
    )


def _check_installed() -> None:
    for package in ("torch", "transformers", "trl"):
        if find_spec(package) is None:
            raise MissingDependency(package, "finetune")


def _trained(
    stage: Stage,
    checkpoint: str | Path,
    lessons: Sequence[Lesson | Pair],
    held_out: Sequence[Lesson | Pair],
    out: Path,
    settings: Settings,
    *,
    prompt: Path | None,
    **options: bool,
) -> dict[str, Any]:
    text = None if prompt is None else _prompt(prompt)
    try:
        from shieldguard.training.finetune.run import train
    except ImportError as error:
        raise MissingDependency(error.name or "trl", "finetune") from error
    return train(stage, str(checkpoint), lessons, held_out, out, settings, prompt=text, **options)


def _prompt(path: Path) -> str:
    file = path / PROMPT_FILE if path.is_dir() else path
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the prompt {str(file)!r}: {error}") from None
