"""Recorded streams again: as they were, or as they would have been under another policy."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from shieldguard.errors import ConfigError, ShieldguardError, SourceError
from shieldguard.evaluation.borders import Borders
from shieldguard.evaluation.virtual import Answered, Ask, Judged, Played, play
from shieldguard.events import ReleasedEvent, SourceEvent
from shieldguard.policy import Policy
from shieldguard.recording.coding import Digest, event_of, outcome_of
from shieldguard.recording.reader import Place, Recording, place
from shieldguard.session import GuardSession
from shieldguard.windows import Window, Windower

Step: TypeAlias = Mapping[str, Any]


class RecordingDiffers(ShieldguardError):
    """A recording, played again, does not give what was recorded: another version of the guard, or a file
    that was changed."""


def again(recording: Recording, windower: Windower | None = None) -> Played:
    """Play a recording step by step, under the policy that it was recorded under.

    `windower`: the one it was cut by, where that is not of this package. Raises `ConfigError` where it is
    needed and absent, and `RecordingDiffers` where another window is asked for, or another text leaves.
    """
    played = _Again(recording, _windower(recording, windower)).to_the_end()
    found = Digest()
    found.add(played.events)
    if recording.output not in (None, found.value):
        raise RecordingDiffers(
            f"stream {recording.stream!r} let out another text than was recorded "
            f"(sha256 {found.value[:12]}… for {str(recording.output)[:12]}…)"
        )
    return played


@dataclass(frozen=True, slots=True, kw_only=True)
class Under:
    """What a stream is to be played under. None for what was recorded. `ask`: a judge to ask, in place of the
    recorded verdicts."""

    policy: Policy | None = None
    windower: Windower | None = None
    borders: Borders | None = None
    ask: Ask | None = None


def under(recording: Recording, other: Under) -> Played:
    """Play a recording under another policy: its events as they came, its verdicts after the same time.

    Where the recording ends before the stream does, since it was aborted, `Played.unknown` is set. Raises
    `ConfigError` where a window is to be judged that was not recorded, and there is no judge to ask.
    """
    session = GuardSession(
        recording.query,
        policy=other.policy or recording.policy,
        windower=_windower(recording, other.windower),
        redactable=recording.redactable,
        stream=recording.stream,
    )
    return play(recording.arrivals(), session, other.ask or _recorded(recording, other.borders))


def _recorded(recording: Recording, borders: Borders | None) -> Ask:
    verdicts = recording.judgements()
    known = [end for *_, end in verdicts]
    was_cut_short = recording.ended != "complete"
    ends: dict[tuple[str, int, int], int] = {}
    for channel, choice, block, _, end in verdicts:
        ends[channel, choice, block] = max(end, ends.get((channel, choice, block), 0))

    def ask(window: Window) -> Answered | None:
        found = verdicts.get(_place(window))
        if found is not None:
            outcome = found.outcome
            if borders is not None:
                outcome = borders.judged_again(outcome, window.channel)
            return outcome, found.seconds
        lane = window.channel.value, window.choice, window.block
        if was_cut_short and window.start >= ends.get(lane, 0):
            return None
        raise ConfigError(
            f"stream {recording.stream!r} has no verdict on characters {window.start} to {window.end} of its "
            f"{window.channel.value} (block {window.block}): it was cut into other windows, or that channel "
            f"was not judged ({len(known)} windows were); name a judge to ask (--judge)"
        )

    return ask


def _place(window: Window) -> Place:
    return window.channel.value, window.choice, window.block, window.start, window.end


def _windower(recording: Recording, given: Windower | None) -> Windower:
    windower = given or recording.windower
    if windower is None:
        raise ConfigError(
            f"stream {recording.stream!r} was cut by {recording.windower_name!r}, which is not of this "
            "package; give it, or another windower and a judge to ask"
        )
    return windower


class _Again:
    """Tells a new session what the recorded one was told."""

    def __init__(self, recording: Recording, windower: Windower) -> None:
        self.recording = recording
        self.session = GuardSession(
            recording.query,
            policy=recording.policy,
            windower=windower,
            redactable=recording.redactable,
            stream=recording.stream,
        )
        self.failed = False
        self.at_judge: dict[Place, tuple[Window, float]] = {}
        self.received: list[tuple[float, SourceEvent]] = []
        self.judged: list[Judged] = []
        self.taken: list[tuple[float, ReleasedEvent]] = []

    def to_the_end(self) -> Played:
        for step in self.recording.steps:
            self._step(step["step"], step["at"], step)
        report = self.session.report(source_failed=self.failed)
        if self.recording.ended not in (None, report.ended.value):
            raise RecordingDiffers(
                f"stream {self.recording.stream!r} ended as {report.ended.value!r}, and "
                f"{self.recording.ended!r} was recorded"
            )
        aborted_at = self.session.aborted_at
        return Played(
            received=self.received,
            judged=self.judged,
            taken=self.taken,
            report=replace(report, closed_after=None),
            aborted_at=None if aborted_at is None else aborted_at - self.recording.opened,
        )

    def _step(self, kind: str, at: float, step: Step) -> None:
        now = at - self.recording.opened
        session = self.session
        match kind:
            case "received":
                event = event_of(step)
                self.received.append((now, event))
                session.receive(event, at)
            case "weighed":
                session.weigh(step["size"])
            case "ticked":
                session.tick(at)
            case "asked":
                self._asked(step, at)
            case "judged":
                self._judged(step, at)
            case "taken":
                count = step["events"]
                events = session.take(at, step["limit"])
                if len(events) != count:
                    raise self._differs(f"let out {len(events)} events {now:.3f} s on, not {count}")
                self.taken += [(now, event) for event in events]
            case "failed":
                session.fail(SourceError(str(step["error"])), at)
            case "finished":
                self.failed = "error" in step
                session.finish(at)
            case "left":
                session.leave(at)
            case "abandoned":
                session.abandon()

    def _asked(self, step: Step, at: float) -> None:
        named = {_place(window): window for window in self.session.windows(at)}
        windows = step["windows"]
        if list(named) != [place(window) for window in windows]:
            raise self._differs(f"named the windows {list(named)!r}, not {windows!r}")
        self.at_judge |= {where: (window, at) for where, window in named.items()}

    def _judged(self, step: Step, at: float) -> None:
        where = step["window"]
        found = self.at_judge.pop(place(where), None)
        if found is None:
            raise self._differs(f"never named the window {where!r}")
        window, asked = found
        outcome = outcome_of(step)
        opened = self.recording.opened
        self.judged.append(Judged(window=window, asked=asked - opened, answered=at - opened, outcome=outcome))
        if isinstance(outcome, Exception):
            self.session.failed(window, outcome, at)
        else:
            self.session.judged(window, outcome, at)

    def _differs(self, what: str) -> RecordingDiffers:
        return RecordingDiffers(
            f"stream {self.recording.stream!r}, played again, {what}: "
            "it was recorded by another version, or changed"
        )
