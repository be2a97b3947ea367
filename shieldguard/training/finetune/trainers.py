"""trl's trainers, fed with tokens that are ready."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from shieldguard.errors import ConfigError
from shieldguard.training.finetune.settings import Settings
from shieldguard.training.finetune.tokens import Example

_WARM_UP = 0.03  # of the steps


class _Silent:
    def _send_telemetry(self) -> None:
        """Where trl would tell its makers of the run."""


class _Sft(_Silent, SFTTrainer):
    pass


class _Dpo(_Silent, DPOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        """Where trl would tokenise text; what it parses as special tokens a judge does not."""
        return dataset


def sft(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    **options: Any,
) -> Any:
    def dataset(examples: Sequence[Example]) -> Dataset | None:
        rows = [
            {
                "input_ids": example.prompt + reply,
                "labels": [-100] * len(example.prompt) + reply,
            }
            for example in examples
            for reply in example.replies
        ]
        return Dataset.from_list(rows) if rows else None

    return _made(
        _Sft(
            model=model,
            processing_class=tokenizer,
            args=SFTConfig(max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, **options),
            train_dataset=dataset(examples),
            eval_dataset=dataset(held_out),
        )
    )


def dpo(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    *,
    beta: float,
    **options: Any,
) -> Any:
    def dataset(examples: Sequence[Example]) -> Dataset | None:
        rows = [
            {"prompt_ids": example.prompt, "chosen_ids": chosen, "rejected_ids": rejected}
            for example in examples
            for chosen, rejected in [example.replies]
        ]
        return Dataset.from_list(rows) if rows else None

    # What the model said before is computed once, so that only one model is in memory.
    return _made(
        _Dpo(
            model=model,
            processing_class=tokenizer,
            args=DPOConfig(max_length=None, beta=beta, precompute_ref_log_probs=True, **options),
            train_dataset=dataset(examples),
            eval_dataset=dataset(held_out),
        )
    )


def options(settings: Settings, *, folder: Path, device: str, bfloat16: bool) -> dict[str, Any]:
    """What both of trl's trainers are told."""
    return {
        "output_dir": str(folder),
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.batch,
        "per_device_eval_batch_size": 1,  # so that a mean of batches is one of rows
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": _WARM_UP,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": settings.optimiser,
        "seed": settings.seed,
        "bf16": bfloat16,
        "use_cpu": device == "cpu",
        "gradient_checkpointing": settings.recompute,
        "dataloader_pin_memory": device == "cuda",
        "save_steps": settings.save_every,
        "save_total_limit": 1,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # `Watch` looks for them
        "log_level": "error",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _made(trainer: Any) -> Any:
    trainer.remove_callback(PrinterCallback)
    return trainer


class Watch(TrainerCallback):
    """Shows how far a run is, on standard error, and ends one that computes no numbers.

    `began`: the step at which it began. Raises `ConfigError` for a loss that is no number.
    """

    def __init__(self, *, shown: bool) -> None:
        self.began = 0
        self._shown = shown
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.began = state.global_step
        self._bar = tqdm(
            total=state.max_steps,
            initial=self.began,
            desc="training",
            unit="step",
            disable=not self._shown,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.update()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" not in logs:
            return
        loss, gradient = float(logs["loss"]), float(logs["grad_norm"])
        if not math.isfinite(loss + gradient):
            raise ConfigError(
                f"at step {state.global_step} the loss is {loss!r} and its gradient {gradient!r}, of which "
                f"nothing can be learnt; give a lower learning rate than {args.learning_rate!r}"
            )
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.close()
