"""What follows from a verdict, as data."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, TypeVar

from shieldguard.errors import ConfigError
from shieldguard.events import Channel
from shieldguard.verdicts import RiskLevel

E = TypeVar("E", bound=StrEnum)


def _member(kind: type[E], value: str, name: str) -> E:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(repr(member.value) for member in kind)
        raise ConfigError(f"{name}={value!r}; choose one of {choices}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


class Action(StrEnum):
    """What happens to a judged window."""

    RELEASE = "release"
    FLAG = "flag"  # release, and say so in the report
    REDACT = "redact"  # put a notice in its place and in that of all that follows on its channel
    ABORT = "abort"  # end the whole response


class Release(StrEnum):
    """When text leaves, relative to its verdict."""

    HOLD = "hold"  # after it
    LAG = "lag"  # at most `max_unjudged` characters ahead of it
    SHADOW = "shadow"  # at once; verdicts are only recorded


class OpaqueReasoning(StrEnum):
    """What to do when a model's reasoning cannot be read. It is reported as unobservable in each case."""

    RELEASE = "release"
    JUDGE_ANSWER = "judge_answer"  # judge the answer even where the policy would not
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The action for each risk level on one channel."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # for configuration files

    safe: Action = Action.RELEASE
    potential: Action = Action.FLAG
    harmful: Action = Action.ABORT

    def __post_init__(self) -> None:
        for name in ("safe", "potential", "harmful"):
            object.__setattr__(self, name, _member(Action, getattr(self, name), name))

    def action(self, level: RiskLevel) -> Action:
        if level is RiskLevel.SAFE:
            return self.safe
        return self.potential if level is RiskLevel.POTENTIAL else self.harmful


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The defaults release level 0, flag 0.5, abort on 1, hold all text until judged, and fail closed.

    `reasoning`, `answer`, `tool_call`: the rule of each channel; None for a channel that is not judged
    (reasoning always is). `on_failure`: abort, or flag to fail open, when a judge has no verdict.
    `abort_hits` of the last `abort_within` windows must call for an abort before it happens; what is in
    doubt stays held meanwhile. `max_unjudged`: characters out ahead of their verdict in mode `lag`.
    `max_wait`: seconds after which text too short for a window is judged as it is; None for never.
    `join_after`: a judge slower than this (seconds) gets all windows that queued up as one.
    `judge_timeout`: seconds from submission to `JudgeTimeout`. `max_held`: characters held back at
    most, and `max_held_bytes` of what they came in (where the source says so), past which the source is
    not read. `notice` takes the place of withheld text, and
    `failure_notice` where the guard stopped for another reason than risk.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    reasoning: Rule = Rule()
    answer: Rule | None = Rule()
    tool_call: Rule | None = Rule()
    on_failure: Action = Action.ABORT
    on_opaque: OpaqueReasoning = OpaqueReasoning.RELEASE
    release: Release = Release.HOLD
    max_unjudged: int = 800
    abort_hits: int = 1
    abort_within: int = 1
    max_wait: float | None = 3.0
    join_after: float = 0.02
    judge_timeout: float = 10.0
    max_held: int = 262_144
    max_held_bytes: int = 1 << 25
    notice: str = "[Withheld: a safety check rated this content as harmful.]"
    failure_notice: str = "[Stopped: the safety check of this response could not be completed.]"

    def __post_init__(self) -> None:
        for name, kind in (("on_failure", Action), ("on_opaque", OpaqueReasoning), ("release", Release)):
            object.__setattr__(self, name, _member(kind, getattr(self, name), name))
        if self.on_failure not in (Action.ABORT, Action.FLAG):
            raise ConfigError(f"on_failure={self.on_failure.value!r}; choose 'abort' or 'flag'")
        if not 1 <= self.abort_hits <= self.abort_within:
            raise ConfigError(
                f"abort_hits={self.abort_hits!r} of abort_within={self.abort_within!r} cannot be counted; "
                "take 1 <= abort_hits <= abort_within"
            )
        for name in ("judge_timeout", "max_held", "max_held_bytes", "max_wait", "max_unjudged"):
            value = getattr(self, name)
            if not (_is_number(value) and value > 0) and not (name == "max_wait" and value is None):
                raise ConfigError(f"{name}={value!r}; give a number above 0")
        if not (_is_number(self.join_after) and self.join_after >= 0):
            raise ConfigError(f"join_after={self.join_after!r}; give a number of seconds, 0 or more")
        if not isinstance(self.reasoning, Rule):
            raise ConfigError(f"reasoning={self.reasoning!r}; give a Rule: reasoning is always judged")
        for name in ("answer", "tool_call"):
            value = getattr(self, name)
            if not isinstance(value, Rule | None):
                raise ConfigError(f"{name}={value!r}; give a Rule, or None for a channel that is not judged")

    def rule(self, channel: Channel) -> Rule | None:
        if channel is Channel.REASONING:
            return self.reasoning
        return self.answer if channel is Channel.ANSWER else self.tool_call

    @property
    def redacts(self) -> bool:
        """Whether any verdict can lead to a redaction."""
        rules = [rule for channel in Channel if (rule := self.rule(channel)) is not None]
        return any(Action.REDACT in (rule.safe, rule.potential, rule.harmful) for rule in rules)
