"""Waiting for another thread, on any event loop."""

from concurrent.futures import Future
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import current_token

T = TypeVar("T")


async def result_of(future: "Future[T]") -> T:
    """Wait for a thread's result, on asyncio or trio. Cancelling the wait cancels the future."""
    native: Any = current_token().native_token
    call_soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
    done = anyio.Event()

    def wake(_: object) -> None:
        try:
            call_soon(done.set)
        except RuntimeError:
            pass  # the loop is gone, and who waited with it

    future.add_done_callback(wake)
    try:
        await done.wait()
    finally:
        future.cancel()  # of no effect on one that is done
    return future.result()
