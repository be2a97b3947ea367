"""Reading recorded streams."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shieldguard.errors import ConfigError, JudgeError
from shieldguard.events import SourceEvent
from shieldguard.policy import Policy
from shieldguard.recording.coding import FORMAT, event_of, outcome_of, policy_of, windower_of
from shieldguard.verdicts import Verdict
from shieldguard.windows import Windower

Place = tuple[str, int, int, int, int]
"""A window: channel, choice, block, start, end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge said of a window, and after how many seconds."""

    outcome: Verdict | JudgeError
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One stream as it was. `windower`: None for one that is not of this package. `ended`, `output` (a hash
    of what left): None where the recording breaks off. Times are those of the clock of its process."""

    stream: str
    query: str = field(repr=False)
    policy: Policy
    windower: Windower | None
    windower_name: str
    redactable: bool
    opened: float
    time: str
    steps: Sequence[Mapping[str, Any]] = field(repr=False)
    ended: str | None
    cause: str | None
    output: str | None

    def arrivals(self) -> Iterator[tuple[float, SourceEvent]]:
        """The source's events, each with the time of its arrival in seconds from the beginning."""
        for step in self.steps:
            if step["step"] == "received":
                yield step["at"] - self.opened, event_of(step)

    def source(self) -> list[SourceEvent]:
        """The source's events, to be guarded again: `guard.stream_sync(recording.source())`."""
        return [event for _, event in self.arrivals()]

    def judgements(self) -> dict[Place, Judgement]:
        """The recorded verdicts by their windows."""
        asked: dict[Place, float] = {}
        found: dict[Place, Judgement] = {}
        for step in self.steps:
            if step["step"] == "asked":
                asked |= {place(window): step["at"] for window in step["windows"]}
            elif step["step"] == "judged":
                where = place(step["window"])
                seconds = max(0.0, step["at"] - asked.get(where, step["at"]))
                found[where] = Judgement(outcome=outcome_of(step), seconds=seconds)
        return found


def place(window: Mapping[str, Any]) -> Place:
    return window["channel"], window["choice"], window["block"], window["start"], window["end"]


def read(path: str | Path) -> list[Recording]:
    """The streams of a file, or of the .jsonl files of a folder, in the order in which they began.

    A last line that was cut off in the middle is left out. Raises `ConfigError` for what is no recording.
    """
    path = Path(path)
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    found = [recording for file in files for recording in _read(file)]
    if not found:
        raise ConfigError(f"{str(path)!r} holds no recorded stream; give what a Recorder wrote")
    return found


def _read(file: Path) -> Iterator[Recording]:
    streams: dict[str, list[dict[str, Any]]] = {}
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the recording {str(file)!r}: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            step = json.loads(line)
            streams.setdefault(step["stream"], []).append(step)
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise ConfigError(f"line {number} of {str(file)!r} is no step of a stream: {error!r}") from None
    for stream, steps in streams.items():
        try:
            yield _recording(stream, steps)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"stream {stream!r} of {str(file)!r} cannot be read: {error!r}; "
                f"a recording of the format {FORMAT!r} is needed"
            ) from None


def _recording(stream: str, steps: list[dict[str, Any]]) -> Recording:
    opened, *rest = steps
    if opened["step"] != "opened" or opened["format"] != FORMAT:
        raise ValueError(f"it begins with {opened['step']!r}")
    closed = rest.pop() if rest and rest[-1]["step"] == "closed" else {}
    recording = Recording(
        stream=stream,
        query=opened["query"],
        policy=policy_of(opened["policy"]),
        windower=windower_of(opened["windower"]),
        windower_name=str(opened["windower"].get("name", opened["windower"]["kind"])),
        redactable=opened["redactable"],
        opened=opened["at"],
        time=opened["time"],
        steps=rest,
        ended=closed.get("ended"),
        cause=closed.get("cause"),
        output=closed.get("output"),
    )
    for _ in recording.arrivals():
        pass
    recording.judgements()
    return recording
