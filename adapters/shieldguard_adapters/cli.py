"""The `shieldguard` command.

Exit codes: 0 done, and nothing harmful found; 1 `check` found harm; 2 something could not be done, said on
standard error.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio

from shieldguard import (
    Answer,
    ConfigError,
    End,
    Guard,
    MissingDependency,
    Observer,
    Reasoning,
    RiskLevel,
    ShieldguardError,
    SourceEvent,
    StreamReport,
)
from shieldguard.config import GuardConfig, load_judge
from shieldguard.recording import Recorder
from shieldguard_adapters.choosing import chosen_judge, json_object
from shieldguard_adapters.traces import Trace, load_trace, load_traces

try:
    import typer
    from rich.console import Console
except ImportError as error:
    print(MissingDependency(error.name or "typer", "cli"), file=sys.stderr)
    raise SystemExit(2) from None

from shieldguard.evaluation.moderation import QA, QT
from shieldguard_adapters import moderating, replaying, streams
from shieldguard_adapters.training import train

app = typer.Typer(
    help="Streaming guardrails for the reasoning of large language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
evaluate = typer.Typer(help="Measure judges.", no_args_is_help=True)
bench = typer.Typer(help="Measure what judging costs.", no_args_is_help=True)
app.add_typer(train, name="train")
app.add_typer(evaluate, name="eval")
app.add_typer(bench, name="bench")

C = TypeVar("C", bound=GuardConfig)

Judge = Annotated[
    str | None,
    typer.Option(help="'embedded', 'local', 'remote', …, or 'package.module:factory' for one of your own."),
]
JudgeOptions = Annotated[str, typer.Option(help="The judge's options, as JSON.")]
Config = Annotated[Path | None, typer.Option(help="A TOML file with the guard's settings.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a trace, for machines.")]
Record = Annotated[
    Path | None, typer.Option(help="A file to record the stream to, with its text, for `shieldguard replay`.")
]
Data = Annotated[Path, typer.Option(help="The folder with the labelled traces.")]


@app.command()
def demo(
    file: Annotated[str | None, typer.Option(help="A trace of your own, '-' for standard input.")] = None,
    judge: Judge = None,
    judge_options: JudgeOptions = "{}",
    config: Config = None,
    pace: Annotated[float, typer.Option(min=0, help="Characters a second; 0 for as fast as can be.")] = 160,
    record: Record = None,
    as_json: Json = False,
) -> None:
    """Guard a model that thinks aloud: a local server recites, the real OpenAI client reads."""
    from shieldguard_adapters.demo.play import play
    from shieldguard_adapters.demo.scripts import ALL
    from shieldguard_adapters.demo.show import Screen

    traces = [load_trace(file)] if file else list(ALL)
    with _recorder(record) as observers:
        play(traces, _guard(config, judge, judge_options, observers), Screen(Console(), as_json), pace=pace)


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="A trace: JSON or text; '-' for standard input.")] = "-",
    query: Annotated[str | None, typer.Option(help="What the model was asked.")] = None,
    level: Annotated[float, typer.Option(help="The level from which a trace counts as harmful.")] = 1.0,
    judge: Judge = None,
    judge_options: JudgeOptions = "{}",
    config: Config = None,
    record: Record = None,
    as_json: Json = False,
) -> None:
    """Judge one trace, window by window, and exit with 1 if it is harmful."""
    from shieldguard_adapters.demo.show import verdict_line
    from shieldguard_adapters.summaries import summary

    if level not in (RiskLevel.POTENTIAL, RiskLevel.HARMFUL):
        raise typer.BadParameter(f"--level must be 0.5 or 1, not {level!r}")
    trace = load_trace(file)
    asked = trace if query is None else replace(trace, query=query)
    with _recorder(record) as observers:
        report = _check(asked, _guard(config, judge, judge_options, observers))
    console = Console()
    if as_json:
        console.print_json(json.dumps(summary(report)), indent=None)
    else:
        for window in report.windows:
            console.print(verdict_line(window))
        console.print(f"level {report.level}: {trace.name}")
    if report.failures:
        raise ShieldguardError(f"{report.failures} windows had no verdict; the trace counts as unjudged")
    if report.level is not None and report.level >= level:
        raise typer.Exit(1)


app.command()(replaying.replay)
evaluate.command("stream")(streams.stream)
app.command("calibrate")(streams.calibrate_)


@app.command()
def serve(
    upstream: Annotated[
        str | None, typer.Option(help="The model server's URL; for several, see the configuration.")
    ] = None,
    judge: Judge = None,
    judge_options: JudgeOptions = "{}",
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="A PEM file; with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="A PEM file; with --tls-certificate.")] = None,
) -> None:
    """Guard a model server: a proxy that speaks its API, for clients in any language."""
    from shieldguard_adapters.proxy.serving import run
    from shieldguard_adapters.proxy.settings import ServeConfig

    flags = {
        "upstreams": [{"url": upstream}] if upstream else None,
        "host": host,
        "port": port,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
    }
    settings = _settings(ServeConfig.load(config), judge, judge_options)
    run(settings.with_flags({name: flag for name, flag in flags.items() if flag is not None}))


@app.command()
def key() -> None:
    """Make a key for a client of the proxy, and the hash that its configuration keeps of it."""
    from shieldguard_adapters.proxy.keys import new_key

    made, kept = new_key()
    print(f"key:    {made}\nsha256: {kept}")


@evaluate.command("screen")
def eval_screen(
    data: Data,
    judge: Judge = None,
    judge_options: JudgeOptions = "{}",
    left_out: Annotated[
        list[str] | None,
        typer.Option(help="Only labelled traces of this source, of every split; can be repeated."),
    ] = None,
) -> None:
    """Measure a judge, window by window, on labelled and on harmless traces."""
    from shieldguard.evaluation import screen, screen_report

    asked = load_judge(judge or "embedded", **json_object(judge_options))
    if left_out:
        print(screen_report.left_out_table(screen.evaluate_left_out(asked, data, left_out)))
    else:
        print(screen_report.markdown(screen.evaluate(asked, data)))


@evaluate.command("agreement")
def eval_agreement(
    checkpoint: Annotated[str, typer.Argument(help="ReasoningShield: a folder, or its name on the hub.")],
    data: Annotated[Path, typer.Option(help="Traces: JSON lines with 'query' and 'reasoning', or gzipped.")],
    points: Annotated[int, typer.Option(min=1, help="At how many places of a trace to ask.")] = 1,
    judge_options: Annotated[str, typer.Option(help="Other options of the local judge, as JSON.")] = "{}",
) -> None:
    """Compare verdicts read from probabilities (fast) with those behind a written analysis (full)."""
    from shieldguard.evaluation.agreement import compare

    traces = [(trace.query, trace.reasoning) for trace in load_traces(data)]
    options = _options(judge_options)
    from shieldguard.judges.local import LocalJudge

    fast = load_judge("local", checkpoint=checkpoint, **options)
    assert isinstance(fast, LocalJudge)
    agreement = anyio.run(lambda: compare(fast, fast.in_mode("full"), traces, points=points))
    print(agreement.markdown())


evaluate.command("qt")(moderating.command(QT))
evaluate.command("qa")(moderating.command(QA))


@bench.command("judge")
def bench_judge(
    shape: Annotated[str, typer.Option(help="Of the random weights: '1B', '3B', or 'tiny'.")] = "1B",
    tokens: Annotated[
        list[int] | None, typer.Option(min=1, help="Of thought, 1024; can be repeated.")
    ] = None,
    window: Annotated[int, typer.Option(min=1, help="Tokens in a window.")] = 128,
    streams: Annotated[int, typer.Option(min=1, help="Streams at once, in row D.")] = 8,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the processor, for torch.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A real one, in place of random weights.")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="A GGUF file with Llama-3's vocabulary.")] = None,
) -> None:
    """Compare the model card's recipe, re-reading everything, and the local judge, alone and with many."""
    from shieldguard.evaluation.judge_cost import measure
    from shieldguard.evaluation.random_weights import make

    if checkpoint is not None and tokenizer is not None:
        raise typer.BadParameter("--tokenizer is for random weights; a checkpoint has its own")
    with tempfile.TemporaryDirectory() as folder:
        if checkpoint is None:
            checkpoint = Path(folder)
            make(checkpoint, shape, tokenizer)
            print(f"Random weights of the shape {shape!r}: costs are real, verdicts are not.")
        for count in tokens or [1024]:
            costs = measure(checkpoint, tokens=count, window=window, streams=streams, threads=threads)
            print(f"\n{costs.markdown()}", flush=True)


def _options(given: str) -> dict[str, Any]:
    """Those of the local judge but for what the comparison itself chooses."""
    options = json_object(given)
    chosen = {"checkpoint", "mode", "on_analysis"}
    if chosen & options.keys():
        raise ConfigError(f"--judge-options {given!r} must be a JSON object without {sorted(chosen)!r}")
    return options


def _guard(config: Path | None, judge: str | None, options: str, observers: Sequence[Observer]) -> Guard:
    return _settings(GuardConfig.load(config), judge, options).build(observers=observers)


@contextmanager
def _recorder(file: Path | None) -> Iterator[Sequence[Observer]]:
    if file is None:
        yield ()
        return
    recorder = Recorder(file)
    try:
        yield (recorder,)
    finally:
        recorder.close()


def _settings(settings: C, judge: str | None, options: str) -> C:
    """The settings, with this judge instead of theirs, or more options of it."""
    name, given = chosen_judge(settings, judge, json_object(options))
    return settings.model_copy(update={"judge": name, "judge_options": given})


def _check(trace: Trace, guard: Guard) -> StreamReport:
    events: list[SourceEvent] = [Reasoning(trace.reasoning), Answer(trace.answer), End()]
    with guard.stream_sync(events, query=trace.query) as stream:
        for _ in stream:
            pass
    return stream.report


def main() -> None:
    try:
        app()
    except ShieldguardError as error:
        print(f"shieldguard: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
