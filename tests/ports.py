"""Ports of the loopback interface."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """One that is free, for a server that has to be told which. It is none of those that the system gives out
    on its own, so no other connection takes it before the server does."""
    first = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.is_file() else 32768
    for port in random.SystemRandom().sample(range(10_000, first), 100):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise RuntimeError("of a hundred ports none was free")


@contextmanager
def unheard() -> Iterator[int]:
    """One where nobody listens, and nobody comes to meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
