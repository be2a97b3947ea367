"""How many streams a judge keeps up with, against times that can be counted by hand."""

import json
from pathlib import Path

import pytest

from shieldguard import SizeWindower, Verdict, Window
from shieldguard.evaluation import capacity
from shieldguard.evaluation.asking import StoredVerdicts
from shieldguard.evaluation.capacity import Capacity, Tokens
from shieldguard.evaluation.streams import Pace, all_windows
from tests.streams.traces import SPAN, WordJudge, harmless

STREAMS = [harmless(f"calm {n}", "ordinary", answer="So it is. " * 6) for n in range(8)]


def measured(verdicts: StoredVerdicts, *, lag: float = 0.25) -> Capacity:
    return capacity.measure(
        STREAMS,
        all_windows(STREAMS, SizeWindower(size=SPAN)),
        verdicts,
        pace=Pace(chunk=12, speed=120.0),
        lag=lag,
        at_once=1,
        told=lambda: None,
    )


@pytest.fixture
def taking_50_ms(tmp_path: Path) -> StoredVerdicts:
    """Verdicts of which each is kept to have taken 50 ms. Windows come every half second."""
    file = tmp_path / "kept.jsonl"
    measured(StoredVerdicts(WordJudge(), file))
    head, *lines = file.read_text().splitlines()
    kept = [json.dumps({**json.loads(line), "seconds": 0.05}) for line in lines]
    file.write_text("\n".join([head, *kept]) + "\n")
    return StoredVerdicts(WordJudge(), file)


def test_streams_at_once_wait_for_each_other(taking_50_ms: StoredVerdicts) -> None:
    found = measured(taking_50_ms)
    # A stream of 3 s has five windows of its reasoning and one of its answer.
    assert found.windows == 48
    assert found.per_core == pytest.approx(10)
    assert 5 <= found.at_once <= 9
    assert measured(taking_50_ms, lag=0.06).at_once < found.at_once
    assert measured(taking_50_ms, lag=0.04).at_once == 0
    assert measured(taking_50_ms, lag=9.0).at_once == 10
    # Windows end at 60, 120, … 300 characters of reasoning, and at the 60th of the answer.
    assert found.whole == pytest.approx((60 + 120 + 180 + 240 + 300 + 60) / 360)
    assert found.tokens is None


class Counting(WordJudge):
    """Each letter is a token, and a window's text is computed from `start` on, behind a prompt of 40."""

    class Usage:
        tokens = 0
        read = 0

    def __init__(self) -> None:
        super().__init__()
        self.usage = self.Usage()

    def count(self, text: str) -> int:
        return len(text)

    def judge_now(self, window: Window) -> Verdict:
        self.usage.tokens += len(window.new)
        self.usage.read += 40 + len(window.text)
        return super().judge_now(window)


def test_tokens_are_told_where_all_of_them_were_computed_now(tmp_path: Path) -> None:
    judge = Counting()
    judge.usage.tokens = judge.usage.read = 1000  # of something before
    found = measured(StoredVerdicts(judge, tmp_path / "kept.jsonl"))
    read = 6 * 40 + 60 + 120 + 180 + 240 + 300 + 60
    assert found.tokens == Tokens(computed=1.0, hits=1 - 360 / read)
    assert measured(StoredVerdicts(judge, tmp_path / "kept.jsonl")).tokens is None


def test_what_is_asked_for_together_does_not_wait() -> None:
    jobs = [capacity.Jobs(windows=[(0.5, 0.2), (0.5, 0.2)], length=1.0)]

    def lags(busy: float) -> set[float]:
        return {round(one, 6) for one in capacity.lags(jobs, 1, busy)}

    assert lags(1.0) == {0.2, 0.4}
    assert lags(0.5) == {0.2, 0.3}
