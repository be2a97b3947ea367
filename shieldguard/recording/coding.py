"""Steps of a stream as plain data, and back."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from shieldguard.errors import JudgeError, JudgeTimeout, UnparsedVerdict
from shieldguard.events import (
    Aborted,
    Answer,
    Channel,
    End,
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    Redacted,
    Relabel,
    ReleasedEvent,
    SourceEvent,
    ToolCall,
)
from shieldguard.policy import Policy, Rule
from shieldguard.verdicts import RiskCategory, RiskLevel, Verdict
from shieldguard.windows import SentenceWindower, SizeWindower, Window, Windower

FORMAT = "shieldguard-recording-1"

Plain = dict[str, Any]

_EVENTS: dict[str, type[Any]] = {
    "reasoning": Reasoning,
    "answer": Answer,
    "tool_call": ToolCall,
    "opaque": Opaque,
    "passthrough": Passthrough,
    "relabel": Relabel,
    "end": End,
    "redacted": Redacted,
    "aborted": Aborted,
}
_OF_A_STEP = {"stream", "step", "at", "event"}
_NAMES = {kind: name for name, kind in _EVENTS.items()}
_WINDOWERS: dict[str, type[Any]] = {"sentence": SentenceWindower, "size": SizeWindower}
_ERRORS = {kind.__name__: kind for kind in (JudgeError, JudgeTimeout, UnparsedVerdict)}


def plain_event(event: SourceEvent | ReleasedEvent) -> Plain:
    """Without its `origin`, which belongs to a codec, and without what has its default."""
    found: Plain = {"event": _NAMES[type(event)]}
    if isinstance(event, Aborted):
        found |= {"cause": event.cause.value, "notice": event.notice}
        found |= {"channel": event.channel, "choice": event.choice}
        return found
    for name in event.__slots__:
        value = getattr(event, name)
        if name != "origin" and (value or name in ("text", "choice")):
            found[name] = value
    return found


def event_of(plain: Mapping[str, Any]) -> SourceEvent:
    fields = {name: value for name, value in plain.items() if name not in _OF_A_STEP}
    kind = _EVENTS[plain["event"]]
    if kind is Opaque:
        fields["kind"] = OpaqueKind(fields["kind"])
    made: SourceEvent = kind(**fields)
    return made


class Digest:
    """A hash of what left, to the last character."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, events: Iterable[ReleasedEvent]) -> None:
        for event in events:
            self._sha256.update(json.dumps(plain_event(event), sort_keys=True).encode() + b"\n")

    @property
    def value(self) -> str:
        return self._sha256.hexdigest()


def plain_policy(policy: Policy) -> Plain:
    return asdict(policy)


def policy_of(plain: Mapping[str, Any]) -> Policy:
    fields = dict(plain)
    for channel in Channel:
        rule = fields.get(channel.value)
        fields[channel.value] = None if rule is None else Rule(**rule)
    return Policy(**fields)


def plain_windower(windower: Windower) -> Plain:
    if type(windower) is SentenceWindower:
        return {"kind": "sentence", **asdict(windower)}
    if type(windower) is SizeWindower:
        return {"kind": "size", **asdict(windower)}
    return {"kind": "other", "name": f"{type(windower).__module__}:{type(windower).__qualname__}"}


def windower_of(plain: Mapping[str, Any]) -> Windower | None:
    """None for one that is not of this package."""
    fields = dict(plain)
    kind = _WINDOWERS.get(fields.pop("kind"))
    made: Windower | None = kind(**fields) if kind is not None else None
    return made


def plain_window(window: Window) -> Plain:
    """Where it is; its text is that of the events."""
    return {
        "channel": window.channel.value,
        "choice": window.choice,
        "block": window.block,
        "start": window.start,
        "end": window.end,
    }


def plain_outcome(outcome: Verdict | JudgeError) -> Plain:
    if isinstance(outcome, JudgeError):
        return {"error": {"kind": type(outcome).__name__, "says": str(outcome)}}
    odds = outcome.probabilities
    return {
        "verdict": {
            "level": outcome.level.value,
            "judge": outcome.judge,
            "probabilities": None if odds is None else {str(level): p for level, p in odds.items()},
            "category": outcome.category,
            "analysis": outcome.analysis,
            "confirmed": outcome.confirmed,
        }
    }


def outcome_of(plain: Mapping[str, Any]) -> Verdict | JudgeError:
    if "error" in plain:
        kind = _ERRORS.get(plain["error"]["kind"], JudgeError)
        return kind(plain["error"]["says"])
    fields = dict(plain["verdict"])
    odds, category = fields["probabilities"], fields["category"]
    fields["level"] = RiskLevel(fields["level"])
    fields["probabilities"] = odds and {RiskLevel(float(level)): p for level, p in odds.items()}
    fields["category"] = category and RiskCategory(category)
    return Verdict(**fields)
