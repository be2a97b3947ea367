"""Where judges run: one background event loop per guard, in a thread of its own.

Callers on asyncio, on trio and without any loop share it, and a judge need not care which of them asks.
"""

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from contextvars import Context
from typing import Any, TypeAlias

from shieldguard.errors import JudgeError, JudgeTimeout
from shieldguard.judges.protocol import InstantJudge, Judge
from shieldguard.verdicts import Verdict, checked
from shieldguard.windows import Window

logger = logging.getLogger("shieldguard")

# Longer texts than this are judged in the background by an instant judge too: it may not hold up the
# loop it is asked on.
INSTANT_CHARACTERS = 4096

Outcome: TypeAlias = tuple[Verdict | JudgeError, float]
"""What a judge answered, and when on the clock of `time.monotonic()`."""


class JudgeLoop:
    """Asks one judge, with a deadline, and turns whatever goes wrong into a `JudgeError`. Its thread ends
    when nothing refers to it any more."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._instant = judge if isinstance(judge, InstantJudge) else None
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def ask_now(self, window: Window) -> Outcome | None:
        """The verdict of an instant judge; None where the judge has to be asked with `ask`."""
        if self._instant is None or window.end - window.start > INSTANT_CHARACTERS:
            return None
        try:
            return checked(self._instant.judge_now(window)), time.monotonic()
        except Exception as error:
            return _judge_error(error), time.monotonic()

    def ask(self, window: Window) -> "Future[Outcome]":
        """The verdict to come. Cancelling the future cancels the judgement."""
        return self.run(self._ask(window))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Run a coroutine on the loop, which is started on first use."""
        with self._lock:
            if self._loop is None or self._process != os.getpid():  # a fork has no threads but its own
                self._process = os.getpid()
                # A daemon: a judge that hangs must not keep the interpreter from ending.
                self._loop = loop = asyncio.new_event_loop()
                threading.Thread(target=_serve, args=(loop,), name="shieldguard", daemon=True).start()
                weakref.finalize(self, loop.call_soon_threadsafe, loop.stop).atexit = False
        # In a context of its own: the caller's says which async library runs, which is not so here.
        return Context().run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)

    def forget(self, stream: str) -> None:
        """Tell the judge, where it cares, that a stream has ended."""
        forget = getattr(self._judge, "forget", None)
        if forget is None:
            return
        if self._loop is None or self._loop.is_closed():
            logged(forget, stream)
        else:
            self._loop.call_soon_threadsafe(logged, forget, stream)

    async def _ask(self, window: Window) -> Outcome:
        try:
            async with asyncio.timeout(window.deadline - time.monotonic()) as timeout:
                return checked(await self._judge.judge(window)), time.monotonic()
        except TimeoutError as error:
            if timeout.expired():
                return JudgeTimeout(f"no verdict from {self._judge!r} before the deadline"), time.monotonic()
            return _judge_error(error), time.monotonic()
        except Exception as error:
            return _judge_error(error), time.monotonic()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _judge_error(error: Exception) -> JudgeError:
    if isinstance(error, JudgeError):
        return error
    wrapped = JudgeError(f"the judge raised {error!r}")
    wrapped.__cause__ = error
    return wrapped


def logged(call: Any, *arguments: object) -> None:
    """Call what belongs to the user and may not break the stream."""
    try:
        call(*arguments)
    except Exception:
        logger.exception("shieldguard: %r raised and was ignored", call)
