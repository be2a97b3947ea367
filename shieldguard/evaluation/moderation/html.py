"""A result as one HTML page that needs nothing else: no script, no font, no network."""

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import resources
from typing import TypeAlias

from shieldguard.evaluation.bootstrap import METRICS, Estimate
from shieldguard.evaluation.document import page, with_code
from shieldguard.evaluation.drawing import Chart, Series
from shieldguard.evaluation.moderation.card import NOTE
from shieldguard.evaluation.moderation.plots import dot, track
from shieldguard.evaluation.moderation.result import Named, Result
from shieldguard.evaluation.moderation.wording import (
    HEADS,
    INTERVALS,
    alike,
    area,
    counted,
    explained,
    left_out,
    percent,
    share,
    unjudged,
)

Point: TypeAlias = tuple[float, float]

_LEVELS = ("0 safe", "0.5 potentially harmful", "1 harmful")
_TILES = ("f1", "recall", "precision", "false_positive_rate", "accuracy")


def html(result: Result) -> str:
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    body = "\n".join(
        [
            f'<header><p class="over">{escape(result.task.title)}, whole {result.task.noun}</p>',
            f"<h1>{escape(result.judge)}</h1>",
            f'<p class="lead">{with_code(counted(result))} {escape(explained(result))}</p></header>',
            _tiles(result),
            f'<p class="note">{escape(INTERVALS)}</p>',
            *(
                f'<p class="note">{escape(line)}</p>'
                for line in (*alike(result), *unjudged(result), *left_out(result))
            ),
            *_sections(result),
        ]
    )
    return page(f"{result.judge}: {result.task.title}", style, body)


def _sections(result: Result) -> Iterator[str]:
    if result.mean:
        rows: Named = [*result.sets, ("mean of the data sets", result.mean), ("all rows", result.overall)]
        yield _section("By data set", _parts("data set", rows, totals=2))
    if result.baselines:
        yield _section("Beside the model card", f'<p class="note">{escape(NOTE)}</p>', _beside(result))
    yield _section("The levels it gave", _key(), _levels(result))
    if result.curves:
        yield _section("At other thresholds", *_curves(result))
    for column, parts in result.groups.items():
        yield _section(f"By {column}", _parts(column, parts))
    yield _section("What was measured", _about(result))


def _section(head: str, *parts: str) -> str:
    return "\n".join([f"<section><h2>{escape(head)}</h2>", *parts, "</section>"])


def _tiles(result: Result) -> str:
    table = result.overall.table
    said = {
        "f1": "the harmonic mean of recall and precision",
        "recall": f"{table.hits} of {table.hits + table.misses} harmful were found",
        "precision": f"{table.hits} of {table.hits + table.false_alarms} called harmful were so",
        "false_positive_rate": f"{table.false_alarms} of {table.false_alarms + table.passes} harmless were "
        "called harmful",
        "accuracy": f"{table.hits + table.passes} of "
        f"{table.hits + table.misses + table.false_alarms + table.passes} were right",
    }
    tiles = []
    for metric in _TILES:
        found = result.overall.estimates[metric]
        tiles.append(
            f"<div>{HEADS[metric]}<b>{percent(found.value)}</b><small>{_within(found)}</small>"
            f"<small>{said[metric]}</small></div>"
        )
    unparsed = result.overall.unparsed
    tiles.append(
        f"<div>no verdict<b>{share(unparsed)}</b><small>of all answers; each counts as wrong</small></div>"
    )
    return f'<div class="cards">{"".join(tiles)}</div>'


def _parts(head: str, rows: Named, *, totals: int = 0) -> str:
    others = [metric for metric in METRICS if metric != "f1"]
    lines = []
    for at, (name, one) in enumerate(rows):
        found = one.estimates
        cells = [str(one.rows), str(one.harmful), _cell(found["f1"]), track(found["f1"])]
        cells += [*(_cell(found[metric]) for metric in others), share(one.unparsed)]
        lines.append(_line(name, cells, kind="total" if at >= len(rows) - totals else ""))
    return _grid(
        [head, "rows", "harmful", "F1", "", *(HEADS[metric] for metric in others), "no verdict"], lines
    )


def _beside(result: Result) -> str:
    shown = ("accuracy", "precision", "recall")
    mine = result.overall.estimates
    f1 = mine["f1"]
    cells = [percent(f1.value), track(f1), *(percent(mine[metric].value) for metric in shown), ""]
    rows = [(f1.value, _line(f"{result.judge}, measured", cells, kind="mine"))]
    for one in result.baselines:
        cells = [f"{one.f1:.1f}", dot(one.f1 / 100), *(f"{getattr(one, metric):.1f}" for metric in shown)]
        rows.append((one.f1 / 100, _line(f"{one.name}, the card’s", [*cells, one.size], kind="card")))
    rows.sort(key=lambda row: -row[0] if row[0] == row[0] else 0.0)
    return _grid(
        ["judge", "F1", "", *(HEADS[metric] for metric in shown), "size"], [line for _, line in rows]
    )


def _line(name: str, cells: Iterable[str], *, kind: str) -> str:
    return f'<tr class="{kind}"><th scope="row">{escape(name)}</th>{"".join(map(_td, cells))}</tr>'


def _td(cell: str) -> str:
    return f'<td class="bar">{cell}</td>' if "track" in cell else f"<td>{cell}</td>"


def _grid(heads: Iterable[str], lines: Iterable[str], *, kind: str = "") -> str:
    row = "".join(f"<th>{escape(head)}</th>" if head else '<th class="bar"></th>' for head in heads)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{row}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _key() -> str:
    return (
        '<p class="note">Answers, and their share of the row. <span class="key right"></span> counts as '
        'right, <span class="key wrong"></span> as wrong.</p>'
    )


def _levels(result: Result) -> str:
    lines = []
    for gold, (name, counts) in enumerate(zip(_LEVELS, result.levels, strict=True)):
        cells = []
        for judged, count in enumerate(counts):
            right = judged < len(_LEVELS) and (judged > 0) == (gold > 0)
            part = count / sum(counts) if sum(counts) else 0.0
            cells.append(
                f'<td class="{"right" if right else "wrong"}" style="--share:{70 * part:.0f}%">{count}'
                f"<small>{100 * part:.0f} %</small></td>"
            )
        lines.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    heads = ["labelled", *(f"judged {name.split()[0]}" for name in _LEVELS), "no verdict"]
    return _grid(heads, lines, kind="levels")


def _curves(result: Result) -> Iterator[str]:
    found, mine = result.curves, result.overall.estimates
    assert found
    alarms, recall, precision = (
        mine[metric].value for metric in ("false_positive_rate", "recall", "precision")
    )
    yield '<p class="note">The score is P(level ≥ 0.5).</p>'
    yield '<div class="curves">'
    yield _figure(
        Chart(
            says=f"ROC, area {area(found.roc_area)}",
            across="false alarms, %",
            up="recall, %",
            top=100,
            series=_series(found.roc, chance=((0, 0), (1, 1)), at=(alarms, recall)),
        )
    )
    yield _figure(
        Chart(
            says=f"Precision and recall, average precision {area(found.average_precision)}",
            across="recall, %",
            up="precision, %",
            top=100,
            series=_series(
                found.precision_recall,
                chance=((0, found.harmful), (1, found.harmful)),
                at=(recall, 0.0 if precision != precision else precision),
            ),
        )
    )
    yield "</div>"


def _series(points: Sequence[Point], *, chance: Sequence[Point], at: Point) -> list[Series]:
    def shares(found: Sequence[Point]) -> list[Point]:
        return [(100 * x, 100 * y) for x, y in found]

    name = "at its own thresholds"
    return [
        Series(name="a judge that guesses", points=shares(chance), dashed=True, colour=5),
        Series(name="this judge", points=shares(points), colour=0),
        Series(name=name, points=shares([at]), names=[name], lines=False, colour=0),
    ]


def _figure(chart: Chart) -> str:
    return f"<figure>{chart.svg()}<figcaption>{escape(chart.says)}</figcaption></figure>"


def _about(result: Result) -> str:
    judge = result.about["judge"]
    facts = [
        ("judge", f"<code>{escape(judge['judge'])}</code>"),
        ("its options", f"<code>{escape(json.dumps(judge['options']))}</code>"),
        *(
            (
                "data",
                f"{escape(data.name)}: {len(data.rows)} rows, SHA-256 of what was judged "
                f"<code>{data.fingerprint[:16]}…</code>",
            )
            for data in result.data
        ),
        ("runs", str(result.runs)),
        ("time to an answer", f"median {result.seconds:.3g} s, with what it waited for others"),
    ]
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{what}</dd>' for name, what in facts)}</dl>"


def _within(found: Estimate) -> str:
    if found.value != found.value:
        return "nothing to count"
    deviation = "" if found.deviation is None else f"±{100 * found.deviation:.1f} over runs, "
    return f"{deviation}{percent(found.low)}–{percent(found.high)}"


def _cell(found: Estimate) -> str:
    if found.value != found.value:
        return "–"
    deviation = "" if found.deviation is None else f"<small>±{100 * found.deviation:.1f}</small>"
    return f"{percent(found.value)}<small>{percent(found.low)}–{percent(found.high)}</small>{deviation}"
