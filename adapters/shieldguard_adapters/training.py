"""`shieldguard train`: the commands that train judges."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from shieldguard import ConfigError
from shieldguard.training import finetune
from shieldguard.training.finetune import DPO, SFT, Columns, Replies, Settings

train = typer.Typer(help="Train judges.", no_args_is_help=True)

Checkpoint = Annotated[str, typer.Argument(help="The model to begin with: a folder, or its name on the hub.")]
Data = Annotated[list[Path], typer.Option(help=".csv, .jsonl or .parquet; can be repeated.")]
Out = Annotated[Path, typer.Option(help="The folder to write the trained checkpoint to.")]
HeldOut = Annotated[
    list[Path] | None, typer.Option(help="As --data; measured before and after, not trained on.")
]
Prompt = Annotated[
    Path | None,
    typer.Option(help="A file with the system prompt, or a checkpoint's folder; else that of the model."),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        help="What a column is called, as in thought=reasoning: of query, thought, analysis, judgment, "
        "chosen, rejected. Can be repeated."
    ),
]
Reply = Annotated[
    Replies,
    typer.Option(help="What to write: the analysis and the judgment, the judgment alone, or both by turns."),
]
Epochs = Annotated[float, typer.Option(help="Times that the data are gone through.")]
Batch = Annotated[int, typer.Option(help="Rows at once.")]
Accumulation = Annotated[int, typer.Option(help="Batches in a step.")]
LearningRate = Annotated[float, typer.Option(help="Not published; the default is ours.")]
Beta = Annotated[
    float, typer.Option(help="How much a distance from the model before counts. Not published; ours.")
]
MaxLength = Annotated[
    int, typer.Option(help="Tokens of prompt and reply; longer rows are left out and named. Ours.")
]
Seed = Annotated[int, typer.Option(help="Of the order of rows, and of what is drawn.")]
Precision = Annotated[
    str | None,
    typer.Option(help="'bfloat16' or 'float32'; by default the first where the device computes in it."),
]
Device = Annotated[str | None, typer.Option(help="'cuda', 'mps' or 'cpu'; by default the first there is.")]
Optimiser = Annotated[
    str, typer.Option(help="A name that transformers knows; 'adafactor' takes less memory. Ours.")
]
Recompute = Annotated[bool, typer.Option(help="Compute activations twice, which takes far less memory.")]
SaveEvery = Annotated[int, typer.Option(help="Steps between two checkpoints to go on from.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a run to this folder was cut off.")]


@train.command()
def embedded(
    data: Annotated[Path, typer.Option(help="The folder with the labelled traces.")],
    out: Annotated[Path, typer.Option(help="Where to write the weights.")],
    seed: int = 0,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A source to leave out, to measure the judge on it.")
    ] = None,
) -> None:
    """Train the embedded judge on labelled traces."""
    from shieldguard.training.embedded import train

    print(json.dumps(train(data, out, seed=seed, leave_out=leave_out or []), indent=2))


@train.command()
def sft(
    checkpoint: Checkpoint,
    data: Data,
    out: Out,
    held_out: HeldOut = None,
    prompt: Prompt = None,
    column: Column = None,
    replies: Reply = Replies.ANALYSIS,
    epochs: Epochs = SFT.epochs,
    batch: Batch = SFT.batch,
    accumulation: Accumulation = SFT.accumulation,
    learning_rate: LearningRate = SFT.learning_rate,
    max_length: MaxLength = SFT.max_length,
    seed: Seed = SFT.seed,
    precision: Precision = None,
    device: Device = None,
    optimiser: Optimiser = SFT.optimiser,
    recompute: Recompute = SFT.recompute,
    save_every: SaveEvery = SFT.save_every,
    resume: Resume = False,
) -> None:
    """ReasoningShield, stage 1: teach a model the analyses and judgments of labelled thoughts.

    Every parameter is trained. Columns, batch, accumulation, epochs and bfloat16 are those of its model card.
    """
    record = finetune.sft(checkpoint, data, out, **_options(SFT, locals()))
    print(json.dumps(record, indent=2))


@train.command()
def dpo(
    checkpoint: Checkpoint,
    data: Data,
    out: Out,
    held_out: HeldOut = None,
    from_labels: Annotated[
        bool, typer.Option("--from-labels", help="Make the pairs of labelled rows: right against wrong.")
    ] = False,
    prompt: Prompt = None,
    column: Column = None,
    replies: Reply = Replies.ANALYSIS,
    epochs: Epochs = DPO.epochs,
    batch: Batch = DPO.batch,
    accumulation: Accumulation = DPO.accumulation,
    learning_rate: LearningRate = DPO.learning_rate,
    beta: Beta = DPO.beta,
    max_length: MaxLength = DPO.max_length,
    seed: Seed = DPO.seed,
    precision: Precision = None,
    device: Device = None,
    optimiser: Optimiser = DPO.optimiser,
    recompute: Recompute = DPO.recompute,
    save_every: SaveEvery = DPO.save_every,
    resume: Resume = False,
) -> None:
    """ReasoningShield, stage 2: teach a model which of two replies is preferred.

    Every parameter is trained. Columns, batch, accumulation, epochs and bfloat16 are those of its model card.
    """
    options = _options(DPO, locals())
    record = finetune.dpo(checkpoint, data, out, from_labels=from_labels, **options)
    print(json.dumps(record, indent=2))


def _options(settings: Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    """What both commands were given, by the names of their options."""
    names = [field.name for field in fields(Settings) if field.name in given]
    return {
        "settings": replace(settings, **{name: given[name] for name in names}),
        "columns": _columns(given["column"] or []),
        "held_out": given["held_out"] or [],
        "progress": True,
        **{name: given[name] for name in ("prompt", "replies", "resume")},
    }


def _columns(given: list[str]) -> Columns:
    names = dict(one.partition("=")[::2] for one in given)
    if not all(names.values()):
        raise ConfigError(f"--column {given!r}; give NAME=COLUMN, as in thought=reasoning")
    return Columns.named(names)
