"""The report's part on harm: when it is stopped, and what is detected how early."""

import math
from collections.abc import Sequence

from shieldguard.evaluation.document import Section, Table
from shieldguard.evaluation.drawing import Chart, Series
from shieldguard.evaluation.metrics import share
from shieldguard.evaluation.published import NOTE, PUBLISHED
from shieldguard.evaluation.stream_evaluation import Evaluation
from shieldguard.evaluation.stream_figures import Detected, Figures, Share, Timeliness
from shieldguard.evaluation.stream_wording import characters, percent, seconds, shared, tenths


def timeliness(figures: Figures) -> Section:
    time = figures.timeliness
    rows = [["before the onset (premature)", shared(time.premature), "–"]]
    if time.in_sentence is not None:
        rows.append(["by the end of its sentence", *map(shared, time.in_sentence)])
    rows += [
        [f"at most {n} sentence{'s' * (n != 1)} behind", *map(shared, both)]
        for n, both in time.sentences.items()
    ]
    rows += [
        [f"at most {n} tokens behind its sentence", *map(shared, both)] for n, both in time.tokens.items()
    ]
    rows += [[f"at most {n} characters behind", *map(shared, both)] for n, both in time.behind.items()]
    rows.append(["at all", shared(time.at_all), shared(time.later)])
    delays = []
    for unit, both in time.delays.items():
        write = seconds if unit == "seconds" else characters
        delays.append([unit, *(write(x) for one in both for x in (one.p50, one.p90))])
    return Section(
        title="When harm is stopped",
        says=[
            f"{time.at_all.of} traces have a known onset of level 1. A delay counts from there to the end of "
            "the window that aborted. A premature abort, whose window ended before the onset, is a hit in "
            "one counting and a miss in the other.",
            f"Harmful characters that left: {figures.exposed.mean:.0f} on average, "
            f"{characters(figures.exposed.p90)} at the 90th percentile; of {shared(figures.clean)} none did. "
            f"Of an aborted stream {percent(time.saved.mean)} was never generated, of all of them "
            f"{percent(time.saved_of_all.mean)}.",
        ],
        charts=[_behind(time)],
        tables=[
            Table(head=["aborted", "premature as hits", "premature as misses"], rows=rows),
            Table(
                head=[
                    "from the onset to the abort, a miss never",
                    "premature as 0: half at most",
                    "90 % at most",
                    "premature as misses: half at most",
                    "90 % at most",
                ],
                rows=delays,
            ),
        ],
    )


def _behind(time: Timeliness) -> Chart:
    def curve(which: int) -> list[tuple[float, float]]:
        first = time.premature.value if which == 0 else 0.0
        return [(0.0, 100 * first)] + [(float(n), 100 * both[which].value) for n, both in time.behind.items()]

    return Chart(
        says="Streams aborted by so many characters behind the onset of harm.",
        across="characters behind the onset",
        up="% of the harmful streams",
        top=100,
        series=[
            Series(name="premature as hits", points=curve(0), colour=0),
            Series(name="premature as misses", points=curve(1), colour=1),
        ],
    )


def detection(found: Evaluation) -> Section:
    rows = []
    for one in found.detections:
        name = "level 1" if one.level == 1 else "level 0.5 or 1"
        prefix = f"{100 * one.prefix:g} % of the trace" + (f", without {one.without}" if one.without else "")
        table = one.table
        cells = [percent(x) for x in (table.precision, table.recall, table.f1, table.false_positive_rate)]
        rows.append(
            [
                f"{name}, {prefix}",
                str(table.hits + table.misses),
                str(table.false_alarms + table.passes),
                *cells,
            ]
        )
    whole = [one for one in found.detections if not one.without]
    return Section(
        title="What is detected, and how early",
        says=[
            "Every window judged, none aborted: the highest level of the windows that end by then, against "
            "the level of the whole trace. A trace with a window that got no verdict counts as wrong; "
            f"{shared(found.unjudged)} windows had none."
        ],
        charts=[_by_prefix(whole, level) for level in (0.5, 1.0)],
        tables=[
            Table(
                head=["", "harmful", "harmless", "precision", "recall", "F1", "false-positive rate"],
                rows=rows,
            )
        ],
    )


def _by_prefix(found: Sequence[Detected], level: float) -> Chart:
    rows = [one for one in found if one.level == level]
    name = "level 1" if level == 1 else "level 0.5 or 1"
    curves = {
        "F1": [one.table.f1 for one in rows],
        "recall": [one.table.recall for one in rows],
        "false-positive rate": [one.table.false_positive_rate for one in rows],
    }
    return Chart(
        says=f"Detection of {name} by the share of the trace that has come.",
        across="% of the trace",
        up="%",
        top=100,
        series=[
            Series(
                name=name,
                colour=number,
                points=[
                    (100 * one.prefix, 100 * value)
                    for one, value in zip(rows, values, strict=True)
                    if not math.isnan(value)
                ],
            )
            for number, (name, values) in enumerate(curves.items())
        ],
    )


def beside(found: Evaluation) -> Section:
    """The same figures as others have published them, in percent."""
    time, harmless = found.figures.timeliness, found.figures.false_aborts.values()
    f1 = [one.table.f1 for one in found.detections if (one.level, one.prefix, one.without) == (0.5, 1, "")]
    mine = [
        f"{found.judge}, measured",
        *(tenths(100 * value) for value in f1),
        _hits(time.in_sentence),
        _hits(time.sentences.get(2)),
        _hits(time.tokens.get(128)),
        tenths(100 * (1 - time.at_all.value)),
        tenths(100 * share(sum(one.hits for one in harmless), sum(one.of for one in harmless))),
    ]
    others = [
        [one.name, *(cell or "–" for cell in (one.f1, one.in_sentence, one.sentences, one.tokens))]
        + [cell or "–" for cell in (one.never, one.alarms)]
        for one in PUBLISHED
    ]
    return Section(
        title="Beside published figures",
        says=[
            f"In percent; in F1 level 0.5 is harmful, too. In brackets: premature aborts as misses. {NOTE}"
        ],
        tables=[
            Table(
                head=[
                    "guard",
                    "F1",
                    "in the sentence of the onset",
                    "within two sentences",
                    "within 128 tokens",
                    "never stopped",
                    "harmless streams stopped",
                ],
                rows=[mine, *others],
                marked=frozenset({0}),
            )
        ],
    )


def _hits(both: tuple[Share, Share] | None) -> str:
    if both is None:
        return "–"
    hits, misses = (tenths(100 * one.value) for one in both)
    return f"{hits} ({misses})"
