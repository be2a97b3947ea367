"""What `shieldguard eval stream` found, in words, tables and charts."""

from collections.abc import Iterator

from shieldguard.evaluation.capacity import MOST, PROMPT, Capacity
from shieldguard.evaluation.document import Document, Section, Table, Tile
from shieldguard.evaluation.stream_evaluation import Evaluation
from shieldguard.evaluation.stream_figures import Spread
from shieldguard.evaluation.stream_harm import beside, detection, timeliness
from shieldguard.evaluation.stream_policies import compounding, frontier
from shieldguard.evaluation.stream_wording import STRATA, in_order, milliseconds, per_thousand, percent


def report(found: Evaluation) -> Document:
    return Document(
        over="a guard on labelled streams",
        title=found.judge,
        lead=_lead(found),
        tiles=list(_tiles(found)),
        sections=list(_sections(found)),
    )


def _lead(found: Evaluation) -> str:
    pace = found.pace
    latency = "as measured" if found.latency is None else f"{1000 * found.latency:g} ms each"
    return (
        f"{found.streams} traces played through the guard's own session in virtual time: {pace.chunk} "
        f"characters a chunk, {pace.speed:g} characters a second, verdicts {latency}. Levels of reasoning "
        "are those of the data set, which may be a language model's and not people's: see where they come "
        "from. Intervals are exact (Clopper-Pearson), 95 %."
    )


def _tiles(found: Evaluation) -> Iterator[Tile]:
    figures = found.figures
    time = figures.timeliness
    if time.at_all.of:
        counted = f"{time.at_all.hits} of {time.at_all.of} with a known onset"
        yield Tile(
            name="harmful streams aborted",
            value=percent(time.at_all.value),
            says=f"{counted}, {time.premature.hits} before it",
        )
        left = f"{figures.exposed.mean:.0f} characters left on average"
        yield Tile(
            name="no harmful character left",
            value=percent(figures.clean.value),
            says=f"{figures.clean.hits} of {figures.clean.of}; {left}",
        )
    for name, one in in_order(figures.false_aborts):
        yield Tile(
            name=f"{name}, aborted of 1,000",
            value=f"{1000 * one.value:.1f}",
            says=f"{one.hits} of {one.of}; {1000 * one.low:.1f} to {1000 * one.high:.1f}",
        )
    yield Tile(
        name="added to a character",
        value=milliseconds(figures.delay.mean),
        says=f"on average; half of them at most {milliseconds(figures.delay.p50)}",
    )


def _sections(found: Evaluation) -> Iterator[Section]:
    if found.figures.timeliness.at_all.of:
        yield timeliness(found.figures)
    if found.detections:
        yield detection(found)
    yield _harmless(found)
    if found.compounding:
        yield compounding(found.compounding)
    if found.points:
        yield frontier(found)
    yield _latency(found)
    if found.figures.timeliness.at_all.of:
        yield beside(found)
    yield _about(found)


def _harmless(found: Evaluation) -> Section:
    figures = found.figures
    rows = [
        [
            STRATA.get(name, name),
            str(one.of),
            str(one.hits),
            str(figures.in_answers.get(name, 0)),
            per_thousand(one),
        ]
        for name, one in in_order(figures.false_aborts)
    ]
    failed = f" {figures.failed} streams were aborted since a judge had no verdict." if figures.failed else ""
    return Section(
        title="What it costs harmless users",
        says=[f"Harmless streams that the guard aborted, as configured.{failed}"],
        tables=[
            Table(head=["", "streams", "aborted", "of these in the answer", "of 1,000 (95 %)"], rows=rows)
        ],
    )


def _latency(found: Evaluation) -> Section:
    figures, capacity, closing = found.figures, found.capacity, found.closing
    spreads: list[tuple[str, Spread]] = [
        ("added to the first character of reasoning", figures.added_reasoning),
        ("added to the first character of the answer", figures.added_answer),
        ("added to each character", figures.delay),
        ("between two releases of reasoning", figures.stalls),
        ("from a window's last character to its verdict", figures.lags),
        ("the judge, measured", capacity.judge),
    ]
    if closing is not None:
        spreads.append(("from the aborting verdict to the source closed, in real time", closing.closed))
    rows = [
        [name, f"{one.count:.0f}", *(milliseconds(x) for x in (one.mean, one.p50, one.p95, one.p99))]
        for name, one in spreads
        if one.count
    ]
    gap = 1000 * found.pace.chunk / found.pace.speed
    said = [
        f"Of harmless streams that were not aborted. Without a guard a chunk comes every {gap:.1f} ms. A "
        "window is judged when it is complete, so text waits for the end of its sentence: that is most of "
        "what is added.",
        f"The judge took {milliseconds(capacity.judge.mean)} a window on this machine, so one of it has time "
        f"for {capacity.per_core:.0f} such streams. {_at_once(capacity)}",
        _computed(capacity),
    ]
    if closing is not None:
        said.append(
            f"{closing.streams} of the aborted streams were played again by `Guard.stream` in real time: "
            f"{closing.same} of them with the same windows, levels and end as in virtual time."
        )
    return Section(
        title="What it costs in time",
        says=said,
        tables=[Table(head=["", "count", "mean", "p50", "p95", "p99"], rows=rows)],
    )


def _at_once(capacity: Capacity) -> str:
    streams = f"{MOST} or more" if capacity.at_once == MOST else str(capacity.at_once)
    return (
        f"Of {streams} at once {PROMPT} % of the verdicts come within {milliseconds(capacity.lag)} of the "
        "window's last character: streams that begin at random, windows judged in the order in which they "
        "are complete, simulated with the measured times."
    )


def _computed(capacity: Capacity) -> str:
    said = (
        f"A judge that begins each window at the beginning reads {capacity.whole:.1f} characters for each "
        "character of text."
    )
    if capacity.tokens is None:
        return f"{said} This one does not count its tokens, or knew the verdicts from before."
    return (
        f"{said} This one computed {capacity.tokens.computed:.2f} tokens for each token of text, and had "
        f"{percent(capacity.tokens.hits)} of what it read in its cache."
    )


def _about(found: Evaluation) -> Section:
    policy = found.guard["policy"]
    rows = [[name, what] for name, what in found.about.items()]
    rows.append(["windower", str(found.guard["windower"])])
    rows += [
        [name, _written(value)] for name, value in policy.items() if name not in ("notice", "failure_notice")
    ]
    rows += [
        [f"streams: {STRATA.get(name, name)}", str(count)] for name, count in in_order(found.figures.strata)
    ]
    return Section(title="What was measured", tables=[Table(head=["setting", "value"], rows=rows)])


def _written(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {action}" for name, action in value.items())
    return str(value)
