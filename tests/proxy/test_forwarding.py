"""What reaches the upstream, and what comes back of its headers."""

import socket
from typing import Any

import httpx2
import pytest

from tests.proxy.rig import CHAT, QUESTION, Proxied, proxied, raw, sockets, until
from tests.upstream import Script, Upstream, completion

WHOLE = Script([completion({"content": "fine"})], content_type="application/json")


def play(upstream: Upstream, **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    upstream.play(Script(WHOLE.pieces, content_type="application/json", headers=named))


def test_what_is_of_the_connection_or_of_the_client_alone_is_not_sent(
    upstream: Upstream, proxy: Proxied
) -> None:
    play(upstream)
    left_out = {
        "connection": "x-mine, keep-alive",
        "x-mine": "1",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "upgrade": "h2c",
        "proxy-connection": "keep-alive",
        "cookie": "session=1",
        "forwarded": "for=10.0.0.1",
        "x-forwarded-for": "10.0.0.1",
        "x-real-ip": "10.0.0.1",
        "via": "1.1 me",
        "range": "bytes=1-",
        "x-shieldguard-id": "0",
        "x-original-url": CHAT,  # some servers take the path from these, or the method
        "x-rewrite-url": CHAT,
        "x-http-method-override": "POST",
        "x-method-override": "POST",
        "x-http-method": "POST",
        "x_original_url": CHAT,  # and some read an underscore as a hyphen
    }
    sent = {"user-agent": "mine/1", "x-stainless-lang": "python", "traceparent": "00-1-2-01"}
    proxy.ask(headers={**left_out, **sent})
    [headers] = upstream.headers
    assert {name: value for name, value in headers.items() if name in sent} == sent
    assert left_out.keys() & headers.keys() <= {"connection"}
    assert headers.get("connection", "") in ("", "keep-alive")
    assert headers["host"] == httpx2.URL(upstream.url).netloc.decode()
    assert headers["accept-encoding"] == "identity"


def test_what_a_host_says_of_itself_does_not_come_back(upstream: Upstream, proxy: Proxied) -> None:
    left_out = {
        "set_cookie": "session=1",
        "alt_svc": 'h3=":443"',
        "strict_transport_security": "max-age=1",
        "access_control_allow_origin": "*",
        "x_shieldguard_level": "0",
        "connection": "x-theirs",
        "x_theirs": "1",
        "etag": "e",
        "date": "Thu, 01 Jan 1970 00:00:00 GMT",
        "location": "http://10.0.0.7/v1",
        "operation_location": "http://10.0.0.7/v1",
        "content_location": "http://10.0.0.7/v1",
        "link": "<http://10.0.0.7/v1>",
        "refresh": "0; http://10.0.0.7/v1",
        "x_accel_redirect": "/private/file",
        "x_sendfile": "/private/file",
    }
    play(upstream, **left_out, x_request_id="r1", x_accel_buffering="no")
    headers = proxy.ask().headers
    assert (headers["x-request-id"], headers["x-accel-buffering"]) == ("r1", "no")
    names = {name.replace("_", "-") for name in left_out} - {"x-shieldguard-level", "date"}
    assert not names & headers.keys()
    assert headers.get_list("x-shieldguard-level") == ["0"]  # ours: it was judged
    assert len(headers.get_list("date")) == 1
    assert "1970" not in headers["date"]


def test_what_one_clients_response_brings_is_not_sent_with_anothers(
    upstream: Upstream, proxy: Proxied
) -> None:
    play(upstream, set_cookie="session=1; Path=/")
    proxy.ask()
    proxy.ask()
    assert [headers.get("cookie") for headers in upstream.headers] == [None, None]


def test_headers_that_are_not_ascii_pass(upstream: Upstream, proxy: Proxied) -> None:
    play(upstream, x_name="caf\xe9")
    response = proxy.ask(headers={"x-mine": "caf\xe9".encode("latin-1"), "x-other": "水".encode()})
    assert response.status_code == 200
    assert upstream.headers[0]["x-mine"] == "caf\xe9"
    assert (b"x-name", b"caf\xe9") in response.headers.raw


@pytest.mark.parametrize(
    ("upstream_path", "path", "arrives"),
    [
        ("", "/v1/chat/completions?a=b%20c&a=%2F", "/v1/chat/completions?a=b%20c&a=%2F"),
        ("/v1", "/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/", "/chat/completions", "/v1/chat/completions"),
        ("/openai", "/v1/chat/completions/", "/openai/v1/chat/completions/"),
        ("/openai/v1", "/v1/chat/completions", "/openai/v1/chat/completions"),
        ("/v1", "/v1beta/chat/completions", "/v1/v1beta/chat/completions"),
    ],
)
def test_the_path_goes_behind_the_upstreams(upstream_path: str, path: str, arrives: str) -> None:
    heard: list[bytes] = []

    with listening(heard) as url, proxied(url + upstream_path) as proxy:
        assert proxy.ask(path=path).status_code == 404
        assert heard[0].split(b" ")[1].decode() == arrives


def listening(heard: list[bytes]) -> Any:
    def answer(connection: socket.socket, request: bytes) -> None:
        heard.append(request)
        connection.sendall(b"HTTP/1.1 404 no\r\ncontent-length: 0\r\n\r\n")

    return sockets(answer)


def test_models_have_their_upstreams(upstream: Upstream) -> None:
    other: list[bytes] = []
    with (
        listening(other) as url,
        proxied({"url": url, "models": ["gpt-*", "o3"]}, {"url": upstream.url, "name": "rest"}) as proxy,
    ):
        upstream.play(WHOLE)
        for model, is_other in (("gpt-5", True), ("o3", True), ("o3-mini", False), ("qwen", False)):
            other.clear()
            proxy.ask(json={**QUESTION, "model": model})
            assert bool(other) is is_other
        # In the path, as Gemini and Azure have it; and none, which the first answers.
        for path, is_other in (
            ("/v1/models/gpt-5", True),
            ("/v1/models/qwen", False),
            ("/openai/deployments/gpt-5/models", True),
            ("/v1/models", True),
        ):
            other.clear()
            proxy.ask(path=path, method="GET")
            assert bool(other) is is_other
        assert '"upstream": "rest"' in str(proxy.log)


def test_a_model_that_none_serves_is_refused(upstream: Upstream) -> None:
    with proxied({"url": upstream.url, "models": ["gpt-*"]}) as proxy:
        upstream.play(WHOLE)
        response = proxy.ask()
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
        assert upstream.requests == []


def test_an_upstream_of_a_private_authority(tmp_path: Any, upstream: Upstream) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    # The proxy stands before another proxy, which speaks TLS.
    files = {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.pem"}
    with proxied(upstream, **files) as behind:
        url = behind.url.replace("http:", "https:")
        upstream.play(WHOLE)
        with proxied(url, upstream_ca=tmp_path / "ca.pem") as proxy:
            assert proxy.ask().status_code == 200
        with proxied(url) as proxy:
            response = proxy.ask()
            assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_failed")
            assert "127.0.0.1" not in response.text
            assert until(lambda: "CERTIFICATE_VERIFY_FAILED" in str(proxy.log))


def test_a_client_of_http_1_0_is_answered(upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(WHOLE)
    body = b'{"model": "m", "messages": []}'
    head = f"POST {CHAT} HTTP/1.0\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    head, _, got = raw(proxy.url, head + body).partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert b"chunked" not in head.lower()
    assert got == WHOLE.pieces[0]


def test_requests_share_a_connection(upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(WHOLE)
    request = b"GET /v1/models HTTP/1.1\r\nhost: h\r\n{}\r\n"
    both = request.replace(b"{}", b"") + request.replace(b"{}", b"connection: close\r\n")
    answers = raw(proxy.url, both)
    assert answers.count(b"HTTP/1.1 200") == 2
    assert len(upstream.requests) == 2
