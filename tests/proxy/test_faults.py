"""Upstreams that fail at each stage, clients that leave at each, judges that die."""

import json
import socket
import struct
import threading
import time
from typing import Any

import httpx2
import pytest

from shieldguard import JudgeError
from tests.clients.rig import reasoning
from tests.ports import unheard
from tests.proxy.rig import CHAT, QUESTION, Proxied, connected, parted, proxied, read_all, sockets, until
from tests.upstream import DONE, Script, Upstream, chat

THOUGHT = reasoning(sentences=20)
FRAMES = chat(THOUGHT, ["It is fine."])
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def reset(connection: socket.socket) -> None:
    """Have it closed by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def failing(data: bytes, *, by_reset: bool = False, seconds: float = 0) -> Any:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(data)
        time.sleep(seconds)
        if by_reset:
            reset(connection)

    return sockets(answer)


def test_nobody_listens() -> None:
    with unheard() as port, proxied(f"http://127.0.0.1:{port}") as proxy:
        response = proxy.ask()
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_failed")
        assert str(port) not in response.text
        assert until(lambda: "ConnectError" in str(proxy.log))
        assert proxy.metric("shieldguard_requests_total", kind="chat completion", status="502") == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        b"not HTTP at all HARM\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\x00HARM\r\n\r\n",
        b"HTTP/1.1 999 HARM\r\ncontent-length: 4\r\n\r\nHARM",
        b"HTTP/1.1 101 x\r\nupgrade: x\r\n\r\nHARM",
        HEAD[:-2],
        HEAD,
        HEAD + b"zz\r\nHARM",
        HEAD + chunked(FRAMES[1][:30]),
    ],
)
def test_it_dies_before_anything_could_leave(data: bytes) -> None:
    with failing(data) as url, proxied(url) as proxy:
        response = proxy.ask()
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_failed")
        assert "HARM" not in response.text + str(proxy.log)
        assert until(proxy.is_idle)


@pytest.mark.parametrize("by_reset", [True, False])
@pytest.mark.parametrize("last", [b"", FRAMES[40][:25], chunked(FRAMES[40])[:-4]])
def test_it_dies_in_the_middle(last: bytes, by_reset: bool) -> None:
    sent = HEAD + b"".join(map(chunked, FRAMES[:40])) + (chunked(last) if last == FRAMES[40][:25] else last)
    with failing(sent, by_reset=by_reset, seconds=0.1) as url, proxied(url) as proxy:
        with connected(proxy.url) as connection:
            connection.sendall(_request())
            got = read_all(connection)
        assert got.count(b"reasoning_content") > 10
        assert not got.endswith(b"0\r\n\r\n")  # it does not look whole
        assert until(proxy.is_idle)
        assert until(lambda: '"ended": "source_failed"' in str(proxy.log))
        assert proxy.metric("shieldguard_streams_ended_total", ended="source_failed") == 1


def _request(body: dict[str, Any] = QUESTION) -> bytes:
    data = json.dumps(body).encode()
    return f"POST {CHAT} HTTP/1.1\r\nhost: h\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


@pytest.mark.parametrize("frames", [FRAMES[:-1], FRAMES[:-3], [*FRAMES[:-1], DONE[:5]]])
def test_it_closes_without_the_formats_end(frames: list[bytes], upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script(frames))
    response = proxy.ask()
    assert "It is fine." in response.text
    assert parted(response.content)[0] == b"".join(frames)


@pytest.mark.parametrize("before", [b"", HEAD, HEAD + chunked(FRAMES[1][:30])])
def test_it_stalls(before: bytes) -> None:
    with failing(before, seconds=10) as url, proxied(url, read_timeout=0.5) as proxy:
        response = proxy.ask()
        assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")
        assert until(proxy.is_idle)


def test_it_stalls_in_the_middle() -> None:
    sent = HEAD + b"".join(map(chunked, FRAMES[:40]))
    with failing(sent, seconds=10) as url, proxied(url, read_timeout=0.5) as proxy:
        with pytest.raises(httpx2.RemoteProtocolError):
            proxy.ask()
        assert until(lambda: "ReadTimeout" in str(proxy.log))
        assert until(proxy.is_idle)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
def test_it_redirects(status: int, upstream: Upstream) -> None:
    with proxied({"url": upstream.url, "api_key": "sk-secret"}) as proxy:
        upstream.play(Script([b""], status=status, headers={"location": f"{upstream.url}/elsewhere"}))
        response = proxy.ask()
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_redirects")
        assert "location" not in response.headers
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503, 529])
def test_its_own_errors_pass(status: int, upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script([b"over", b"loaded"], status=status, content_type="text/plain"))
    response = proxy.ask()
    assert (response.status_code, response.text) == (status, "overloaded")


@pytest.mark.parametrize(
    "frame",
    [b"data: HARM\n\n", b'data: {"choices": 7, "x": "HARM"}\n\n', b"data: " + b"[" * 9999 + b"HARM\n\n"],
)
def test_frames_that_cannot_be_read_end_it(frame: bytes, upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script([*FRAMES[:30], frame, *FRAMES[30:]]))
    response = proxy.ask()
    assert "HARM" not in response.text + str(proxy.log)
    assert parted(response.content)[0].endswith(b"data: [DONE]\n\n")
    assert "could not be completed" in response.text


def test_a_client_leaves_before_the_first_byte(upstream: Upstream) -> None:
    with failing(b"", seconds=20) as url, proxied(url) as proxy:
        with connected(proxy.url) as connection:
            connection.sendall(_request())
            assert until(lambda: not proxy.is_idle())
        assert until(proxy.is_idle)
        assert until(lambda: '"status": null' in str(proxy.log))
        assert proxy.metric("shieldguard_requests_total", status="none") == 1


def test_a_client_leaves_in_mid_hold(upstream: Upstream) -> None:
    """All that came is held by a judge that takes its time."""
    with proxied(upstream, delay=0.4) as proxy:
        upstream.play(Script(FRAMES[1:], hold_open=True))
        with connected(proxy.url) as connection:
            connection.sendall(_request())
            assert until(lambda: proxy.metric("shieldguard_windows_waiting") > 0)
        assert upstream.finished.wait(20)
        assert upstream.closed_at is not None
        assert until(proxy.is_idle)
        assert until(lambda: '"ended": "client_left"' in str(proxy.log))


@pytest.mark.parametrize("by_reset", [True, False])
def test_a_client_leaves_in_mid_stream(by_reset: bool, upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script(FRAMES, delay=0.05))
    with connected(proxy.url) as connection:
        connection.sendall(_request())
        connection.recv(100)
        if by_reset:
            reset(connection)
    assert upstream.finished.wait(20)
    assert upstream.closed_at is not None
    assert upstream.sent < len(FRAMES) / 2
    assert until(proxy.is_idle)
    assert until(lambda: '"ended": "client_left"' in proxy.log[-1])


def test_a_client_leaves_in_the_middle_of_its_request(upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script(FRAMES))
    with connected(proxy.url) as connection:
        connection.sendall(_request()[:-5])
    assert until(lambda: proxy.log and '"status": null' in proxy.log[-1])
    assert upstream.requests == []


def test_a_client_leaves_what_is_passed_unguarded(upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script([b"{}"] * 300, delay=0.05, content_type="application/json"))
    with connected(proxy.url) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n")
        connection.recv(100)
    assert upstream.finished.wait(20)
    assert upstream.closed_at is not None


def test_readyz_follows_a_judge_that_dies_and_comes_back(upstream: Upstream) -> None:
    dead = threading.Event()

    def judge(window: Any) -> float:
        if dead.is_set():
            raise JudgeError("at 10.0.0.7")
        return 0.0

    with proxied(upstream, marks=judge) as proxy:
        assert proxy.get("/readyz").status_code == 200
        dead.set()
        upstream.play(Script(FRAMES))
        assert "could not be completed" in proxy.ask().text
        response = proxy.get("/readyz")
        assert (response.status_code, response.json()) == (
            503,
            {"status": "no verdict", "error": "JudgeError"},
        )
        assert proxy.get("/healthz").status_code == 200
        dead.clear()
        assert until(lambda: proxy.get("/readyz").status_code == 200)
        assert parted(proxy.ask().content)[0] == b"".join(FRAMES)


def test_readyz_asks_a_judge_that_was_not_asked_for_long(
    monkeypatch: pytest.MonkeyPatch, upstream: Upstream
) -> None:
    asked: list[str] = []

    def judge(window: Any) -> float:
        asked.append(window.text)
        return 0.0

    monkeypatch.setattr("shieldguard_adapters.proxy.readiness._FRESH", 60.0)
    with proxied(upstream, marks=judge) as proxy:
        for _ in range(5):
            assert proxy.get("/readyz").status_code == 200
        assert len(asked) == 1
        monkeypatch.setattr("shieldguard_adapters.proxy.readiness._FRESH", 0.0)
        assert proxy.get("/readyz").status_code == 200
        assert len(asked) == 2


@pytest.mark.parametrize("policy", [{"release": "shadow"}, {"on_failure": "flag"}])
def test_readyz_is_about_the_judge_whatever_the_policy(policy: dict[str, Any], upstream: Upstream) -> None:
    def judge(window: Any) -> float:
        raise JudgeError("no")

    with proxied(upstream, marks=judge, policy=policy, instant=False) as proxy:
        assert proxy.get("/readyz").status_code == 503


def test_a_client_that_takes_nothing_is_left(upstream: Upstream) -> None:
    with proxied(upstream, write_timeout=0.3) as proxy:
        with connected(proxy.url) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            upstream.play(Script([b"x" * 65536] * 500, content_type="application/json", status=503))
            connection.sendall(_request())
            assert until(lambda: "the client took nothing" in str(proxy.log))
        assert upstream.finished.wait(20)
        assert until(proxy.is_idle)
