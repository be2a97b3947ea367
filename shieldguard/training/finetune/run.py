"""One run: a checkpoint is loaded, trained and written again."""

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.training_args import OptimizerNames

from shieldguard.errors import ConfigError, ShieldguardError
from shieldguard.judges.contract import PROMPT_FILE
from shieldguard.judges.local.checkpoint import check, chosen_device, chosen_dtype, loading, prompt_of
from shieldguard.training.finetune import trainers
from shieldguard.training.finetune.lessons import Lesson, Pair
from shieldguard.training.finetune.resuming import Run, fingerprint
from shieldguard.training.finetune.settings import Precision, Settings, Stage
from shieldguard.training.finetune.tokens import encoded

logger = logging.getLogger("shieldguard")

RECORD = "shieldguard_training.json"
# Their names among trl's figures, and ours.
_FIGURES = {
    "eval_loss": "loss",
    "eval_mean_token_accuracy": "token accuracy",
    "eval_logps/chosen": "log-probability of chosen",
    "eval_logps/rejected": "log-probability of rejected",
}


def train(
    stage: Stage,
    checkpoint: str,
    lessons: Sequence[Lesson | Pair],
    held_out: Sequence[Lesson | Pair],
    out: Path,
    settings: Settings,
    *,
    prompt: str | None,
    resume: bool,
    progress: bool,
) -> dict[str, Any]:
    """Train `checkpoint` and write it to `out`, with a record of the run, which is returned."""
    device = _device(settings.device)
    precision = _precision(settings.precision, device)
    _check_optimiser(settings.optimiser)
    identity = {
        "stage": stage,
        "checkpoint": checkpoint,
        "data": fingerprint(lessons),
        **settings.of(stage),
        "precision": precision,
    }
    run = Run.begin(out, identity, resume=resume)
    model, tokenizer = _loaded(checkpoint, device, settings)
    configs = deepcopy((model.config, model.generation_config))  # the trainer has its own wishes
    prompt = prompt_of(checkpoint) if prompt is None else prompt
    examples = encoded(lessons, tokenizer, prompt, settings.max_length)
    unseen = encoded(held_out, tokenizer, prompt, settings.max_length) if held_out else []
    began = time.monotonic()
    watch = trainers.Watch(shown=progress)
    with _enough_memory(device), _quiet():
        options = trainers.options(
            settings, folder=run.folder, device=device.type, bfloat16=precision == "bfloat16"
        )
        # Theirs is another object, as they may give it another padding token.
        theirs = transformers.AutoTokenizer.from_pretrained(checkpoint)
        if stage == "sft":
            trainer = trainers.sft(model, theirs, examples, unseen, **options)
        else:
            trainer = trainers.dpo(model, theirs, examples, unseen, beta=settings.beta, **options)
        trainer.add_callback(watch)
        before = _figures(trainer.evaluate()) if unseen else None
        last = run.last()
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        after = _figures(trainer.evaluate()) if unseen else None
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        record = {
            **identity,
            "device": str(device),
            "rows": {"given": len(lessons), "too long": len(lessons) - len(examples)},
            "steps": trainer.state.global_step,
            "resumed at step": watch.began or None,
            "loss": {"first": losses[0], "last": losses[-1]},
            "held out": {"rows": len(unseen), "before": before, "after": after} if unseen else None,
            "seconds": round(time.monotonic() - began, 1),
            "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        }
        trained = trainer.accelerator.unwrap_model(trainer.model)
        trained.config, trained.generation_config = configs
        _save(out, run, trained, tokenizer, prompt, precision, record)
    run.end()
    return record


def _device(name: str | None) -> torch.device:
    device = chosen_device(name)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("training runs in one process; start it without accelerate launch or torchrun")
    if device.type == "cuda" and torch.cuda.device_count() > 1:
        raise ConfigError(
            f"training runs on one GPU, and {torch.cuda.device_count()} are visible; "
            "choose one with CUDA_VISIBLE_DEVICES=0"
        )
    return device


def _precision(given: Precision | None, device: torch.device) -> Precision:
    able = device.type != "mps" and chosen_dtype(None, device) == "bfloat16"
    if given == "bfloat16" and not able:
        raise ConfigError(f"{str(device)!r} does not compute in bfloat16; give precision='float32'")
    if given is None and not able:
        logger.warning("shieldguard: %r does not compute in bfloat16; this run is in float32", str(device))
    return given or ("bfloat16" if able else "float32")


def _check_optimiser(name: str) -> None:
    known = [str(one.value) for one in OptimizerNames]
    if name not in known:
        raise ConfigError(f"optimiser={name!r}; choose one of {', '.join(map(repr, known))}")


def _loaded(checkpoint: str, device: torch.device, settings: Settings) -> tuple[Any, Any]:
    with loading(checkpoint, device):
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=torch.float32, output_loading_info=True
        )
        model, found = loaded
        check(checkpoint, model, found)
    if settings.max_length > (most := int(model.config.max_position_embeddings)):
        raise ConfigError(f"max_length={settings.max_length!r}; the model was made for {most} tokens at most")
    return model, tokenizer


def _figures(found: dict[str, float]) -> dict[str, float]:
    figures = {ours: round(found[theirs], 4) for theirs, ours in _FIGURES.items() if theirs in found}
    if "eval_logps/chosen" in found:
        figures["margin"] = round(found["eval_logps/chosen"] - found["eval_logps/rejected"], 4)
    return figures


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and warnings of transformers, between which ours would not be seen."""
    bars: Any = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if shown:
            bars.enable_progress_bar()


@contextmanager
def _enough_memory(device: torch.device) -> Iterator[None]:
    """Raises `ConfigError` where there is not."""
    try:
        yield
    except ShieldguardError:
        raise
    except (MemoryError, RuntimeError) as error:  # torch's own are of the latter kind
        if not (isinstance(error, MemoryError) or "memory" in str(error).lower()):
            raise
        raise ConfigError(
            f"not enough memory on {str(device)!r}: {error}; take a lower max_length, batch=1 and twice the "
            "accumulation, optimiser='adafactor' or a smaller model, and recompute=True; a run that had "
            "checkpoints can be resumed where those settings stay"
        ) from error


def _save(
    out: Path, run: Run, model: Any, tokenizer: Any, prompt: str, precision: Precision, record: dict[str, Any]
) -> None:
    """Write all files aside, then put each in its place."""
    folder = run.folder / "model"
    model.to(getattr(torch, precision)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / PROMPT_FILE).write_text(prompt, encoding="utf-8", newline="")
    (folder / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
    for file in folder.iterdir():
        file.replace(out / file.name)
