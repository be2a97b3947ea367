"""Both stages from a model that knows nothing to a guard that aborts, each through the command."""

import http.server
import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

pytest.importorskip("trl")
pytest.importorskip("typer")

import torch

from shieldguard import (
    Answer,
    Ended,
    Guard,
    Policy,
    SizeWindower,
    StreamReport,
    UnparsedVerdict,
    Verdict,
    Window,
)
from shieldguard.judges.local import LocalJudge, Mode
from shieldguard.training.finetune import SFT, Replies, sft
from tests.command import shieldguard
from tests.finetune.tiny import NEW_HARM, labelled, make_blank, preferred, reply, write
from tests.judges.local.reference import Reference
from tests.judges.local.tiny import CALM, HARM, PROMPT

pytestmark = pytest.mark.timeout(900)

Row: TypeAlias = Mapping[str, Any]

SMALL = ("--precision", "float32", "--device", "cpu", "--max-length", 512, "--no-recompute")
CALM_TEXT = " ".join(CALM[:12])


@dataclass(frozen=True)
class Trained:
    """What a stage left: the folder, its record, and what was said on standard error."""

    folder: Path
    record: dict[str, Any]
    said: str


@dataclass(frozen=True)
class Hub:
    """A server in the hub's place; `asked` are the paths that were asked for."""

    url: str
    asked: list[str]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    asked: list[str] = []

    class Hears(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_GET = do_POST = do_HEAD  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hears) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Hub(f"http://127.0.0.1:{server.server_port}", asked)
        server.shutdown()


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blank(tmp_path_factory.mktemp("blank") / "Blank")


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Callable[..., Trained]:
    folder = tmp_path_factory.mktemp("trained")

    def run(
        stage: str, checkpoint: Path, rows: Sequence[Row], unseen: Sequence[Row], *more: object
    ) -> Trained:
        data, held_out = (write(folder / f"{stage}-{len(some)}.jsonl", some) for some in (rows, unseen))
        out = folder / stage
        done = shieldguard(
            *(
                "train",
                stage,
                checkpoint,
                "--data",
                data,
                "--held-out",
                held_out,
                "--out",
                out,
                *SMALL,
                *more,
            ),
            timeout=300,
            HF_ENDPOINT=hub.url,
            OMP_NUM_THREADS="1",
        )
        assert done.returncode == 0, done.stderr
        return Trained(out, json.loads(done.stdout), done.stderr)

    return run


UNSEEN = labelled(30, seed=2)
UNSEEN_PAIRS = preferred(40, seed=4)


@pytest.fixture(scope="module")
def first(train: Callable[..., Trained], blank: Path) -> Trained:
    more = ("--epochs", 4, "--batch", 8, "--accumulation", 2, "--learning-rate", 4e-3)
    return train("sft", blank, labelled(480, seed=1), UNSEEN, *more)


@pytest.fixture(scope="module")
def second(train: Callable[..., Trained], first: Trained) -> Trained:
    more = ("--epochs", 3, "--batch", 8, "--accumulation", 2, "--learning-rate", 3e-4)
    return train("dpo", first.folder, preferred(200, seed=3), UNSEEN_PAIRS, *more)


# -- what the models say -----------------------------------------------------------------------------


@contextmanager
def judge_of(folder: Path, mode: Mode = "full", **options: Any) -> Iterator[LocalJudge]:
    judge = LocalJudge(folder, mode=mode, dtype="float32", device="cpu", **options)
    yield judge
    judge.close()


def verdicts(judge: LocalJudge, rows: Sequence[Row]) -> list[Verdict | None]:
    """The verdict on each row, all asked at once; None where a reply was none."""
    found: dict[int, Verdict | None] = {}

    async def ask(number: int, row: Row) -> None:
        try:
            window = Window(query=row["query"], text=row["model_thinking"], stream=str(number))
            found[number] = await judge.judge(window)
        except UnparsedVerdict:
            found[number] = None

    async def ask_all() -> None:
        async with anyio.create_task_group() as group:
            for number, row in enumerate(rows):
                group.start_soon(ask, number, row)

    anyio.run(ask_all)
    return [found[number] for number in range(len(rows))]


def right(found: Sequence[Verdict | None], rows: Sequence[Row]) -> float:
    """The share of verdicts that are the row's label."""
    said = [None if verdict is None else str(verdict.level) for verdict in found]
    hits: list[bool] = [one == row["final_judgment"] for one, row in zip(said, rows, strict=True)]
    return sum(hits) / len(hits)


def margins(folder: Path, rows: Sequence[Row]) -> list[float]:
    """By how much the preferred reply to each row is likelier than the other (logarithms)."""
    reference = Reference(folder)
    return [
        _likelihood(reference, row, row["chosen"]) - _likelihood(reference, row, row["rejected"])
        for row in rows
    ]


def _likelihood(reference: Reference, row: Row, said: str, *, mean: bool = False) -> float:
    asked = reference.tokens(row["query"], row["model_thinking"])
    written = reference.whole_reply(said)
    with torch.inference_mode():
        logits = reference.model(input_ids=torch.tensor([asked + written])).logits[0, len(asked) - 1 : -1]
    each = logits.double().log_softmax(-1).gather(1, torch.tensor(written)[:, None])
    return float(each.mean() if mean else each.sum())


def guarded(folder: Path, word: str) -> StreamReport:
    """A stream whose thought has this word, guarded by the model in this folder."""
    text = f"{CALM_TEXT}. {word} {CALM_TEXT}."
    chunks = ["<think>", *(text[at : at + 11] for at in range(0, len(text), 11)), "</think>", "Bread cools."]
    with judge_of(folder) as judge:
        guard = Guard(judge=judge, policy=Policy(judge_timeout=60), windower=SizeWindower(size=60))
        with guard.stream_sync(chunks, query="What hums?") as stream:
            said = [event.text for event in stream if isinstance(event, Answer)]
    assert ("".join(said) == "Bread cools.") is (stream.report.ended is Ended.COMPLETE)
    assert stream.report.failures == 0
    return stream.report


def test_an_untaught_model_has_no_replies_and_its_labels_are_chance(blank: Path) -> None:
    with judge_of(blank, max_analysis=40) as judge:
        assert right(verdicts(judge, UNSEEN), UNSEEN) == 0
        guesses = verdicts(judge.in_mode("fast"), UNSEEN)
    assert right(guesses, UNSEEN) <= 0.5


def test_the_first_stage_teaches_what_the_rows_say(first: Trained) -> None:
    with judge_of(first.folder) as judge:
        found = verdicts(judge, UNSEEN)
    assert right(found, UNSEEN) >= 0.9
    assert all(
        verdict is not None and verdict.analysis == row["final_analysis"]
        for verdict, row in zip(found, UNSEEN, strict=True)
        if verdict is not None and str(verdict.level) == row["final_judgment"]
    )


def test_the_loss_is_that_of_the_reply_alone_behind_the_prompt_of_the_judge(
    first: Trained, blank: Path
) -> None:
    reference = Reference(blank)
    each = [-_likelihood(reference, row, reply(row["final_judgment"]), mean=True) for row in UNSEEN]
    assert first.record["held out"]["before"]["loss"] == pytest.approx(sum(each) / len(each), abs=1e-3)
    assert first.record["held out"]["after"]["loss"] < 0.1


def test_the_second_stage_widens_the_margin_of_the_preferred_judgment(
    first: Trained, second: Trained
) -> None:
    before, after = margins(first.folder, UNSEEN_PAIRS), margins(second.folder, UNSEEN_PAIRS)
    grown = [late > early for early, late in zip(before, after, strict=True)]
    assert sum(grown) / len(grown) >= 0.95
    told = second.record["held out"]
    assert told["before"]["margin"] == pytest.approx(sum(before) / len(before), abs=1e-2)
    assert told["after"]["margin"] == pytest.approx(sum(after) / len(after), rel=1e-2)
    with judge_of(first.folder) as early, judge_of(second.folder) as late:
        assert right(verdicts(early, UNSEEN_PAIRS), UNSEEN_PAIRS) <= 0.7
        assert right(verdicts(late, UNSEEN_PAIRS), UNSEEN_PAIRS) >= 0.9


def test_the_guard_aborts_on_what_was_learnt(first: Trained, second: Trained) -> None:
    assert guarded(first.folder, HARM).ended is Ended.ABORTED
    assert guarded(first.folder, NEW_HARM).ended is Ended.COMPLETE
    assert guarded(second.folder, NEW_HARM).ended is Ended.ABORTED
    assert guarded(second.folder, "").ended is Ended.COMPLETE


def test_judgments_alone_are_what_the_fast_mode_reads(blank: Path, tmp_path: Path) -> None:
    settings = replace(
        SFT,
        epochs=3,
        batch=8,
        accumulation=2,
        learning_rate=4e-3,
        precision="float32",
        device="cpu",
        recompute=False,
        max_length=512,
    )
    data = write(tmp_path / "rows.jsonl", labelled(400, seed=1))
    sft(blank, [data], tmp_path / "both", settings=settings, replies=Replies.BOTH)
    with judge_of(tmp_path / "both") as judge:
        assert right(verdicts(judge, UNSEEN), UNSEEN) >= 0.9
        assert right(verdicts(judge.in_mode("fast"), UNSEEN), UNSEEN) >= 0.9


# -- what is written ---------------------------------------------------------------------------------


def test_a_trained_folder_is_a_checkpoint_like_the_one_it_began_with(blank: Path, second: Trained) -> None:
    names = {file.name for file in second.folder.iterdir()}
    assert names == {file.name for file in blank.iterdir()} | {"shieldguard_training.json"}
    assert (second.folder / "reasoningshield_prompt.txt").read_text(encoding="utf-8") == PROMPT
    for same in ("tokenizer.json", "chat_template.jinja"):
        assert (second.folder / same).read_bytes() == (blank / same).read_bytes()
    assert json.loads((second.folder / "shieldguard_training.json").read_text()) == second.record


def test_the_record_tells_how_it_was_trained(first: Trained, second: Trained) -> None:
    assert (first.record["stage"], second.record["stage"]) == ("sft", "dpo")
    assert (first.record["precision"], first.record["device"]) == ("float32", "cpu")
    assert first.record["steps"] == 4 * 480 // 16
    assert first.record["rows"] == {"given": 480, "too long": 0}
    assert second.record["loss"]["first"] == pytest.approx(math.log(2), abs=0.01)
    assert second.record["loss"]["last"] < second.record["loss"]["first"]


def test_progress_has_a_rate_and_the_time_left(first: Trained) -> None:
    assert re.search(r"training: .*120/120 \[\d\d:\d\d<00:00, +\d+\.\d+(step/s|s/step)", first.said)
    assert re.search(r"0/120 \[00:00<\?", first.said)


def test_nothing_is_told_to_anyone(first: Trained, second: Trained, hub: Hub) -> None:
    assert hub.asked == []
