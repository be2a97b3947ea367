"""One window, and as many servers as it takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shieldguard.errors import JudgeBusy, JudgeError, JudgeTimeout, JudgeUnreachable
from shieldguard.judges.remote.calls import ServerBusy
from shieldguard.judges.remote.replicas import Replica, Replicas

T = TypeVar("T")

# A server that wants longer than this is not waited for, however far off the deadline.
_LONGEST_WAIT = 30.0
_WAITS = 3


async def judged(
    replicas: Replicas, stream: str, deadline: float, ask: Callable[[Replica], Awaitable[T]]
) -> T:
    """Ask one replica after the other until one answers, each once; twice where there is but one, as a
    connection that was kept open may be gone. Where all are busy, wait for them, before the deadline.

    Raises `JudgeTimeout` at the deadline, `JudgeBusy` or `JudgeUnreachable` with what each of them said, and
    at once what no other replica would do better.
    """
    failures: dict[Replica, JudgeError] = {}
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            for _ in range(_WAITS):
                verdict = await _round(replicas, stream, deadline, ask, failures)
                if verdict is not None:
                    return verdict
                await _wait(failures, deadline)
            raise _all_of(failures)
    except TimeoutError:
        so_far = f"; before that, {_each(failures)}" if failures else ""
        raise JudgeTimeout(f"no verdict from the server before the deadline{so_far}") from None


async def _round(
    replicas: Replicas,
    stream: str,
    deadline: float,
    ask: Callable[[Replica], Awaitable[T]],
    failures: dict[Replica, JudgeError],
) -> T | None:
    tried: list[Replica] = []
    again = len(replicas.all) == 1
    while replica := replicas.choose(stream, time.monotonic(), tried=tried):
        turn, began = object(), time.monotonic()
        replica.asked.add(turn)
        try:
            verdict = await ask(replica)
        except ServerBusy as error:
            failures[replica] = error
            replica.busy_until = time.monotonic() + error.seconds
        except JudgeUnreachable as error:
            failures[replica] = error
            replicas.failed(replica, time.monotonic(), error)
            if again:
                again = False
                continue
        except JudgeError as error:
            raise type(error)(f"{replica.url}: {error}") from error
        except asyncio.CancelledError:
            if time.monotonic() >= deadline - 0.01 and replica.heard_at < began:
                replicas.failed(replica, time.monotonic(), "it sent nothing before a window's deadline")
            raise
        else:
            replicas.answered(replica)
            return verdict
        finally:
            replica.asked.discard(turn)
        tried.append(replica)
    return None


async def _wait(failures: dict[Replica, JudgeError], deadline: float) -> None:
    """Until one that was merely busy may be asked again. Raises where that is no use."""
    seconds = min(
        (error.seconds for error in failures.values() if isinstance(error, ServerBusy)), default=_LONGEST_WAIT
    )
    if seconds >= min(_LONGEST_WAIT, deadline - time.monotonic()):
        raise _all_of(failures)
    await asyncio.sleep(seconds)


def _all_of(failures: dict[Replica, JudgeError]) -> JudgeError:
    busy = all(isinstance(error, ServerBusy) for error in failures.values())
    return (JudgeBusy if busy else JudgeUnreachable)(f"no server gave a verdict: {_each(failures)}")


def _each(failures: dict[Replica, JudgeError]) -> str:
    return "; ".join(f"{replica.url}: {error}" for replica, error in failures.items())
