"""Requests that try to be read in two ways, to be too large, or to be nothing at all."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.rig import reasoning
from tests.proxy.rig import CHAT, QUESTION, Proxied, connected, proxied, raw, read_all, sockets, until
from tests.upstream import Script, Upstream, chat

HARMFUL = Script(chat(reasoning(harm_in=0), ["It is fine."]))
BODY = json.dumps(QUESTION).encode()


@pytest.fixture(scope="module")
def wide(server: Upstream) -> Iterator[Proxied]:
    """Passes nearly all paths."""
    with proxied(server, pass_paths=["/files/*"], max_header=4096, max_body=2000) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def hurried(server: Upstream) -> Iterator[Proxied]:
    """Does not wait for long."""
    with proxied(server, max_body=2000, request_timeout=0.4) as proxy:
        yield proxy


def request(
    *lines: str, target: str = CHAT, method: str = "POST", host: str = "h", body: bytes = BODY
) -> bytes:
    head = [f"{method} {target} HTTP/1.1", f"host: {host}", "connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


LENGTH = f"content-length: {len(BODY)}"


@pytest.mark.parametrize(
    "data",
    [
        request(LENGTH, "transfer-encoding: chunked"),
        request("transfer-encoding: chunked", LENGTH, body=b"0\r\n\r\n"),
        request(LENGTH, f"content-length: {len(BODY) + 1}"),
        request(f"content-length: {len(BODY)}, {len(BODY) + 1}"),
        request("content-length: -1"),
        request("content-length: +5"),
        request("content-length: 0x10"),
        request("transfer-encoding: gzip, chunked"),
        request("transfer-encoding: xchunked"),
        request("transfer-encoding: chunked", "transfer-encoding: identity"),
        request("transfer-encoding : chunked"),
        request("transfer-encoding: chunked", body=b"-1\r\n" + BODY),
        request("transfer-encoding: chunked", body=b"5\r\n" + BODY),
        request(LENGTH, "host: other"),
        request(LENGTH, "x-a: b\x00c"),
        request(LENGTH, "x-a: b\rx-b: c"),
        request(LENGTH, "x a: b"),
        request(LENGTH).replace(b" HTTP/1.1", b" x HTTP/1.1"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"\r\n" * 10 + b"GET",
    ],
)
def test_what_two_could_read_differently_is_refused(data: bytes, upstream: Upstream, wide: Proxied) -> None:
    upstream.play(HARMFUL)
    answer = raw(wide.url, data)
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"501")
    assert upstream.requests == []
    assert until(wide.is_idle)


@pytest.mark.parametrize("target", ["/", "/healthz", "/readyz", "/metrics", "/shieldguard/streams/0"])
def test_so_it_is_on_paths_of_the_proxys_own(target: str, wide: Proxied) -> None:
    inner = b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
    head = (
        f"GET {target} HTTP/1.1\r\nhost: h\r\ncontent-length: {len(inner) + 5}\r\ntransfer-encoding: chunked"
    )
    answer = raw(wide.url, head.encode() + b"\r\n\r\n0\r\n\r\n" + inner)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_folded_header_arrives_as_one(upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(HARMFUL)
    assert b" 200 " in raw(proxy.url, request(LENGTH, "x-a: b", " x-b: c"))
    assert (upstream.headers[0]["x-a"], "x-b" in upstream.headers[0]) == ("b x-b: c", False)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../files/x",
        "/files/../v1/chat/completions",
        "/files/./v1/chat/completions",
        "/files/%2e%2e/v1/chat/completions",
        "/files/.%2e/v1/chat/completions",
        "/files/..;/v1/chat/completions",
        "/files//v1/chat/completions",
        "//v1/chat/completions",
        "/files/..%2fv1%2fchat%2fcompletions",
        "/files/..\\v1\\chat\\completions",
        "/files/x%00",
        "/files/x%0d%0ax-injected:%201",
        "/v1/chat/completions%20",
        "/v1/chat/completion%73",
        "/v1/chat/completions;x=/files/x",
        "/v1/chat/completions#/files/x",
        "/%76%31/chat/completions",
        "http://elsewhere/v1/chat/completions",
        "http://elsewhere/files/x",
        "elsewhere:443",
        "*",
        "files/x",
    ],
)
def test_tricks_with_paths_are_not_sent(target: str, upstream: Upstream, wide: Proxied) -> None:
    upstream.play(HARMFUL)
    answer = raw(wide.url, request(LENGTH, target=target))
    assert answer.split(b" ")[1] in (b"400", b"404")
    assert upstream.requests == []
    assert b"HARM" not in answer


@pytest.mark.parametrize("host", ["x/files/y?", "x/files/y#", "x/files/y", "a b", "[::1", "user@x", ""])
def test_the_host_has_no_say_in_the_path(host: str, upstream: Upstream, wide: Proxied) -> None:
    upstream.play(HARMFUL)
    answer = raw(wide.url, request(LENGTH, host=host))
    assert b"HARM" not in answer
    assert upstream.headers == [] or upstream.headers[0]["host"] in upstream.url


def test_a_colon_may_be_encoded(upstream: Upstream, wide: Proxied) -> None:
    upstream.play(HARMFUL)
    answer = raw(wide.url, request(target="/v1/models/m%3Agenerate", method="GET", body=b""))
    assert (answer.split(b" ")[1], upstream.requests) == (b"404", [])


@pytest.mark.parametrize("lines", [["upgrade: websocket", "connection: upgrade"], ["upgrade: h2c"]])
def test_connections_are_not_upgraded(lines: list[str], upstream: Upstream, wide: Proxied) -> None:
    upstream.play(HARMFUL)
    keys = ["sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13"]
    for target in (CHAT, "/v1/realtime"):
        answer = raw(wide.url, request(*lines, *keys, target=target, method="GET", body=b""))
        assert answer.split(b" ")[1] == b"404"
    assert upstream.requests == []


@pytest.mark.parametrize(
    "data",
    [
        request("content-length: 2001", body=b"x" * 2001),
        request("content-length: 999999999999"),
        request("transfer-encoding: chunked", body=b"3e8\r\n" + b"x" * 1000 + b"\r\n3e9\r\n" + b"x" * 1001),
    ],
)
def test_a_body_over_the_limit_is_refused(data: bytes, upstream: Upstream, wide: Proxied) -> None:
    upstream.play(HARMFUL)
    assert b" 413 " in raw(wide.url, data)
    assert upstream.requests == []


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("where", ["header", "headers", "query"])
def test_a_head_over_the_limit_is_refused(
    where: str, at_once: bool, upstream: Upstream, wide: Proxied
) -> None:
    upstream.play(HARMFUL)
    long = {
        "header": request(LENGTH, "x-a: " + "x" * 5000),
        "headers": request(LENGTH, *[f"x-{number}: {number}" for number in range(500)]),
        "query": request(LENGTH, target=f"{CHAT}?{'x' * 5000}"),
    }[where]
    with connected(wide.url) as connection:
        if at_once:
            connection.sendall(long)
        else:
            connection.sendall(long[:4500])
            time.sleep(0.1)
        answer = read_all(connection)
    assert answer.split(b" ")[1] == (b"431" if at_once else b"400")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /v1/ch", request(LENGTH, body=b"")[:-2], request(LENGTH, body=b"{")],
)
def test_a_request_that_does_not_come_is_not_waited_for(sent: bytes, hurried: Proxied) -> None:
    began = time.monotonic()
    with connected(hurried.url) as connection:
        connection.sendall(sent)
        answer = read_all(connection)
    assert 0.3 < time.monotonic() - began < 15
    assert answer == b"" or b" 408 " in answer
    assert until(hurried.is_idle)


def test_neither_is_the_second_of_a_connection(upstream: Upstream, hurried: Proxied) -> None:
    upstream.play(Script([b"{}"], content_type="application/json"))
    first = b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n"
    began = time.monotonic()
    with connected(hurried.url) as connection:
        connection.sendall(first)
        assert until(lambda: upstream.sent)
        time.sleep(0.6)  # longer than a head may take: a response may
        connection.sendall(first[:20])
        answer = read_all(connection)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("head", [f"POST {CHAT}", "POST /nowhere", "GET /healthz"])
def test_neither_is_the_rest_of_one_that_is_answered(head: str, hurried: Proxied) -> None:
    """However steadily it comes."""
    began = time.monotonic()
    with connected(hurried.url) as connection:
        sent = f"{head} HTTP/1.1\r\nhost: h\r\ncontent-length: 1999\r\ncontent-encoding: gzip\r\n\r\n"
        connection.sendall(sent.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 ")
        connection.setblocking(False)

        def is_closed() -> bool:
            try:
                connection.send(b"x")
                return connection.recv(1) == b""
            except BlockingIOError:
                return False
            except OSError:
                return True

        assert until(is_closed, seconds=15)
        assert time.monotonic() - began > 0.3
    assert until(hurried.is_idle)


def test_what_comes_of_it_in_time_is_thrown_away_and_the_next_is_answered(wide: Proxied) -> None:
    with connected(wide.url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n")
        assert b" 200 " in connection.recv(65536)
        time.sleep(0.1)
        connection.sendall(b"x" * 9 + b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        assert b" 200 " in read_all(connection)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"messages": 7}',
        b'{"messages": [7]}',
        b"[" * 1900,
        b'{"a":' * 390,
    ],
)
def test_what_is_not_a_request_is_refused(content: bytes, upstream: Upstream, wide: Proxied) -> None:
    upstream.play(HARMFUL)
    response = wide.ask(content=content)
    assert "HARM" not in response.text
    assert response.status_code == 400 or (response.status_code == 200 and b"messages" in content)
    assert response.status_code == 200 or upstream.requests == []


@pytest.mark.parametrize("lines", [["gzip"], ["identity", "deflate"], ["identity, gzip"], ["deflate", ""]])
def test_a_compressed_request_is_refused(lines: list[str], upstream: Upstream, wide: Proxied) -> None:
    upstream.play(HARMFUL)
    answer = raw(wide.url, request(LENGTH, *[f"content-encoding: {line}" for line in lines]))
    assert (answer.split(b" ")[1], upstream.requests) == (b"415", [])


@pytest.mark.parametrize(
    "content",
    [
        b'{"messages": [], "messages": [{"role": "user", "content": "What?"}]}',
        b'{"model": "a", "messages": [], "model": "b"}',
        b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
        b'{"messages": [], "m\\u0065ssages": []}',
        b'{"messages": [], "model": 7}',
        b'{"messages": [], "model": ["m"]}',
    ],
)
def test_a_request_that_two_could_read_differently_is_refused(
    content: bytes, upstream: Upstream, wide: Proxied
) -> None:
    upstream.play(HARMFUL)
    response = wide.ask(content=content)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_request")
    assert upstream.requests == []


@pytest.mark.parametrize("path", [CHAT, "/v1beta/models/m:generateContent"])
@pytest.mark.parametrize("part", [b"[],", b'{"a":1},', b'"",', b"1 ,\n", b'"\\\\",'])
def test_a_request_of_millions_of_parts_is_not_read(
    path: str, part: bytes, upstream: Upstream, proxy: Proxied
) -> None:
    """To read it would keep all streams waiting for seconds."""
    upstream.play(HARMFUL)
    body = b'{"messages":[' + part * (2_000_000 // len(part)) + b"0]}"
    response = proxy.ask(path=path, content=body)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
    assert "parts" in response.json()["error"]["message"]
    assert upstream.requests == []


def test_long_strings_are_no_trouble(upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(HARMFUL)
    text = '"quoted", [listed], {held}: ' * 100_000
    assert proxy.ask(json={"messages": [{"role": "user", "content": text}]}).status_code == 200
    assert upstream.requests[0]["messages"][0]["content"] == text


def test_what_is_passed_unread_may_be_anything() -> None:
    content = b'--form\r\n\r\n{"a": [],' + b'"b",' * 300_000
    heard: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        heard.append(request)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with sockets(answer) as url, proxied(url, pass_paths=["/v1/files"]) as proxy:
        assert proxy.ask(path="/v1/files", content=content).status_code == 200
    assert len(heard) == 1


def test_no_model_is_asked_of_the_first(upstream: Upstream) -> None:
    with proxied({"url": upstream.url, "models": ["a"]}) as proxy:
        for content in (b"{}", b'{"model": null}', b'{"model": ""}'):
            upstream.play(HARMFUL)
            assert "HARM" not in proxy.ask(content=content).text
            assert len(upstream.requests) == 1


def test_a_refusal_leaves_the_connection_as_it_should_be(upstream: Upstream, wide: Proxied) -> None:
    """What was not read of a refused request is not taken for the next."""
    upstream.play(HARMFUL)
    inner = request(LENGTH)
    outer = f"POST /nowhere HTTP/1.1\r\nhost: h\r\ncontent-length: {len(inner)}\r\n\r\n".encode()
    answer = raw(wide.url, outer + inner + b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    assert b" 404 " in answer
    assert answer.count(b"HTTP/1.1") <= 2
    assert upstream.requests == []


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/../models"])
async def test_other_servers_may_say_less(path: str, upstream: Upstream, wide: Proxied) -> None:
    """No path as it came, and WebSockets."""
    upstream.play(HARMFUL)
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": []}
    await wide.proxy(scope, receive, send)
    assert messages[0]["status"] == (404 if ".." in path else 400)
    await wide.proxy({**scope, "type": "websocket"}, receive, send)
    assert messages[-1] == {"type": "websocket.close"}
    assert upstream.requests == []
