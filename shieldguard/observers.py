"""What a guard tells those who listen, and the account it gives of each stream."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from shieldguard.errors import JudgeError, RiskDetected
from shieldguard.events import Aborted, Channel, OpaqueKind, ReleasedEvent, SourceEvent
from shieldguard.policy import Action, Policy
from shieldguard.verdicts import RiskLevel, Verdict
from shieldguard.windows import Window, Windower


class CutBy(StrEnum):
    """Why a window ended where it did."""

    TEXT = "text"  # the windower named the cut
    TAIL = "tail"  # the text ended, or gave way to another channel
    CLOCK = "clock"  # `max_wait` was over
    BOUND = "bound"  # the guard held as much as it may


class Ended(StrEnum):
    """How a guarded stream ended."""

    COMPLETE = "complete"
    ABORTED = "aborted"
    CLIENT_LEFT = "client_left"  # closed before its end; what had arrived was judged
    ABANDONED = "abandoned"  # garbage-collected unclosed; its tail is unjudged
    SOURCE_FAILED = "source_failed"  # the source raised; what had arrived was judged


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowJudged:
    """One window's outcome. `start` and `end` are character offsets in its channel's text; `latency` is
    in seconds from submission to verdict. Exactly one of `verdict` and `error` is set."""

    stream: str
    channel: Channel
    choice: int
    block: int
    start: int
    end: int
    action: Action
    latency: float
    cut_by: CutBy
    joined: int = 1
    verdict: Verdict | None = None
    error: JudgeError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Characters of one channel. `exposed` are those that left before, or without, a verdict;
    `withheld` never left. seen = released + redacted + withheld. `added` is the time in seconds
    between the arrival of the first character and its release, None where none was released."""

    seen: int = 0
    judged: int = 0
    released: int = 0
    redacted: int = 0
    withheld: int = 0
    exposed: int = 0
    added: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """The account of one stream. `unobservable` names the kinds of reasoning that could not be read:
    where it is not empty, a report without risk does not mean a clean thought.
    `closed_after` is the time in seconds from the aborting verdict to the source being closed."""

    stream: str
    query: str = field(repr=False)
    ended: Ended
    aborted: Aborted | None
    windows: Sequence[WindowJudged]
    reasoning: Tally
    answer: Tally
    tool_call: Tally
    unobservable: frozenset[OpaqueKind]
    closed_after: float | None

    @property
    def level(self) -> RiskLevel | None:
        """The highest level any window was given; None where none was judged."""
        levels = [window.verdict.level for window in self.windows if window.verdict]
        return max(levels, default=None)

    @property
    def failures(self) -> int:
        """How many windows a judge had no verdict for."""
        return sum(window.error is not None for window in self.windows)

    def raise_for_risk(self) -> None:
        """Raise `RiskDetected` if the stream was aborted for its risk, or the error it was aborted for."""
        if self.aborted is None:
            return
        if self.aborted.error is not None:
            raise self.aborted.error
        raise RiskDetected(
            f"stream {self.stream!r} was aborted on its {self.aborted.channel or 'reasoning'} "
            f"(cause {self.aborted.cause.value!r}, verdict {self.aborted.verdict!r}); "
            "its text must not be used"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened:
    """What a stream is guarded with. `at` is a reading of its clock, in seconds."""

    stream: str
    query: str = field(repr=False)
    policy: Policy
    windower: Windower
    redactable: bool
    at: float


class StepKind(StrEnum):
    """What a session was told or asked, and what then stands in `Step.of`."""

    RECEIVED = "received"  # the source's event
    WEIGHED = "weighed"  # the size of what the last events came in, which counts against the bound
    TICKED = "ticked"  # None
    ASKED = "asked"  # the windows that it named
    JUDGED = "judged"  # the window, and its verdict or error
    TAKEN = "taken"  # the events that left, none where text went without one; and how many were asked for
    FAILED = "failed"  # the source's error, for which the stream may be aborted
    FINISHED = "finished"  # None, or what the source raised
    LEFT = "left"  # None
    ABANDONED = "abandoned"  # None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a stream, with its text. All of them, in order, make the stream again."""

    stream: str
    kind: StepKind
    at: float
    of: (
        int
        | SourceEvent
        | Exception
        | Sequence[Window]
        | tuple[Window, Verdict | JudgeError]
        | tuple[Sequence[ReleasedEvent], int | None]
        | None
    ) = field(default=None, repr=False)


class Observer(Protocol):
    """Hears what happened. Called where the stream is read, so it must not block; what it raises is
    logged and changes nothing. It may also have `stream_began(stream)`, called with the stream's id where
    the stream is made, in the context (`contextvars`) of whoever makes it; and, for one that records streams
    and their text, `stream_opened(opened: StreamOpened)` and `stream_step(step: Step)`."""

    def window_judged(self, event: WindowJudged) -> None: ...

    def stream_closed(self, report: StreamReport) -> None: ...
