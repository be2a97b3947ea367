"""An event loop in a thread of its own, to which the judge's connections belong.

An HTTP client is bound to the loop that it was used on first. Callers come from many: from guards, from trio,
from one `asyncio.run` after the other. So the client stays on this one, and they wait for it.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from typing import Any, TypeVar

from shieldguard.errors import JudgeError
from shieldguard.judges.remote.calls import Clients

T = TypeVar("T")


class Loop:
    """Starts on first use; ends when it is closed, or no longer used."""

    def __init__(self, clients: Callable[[], Clients]) -> None:
        self._make = clients
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._closed = False

    def run(self, work: Callable[[Clients], Coroutine[Any, Any, T]]) -> "Future[T]":
        """The result to come. Cancelling the future cancels the work."""
        with self._lock:
            if self._closed:
                raise JudgeError("the judge was closed; make a new one")
            if self._running is None or self._running.process != os.getpid():  # a fork has no threads
                self._running = _Running(self._make)
                weakref.finalize(self, self._running.stop).atexit = False
            running = self._running
        # In a context of its own: the caller's says which async library runs, which is not so here.
        return Context().run(asyncio.run_coroutine_threadsafe, running.call(work), running.loop)

    def close(self) -> None:
        """Cancel what runs, close the connections, and wait for that."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is not None and running.process == os.getpid():
            running.stop()
            running.thread.join()


class _Running:
    clients: Clients

    def __init__(self, make: Callable[[], Clients]) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(
            target=self._serve, args=(make,), name="shieldguard-remote", daemon=True
        )
        self.thread.start()

    async def call(self, work: Callable[[Clients], Coroutine[Any, Any, T]]) -> T:
        return await work(self.clients)

    def stop(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            pass  # it has stopped

    def _serve(self, make: Callable[[], Clients]) -> None:
        try:
            self.clients = make()  # here, as certificates are read from files
            self.loop.run_forever()
            self.loop.run_until_complete(_end(self.clients))
        finally:
            self.loop.close()


async def _end(clients: Clients) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await clients.close()
    await asyncio.get_running_loop().shutdown_asyncgens()
