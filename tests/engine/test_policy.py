"""What follows from a verdict, and which policies are none."""

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from shieldguard import (
    Action,
    Channel,
    ConfigError,
    Guard,
    OpaqueReasoning,
    Policy,
    Release,
    RiskLevel,
    Rule,
    SentenceWindower,
)
from shieldguard.testing import ScriptedJudge

CHANNELS = list(Channel)
NO_NUMBER_ABOVE_0 = [0, -1, float("nan"), float("-inf")]


def rule_of(**settings: Any) -> Rule:
    return Rule(**settings)


def policy_of(**settings: Any) -> Policy:
    return Policy(**settings)


# -- defaults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", CHANNELS)
def test_each_channel_is_judged_and_released_flagged_or_aborted_by_its_level(channel: Channel) -> None:
    rule = Policy().rule(channel)
    assert rule is not None
    assert [rule.action(level) for level in RiskLevel] == [Action.RELEASE, Action.FLAG, Action.ABORT]


def test_text_is_held_and_failures_close() -> None:
    assert Policy().release is Release.HOLD
    assert Policy().on_failure is Action.ABORT


def test_the_first_hit_aborts() -> None:
    assert (Policy().abort_hits, Policy().abort_within) == (1, 1)


def test_the_clock_is_on_and_counts_seconds() -> None:
    max_wait = Policy().max_wait
    assert max_wait is not None
    assert 1 <= max_wait <= 60


def test_opaque_reasoning_passes() -> None:
    assert Policy().on_opaque is OpaqueReasoning.RELEASE


def test_a_guard_has_the_default_policy_and_cuts_sentences() -> None:
    guard = Guard(judge=ScriptedJudge())
    assert guard.policy == Policy()
    assert guard.windower == SentenceWindower()


# -- rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize(
    ("name", "level"),
    [("safe", RiskLevel.SAFE), ("potential", RiskLevel.POTENTIAL), ("harmful", RiskLevel.HARMFUL)],
)
def test_a_rule_names_the_action_of_each_level(name: str, level: RiskLevel, action: Action) -> None:
    rule = rule_of(**{name: action.value})
    assert rule.action(level) is action
    others = set(RiskLevel) - {level}
    assert all(rule.action(other) is Rule().action(other) for other in others)


@pytest.mark.parametrize("channel", CHANNELS)
def test_each_channel_has_a_rule_of_its_own(channel: Channel) -> None:
    own = Rule(harmful=Action.REDACT)
    policy = policy_of(**{channel.value: own})
    assert [other for other in CHANNELS if policy.rule(other) == own] == [channel]


@pytest.mark.parametrize("channel", [Channel.ANSWER, Channel.TOOL_CALL])
def test_answers_and_tool_calls_may_go_unjudged(channel: Channel) -> None:
    policy = policy_of(**{channel.value: None})
    assert [other for other in CHANNELS if policy.rule(other) is None] == [channel]


# -- what is written as text -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "members"),
    [("release", Release), ("on_opaque", OpaqueReasoning), ("on_failure", (Action.ABORT, Action.FLAG))],
)
def test_a_choice_may_be_given_as_text(name: str, members: Any) -> None:
    for member in members:
        assert getattr(policy_of(**{name: member.value}), name) is member


@pytest.mark.parametrize("name", ["safe", "potential", "harmful"])
@pytest.mark.parametrize("value", ["stop", "ABORT", "", None, 1, ["abort"]], ids=repr)
def test_an_action_that_is_none_is_refused_and_the_actions_are_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        rule_of(**{name: value})
    assert str(refused.value) == f"{name}={value!r}; choose one of 'release', 'flag', 'redact', 'abort'"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"release": "later"}, "release='later'; choose one of 'hold', 'lag', 'shadow'"),
    ({"release": None}, "release=None; choose one of 'hold', 'lag', 'shadow'"),
    ({"on_opaque": "hide"}, "on_opaque='hide'; choose one of 'release', 'judge_answer', 'abort'"),
    ({"on_failure": "pass"}, "on_failure='pass'; choose one of 'release', 'flag', 'redact', 'abort'"),
    ({"on_failure": "release"}, "on_failure='release'; choose 'abort' or 'flag'"),
    ({"on_failure": Action.REDACT}, "on_failure='redact'; choose 'abort' or 'flag'"),
    ({"abort_hits": 0}, "abort_hits=0 of abort_within=1 cannot be counted"),
    ({"abort_hits": -1, "abort_within": 3}, "abort_hits=-1 of abort_within=3 cannot be counted"),
    ({"abort_hits": 3, "abort_within": 2}, "abort_hits=3 of abort_within=2 cannot be counted"),
    ({"abort_within": 0}, "abort_hits=1 of abort_within=0 cannot be counted"),
    ({"join_after": -0.1}, "join_after=-0.1; give a number of seconds, 0 or more"),
    ({"join_after": float("nan")}, "join_after=nan; give a number of seconds, 0 or more"),
    ({"reasoning": None}, "reasoning=None; give a Rule: reasoning is always judged"),
    ({"reasoning": "abort"}, "reasoning='abort'; give a Rule: reasoning is always judged"),
    *(
        ({name: value}, f"{name}={value!r}; give a number above 0")
        for name in ("judge_timeout", "max_held", "max_held_bytes", "max_wait", "max_unjudged")
        for value in NO_NUMBER_ABOVE_0
    ),
]


@pytest.mark.parametrize(("settings", "says"), REFUSED, ids=[str(settings) for settings, _ in REFUSED])
def test_a_policy_that_cannot_work_is_refused_with_its_value(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        policy_of(**settings)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("judge_timeout", None),
        ("max_held", None),
        ("max_unjudged", None),
        ("join_after", None),
        ("judge_timeout", "10"),
        ("answer", "abort"),
        ("tool_call", Action.ABORT),
    ],
)
def test_a_setting_of_another_kind_is_refused_with_its_value(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value!r}"):
        policy_of(**{name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"max_wait": None},
        {"join_after": 0},
        {"abort_hits": 2, "abort_within": 2},
        {"max_unjudged": 1, "max_held": 1},
        {"judge_timeout": float("inf")},
    ],
    ids=str,
)
def test_settings_at_the_edge_of_what_works_are_taken(settings: dict[str, Any]) -> None:
    policy = policy_of(**settings)
    assert {name: getattr(policy, name) for name in settings} == settings


# -- policies are values -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [Rule(), Policy()])
def test_neither_a_rule_nor_a_policy_changes(value: Any) -> None:
    for field in fields(value):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)


def test_policies_of_the_same_settings_are_equal_however_they_were_written() -> None:
    policy = policy_of(release="lag", reasoning=rule_of(harmful="redact"))
    assert policy == Policy(release=Release.LAG, reasoning=Rule(harmful=Action.REDACT))
    assert hash(policy) == hash(Policy(release=Release.LAG, reasoning=Rule(harmful=Action.REDACT)))
    assert policy != Policy()
