"""How much is answered at a time."""

from contextlib import ExitStack, suppress
from typing import Any

from shieldguard_adapters.proxy.keys import new_key
from tests.clients.rig import reasoning
from tests.proxy.rig import CHAT, QUESTION, Proxied, connected, parted, proxied, read_all, until
from tests.upstream import Script, Upstream, chat, chunk

KEY, SHA256 = new_key()
OTHER, OTHER_SHA256 = new_key()
FRAMES = chat(reasoning(sentences=2), ["It is fine."])


def asking(proxy: Proxied, **headers: str) -> Any:
    return proxy.client.stream("POST", proxy.url + CHAT, json=QUESTION, headers=headers)


def test_past_the_limit_of_requests_a_client_is_told_to_come_again(upstream: Upstream) -> None:
    with proxied(upstream, max_requests=2, pass_paths=["/v1/embeddings"]) as proxy:
        upstream.play(Script(FRAMES, hold_open=True))
        with asking(proxy), asking(proxy):
            refused = [proxy.ask(), proxy.ask(path="/v1/embeddings"), proxy.get("/v1/models")]
            for response in refused:
                assert (response.status_code, response.json()["error"]["code"]) == (503, "busy")
                assert int(response.headers["retry-after"]) >= 1
            assert len(upstream.requests) == 2
            for path in ("/healthz", "/readyz", "/metrics"):
                assert proxy.get(path).status_code == 200
        assert until(proxy.is_idle)
        upstream.play(Script(FRAMES))
        assert proxy.ask().status_code == 200


def test_what_is_refused_takes_no_place(upstream: Upstream) -> None:
    with proxied(upstream, max_requests=1) as proxy:
        upstream.play(Script(FRAMES))
        for _ in range(3):
            assert proxy.ask(path="/nowhere").status_code == 404
            assert proxy.ask(content=b"{").status_code == 400
        assert proxy.ask().status_code == 200


def test_a_key_has_a_limit_of_its_own(upstream: Upstream) -> None:
    keys = [{"name": "one", "sha256": SHA256, "max_requests": 1}, {"name": "two", "sha256": OTHER_SHA256}]
    with proxied(upstream, keys=keys) as proxy:
        upstream.play(Script(FRAMES, hold_open=True))
        with asking(proxy, **{"x-api-key": KEY}):
            response = proxy.ask(headers={"x-api-key": KEY})
            assert (response.status_code, response.json()["error"]["code"]) == (429, "busy")
            with asking(proxy, **{"x-api-key": OTHER}) as other:
                assert other.status_code == 200
        assert until(proxy.is_idle)


def test_a_request_that_comes_slowly_has_a_place(upstream: Upstream) -> None:
    """So that not more bodies are read at a time than there may be requests."""
    with proxied(upstream, max_requests=1) as proxy:
        upstream.play(Script(FRAMES))
        with connected(proxy.url) as connection:
            connection.sendall(f"POST {CHAT} HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n{{".encode())
            assert until(lambda: proxy.ask().status_code == 503)
        assert until(lambda: proxy.ask().status_code == 200)


def test_past_the_limit_connections_are_closed(upstream: Upstream) -> None:
    with proxied(upstream, max_connections=3) as proxy, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(proxy.url))
        assert until(lambda: len(proxy.server.server_state.connections) == 3)
        with connected(proxy.url) as late:
            with suppress(ConnectionError):  # where it is closed already
                late.sendall(b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            assert read_all(late) == b""
        stack.close()
        assert until(lambda: not proxy.server.server_state.connections)
        assert proxy.get("/healthz").status_code == 200


def test_frames_without_text_are_held_up_to_a_bound(upstream: Upstream) -> None:
    """Behind text that waits for its verdict, megabytes of them come."""
    padding = b'data: {"choices":[],"padding":"%s"}\n\n' % (b"x" * 60_000)
    limits = {"max_held_bytes": 1_000_000, "judge_timeout": 0.8}
    with proxied(upstream, delay=5, policy=limits) as proxy:
        upstream.play(Script([*FRAMES[:-3], *[padding] * 2000]))
        response = proxy.ask()
        assert "could not be completed" in response.text
        assert upstream.sent < 300  # of 2000; the rest of what was sent is in the buffers of sockets
        assert until(proxy.is_idle)


def test_frames_in_a_tool_call_without_end_are_an_error(upstream: Upstream) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    padding = chunk({}, padding="x" * 60_000)
    with proxied(upstream, policy={"max_held_bytes": 1_000_000}) as proxy:
        upstream.play(
            Script([chunk({"role": "assistant"}), chunk({"tool_calls": [call]}), *[padding] * 2000])
        )
        response = proxy.ask()
        came, told = parted(response.content)
        assert came.endswith(b"data: [DONE]\n\n")
        assert told["x-shieldguard-aborted"] == "bound"
        assert "could not be completed" in response.text
        found = proxy.get(f"/shieldguard/streams/{response.headers['x-shieldguard-id']}").json()
        assert found["cause"] == "bound"
        assert upstream.sent < 300
