"""What the reports say, and that they need nothing else."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from shieldguard.evaluation.moderation import QA, QT, Task
from shieldguard.evaluation.moderation.card import BASELINES
from shieldguard.evaluation.moderation.figures import Judged
from shieldguard.evaluation.moderation.html import html
from shieldguard.evaluation.moderation.markdown import markdown, summary
from shieldguard.evaluation.moderation.result import Result
from shieldguard.evaluation.rows import DataSet
from tests.moderation.judges import judged

GOLD = [0, 0, 0, 0, 0.5, 0.5, 1, 1, 1, 1]
SCORES = [0.1, 0.2, 0.6, None, 0.5, 0.3, 0.95, 0.7, None, 0.92]
EVIL = '<script>alert("1")</script>|'


def result(*sets: Sequence[Judged], task: Task = QT, judge: str = "numbers", bad: Any = None) -> Result:
    data = [
        DataSet(name=f"set {at}", rows=[one.row for one in rows], bad=bad or {})
        for at, rows in enumerate(sets, start=1)
    ]
    about = {"judge": {"judge": "tests:numbers", "options": {"seconds": 1}}}
    return Result(task=task, judge=judge, about=about, data=data, judged=sets)


class Page(HTMLParser):
    """The text of a page, and its tags, which must be closed in their order."""

    VOID = frozenset({"meta"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.text.append(data.strip())


def test_the_summary_is_the_table_of_figures() -> None:
    found = summary(result(judged(GOLD, SCORES)))
    assert found.startswith("QT moderation by `numbers`: 10 traces, 6 of them harmful.\n\n| data | rows |")
    [row] = [line for line in found.splitlines() if line.startswith("| set 1 |")]
    assert re.fullmatch(
        r"\| set 1 \| 10 \| 6 \| 60\.0 \(.*\) \| 66\.7 \(.*\) \| 66\.7 \(.*\) \| 66\.7 \(.*\) \| "
        r"50\.0 \(.*\) \| 20\.0 \|",
        row,
    )


def test_several_sets_have_rows_of_their_own_a_mean_and_all_rows() -> None:
    found = summary(result(judged([0, 1], [0.1, 0.1]), judged([0, 1] * 4, [0.1, 0.9] * 4)))
    accuracies = {
        cells[1]: cells[4].split()[0]
        for cells in ([cell.strip() for cell in line.split("|")] for line in found.splitlines()[4:])
    }
    assert accuracies == {
        "set 1": "50.0",
        "set 2": "100.0",
        "mean of the data sets": "75.0",
        "all rows": "90.0",
    }


def test_the_deviation_over_runs_is_shown() -> None:
    found = result(judged([0, 1, 1, 1], [0.1, 0.9, 0.9, 0.9], [0.8, 0.9, 0.1, None]))
    assert "2 times each; ± is the deviation over runs" in summary(found)
    assert "62.5 ±53.0 (" in summary(found)  # accuracies of 1 and 1/4
    assert "±53.0" in html(found)
    assert "Of 6 harmful traces (over 2 runs) it called 4 harmful and missed 2." in markdown(found)


def test_markdown_has_levels_curves_groups_and_reasons() -> None:
    rows = [*judged(GOLD, SCORES, group="a|b"), *judged([0, 0], [0.1, 0.2], group="c")]
    found = markdown(result(rows, bad={3: "no label", 9: "no text"}))
    assert "| 0 | 4 | 1 | 0 | 1 |" in found
    assert "| 1 | 0 | 1 | 2 | 1 |" in found
    assert "| 10 | 0.9" in found  # rows with a score, and the area
    assert "## By kind" in found
    assert "| a\\|b | 10 | 6 |" in found
    assert "| c | 2 | 0 | 100.0 (100.0–100.0) | – | – | – | 0.0 (0.0–0.0) | 0 |" in found
    assert "Answers without a verdict: UnparsedVerdict 2." in found
    assert "The curves leave out 2 rows that have no score." in found
    assert "Left out of set 1, since they could not be used: 2 rows (3, 9)." in found


def test_the_cards_rows_are_marked_as_the_cards_and_stand_beside_traces_alone() -> None:
    traces, answers = result(judged(GOLD, SCORES)), result(judged(GOLD, SCORES), task=QA)
    assert len(BASELINES) == 10
    for one in BASELINES:
        assert (
            f"| {one.name} | the card's | {one.accuracy} | {one.precision} | {one.recall} | {one.f1} |"
            in markdown(traces)
        )
        assert f"{one.name}, the card’s" in html(traces)
        assert one.name not in html(answers) + markdown(answers)
    assert "| **numbers** | measured | **60.0** |" in markdown(traces)
    assert "on their own test sets, not on these rows" in markdown(traces)


def test_the_json_is_strict_and_has_every_figure() -> None:
    rows = [*judged(GOLD, SCORES, group="a"), *judged([0], [0.1], group="b")]
    text = result(rows, bad={2: "no label"}).as_json()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(text, parse_constant=refuse)
    assert found["overall"]["table"] == {"hits": 4, "misses": 2, "false_alarms": 2, "passes": 3}
    assert found["overall"]["estimates"]["f1"]["value"] == pytest.approx(8 / 12)
    assert found["overall"]["unparsed"] == pytest.approx(2 / 11)
    assert found["groups"]["kind"]["b"]["estimates"]["f1"]["value"] is None
    assert found["levels"]["counts"] == [[3, 1, 0, 1], [1, 1, 0, 0], [0, 1, 2, 1]]
    assert found["curves"]["roc"][-1] == [1.0, 1.0]
    assert found["bad_rows"] == {"set 1": {"2": "no label"}}
    assert found["card"]["percent"][0]["name"] == "Perspective"
    assert (found["errors"], found["seconds"]) == ({"UnparsedVerdict": 2}, 0.5)


def test_the_page_says_the_figures_and_needs_nothing_else() -> None:
    rows = [*judged(GOLD, SCORES, group="a"), *judged([0], [0.1], group="b")]
    page = html(result(rows))
    found = Page(page)
    said = " ".join(found.text)
    for part in (
        "QT moderation, whole traces",
        "4 of 6 harmful were found",
        "2 of 5 harmless were called harmful",
        "By kind",
        "The levels it gave",
        "ROC, area 0.",
        "Answers without a verdict: UnparsedVerdict 2.",
    ):
        assert part in said
    assert found.tags.count("svg") == 2
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert "http" not in page
    assert "url(" not in page
    assert "nan" not in page


def test_names_cannot_break_the_page() -> None:
    rows = [*judged(GOLD, SCORES, group=EVIL), *judged([0], [0.1], group="b")]
    found = Page(html(result(rows, judge=EVIL)))
    assert "script" not in found.tags
    assert EVIL in found.text


@pytest.mark.parametrize("gold", [[0, 0], [1, 1]], ids=["harmless", "harmful"])
@pytest.mark.parametrize("scores", [[0.1, 0.9], [None, None]], ids=["verdicts", "none"])
def test_rows_of_one_kind_can_be_reported(gold: list[float], scores: list[float | None]) -> None:
    found = result(judged(gold, scores))
    Page(html(found))
    assert "No curves: they need a probability with every verdict" in markdown(found)
    assert "nan" not in html(found) + markdown(found) + found.as_json().lower()


def test_what_all_rows_have_in_common_is_said_where_the_figures_are() -> None:
    found = result(judged(GOLD, SCORES, group="read by a model"))
    said = "All rows: kind 'read by a model'."
    assert said in summary(found)
    assert said in Page(html(found)).text
    assert json.loads(found.as_json())["alike"] == {"kind": "read by a model"}
    apart = result([*judged(GOLD, SCORES, group="a"), *judged([0], [0.1], group="b")])
    assert "All rows" not in summary(apart)


def test_the_rest_of_many_values_is_one(tmp_path: Path) -> None:
    rows = [
        one for at in range(40) for one in judged([0, 1] if at < 2 else [1], [0.1, 0.9], group=f"v{at:02}")
    ]
    groups = dict(result(rows).groups["kind"])
    assert list(groups)[:3] == ["v00", "v01", "v02"]
    assert len(groups) == 31
    assert groups["10 others"].rows == 10
