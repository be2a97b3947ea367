"""One service over HTTPS that rates texts, for the judges in `endpoints`."""

import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from shieldguard.errors import ConfigError, JudgeBusy, JudgeError
from shieldguard.judges.remote.attempts import judged
from shieldguard.judges.remote.calls import (
    Clients,
    Transport,
    check_seconds,
    checked_headers,
    checked_url,
    checked_verify,
)
from shieldguard.judges.remote.loop import Loop
from shieldguard.judges.remote.replicas import Replica, Replicas
from shieldguard.judges.waiting import result_of

T = TypeVar("T")

_REPLY_BYTES = 1 << 20


class Service:
    """`key`: the name of the header with the key, and its value. At most `queue` windows are asked about at a
    time. Raises `ConfigError` for settings that cannot work."""

    def __init__(
        self,
        url: str,
        *,
        key: tuple[str, str],
        verify: bool | str | Path | ssl.SSLContext,
        timeout: float,
        connect_timeout: float,
        queue: int,
    ) -> None:
        check_seconds(timeout=timeout, connect_timeout=connect_timeout)
        if queue < 1:
            raise ConfigError(f"queue={queue!r}; give 1 or more")
        if not key[1]:
            raise ConfigError("api_key is empty; give the key that the service gave you")
        self._base = checked_url(url)
        self._replicas = Replicas([self._base], retry_after=1.0)
        self._queue = queue
        self._asked = 0
        transport = Transport(
            headers=checked_headers(None, dict([key])),
            verify=checked_verify(verify),
            silence=timeout,
            connect=connect_timeout,
            connections=queue,
        )
        self._loop = Loop(partial(Clients, transport, [self._base]))

    async def replies(
        self, path: str, bodies: list[Mapping[str, Any]], *, deadline: float, read: Callable[[bytes], T]
    ) -> list[T]:
        """What `read` makes of the reply to each of the bodies, sent one after the other."""
        if self._asked >= self._queue:
            raise JudgeBusy(
                f"{self._asked} windows are asked about already; raise the judge's queue={self._queue!r}"
            )
        self._asked += 1
        try:
            return await result_of(self._loop.run(partial(self._replies, path, bodies, deadline, read)))
        except CancelledError:
            raise JudgeError("the judge was closed before it had the verdict") from None
        finally:
            self._asked -= 1

    def close(self) -> None:
        self._loop.close()

    async def _replies(
        self,
        path: str,
        bodies: list[Mapping[str, Any]],
        deadline: float,
        read: Callable[[bytes], T],
        clients: Clients,
    ) -> list[T]:
        async def ask(body: Mapping[str, Any], replica: Replica) -> T:
            return read(await clients.reply(replica, path, body, most=_REPLY_BYTES))

        return [await judged(self._replicas, "", deadline, partial(ask, body)) for body in bodies]
