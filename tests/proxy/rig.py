"""The proxy on a real uvicorn, in a thread, and what stands before and behind it."""

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn

from shieldguard_adapters.proxy import ServeConfig, create_app
from shieldguard_adapters.proxy.serving import server_options
from tests.clients.rig import MARKS
from tests.upstream import Upstream

QUESTION = {"model": "m", "messages": [{"role": "user", "content": "What do you think?"}]}
CHAT = "/v1/chat/completions"


class Lines(logging.Handler):
    """The proxy's log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@dataclass
class Proxied:
    """A running proxy. `proxy` is its insides, to see what is left in them."""

    url: str
    server: uvicorn.Server
    proxy: Any
    client: httpx2.Client
    log: list[str] = field(default_factory=list)

    def ask(self, **request: Any) -> httpx2.Response:
        """Ask once, and get the response whole."""
        asked: dict[str, Any] = {"method": "POST", "url": self.url + CHAT, "json": QUESTION}
        if "path" in request:
            request["url"] = self.url + request.pop("path")
        if "content" in request or request.get("method") == "GET":
            del asked["json"]
        return self.client.request(**{**asked, **request})

    def get(self, path: str, **request: Any) -> httpx2.Response:
        return self.client.get(self.url + path, **request)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 where it was never counted."""
        for line in self.get("/metrics").text.splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name:
                there = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
                if labels.items() <= there.items():
                    return float(found[3])
        return 0.0

    def is_idle(self) -> bool:
        """Whether nothing is left of any request."""
        pool = self.proxy._upstreams._transport._pool
        busy = [connection for connection in pool.connections if not connection.is_idle()]
        return not (self.server.server_state.tasks or self.proxy._streams or busy)


@contextmanager
def proxied(
    *upstreams: Any,
    marks: Any = MARKS,
    delay: float = 0.0,
    instant: bool = True,
    policy: dict[str, Any] | None = None,
    **serve: Any,
) -> Iterator[Proxied]:
    """A proxy before these: what a test plays, URLs, or tables of settings."""
    judge = "InstantScriptedJudge" if instant and not delay else "ScriptedJudge"
    config = ServeConfig(
        judge=f"shieldguard.testing:{judge}",
        judge_options={"rule": marks, "delay": delay},
        policy=policy or {},  # type: ignore[arg-type]
        serve={"upstreams": [_table(upstream) for upstream in upstreams], **serve},  # type: ignore[arg-type]
    )
    app = create_app(config)
    log, lines = logging.getLogger("shieldguard.proxy"), Lines()
    log.setLevel(logging.INFO)
    log.addHandler(lines)
    options = server_options(config) | {"port": 0, "log_level": "critical", "loop": "asyncio"}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        with httpx2.Client(timeout=20, trust_env=False, verify=False) as client:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Proxied(url, server, app.routes[-1].app, client, lines.lines)  # type: ignore[attr-defined]
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(timeout=5)
        log.removeHandler(lines)


def _table(upstream: Any) -> Any:
    if isinstance(upstream, Upstream):
        return {"url": upstream.url}
    return {"url": upstream} if isinstance(upstream, str) else upstream


def parted(body: bytes) -> tuple[bytes, dict[str, str]]:
    """What came of the model server, and what the proxy says behind it."""
    came, _, said = body.partition(b"\n: x-shieldguard-")
    lines = f"x-shieldguard-{said.decode()}".split("\n: ") if said else []
    return came, dict(line.strip().split(": ", 1) for line in lines)


def raw(url: str, data: bytes, *, seconds: float = 20) -> bytes:
    """What comes back for these bytes, until the other side closes."""
    with connected(url, seconds=seconds) as connection:
        connection.sendall(data)
        return read_all(connection)


@contextmanager
def connected(url: str, *, seconds: float = 20) -> Iterator[socket.socket]:
    address = httpx2.URL(url)
    assert address.port is not None
    with socket.create_connection((address.host, address.port), timeout=seconds) as connection:
        yield connection


def read_all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


@contextmanager
def sockets(answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """The URL of a server that has read a request when it answers by this, and then closes the connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_answered, args=(connection, answer), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _answered(connection: socket.socket, answer: Callable[[socket.socket, bytes], None]) -> None:
    with connection:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(65536)):
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        while length and len(body) < int(length[1]):
            body += connection.recv(65536)
        answer(connection, data)


def until(true: Callable[[], object], *, seconds: float = 20) -> bool:
    """Whether it becomes true."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if true():
            return True
        time.sleep(0.01)
    return bool(true())
