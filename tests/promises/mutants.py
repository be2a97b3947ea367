"""Sessions with a promise broken on purpose, one fault each."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

from shieldguard import ReleasedEvent, ToolCall, Verdict, Window
from shieldguard.choices import Choice
from shieldguard.errors import JudgeError
from shieldguard.events import CHANNELS, AbortCause
from shieldguard.held import HeldEvents, _Calls, _Other, _Text
from shieldguard.lanes import Lane
from shieldguard.observers import CutBy
from shieldguard.policy import Action, Policy
from shieldguard.session import GuardSession
from shieldguard.verdicts import RiskLevel


def _holding(held: type[HeldEvents]) -> type[GuardSession]:
    class Session(GuardSession):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._held = held(self.policy)

    Session.__name__ = Session.__qualname__ = held.__name__
    return Session


class LetsOthersOvertake(HeldEvents):
    def _release(self, lanes: Any, now: float, *, last: bool = False) -> list[ReleasedEvent]:
        for _ in range(len(self._queue)):
            if released := super()._release(lanes, now, last=last):
                return released
            self._queue.rotate(-1)
        return []


class DrainsAfterTheAbort(GuardSession):
    def receive(self, event: Any, now: float) -> None:
        super().receive(event, now)
        if self.aborted is not None:
            self._held._let_go(event)


class ClearsWhatIsAtTheJudge(GuardSession):
    def windows(self, now: float) -> list[Window]:
        windows = super().windows(now)
        for lane in self._lanes():
            lane.cleared = max(lane.cleared, lane.submitted)
        return windows


class LagsTooFar(HeldEvents):
    def _allowance(self, lane: Lane, lanes: Any) -> int:
        return super()._allowance(lane, lanes) + 9


class CountsEachLaneAlone(HeldEvents):
    def _allowance(self, lane: Lane, lanes: Any) -> int:
        return self._policy.max_unjudged


class ForgetsTheReasoningBefore(HeldEvents):
    def _hold(self, held: _Other | _Text | _Calls) -> None:
        if not isinstance(held, _Other):
            held.gate = ()
        super()._hold(held)


class SendsToolCallsInParts(HeldEvents):
    def _hold_call(self, event: ToolCall, lane: Lane, choice: Choice) -> None:
        super()._hold_call(event, lane, choice)
        self.complete_calls(choice)


class SendsToolCallsUnjudged(HeldEvents):
    def _release_calls(self, head: _Calls, now: float) -> list[ReleasedEvent]:
        for lane, end in head.ends.items():
            lane.cleared = max(lane.cleared, end)
        return super()._release_calls(head, now)


class LosesTheTail(GuardSession):
    def _cut_tail(self, lane: Lane, by: CutBy) -> None:
        if by is not CutBy.TAIL:
            super()._cut_tail(lane, by)
            return
        lane.head += lane.pending
        lane.pending = ""
        lane.submitted = lane.judged = lane.cleared = lane.seen


class DropsWhatIsUnjudgedWhenTheClientLeaves(GuardSession):
    def leave(self, now: float) -> None:
        super().leave(now)
        self._forget_windows()


class JudgesTheTailTwice(GuardSession):
    def _cut_tail(self, lane: Lane, by: CutBy) -> None:
        lane.submitted = max(0, lane.submitted - 1)
        super()._cut_tail(lane, by)


class CutsWhereChunksEnd(GuardSession):
    def _receive_text(self, event: Any, now: float) -> None:
        super()._receive_text(event, now)
        self._cut_tail(self._choices[event.choice].lane(event, self.policy), CutBy.TEXT)


class LetsTheHarmfulWindowOut(GuardSession):
    def _abort(self, cause: AbortCause, now: float, **details: Any) -> None:
        lane = details.get("lane")
        if lane is not None:
            lane.cleared = lane.judged = lane.submitted
        super()._abort(cause, now, **details)


class AbortsLate(GuardSession):
    """Only when the harmful window is the last that it was asked for."""

    def judged(self, window: Window, verdict: Verdict, now: float) -> None:
        if verdict.level is RiskLevel.HARMFUL and any(lane.pending for lane in self._lanes()):
            verdict = Verdict(level=RiskLevel.POTENTIAL)
        super().judged(window, verdict, now)


class EndsOnlyTheHarmfulChoice(GuardSession):
    def _abort(self, cause: AbortCause, now: float, **details: Any) -> None:
        lane = details.get("lane")
        for index in [index for index in self._choices if lane is not None and index != lane.choice]:
            for other in self._choices[index].lanes.values():
                other.cleared = other.judged = other.seen
        super()._abort(cause, now, **details)


class RedactsOneWindowAlone(GuardSession):
    def _redact(self, lane: Lane, start: int) -> None:
        super()._redact(lane, start)
        assert lane.submission is None
        self._ends = lane.submitted

    def take(self, now: float, limit: int | None = None) -> list[ReleasedEvent]:
        taken = super().take(now, limit)
        for lane in self._lanes():
            if lane.redacted_from is not None and lane.out >= getattr(self, "_ends", 0):
                lane.redacted_from = None
        return taken


class RefusesNoToolCalls(GuardSession):
    def _redact(self, lane: Lane, start: int) -> None:
        super()._redact(lane, start)
        self._choices[lane.choice].redacted = False


class ReadsWithoutBound(GuardSession):
    @property
    def wants_data(self) -> bool:
        return not self._finished and self.aborted is None


class WaitsForeverAtTheBound(GuardSession):
    def _relieve(self, now: float) -> None:
        pass


class TakesAFailureForSafe(GuardSession):
    def failed(self, window: Window, error: JudgeError, now: float) -> None:
        self.judged(window, Verdict(level=RiskLevel.SAFE), now)


class SkipsWhatFailed(GuardSession):
    def failed(self, window: Window, error: JudgeError, now: float) -> None:
        lane = self._lane_of(window)
        assert lane is not None
        lane.submission = None
        lane.settle(window.end, False, 1)


class HidesWhatItLetOutUnjudged(GuardSession):
    def failed(self, window: Window, error: JudgeError, now: float) -> None:
        super().failed(window, error, now)
        for lane in self._lanes():
            lane.exposed = 0


class MixesChoices(GuardSession):
    def _receive_text(self, event: Any, now: float) -> None:
        super()._receive_text(replace(event, choice=0), now)


class _OneLaneAChannel(Choice):
    def lane(self, event: Any, policy: Policy) -> Lane:
        lanes = [lane for lane in self.lanes.values() if lane.channel is CHANNELS[type(event)]]
        return lanes[0] if lanes else super().lane(event, policy)


class MixesBlocks(GuardSession):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._choices = defaultdict(_OneLaneAChannel)


class AbortsOnTheFirstHit(GuardSession):
    def _action(self, lane: Lane, verdict: Verdict) -> Action:
        action = super()._action(lane, verdict)
        if action is Action.ABORT:
            lane.recent.extend([True] * self.policy.abort_hits)
        return action


class LetsDoubtOut(GuardSession):
    def judged(self, window: Window, verdict: Verdict, now: float) -> None:
        lane = self._at_judge.get(id(window))
        super().judged(window, verdict, now)
        if lane is not None:
            lane.cleared = lane.judged


class HoldsInShadow(GuardSession):
    def take(self, now: float, limit: int | None = None) -> list[ReleasedEvent]:
        if any(lane.cuts or lane.submission for lane in self._lanes()):
            return []
        return super().take(now, limit)


class SaysThatNothingStirred(GuardSession):
    @property
    def stirred(self) -> bool:
        return self._finished


MUTANTS: dict[str, list[type[GuardSession]]] = {
    "order": [_holding(LetsOthersOvertake), DrainsAfterTheAbort],
    "hold": [ClearsWhatIsAtTheJudge, LosesTheTail],
    "lag": [_holding(LagsTooFar), _holding(CountsEachLaneAlone)],
    "shadow": [HoldsInShadow],
    "gate": [
        _holding(ForgetsTheReasoningBefore),
        _holding(SendsToolCallsInParts),
        _holding(SendsToolCallsUnjudged),
    ],
    "coverage": [LosesTheTail, DropsWhatIsUnjudgedWhenTheClientLeaves, JudgesTheTailTwice],
    "invariance": [CutsWhereChunksEnd],
    "abort": [LetsTheHarmfulWindowOut, AbortsLate, DrainsAfterTheAbort, EndsOnlyTheHarmfulChoice],
    "redaction": [RedactsOneWindowAlone, RefusesNoToolCalls],
    "bounds": [ReadsWithoutBound, WaitsForeverAtTheBound],
    "failure": [TakesAFailureForSafe, SkipsWhatFailed, HidesWhatItLetOutUnjudged],
    "isolation": [MixesChoices, MixesBlocks],
    "debounce": [AbortsOnTheFirstHit, LetsDoubtOut],
    "passes": [SaysThatNothingStirred],
}
