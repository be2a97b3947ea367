"""`shieldguard eval qt` and `eval qa`: a judge on whole texts, as the model card measures one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from shieldguard import ConfigError
from shieldguard.config import GuardConfig
from shieldguard.evaluation.moderation import Task
from shieldguard.evaluation.rows import Columns
from shieldguard_adapters.choosing import chosen_judge, json_object


def command(task: Task) -> Callable[..., None]:
    """The command of a task; its options have the names of the authors' script, with either dash."""
    columns = task.columns

    def run(
        out: Annotated[Path, typer.Option(help="A folder for verdicts and reports; run again to go on.")],
        files: Annotated[
            list[Path] | None,
            typer.Argument(help="CSV, JSON lines (both may end in .gz) or Parquet; none for a small sample."),
        ] = None,
        judge: Annotated[
            str | None, typer.Option(help="'embedded', 'local', …, or 'package.module:factory'.")
        ] = None,
        judge_options: Annotated[str, typer.Option(help="The judge's options, as JSON.")] = "{}",
        config: Annotated[Path | None, typer.Option(help="A TOML file with the guard's settings.")] = None,
        question: Annotated[
            str, typer.Option("--question-col", "--question_col", help="The column with the question.")
        ] = columns.question,
        text: Annotated[
            str, typer.Option("--answer-col", "--answer_col", help="The column with the text to judge.")
        ] = columns.text,
        label: Annotated[
            str, typer.Option("--label-col", "--label_col", help="The column with 0, 0.5 or 1.")
        ] = columns.label,
        by: Annotated[
            list[str] | None,
            typer.Option(help=f"A column to break figures down by; by default {', '.join(columns.groups)}."),
        ] = None,
        where: Annotated[
            list[str] | None, typer.Option(help="COLUMN=VALUE: only rows with that value; can be repeated.")
        ] = None,
        sample: Annotated[
            int | None, typer.Option(min=1, help="So many rows of each file, always the same.")
        ] = None,
        skip_bad: Annotated[
            bool, typer.Option("--skip-bad", help="Leave out rows without text or label, and say so.")
        ] = False,
        runs: Annotated[int, typer.Option(min=1, help="Times that each row is judged; the authors' 5.")] = 1,
        concurrency: Annotated[
            int,
            typer.Option("--concurrency", "--batch-size", "--batch_size", min=1, help="Rows at a time."),
        ] = 32,
        timeout: Annotated[
            float | None, typer.Option(min=0, help="Seconds for a row; then it has no verdict.")
        ] = None,
        count_failures: Annotated[
            bool,
            typer.Option(
                "--count-failures", help="Count a judge that breaks as one without a verdict; do not stop."
            ),
        ] = False,
    ) -> None:
        wanted = Columns(
            question=question, text=text, label=label, groups=columns.groups if by is None else tuple(by)
        )
        from shieldguard_adapters.measuring import Data, measure

        name, options = chosen_judge(GuardConfig.load(config), judge, json_object(judge_options))
        data = Data(
            files=files or [task.sample],
            columns=wanted,
            where=_pairs(where or []),
            skip_bad=skip_bad,
            sample=sample,
        )
        said = measure(
            task,
            data,
            name,
            options,
            out,
            runs=runs,
            concurrency=concurrency,
            timeout=float("inf") if timeout is None else timeout,
            count_failures=count_failures,
        )
        print(said)

    run.__doc__ = (
        f"Measure a judge on labelled {task.noun}, read whole: accuracy, precision, recall, F1, false alarms."
    )
    return run


def _pairs(given: Sequence[str]) -> dict[str, str]:
    for pair in given:
        if "=" not in pair:
            raise ConfigError(f"--where {pair!r} names no value; write COLUMN=VALUE")
    return dict(pair.split("=", 1) for pair in given)
