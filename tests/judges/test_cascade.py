"""A screen, and who looks again."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from shieldguard import Cascade, ConfigError, JudgeError, JudgeTimeout, RiskLevel, Verdict, Window
from shieldguard.testing import ScriptedJudge

WINDOW = Window(query="Why?", text="A thought.", stream="s")


def rated(risk: float, level: float = 0.0) -> Callable[[Window], Verdict]:
    """A screen's verdict with this much risk."""
    odds = {RiskLevel.SAFE: 1 - risk, RiskLevel.POTENTIAL: 0.0, RiskLevel.HARMFUL: risk}
    return lambda _: Verdict(level=RiskLevel(level), judge="screen", probabilities=odds)


def failing(_: Window) -> JudgeError:
    return JudgeError("no verdict today")


def screen(rule: Any, **options: Any) -> ScriptedJudge:
    return ScriptedJudge(rule, name="screen", **options)


def better(rule: Any = lambda _: 1.0, **options: Any) -> ScriptedJudge:
    return ScriptedJudge(rule, name="better", **options)


@pytest.fixture(params=["asyncio", "trio"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Verdict]:
    def ask(cascade: Cascade, window: Window = WINDOW) -> Verdict:
        verdict = anyio.run(partial(cascade.judge, window), backend=request.param)
        assert isinstance(verdict, Verdict)
        return verdict

    return ask


Ask = Callable[..., Verdict]


def test_what_is_surely_safe_is_not_looked_at_again(ask: Ask) -> None:
    confirm = better()
    verdict = ask(Cascade(screen(rated(0.05)), confirm))
    assert (verdict.level, verdict.judge, confirm.windows) == (RiskLevel.SAFE, "screen", [])


@pytest.mark.parametrize("rule", [rated(0.1), rated(0.9, 1.0), rated(0.01, 1.0), lambda _: 0.5])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_what_is_doubtful_is_decided_by_the_better_judge(ask: Ask, rule: Any, level: float) -> None:
    verdict = ask(Cascade(screen(rule), better(lambda _: level), threshold=0.1))
    assert (verdict.level, verdict.judge, verdict.confirmed) == (RiskLevel(level), "better", True)


@pytest.mark.parametrize("confirm", [better(failing), better(delay=60), better(lambda _: 1 / 0)])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_without_a_confirmation_the_screen_decides_and_says_so(
    ask: Ask, confirm: ScriptedJudge, level: float
) -> None:
    began = time.monotonic()
    verdict = ask(Cascade(screen(rated(0.6, level)), confirm, confirm_timeout=0.1))
    assert (verdict.level, verdict.judge, verdict.confirmed) == (RiskLevel(level), "screen", False)
    assert time.monotonic() - began < 20


def test_a_slow_confirmation_leaves_time_to_act_before_the_window_is_late(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shieldguard.judges.cascade._TO_ACT", 5.0)  # as this machine may be slow
    deadline = time.monotonic() + 5.5
    window = Window(query="", text="x", deadline=deadline)
    assert not ask(Cascade(screen(rated(0.6)), better(delay=60)), window).confirmed
    assert time.monotonic() < deadline


@pytest.mark.parametrize("first", [screen(failing), screen(rated(0.0), delay=5), screen(lambda _: 1 / 0)])
def test_a_screen_that_fails_leaves_the_verdict_to_the_better_judge(ask: Ask, first: ScriptedJudge) -> None:
    verdict = ask(Cascade(first, better(), screen_timeout=0.1))
    assert (verdict.level, verdict.judge, verdict.confirmed) == (RiskLevel.HARMFUL, "better", True)


def test_where_both_fail_there_is_no_verdict(ask: Ask) -> None:
    with pytest.raises(JudgeError, match="no verdict today"):
        ask(Cascade(screen(failing), better(failing)))


def test_a_judge_that_answers_nonsense_has_failed(ask: Ask) -> None:
    class Nonsense:
        name = "nonsense"

        async def judge(self, window: Window) -> Verdict:
            return "safe"  # type: ignore[return-value]

    assert ask(Cascade(Nonsense(), better())).judge == "better"
    assert not ask(Cascade(screen(rated(1.0, 1.0)), Nonsense())).confirmed


def test_each_stage_is_told_its_own_deadline(ask: Ask) -> None:
    first, second = screen(rated(0.5)), better()
    ask(Cascade(first, second, screen_timeout=20, confirm_timeout=60))
    now = time.monotonic()
    assert 0 < first.windows[0].deadline - now <= 20
    assert 40 < second.windows[0].deadline - now <= 60


def test_a_cascade_is_a_judge_like_any_other(ask: Ask) -> None:
    inner = Cascade(ScriptedJudge(rated(0.5), name="fast"), better(failing))
    verdict = ask(Cascade(screen(rated(0.5)), inner))
    assert (verdict.judge, verdict.confirmed) == ("screen", False)
    assert inner.name == "fast, then better"


def test_each_stage_hears_that_a_stream_has_ended() -> None:
    class Keeper(ScriptedJudge):
        def forget(self, stream: str) -> None:
            ended.append(stream)

    ended: list[str] = []
    Cascade(Keeper(), Cascade(screen(rated(0.0)), Keeper())).forget("s")
    assert ended == ["s", "s"]


@pytest.mark.parametrize("options", [{"threshold": 1.1}, {"screen_timeout": 0}, {"confirm_timeout": -1}])
def test_settings_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))):
        Cascade(screen({}), better(), **options)


def test_a_screen_that_hangs_leaves_time_for_the_other(ask: Ask) -> None:
    window = replace(WINDOW, deadline=time.monotonic() + 3)
    verdict = ask(Cascade(screen(rated(0.5), delay=30), better(lambda _: 1.0)), window)
    assert (verdict.level, verdict.judge) == (RiskLevel.HARMFUL, "better")
    window = replace(WINDOW, deadline=time.monotonic() + 30)
    with pytest.raises(JudgeTimeout, match=r"no verdict from 'better' within 0\.2 "):
        ask(Cascade(screen(failing), better(delay=30), confirm_timeout=0.2), window)
