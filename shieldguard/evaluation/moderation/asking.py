"""Asking a judge about every row, several at a time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
import anyio.to_thread

from shieldguard.errors import (
    ConfigError,
    JudgeBusy,
    JudgeError,
    JudgeRefused,
    JudgeTimeout,
    JudgeUnreachable,
    ShieldguardError,
)
from shieldguard.evaluation.moderation import Task
from shieldguard.evaluation.moderation.journal import Answer, Journal, Key
from shieldguard.evaluation.rows import DataSet, Row
from shieldguard.judges.protocol import Judge
from shieldguard.verdicts import checked
from shieldguard.windows import Window

# They say nothing about the text that was to be rated.
_BROKEN = (JudgeUnreachable, JudgeRefused, JudgeBusy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Asks `judge` about each row of `sets` in each of `runs`, unless the journal has its answer already.

    `concurrency`: rows at a time. `timeout`: seconds for each; past them it counts as one without a verdict.
    `count_failures`: a judge that breaks (it cannot be reached, it refuses, it raises what is no
    `JudgeError`) counts as one that gave no verdict, too; by default that ends the run.
    """

    judge: Judge
    task: Task
    sets: Sequence[DataSet]
    journal: Journal
    runs: int = 1
    concurrency: int = 32
    timeout: float = float("inf")
    count_failures: bool = False

    def __post_init__(self) -> None:
        for option in ("runs", "concurrency"):
            if getattr(self, option) < 1:
                raise ConfigError(f"{option}={getattr(self, option)!r}; give 1 or more")
        if not self.timeout > 0:
            raise ConfigError(f"timeout={self.timeout!r}; give a number of seconds above 0")

    @property
    def total(self) -> int:
        return self.runs * sum(len(data.rows) for data in self.sets)

    @property
    def left(self) -> list[tuple[Key, Row]]:
        """What the journal has no answer to, run by run."""
        return [
            ((data.name, row.number, run), row)
            for run in range(self.runs)
            for data in self.sets
            for row in data.rows
            if (data.name, row.number, run) not in self.journal.answers
        ]

    @property
    def kept(self) -> str:
        """For whoever stopped it."""
        return (
            f"{self.total - len(self.left)} of {self.total} verdicts are kept in "
            f"{str(self.journal.folder)!r}, and the same command goes on with the rest"
        )

    async def run(self, heard: Callable[[Answer], None] = lambda answer: None) -> None:
        """Ask; `heard` is called with each answer once it is kept.

        Raises `ShieldguardError` where the judge breaks: what was answered until then is kept.
        """
        waiting = iter(self.left)
        broken: list[ShieldguardError] = []

        async def work() -> None:
            for key, row in waiting:
                try:
                    answer = await self._asked(key, row)
                except Exception as error:
                    broken.append(self._stopped(key, error))
                    group.cancel_scope.cancel()
                    return
                await anyio.to_thread.run_sync(self.journal.add, answer)
                heard(answer)

        async with anyio.create_task_group() as group:
            for _ in range(self.concurrency):
                group.start_soon(work)
        if broken:
            raise broken[0]

    async def _asked(self, key: Key, row: Row) -> Answer:
        """The judge's answer. Raises what breaks it."""
        began = time.monotonic()
        stream = "/".join(map(str, key))
        window = Window(
            query=row.question,
            text=row.text,
            channel=self.task.channel,
            stream=stream,
            deadline=began + self.timeout,
        )
        error: Exception = JudgeTimeout(f"no verdict within {self.timeout:g} seconds")
        try:
            with anyio.move_on_after(self.timeout):
                verdict = checked(await self.judge.judge(window))
                return Answer.verdict(key, verdict, time.monotonic() - began)
        except Exception as found:
            broke = isinstance(found, _BROKEN) or not isinstance(found, JudgeError)
            if broke and not self.count_failures:
                raise
            error = found
        finally:
            forget = getattr(self.judge, "forget", None)
            if forget is not None:
                forget(stream)
        return Answer.none(key, error, time.monotonic() - began)

    def _stopped(self, key: Key, error: Exception) -> ShieldguardError:
        data, number, _ = key
        stopped = ShieldguardError(
            f"the judge {self.judge.name!r} broke at row {number} of {data!r}: {type(error).__name__}: "
            f"{error}; {self.kept}"
        )
        stopped.__cause__ = error
        return stopped
