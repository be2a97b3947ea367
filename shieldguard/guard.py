"""The guard: a judge, and how to use it."""

from collections.abc import AsyncIterable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from shieldguard.driving import Drive, SourceItem
from shieldguard.errors import ConfigError
from shieldguard.judges.protocol import Judge
from shieldguard.judging import JudgeLoop
from shieldguard.observers import Observer
from shieldguard.policy import Policy
from shieldguard.session import GuardSession
from shieldguard.stream import GuardedStream
from shieldguard.stream_sync import SyncGuardedStream
from shieldguard.thinking import Thinking, ThinkSplitter
from shieldguard.windows import SentenceWindower, Windower


def _embedded_judge() -> Judge:
    from shieldguard.judges.embedded import EmbeddedJudge  # loads numpy and the weights

    return EmbeddedJudge()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A judge, and how to use it. Immutable, and shared by any number of streams, threads and loops.

    `judge` defaults to the `EmbeddedJudge`, a small screening model that comes with shieldguard.
    """

    judge: Judge = field(default_factory=_embedded_judge)
    policy: Policy = Policy()
    windower: Windower = SentenceWindower()
    observers: Sequence[Observer] = ()
    _judges: JudgeLoop = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.judge, Judge):
            raise ConfigError(f"judge={self.judge!r} has no `name` and `async judge(window)`; give a Judge")
        object.__setattr__(self, "observers", tuple(self.observers))
        object.__setattr__(self, "_judges", JudgeLoop(self.judge))

    def stream(
        self,
        source: AsyncIterable[SourceItem],
        *,
        query: str = "",
        thinking: Thinking | str = Thinking.AUTO,
        redactable: bool = True,
    ) -> GuardedStream:
        """Guard an async iterable of events, or of text with inline think tags (`thinking` says how it
        begins). `query` is what the model was asked. `redactable=False`: whoever reads the result cannot
        take a notice in the middle, so a redaction aborts."""
        return GuardedStream(self._drive(query, thinking, redactable), source)

    def stream_sync(
        self,
        source: Iterable[SourceItem],
        *,
        query: str = "",
        thinking: Thinking | str = Thinking.AUTO,
        redactable: bool = True,
    ) -> SyncGuardedStream:
        """The same for a plain iterable."""
        return SyncGuardedStream(self._drive(query, thinking, redactable), source)

    def variant(
        self, *, policy: Policy | None = None, observers: Sequence[Observer] | None = None
    ) -> "Guard":
        """The same judge with another policy or other observers, on the event loop of this guard: a judge
        is asked on one alone, and a service may have a policy for each of its clients."""
        made = replace(
            self,
            policy=self.policy if policy is None else policy,
            observers=self.observers if observers is None else observers,
        )
        object.__setattr__(made, "_judges", self._judges)
        return made

    def _drive(self, query: str, thinking: Thinking | str, redactable: bool) -> Drive:
        session = GuardSession(query, policy=self.policy, windower=self.windower, redactable=redactable)
        return Drive(session, self._judges, self.observers, ThinkSplitter(thinking))
