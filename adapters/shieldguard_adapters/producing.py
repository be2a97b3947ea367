"""A producer in a thread of its own, read with `for` or with `async for`."""

import atexit
import threading
import traceback
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, Self, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import current_token

T = TypeVar("T")

_CLOSING = 5.0  # seconds that the thread gets to end


class Outlet(Generic[T]):
    """What the producer writes to. It knows nothing of the reader, so that an abandoned one is freed."""

    def __init__(self, room: int) -> None:
        self.items: SimpleQueue[T | _End] = SimpleQueue()
        self.stopped = False
        self.wake: Callable[[], Any] | None = None  # the reader, while it waits in an event loop
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(room):
            self._room.put(None)

    def put(self, item: T) -> None:
        """Waits until there is room for the item. Once stopped, it is thrown away."""
        if not self.stopped:
            self._room.get()
        if not self.stopped:
            self._give(item)

    def stop(self) -> None:
        self.stopped = True
        self._room.put(None)

    def end(self, error: BaseException | None) -> None:
        self._give(_End(error))

    def taken(self) -> None:
        """An item was: there is room for another."""
        self._room.put(None)

    def _give(self, item: "T | _End") -> None:
        self.items.put(item)
        wake, self.wake = self.wake, None
        if wake is not None:
            try:
                wake()
            except RuntimeError:
                self.stop()  # the reader's event loop has ended


class _End:
    """The last item."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


Produce: TypeAlias = Callable[[Outlet[T]], None]


class Produced(Generic[T]):
    """What `produce` puts into its outlet. It runs in a thread that starts with the first read, waits while
    `room` items are yet to be read, and is asked to stop when this is closed or no longer used. What it
    raises is raised here."""

    def __init__(self, produce: Produce[T], *, room: int, name: str) -> None:
        self._produce: Produce[T] | None = produce
        self._outlet: Outlet[T] = Outlet(room)
        self._name = name
        self._thread: threading.Thread | None = None
        self._ended = False
        weakref.finalize(self, self._outlet.stop).atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self._start()
        while not self._ended:
            if (item := self._next(self._outlet.items.get())) is not None:
                return item
        raise StopIteration

    def close(self) -> None:
        """Stop the producer, and wait for its thread."""
        self._outlet.stop()
        self._produce = None
        if self._thread is not None:
            self._thread.join(_CLOSING)
        self._ended = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        self._start()
        while not self._ended:
            try:
                item = self._next(self._outlet.items.get_nowait())
            except Empty:
                await self._something()
                continue
            if item is not None:
                return item
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop the producer, and wait until it has."""
        self._outlet.stop()
        self._produce = None
        while self._thread is not None and not self._ended:
            try:
                self._ended = isinstance(self._outlet.items.get_nowait(), _End)
            except Empty:
                await self._something()
        self._ended = True

    def _start(self) -> None:
        if self._produce is not None:
            work, self._produce = [self._produce], None
            self._thread = threading.Thread(
                target=_run, args=(work, self._outlet), name=self._name, daemon=True
            )
            self._thread.start()

    def _next(self, item: "T | _End") -> T | None:
        if isinstance(item, _End):
            self._ended = True
            if item.error is not None:
                raise item.error
            return None
        self._outlet.taken()
        return item

    async def _something(self) -> None:
        """Wait for an item."""
        came = anyio.Event()
        native: Any = current_token().native_token
        call_soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
        self._outlet.wake = lambda: call_soon(came.set)
        if self._outlet.items.empty():  # the producer may have looked before there was anyone to wake
            await came.wait()


def _run(work: list[Produce[T]], outlet: Outlet[T]) -> None:
    # An interpreter that ends in the midst of native code may crash: it has to wait for the thread.
    leave = _leaving(outlet, threading.current_thread())
    atexit.register(leave)
    error = None
    try:
        work.pop()(outlet)
    except BaseException as raised:
        traceback.clear_frames(raised.__traceback__)  # which hold on to tensors
        error = raised
    finally:
        atexit.unregister(leave)
        outlet.end(error)


def _leaving(outlet: Outlet[T], thread: threading.Thread) -> Callable[[], None]:
    def leave() -> None:
        outlet.stop()
        thread.join(_CLOSING)

    return leave
