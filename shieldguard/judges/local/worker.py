"""The thread in which a model runs."""

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future

from shieldguard.errors import JudgeError
from shieldguard.judges.local.reading import Way
from shieldguard.judges.local.steps import Stepper
from shieldguard.judges.local.store import Store
from shieldguard.judges.local.waiting import Waiting
from shieldguard.verdicts import Verdict
from shieldguard.windows import Window


class Worker:
    """Runs a model in a thread of its own, which ends when this object is closed or no longer used."""

    def __init__(self, stepper: Stepper, store: Store, *, queue: int) -> None:
        self._waiting = Waiting(queue)
        self._process = os.getpid()
        # The thread knows what waits, not this object, which would else live for ever.
        self._thread = threading.Thread(
            target=_run, args=(self._waiting, stepper, store), name="shieldguard-local", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, self._waiting.close)

    def submit(self, window: Window, way: Way) -> "Future[Verdict]":
        if os.getpid() != self._process:  # a fork has no threads
            raise JudgeError("the judge was made before this process was forked; make one in each process")
        return self._waiting.put(window, way)

    def forget(self, stream: str) -> None:
        self._waiting.end(stream)

    def close(self) -> None:
        """Give up what waits, and wait for the step that runs."""
        self._waiting.close()
        self._thread.join()


def _run(waiting: Waiting, stepper: Stepper, store: Store) -> None:
    # An interpreter that ends in the midst of a forward pass may crash: it has to wait for the thread.
    leave = _leaving(waiting, threading.current_thread())
    atexit.register(leave)
    try:
        while (turn := waiting.take()) is not None:
            jobs, ended = turn
            for stream in ended:
                store.forget(stream)
            if jobs:
                waiting.turned(stepper.step(jobs))
    finally:
        waiting.close()  # whatever ended this: nobody waits for ever
        store.clear()
        atexit.unregister(leave)


def _leaving(waiting: Waiting, thread: threading.Thread) -> Callable[[], None]:
    def leave() -> None:
        waiting.close()
        thread.join(timeout=5)

    return leave
