"""Asking a judge about rows, and keeping what it answers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from shieldguard import (
    Channel,
    ConfigError,
    Judge,
    JudgeBusy,
    JudgeRefused,
    JudgeUnreachable,
    ShieldguardError,
)
from shieldguard.evaluation.moderation import QA, QT, Task
from shieldguard.evaluation.moderation.asking import Asking
from shieldguard.evaluation.moderation.journal import Answer, Journal
from shieldguard.evaluation.rows import DataSet, Row
from shieldguard.verdicts import RiskLevel
from tests.moderation.judges import NumberJudge, RaisingJudge, buggy, silent, unreachable

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def data(*texts: str, name: str = "set") -> DataSet:
    rows = [
        Row(number=at, question=f"question {at}", text=text, level=RiskLevel.SAFE, groups={})
        for at, text in enumerate(texts, start=1)
    ]
    return DataSet(name=name, rows=rows, bad={})


def asking(judge: Judge, folder: Path, *sets: DataSet, task: Task = QT, **options: Any) -> Asking:
    return Asking(judge=judge, task=task, sets=sets, journal=Journal.open(folder, {}), **options)


def go(
    found: Asking, heard: Callable[[Answer], None] = lambda answer: None, backend: str = "asyncio"
) -> None:
    anyio.run(found.run, heard, backend=backend)


def levels(found: Asking) -> dict[tuple[str, int, int], float | None]:
    return {key: answer.level for key, answer in sorted(found.journal.answers.items())}


@BACKENDS
def test_each_row_of_each_set_is_asked_in_each_run(backend: str, tmp_path: Path) -> None:
    judge = NumberJudge()
    found = asking(judge, tmp_path, data("a 0.1", "a 0.95"), data("b 0.6", name="other"), runs=2)
    heard: list[Answer] = []
    go(found, heard.append, backend)
    assert levels(found) == {
        ("other", 1, 0): 0.5, ("other", 1, 1): 0.5,
        ("set", 1, 0): 0.0, ("set", 1, 1): 0.0, ("set", 2, 0): 1.0, ("set", 2, 1): 1.0,
    }  # fmt: skip
    assert {answer.key for answer in heard} == set(levels(found))
    assert (found.total, found.left) == (6, [])
    assert found.journal.answers["set", 2, 0].probabilities == pytest.approx([0.05, 0.475, 0.475])


@pytest.mark.parametrize(("task", "channel"), [(QT, Channel.REASONING), (QA, Channel.ANSWER)])
def test_the_judge_gets_the_whole_text_and_the_question(task: Task, channel: Channel, tmp_path: Path) -> None:
    judge = NumberJudge()
    go(asking(judge, tmp_path, data("a long text 0.1"), task=task))
    [window] = judge.asked
    assert (window.query, window.new, window.start) == ("question 1", "a long text 0.1", 0)
    assert window.channel is channel
    assert judge.forgotten == [window.stream] == ["set/1/0"]


@pytest.mark.parametrize(("given", "most"), [(1, 1), (4, 4), (100, 12)])
def test_so_many_are_asked_at_a_time(given: int, most: int, tmp_path: Path) -> None:
    judge = NumberJudge(seconds=0.02)
    go(asking(judge, tmp_path, data(*["0.1"] * 12), concurrency=given))
    assert judge.most_at_once == most


def test_no_verdict_is_an_answer_and_the_reason_is_kept(tmp_path: Path) -> None:
    found = asking(NumberJudge(), tmp_path, data("0.1", "none"))
    go(found)
    answer = found.journal.answers["set", 2, 0]
    assert (answer.level, answer.error, answer.message) == (
        None,
        "UnparsedVerdict",
        "no judgment in the reply",
    )


def test_a_plain_judge_error_is_no_verdict(tmp_path: Path) -> None:
    found = asking(silent(), tmp_path, data("0.1"))
    go(found)
    assert found.journal.answers["set", 1, 0].error == "JudgeError"


def test_what_is_no_verdict_is_not_taken_for_one(tmp_path: Path) -> None:
    class Chatty:
        name = "chatty"

        async def judge(self, window: object) -> Any:
            return 0.0

    found = asking(Chatty(), tmp_path, data("0.1"))
    go(found)
    assert found.journal.answers["set", 1, 0].error == "UnparsedVerdict"


def test_a_row_that_takes_too_long_has_no_verdict(tmp_path: Path) -> None:
    judge = NumberJudge(seconds=5)
    found = asking(judge, tmp_path, data("0.1"), timeout=0.05)
    go(found)
    answer = found.journal.answers["set", 1, 0]
    assert (answer.error, answer.message) == ("JudgeTimeout", "no verdict within 0.05 seconds")
    assert judge.forgotten == ["set/1/0"]


@BACKENDS
@pytest.mark.parametrize("error", [JudgeUnreachable, JudgeRefused, JudgeBusy, KeyError])
def test_a_judge_that_breaks_ends_the_run_and_keeps_what_was_answered(
    backend: str, error: type[Exception], tmp_path: Path
) -> None:
    class Breaking(NumberJudge):
        async def judge(self, window: Any) -> Any:
            if window.text == "break":
                raise error("down")
            return await super().judge(window)

    found = asking(Breaking(), tmp_path, data("0.1", "0.9", "break", "0.2"), concurrency=1)
    with pytest.raises(ShieldguardError, match=r"broke at row 3 of 'set': .*down.*2 of 4 verdicts are kept"):
        go(found, backend=backend)
    assert list(levels(found)) == [("set", 1, 0), ("set", 2, 0)]

    later = asking(NumberJudge(), tmp_path, data("0.1", "0.9", "0.7", "0.2"))
    assert [key[1] for key, _ in later.left] == [3, 4]
    go(later)
    assert list(levels(later).values()) == [0.0, 1.0, 0.5, 0.0]


@pytest.mark.parametrize("judge", [unreachable(), buggy()], ids=["unreachable", "buggy"])
def test_or_it_counts_as_no_verdict(judge: RaisingJudge, tmp_path: Path) -> None:
    found = asking(judge, tmp_path, data("0.1", "0.9"), count_failures=True)
    go(found)
    assert [answer.level for answer in found.journal.answers.values()] == [None, None]


@pytest.mark.parametrize(
    "option", [{"runs": 0}, {"concurrency": 0}, {"timeout": 0}, {"timeout": float("nan")}]
)
def test_options_that_cannot_work_are_refused(option: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        asking(NumberJudge(), tmp_path, data("0.1"), **option)


@BACKENDS
def test_what_was_cut_off_goes_on_and_asks_nothing_twice(backend: str, tmp_path: Path) -> None:
    first = NumberJudge(seconds=0.01)
    texts = ["0.1", "0.6", "0.95", "none"] * 5
    cut = asking(first, tmp_path, data(*texts), concurrency=2)

    async def cut_off() -> None:
        with anyio.move_on_after(0.06):
            await cut.run()

    anyio.run(cut_off, backend=backend)
    kept = list(levels(cut))
    assert 0 < len(kept) < 20

    second = NumberJudge()
    found = asking(second, tmp_path, data(*texts))
    go(found)
    assert len(second.asked) == 20 - len(kept)
    whole = asking(NumberJudge(), tmp_path / "at once", data(*texts))
    go(whole)
    assert levels(found) == levels(whole)


# -- the journal -------------------------------------------------------------------------------------


def lines(folder: Path) -> Sequence[str]:
    return (folder / "verdicts.jsonl").read_text().splitlines()


def answer(row: int) -> Answer:
    return Answer(
        set="set", row=row, run=0, seconds=0.1, level=0.5, probabilities=[0.2, 0.5, 0.3], analysis="ü"
    )


def test_a_line_that_a_kill_tore_is_dropped_and_written_anew(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, {})
    journal.add(answer(1))
    journal.add(answer(2))
    whole = (tmp_path / "verdicts.jsonl").read_bytes()
    (tmp_path / "verdicts.jsonl").write_bytes(whole[:-7])
    again = Journal.open(tmp_path, {})
    assert list(again.answers) == [("set", 1, 0)]
    again.add(answer(2))
    assert (tmp_path / "verdicts.jsonl").read_bytes() == whole
    assert Journal.open(tmp_path, {}).answers == {one.key: one for one in (answer(1), answer(2))}


@pytest.mark.parametrize(
    "line", ['{"set": "s"}', "[1]", "rubbish", '{"set": "s", "colour": "red"}'], ids=range(4)
)
def test_a_line_that_is_no_verdict_is_named(line: str, tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, {})
    journal.add(answer(1))
    with (tmp_path / "verdicts.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigError, match=r"line 2 of .*verdicts\.jsonl' is no verdict"):
        Journal.open(tmp_path, {})


ABOUT: dict[str, Any] = {
    "task": "qt",
    "judge": {"options": {"a": 1}},
    "data": [{"name": "a", "fingerprint": "1"}, {"name": "b", "fingerprint": "2"}],
}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"task": "qa"}, "its task was 'qt', and is now 'qa'"),
        ({"judge": {"options": {"a": 2}}}, "its judge.options.a was 1, and is now 2"),
        ({"judge": {"options": {}}}, "its judge.options.a was 1, and is now None"),
        (
            {"data": [ABOUT["data"][0], {"name": "b", "fingerprint": "3"}]},
            r"its data\[1\].fingerprint was '2'",
        ),
        ({"data": [ABOUT["data"][0]]}, "its data was"),
    ],
    ids=["task", "option", "no option", "fingerprint", "sets"],
)
def test_a_folder_of_another_run_is_refused(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    Journal.open(tmp_path, ABOUT)
    Journal.open(tmp_path, ABOUT)
    with pytest.raises(ConfigError, match=f"has verdicts of another run: {says}"):
        Journal.open(tmp_path, {**ABOUT, **changed})


def test_a_folder_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot keep verdicts"):
        Journal.open(tmp_path / "file", {})
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        Journal.open(tmp_path, {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "verdicts.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"verdicts and no run\.json"):
        Journal.open(tmp_path / "other", {})


def test_each_answer_is_a_line_as_soon_as_it_is_there(tmp_path: Path) -> None:
    judge = NumberJudge()
    found = asking(judge, tmp_path, data("0.1", "0.2"), concurrency=1)
    seen: list[int] = []
    go(found, lambda answer: seen.append(len(lines(tmp_path))), "trio")
    assert seen == [1, 2]
    assert json.loads(lines(tmp_path)[0])["row"] == 1
