"""Many clients at once, raw asyncio, each with a connection that it keeps. Prints a JSON object.

    python proxy_client.py PORT MODEL CLIENTS SECONDS [STREAMS]

Each asks again as soon as it has its answer, until SECONDS have passed and every client has had one, or four
times as long whatever came; or else until exactly STREAMS were asked for and had, within SECONDS. `first` are
the seconds to the first piece of the answer, `size` the bytes of a response, `received` all bytes: those of
responses cut short count as well.
"""

import asyncio
import json
import sys
import time

_MARK = b"ANSWER"


class Client(asyncio.Protocol):
    """Asks, and notes when the answer begins and when all has come."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._tail = b""
        self._asked = 0.0
        self.received = 0
        self.first: float | None = None
        self.done: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self) -> "asyncio.Future[None]":
        self._tail, self.first = b"", None
        self.done = asyncio.get_running_loop().create_future()
        self._asked = time.perf_counter()
        self.transport.write(self._request)
        return self.done

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        seen = self._tail + data
        if not self._tail and not seen.startswith(b"HTTP/1.1 200"):
            self.connection_lost(RuntimeError(f"the server says {data[:500]!r}"))
            return
        if self.first is None and _MARK in seen:
            self.first = time.perf_counter() - self._asked
        if seen.endswith(b"0\r\n\r\n") and not self.done.done():
            self.done.set_result(None)
        self._tail = seen[-16:]

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "done") and not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the server closed the connection"))


async def run(port: int, model: str, clients: int, seconds: float, streams: int) -> dict[str, object]:
    asked = {"model": model, "messages": [{"role": "user", "content": "a question"}], "stream": True}
    body = json.dumps(asked).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    first: list[float] = []
    failures: list[str] = []
    sizes: list[int] = []
    protocols: list[Client] = []
    began = last = time.perf_counter()
    asked_for = 0

    def is_enough() -> bool:
        if streams:
            return asked_for >= streams
        return time.perf_counter() - began >= seconds and len(first) >= clients

    async def client() -> None:
        nonlocal last, asked_for
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: Client(request), "127.0.0.1", port)
        protocols.append(protocol)
        while not is_enough() and not failures:
            before = protocol.received
            asked_for += 1
            try:
                await protocol.ask()
                if protocol.first is None:
                    raise RuntimeError("a response without an answer")
            except Exception as error:
                failures.append(repr(error))
                return
            first.append(protocol.first)
            sizes.append(protocol.received - before)
            last = time.perf_counter()

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    _, late = await asyncio.wait(tasks, timeout=seconds if streams else 4 * seconds)
    if late:
        last = time.perf_counter()
    for task in late:
        task.cancel()
    return {
        "streams": len(first),
        "seconds": last - began,
        "first": first,
        "failures": failures[:3],
        "size": sum(sizes) / len(sizes) if sizes else 0,
        "received": sum(protocol.received for protocol in protocols),
    }


if __name__ == "__main__":
    _, port, model, clients, seconds, *streams = sys.argv
    result = run(int(port), model, int(clients), float(seconds), int(streams[0]) if streams else 0)
    print(json.dumps(asyncio.run(result)))
