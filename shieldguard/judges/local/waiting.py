"""The windows that wait for the model, in a fair order."""

import threading
import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import Future
from typing import TypeAlias

from shieldguard.errors import JudgeBusy, JudgeError, JudgeTimeout
from shieldguard.judges.local.reading import Way
from shieldguard.judges.local.steps import Job, fail
from shieldguard.verdicts import Verdict
from shieldguard.windows import Window

Turn: TypeAlias = tuple[list[Job], set[str]]
"""Jobs that wait, the next ones first, and streams that have ended."""


class Waiting:
    """At most `bound` windows, put by any thread and taken by one.

    The order is that of arrival, but each stream's first window goes before any stream's second. What had
    a turn and is not done goes to the end.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._ended: set[str] = set()
        self._closed = False

    def put(self, window: Window, way: Way) -> "Future[Verdict]":
        """The verdict to come. Cancelling the future takes the window back.

        Raises `JudgeBusy` where too many wait.
        """
        job = Job(window, way, Future())
        with self._changed:
            if self._closed:
                raise JudgeError("the judge was closed; make a new one")
            if len(self._jobs) >= self._bound:
                self._jobs = [waiting for waiting in self._jobs if not waiting.done]
            if len(self._jobs) >= self._bound:
                raise JudgeBusy(
                    f"{len(self._jobs)} windows wait already; guard fewer streams at once, or raise the "
                    f"judge's queue={self._bound!r}"
                )
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def end(self, stream: str) -> None:
        """A stream has ended: nobody waits for its windows any more."""
        with self._changed:
            for job in self._jobs:
                if job.window.stream == stream:
                    fail(job, JudgeError("the window's stream has ended"))
            self._ended.add(stream)
            self._changed.notify()

    def take(self) -> Turn | None:
        """Wait for something to do. None once closed."""
        with self._changed:
            while not (self._jobs or self._ended or self._closed):
                self._changed.wait()
            if self._closed:
                return None
            self._jobs = [job for job in self._jobs if not _dropped(job)]
            ended, self._ended = self._ended, set()
            return _fair(self._jobs), ended

    def turned(self, jobs: Collection[Job]) -> None:
        """These jobs had their turn."""
        with self._changed:
            self._jobs = [job for job in self._jobs if job not in jobs]
            self._jobs += [job for job in jobs if not job.done]

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
            jobs, self._jobs = self._jobs, []
        for job in jobs:
            fail(job, JudgeError("the judge was closed before it came to the window"))


def _dropped(job: Job) -> bool:
    """Whether nobody waits for a job: it was taken back, or is too late."""
    if not job.done and time.monotonic() >= job.window.deadline:
        fail(job, JudgeTimeout("the window's deadline passed while it waited for the model"))
    return job.done


def _fair(jobs: list[Job]) -> list[Job]:
    seen: Counter[str] = Counter()
    ranks = []
    for job in jobs:
        ranks.append(seen[job.window.stream])
        seen[job.window.stream] += 1
    order = sorted(range(len(jobs)), key=lambda at: ranks[at])  # stable: else that of arrival
    return [jobs[at] for at in order]
