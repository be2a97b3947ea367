"""The demonstration, in this process: server, HTTP, the SDK and the guard."""

import io

import pytest

pytest.importorskip("openai")
pytest.importorskip("starlette")
pytest.importorskip("rich")

import openai
from rich.console import Console

from shieldguard import AbortCause, Ended, Guard, StreamReport
from shieldguard_adapters.demo.play import play
from shieldguard_adapters.demo.scripts import ALL, BICYCLE, SCAM
from shieldguard_adapters.demo.server import recite
from shieldguard_adapters.demo.show import Screen
from shieldguard_adapters.traces import Trace
from tests import scripted


def shown(guard: Guard, *traces: Trace, pace: float = 0) -> tuple[list[StreamReport], str]:
    """The reports of a play, and what was on the screen."""
    screen = io.StringIO()
    console = Console(file=screen, width=200)
    reports = play(traces, guard, Screen(console), pace=pace)
    return reports, screen.getvalue()


def test_the_scam_ends_before_its_answer_and_the_bicycle_is_told_in_full() -> None:
    (scam, bicycle), screen = shown(Guard(judge=scripted.judge()), *ALL)
    assert scam.aborted is not None
    assert scam.aborted.cause is AbortCause.RISK
    assert (scam.answer.released, scam.reasoning.exposed) == (0, 0)
    assert bicycle.ended is Ended.COMPLETE
    assert bicycle.answer.released == len(BICYCLE.answer)
    assert SCAM.answer[:60] not in screen
    assert BICYCLE.answer in screen.replace("\n", "")
    assert "level 1  abort" in screen
    assert "level 0.5  flag" in screen


def test_the_model_is_stopped_while_it_recites() -> None:
    [scam], screen = shown(Guard(judge=scripted.judge()), SCAM, pace=8000)
    assert scam.closed_after is not None
    sent = int(screen.partition("The model had sent ")[2].partition(" ")[0])
    assert sent < len(SCAM.reasoning)


def test_a_judge_that_fails_is_shown_with_its_error() -> None:
    [report], screen = shown(Guard(judge=scripted.failing()), BICYCLE)
    assert report.aborted is not None
    assert "no verdict: no verdict today" in screen
    assert "Aborted for judge_failure" in screen


def test_a_trace_without_reasoning_is_told_too() -> None:
    [report], screen = shown(Guard(judge=scripted.judge()), Trace("", "", "It is fine.", "short"))
    assert report.answer.released == len("It is fine.")
    assert "(no question)" in screen


def test_the_users_own_observers_are_told_too() -> None:
    told: list[str] = []

    class Mine:
        def window_judged(self, event: object) -> None:
            pass

        def stream_closed(self, report: StreamReport) -> None:
            told.append(report.ended)

    shown(Guard(judge=scripted.judge(), observers=[Mine()]), *ALL)
    assert told == ["aborted", "complete"]


def test_the_server_knows_its_traces_alone() -> None:
    with (
        recite([BICYCLE], pace=0) as recital,
        openai.OpenAI(base_url=recital.url, api_key="none") as client,
        pytest.raises(openai.NotFoundError, match="a harmless question"),
    ):
        client.chat.completions.create(model="m", messages=[], stream=True)


def test_the_embedded_judge_aborts_the_scam_and_passes_the_bicycle() -> None:
    (scam, bicycle), _ = shown(Guard(), *ALL)
    assert scam.ended is Ended.ABORTED
    assert scam.answer.released == 0
    assert bicycle.ended is Ended.COMPLETE
