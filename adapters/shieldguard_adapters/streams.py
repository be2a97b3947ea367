"""`shieldguard eval stream` and `shieldguard calibrate`: a guard on labelled streams."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from shieldguard import ConfigError
from shieldguard.config import GuardConfig, load_judge, without_secrets
from shieldguard.evaluation import calibration_report
from shieldguard.evaluation.asking import StoredVerdicts
from shieldguard.evaluation.calibration import calibrate
from shieldguard.evaluation.document import Document, html, markdown
from shieldguard.evaluation.labelled import (
    ORDINARY,
    LabelledStream,
    fingerprint,
    halves,
    load_files,
    load_folder,
)
from shieldguard.evaluation.moderation.identity import identity
from shieldguard.evaluation.stream_evaluation import evaluate
from shieldguard.evaluation.stream_report import report
from shieldguard.evaluation.streams import Pace, all_windows
from shieldguard_adapters.choosing import chosen_judge, json_object, write_reports
from shieldguard_adapters.progress import stages

Files = Annotated[
    list[Path] | None, typer.Argument(help="JSON lines (may end in .gz); none for --data, or a small sample.")
]
Data = Annotated[Path | None, typer.Option(help="A folder with reasoning/ and benign/.")]
Judge = Annotated[str | None, typer.Option(help="'embedded', 'local', …, or 'package.module:factory'.")]
JudgeOptions = Annotated[str, typer.Option(help="The judge's options, as JSON.")]
Config = Annotated[Path | None, typer.Option(help="A TOML file with the guard's settings.")]
Out = Annotated[Path | None, typer.Option(help="A folder for report.html, report.md and report.json.")]
Kept = Annotated[
    Path | None, typer.Option(help="A file that keeps verdicts from run to run (hashes, no text).")
]


def stream(
    files: Files = None,
    data: Data = None,
    split: Annotated[
        str, typer.Option(help="Of --data and of the sample: 'train', 'val' or 'test'.")
    ] = "test",
    judge: Judge = None,
    judge_options: JudgeOptions = "{}",
    config: Config = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, to count delays (and onsets) in tokens.")
    ] = None,
    confirm: Annotated[str | None, typer.Option(help="A second judge, for a cascade.")] = None,
    confirm_options: Annotated[str, typer.Option(help="Its options, as JSON.")] = "{}",
    chunk: Annotated[int, typer.Option(min=1, help="Characters in a chunk.")] = 16,
    speed: Annotated[float, typer.Option(min=1, help="Characters a second.")] = 240,
    latency: Annotated[
        float | None, typer.Option(min=0, help="Seconds that a verdict takes; as measured, if not given.")
    ] = None,
    frontier: Annotated[bool, typer.Option(help="Play other policies, too.")] = True,
    of_each: Annotated[
        int, typer.Option(min=0, help="Streams of each harmless stratum for that; 0 for all.")
    ] = 200,
    limit: Annotated[int | None, typer.Option(min=1, help="Take so many streams at most.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Windows that are judged at a time.")] = 8,
    lag: Annotated[
        float, typer.Option(min=0, help="Seconds in which verdicts are to come, to count streams at once.")
    ] = 0.25,
    verdicts: Kept = None,
    out: Out = None,
) -> None:
    """Play labelled traces through the guard, in virtual time: what is stopped, when, and at what cost."""
    settings = GuardConfig.load(config)
    name, given = chosen_judge(settings, judge, _options(judge_options))
    asked = StoredVerdicts(load_judge(name, **given), verdicts, identity=identity(name, given))
    second = None if confirm is None else StoredVerdicts(load_judge(confirm, **_options(confirm_options)))
    streams = _streams(files, data, split, tokenizer)
    streams = streams if limit is None else streams[:: max(1, -(-len(streams) // limit))]
    with stages() as stage:
        found = evaluate(
            streams,
            asked,
            settings.policy,
            settings.build_windower(),
            pace=Pace(chunk=chunk, speed=speed),
            latency=latency,
            with_frontier=frontier,
            of_each=of_each or None,
            confirm=second,
            at_once=concurrency,
            lag=lag,
            about=_judge(name, given)
            | ({} if confirm is None else _judge(confirm, _options(confirm_options), "confirming judge"))
            | _data("data", files, data, split, streams),
            stage=stage,
        )
    write(report(found), found.as_json(), out)


def calibrate_(
    data: Data = None,
    fit_split: Annotated[str, typer.Option(help="Of --data or the sample: the split to choose on.")] = "test",
    verify_split: Annotated[
        str, typer.Option(help="Of --data or the sample: the split to verify on.")
    ] = "test",
    fit: Annotated[list[Path] | None, typer.Option(help="Streams to choose on, in place of --data.")] = None,
    verify: Annotated[list[Path] | None, typer.Option(help="Streams to verify on.")] = None,
    target: Annotated[float, typer.Option(min=0, max=1000, help="False aborts of 1,000 streams.")] = 5.0,
    stratum: Annotated[str, typer.Option(help="The harmless streams to count.")] = ORDINARY,
    judge: Judge = None,
    judge_options: JudgeOptions = "{}",
    config: Config = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, to count delays (and onsets) in tokens.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Windows that are judged at a time.")] = 8,
    verdicts: Kept = None,
    settings_file: Annotated[
        Path | None, typer.Option("--write", help="A TOML file to write, for --config.")
    ] = None,
    out: Out = None,
) -> None:
    """Choose a judge's threshold for so many false aborts, and verify it on other streams.

    Where both splits are the same, one half of it, by question, is to choose on and the other to verify on.
    Choose on no stream that the judge was trained on, as the embedded one was on 'train' and 'val': it looks
    better there than it is.
    """
    settings = GuardConfig.load(config)
    name, given = chosen_judge(settings, judge, _options(judge_options))
    asked = StoredVerdicts(load_judge(name, **given), verdicts, identity=identity(name, given))
    windower = settings.build_windower()
    if (fit is None) != (verify is None):
        raise ConfigError("--fit and --verify go together: the streams to choose on, and others")
    if fit is None and fit_split == verify_split:
        chosen_on, verified_on = halves(_streams(None, data, fit_split, tokenizer))
    else:
        chosen_on = _streams(fit, data if fit is None else None, fit_split, tokenizer)
        verified_on = _streams(verify, data if fit is None else None, verify_split, tokenizer)
    with stages() as stage:
        all_streams = [one for one in chosen_on if one.stratum == stratum] + verified_on
        windows = all_windows([replace(one, answer="") for one in all_streams], windower)
        asked.prepare(windows, at_once=concurrency, told=stage("judging windows", len(windows)))
        found = calibrate(
            asked,
            chosen_on,
            verified_on,
            target=target,
            stratum=stratum,
            policy=settings.policy,
            windower=windower,
            about=_judge(name, given)
            | _data("chosen on", fit, data, fit_split, chosen_on)
            | _data("verified on", verify, data, verify_split, verified_on),
        )
    write(calibration_report.report(found), calibration_report.plain(found), out)
    print(calibration_report.verdict(found))
    if settings_file is not None:
        _write_settings(settings_file, calibration_report.settings(found, name, given))


def _write_settings(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the settings to {str(file)!r}: {error}") from None
    made = GuardConfig.load(file)
    load_judge(made.judge, **made.judge_options)
    print(f"settings: {file}")


def write(document: Document, plain: str, folder: Path | None) -> None:
    """Print a report, or write it in three formats and print where."""
    if folder is None:
        print(markdown(document))
        return
    written = write_reports(folder, {"html": html(document), "md": markdown(document), "json": plain})
    for tile in document.tiles:
        print(f"{tile.name}: {tile.value} ({tile.says})")
    print(written)


def _options(given: str) -> dict[str, Any]:
    return json_object(given, "the options", "are")


def _streams(
    files: Sequence[Path] | None, data: Path | None, split: str, tokenizer: Path | None
) -> list[LabelledStream]:
    if files and data:
        raise ConfigError(f"give files or --data, not both: {[str(file) for file in files]!r}, {str(data)!r}")
    if data is not None:
        return load_folder(data, split, tokenizer)
    if files:
        return load_files(files, tokenizer)
    return load_files([SAMPLE], tokenizer, split=split)


def _judge(name: str, options: Mapping[str, Any], what: str = "judge") -> dict[str, str]:
    return {what: name, f"options of the {what}": json.dumps(without_secrets(options), default=str)}


def _data(
    what: str, files: Sequence[Path] | None, data: Path | None, split: str, streams: Sequence[LabelledStream]
) -> dict[str, str]:
    if files:
        named = ", ".join(file.name for file in files)
    else:
        named = f"{data.name if data else 'the sample'}, {split}"
    return {
        what: f"{named}: {len(streams)} streams, SHA-256 of texts and labels {fingerprint(streams)[:16]}…"
    }


SAMPLE = Path(__file__).with_name("sample_streams.jsonl")
