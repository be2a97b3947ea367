"""The promises hold for the session, over generated streams, and are seen broken where they are."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shieldguard import Action, GuardSession, Policy, Reasoning, Release, Rule, ToolCall
from shieldguard.testing import rechunk
from tests.promises import promises
from tests.promises.mutants import MUTANTS
from tests.promises.rig import Play, Session, delays, perform, plays, sources, windowers

HELD = (Release.HOLD, Release.LAG)


@st.composite
def _debounced(draw: st.DrawFn) -> Play:
    words = draw(st.lists(st.sampled_from(["HARM. ", "HARM. ", "a bit. ", "so. "]), min_size=2, max_size=20))
    hits = draw(st.integers(1, 3))
    return Play(
        source=tuple(Reasoning(word, origin=place) for place, word in enumerate(words)),
        policy=Policy(
            abort_hits=hits, abort_within=hits + draw(st.integers(0, 2)), max_wait=None, join_after=9.0
        ),
        windower=draw(windowers),
        delays=draw(delays),
    )


@st.composite
def _tight(draw: st.DrawFn) -> Play:
    """Little may be held, and some of it may not be cut."""
    play = draw(plays(*HELD, marked=False))
    policy = replace(play.policy, max_held=draw(st.integers(1, 30)), tool_call=Rule())
    return replace(play, policy=policy)


@st.composite
def _chunkings(draw: st.DrawFn) -> tuple[Play, Play]:
    """One source in two chunkings; no verdict is late and no window joined."""
    events = [event for event in draw(sources(size=10)) if not isinstance(event, ToolCall)]
    rule = draw(st.sampled_from([Rule(), Rule(harmful=Action.REDACT)]))
    play = Play(
        source=tuple(events),
        policy=Policy(reasoning=rule, max_wait=None, join_after=9.0),
        windower=draw(windowers),
    )
    return play, replace(play, source=tuple(rechunk(events, draw(st.integers(0, 999)), longest=9)))


def _checked(check: promises.Promise, play: Play, session: Session) -> None:
    check(perform(play, session))


def _same(both: tuple[Play, Play], session: Session) -> None:
    promises.invariance(*(perform(play, session) for play in both))


Check = tuple[st.SearchStrategy[object], Callable[..., None]]

CHECKS: dict[str, Check] = {
    "order": (plays(*HELD), partial(_checked, promises.order)),
    "hold": (plays(Release.HOLD), partial(_checked, promises.hold)),
    "lag": (plays(Release.LAG), partial(_checked, promises.hold)),
    "shadow": (plays(Release.SHADOW, marked=False), partial(_checked, promises.shadow)),
    "gate": (plays(*HELD), partial(_checked, promises.gate)),
    "coverage": (plays(*HELD, leaving=True), partial(_checked, promises.coverage)),
    "invariance": (_chunkings(), _same),
    "abort": (plays(Release.HOLD), partial(_checked, promises.abort)),
    "redaction": (plays(Release.HOLD), partial(_checked, promises.redaction)),
    "bounds": (_tight(), partial(_checked, promises.bounds)),
    "failure": (plays(Release.HOLD, failing_open=True), partial(_checked, promises.failure)),
    "isolation": (plays(*HELD), partial(_checked, promises.isolation)),
    "debounce": (_debounced(), partial(_checked, promises.debounce)),
    "passes": (plays(*HELD, marked=False), partial(_checked, promises.passes)),
    "accounts": (plays(*HELD, failing_open=True), partial(_checked, promises.accounts)),
}


def holds(promise: str, session: Session, *, examples: int, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    strategy, check = CHECKS[promise]

    @given(strategy)
    @settings(
        max_examples=examples,
        phases=phases,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    def test(play: object) -> None:
        check(play, session)

    test()


@pytest.mark.parametrize("promise", CHECKS)
def test_the_session_keeps(promise: str) -> None:
    holds(promise, GuardSession, examples=400)


@pytest.mark.parametrize(
    ("promise", "mutant"),
    [(promise, mutant) for promise, mutants in MUTANTS.items() for mutant in mutants],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_mutants_are_found(promise: str, mutant: type[GuardSession]) -> None:
    with pytest.raises(AssertionError):
        holds(promise, mutant, examples=2000, phases=(Phase.generate,))
