"""For all tests: both async libraries; what blocks the event loop or leaves for the network fails."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Tests marked `anyio` run on both."""
    return str(request.param)


# Locks that are held for some microseconds only: of futures, and of the tool that measures coverage.
_SHORT = {
    "concurrent/futures/_base.py": {"add_done_callback", "cancel", "cancelled", "done", "set_result"},
    "coverage/collector.py": {"lock_data"},
}


@pytest.fixture(autouse=True)
def _blocking_calls_fail() -> Iterator[None]:
    with blockbuster_ctx(["shieldguard", "shieldguard_adapters"]) as blockbuster:
        for file, functions in _SHORT.items():
            blockbuster.functions["threading.Lock.acquire"].can_block_in(file, functions)
        yield


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def on_loopback(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _LOOPBACK:
            raise AssertionError(f"a test reached for the network: {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", on_loopback)
