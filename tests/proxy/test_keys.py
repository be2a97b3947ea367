"""Keys: the clients' go no further, and the upstream's never comes back."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from shieldguard_adapters.proxy.keys import hashed
from tests.clients.rig import reasoning
from tests.proxy.rig import QUESTION, Proxied, parted, proxied, sockets, until
from tests.upstream import Script, Upstream, chat, completion

# Fixed, as they stand in the names of tests.
KEY, OTHER = f"sg-{'k' * 43}", f"sg-{'o' * 43}"
SHA256, OTHER_SHA256 = hashed(KEY), hashed(OTHER)
ONE: dict[str, Any] = {"name": "one", "sha256": SHA256}
TWO: dict[str, Any] = {"name": "two", "sha256": OTHER_SHA256}
SECRET = "sk-the-upstreams-own"
WHOLE = Script([completion({"content": "fine"})], content_type="application/json")
HARMFUL = chat(reasoning(harm_in=3), ["It is fine."])


@pytest.fixture(scope="module")
def keyed(server: Upstream) -> Iterator[Proxied]:
    with proxied(server, keys=[ONE]) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def with_secret(server: Upstream) -> Iterator[Proxied]:
    with proxied({"url": server.url, "api_key": f"{SECRET}\n"}) as proxy:
        yield proxy


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def keys_sent(upstream: Upstream) -> dict[str, str]:
    names = ("authorization", "x-api-key", "x-goog-api-key", "api-key", "proxy-authorization")
    return {name: value for name, value in upstream.headers[0].items() if name in names}


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        (bearer(KEY), ""),
        ({"authorization": f"bearer  {KEY}"}, ""),
        ({"x-api-key": KEY}, ""),
        ({"x-goog-api-key": KEY}, ""),
        ({"api-key": KEY}, ""),
        ({**bearer("another"), "x-api-key": KEY}, ""),
        ({}, f"?key={KEY}"),
    ],
)
def test_a_key_is_known_wherever_it_stands_and_goes_no_further(
    headers: dict[str, str], path: str, upstream: Upstream, keyed: Proxied
) -> None:
    upstream.play(WHOLE)
    assert keyed.ask(headers=headers, path="/v1/chat/completions" + path).status_code == 200
    assert keys_sent(upstream) == {}
    assert KEY not in str(keyed.log)


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({}, ""),
        (bearer("sg-wrong"), ""),
        (bearer(SHA256), ""),
        ({"authorization": "Bearer"}, ""),
        ({"authorization": f"Basic {KEY}"}, ""),
        ({"x-api-key": KEY[:-1]}, ""),
        ({"x-api-key": "\xe9"}, ""),
        ({}, "?key="),
        ({}, f"?not_key={KEY}"),
    ],
)
def test_another_key_is_none(headers: dict[str, str], path: str, upstream: Upstream, keyed: Proxied) -> None:
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    upstream.play(WHOLE)
    for ask in (
        keyed.ask(headers=sent, path="/v1/chat/completions" + path),
        keyed.ask(headers=sent, path="/v1/models" + path, method="GET"),
        keyed.ask(headers=sent, path="/shieldguard/streams/0123" + path, method="GET"),
    ):
        assert (ask.status_code, ask.json()["error"]["code"]) == (401, "key")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("headers", "where"),
    [
        ({}, {"authorization": f"Bearer {SECRET}"}),
        (bearer("mine"), {"authorization": f"Bearer {SECRET}"}),
        ({"x-api-key": "mine"}, {"x-api-key": SECRET}),
        ({"x-goog-api-key": "mine", "api-key": "mine"}, None),
        ({**bearer("mine"), "connection": "authorization"}, {"authorization": f"Bearer {SECRET}"}),
        ({"proxy-authorization": "Basic mine"}, {"authorization": f"Bearer {SECRET}"}),
    ],
)
def test_the_upstreams_key_takes_the_place_of_the_clients(
    headers: dict[str, str], where: dict[str, str] | None, upstream: Upstream, with_secret: Proxied
) -> None:
    upstream.play(WHOLE)
    response = with_secret.ask(headers=headers, path="/v1/chat/completions?key=mine&alt=sse")
    assert response.status_code == 200
    sent = keys_sent(upstream)
    assert "mine" not in str(upstream.headers)
    if where is not None:
        assert sent == where
    assert list(sent.values()) in ([SECRET], [f"Bearer {SECRET}"])
    assert SECRET not in str(response.headers) + response.text + str(with_secret.log)


@pytest.mark.parametrize(
    ("serve", "upstream_key", "query"),
    [
        ({}, None, "?key=mine&alt=sse"),
        ({}, SECRET, "?alt=sse"),
        ({"keys": [{"name": "one", "sha256": hashed("mine")}]}, None, "?alt=sse"),
    ],
)
def test_a_key_in_the_query_goes_as_far_as_one_in_a_header(
    serve: dict[str, Any], upstream_key: str | None, query: str
) -> None:
    heard: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        heard.append(request)
        connection.sendall(b"HTTP/1.1 404 no\r\ncontent-length: 0\r\n\r\n")

    with sockets(answer) as url, proxied({"url": url, "api_key": upstream_key}, **serve) as proxy:
        assert proxy.get("/v1/models?key=mine&alt=sse").status_code == 404
        assert heard[0].startswith(f"GET /v1/models{query} HTTP/1.1\r\n".encode())
        assert b"mine" not in heard[0] or "mine" in query


@pytest.mark.parametrize(
    ("path", "where"), [("/v1/messages", "x-api-key"), ("/v1beta/models", "x-goog-api-key")]
)
def test_where_the_client_has_none_the_path_says_where_it_goes(
    path: str, where: str, upstream: Upstream, with_secret: Proxied
) -> None:
    upstream.play(Script([b"{}"], content_type="application/json", status=404))
    with_secret.ask(path=path, method="GET" if "models" in path else "POST")
    assert keys_sent(upstream) == {where: SECRET}


def test_a_variable_holds_the_upstreams_key(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "A_KEY", SECRET)
    with proxied({"url": upstream.url, "api_key_env": "A_KEY"}) as proxy:
        upstream.play(WHOLE)
        proxy.ask()
        assert keys_sent(upstream) == {"authorization": f"Bearer {SECRET}"}


def test_without_keys_of_the_proxys_or_the_upstreams_the_clients_goes_through(
    upstream: Upstream, proxy: Proxied
) -> None:
    upstream.play(WHOLE)
    proxy.ask(headers={"x-api-key": "mine"}, path="/v1/chat/completions?key=mine")
    assert keys_sent(upstream) == {"x-api-key": "mine"}


def test_an_upstream_that_quotes_the_key_it_refuses_is_not_quoted(upstream: Upstream) -> None:
    said = f'{{"error": "no such key: {SECRET}"}}'.encode()
    with proxied({"url": upstream.url, "api_key": SECRET}) as proxy:
        upstream.play(Script([said], status=401, content_type="application/json"))
        response = proxy.ask()
        assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_key")
        assert SECRET not in response.text
    with proxied(upstream) as proxy:  # the client's own key was refused
        upstream.play(Script([said], status=401, content_type="application/json"))
        assert (proxy.ask().status_code, proxy.ask().content) == (401, said)


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/chat/completions"), ("GET", "/v1/models")])
@pytest.mark.parametrize("status", [200, 400, 403, 500])
def test_what_is_passed_unguarded_does_not_have_the_upstreams_key(
    method: str, path: str, status: int, upstream: Upstream, with_secret: Proxied
) -> None:
    if (status, method) == (200, "POST"):
        return  # a model was not told it
    said = f'{{"error": "Bearer {SECRET} may not", "again": "{SECRET}"}}'.encode()
    headers = {"x-echo": f"Bearer {SECRET}", "x-other": "kept"}
    for size in (len(said), 1, 7):
        pieces = [said[at : at + size] for at in range(0, len(said), size)]
        upstream.play(Script(pieces, status=status, content_type="application/json", headers=headers))
        response = with_secret.ask(method=method, path=path)
        assert response.status_code == status
        assert response.json() == {"error": "Bearer [key] may not", "again": "[key]"}
        assert SECRET not in str(response.headers)
        assert response.headers["x-other"] == "kept"


def test_the_upstreams_key_is_of_one_account(upstream: Upstream, with_secret: Proxied) -> None:
    upstream.play(WHOLE)
    names = ("openai-organization", "openai-project", "x-goog-user-project")
    with_secret.ask(headers=dict.fromkeys(names, "mine"))
    assert not set(names) & upstream.headers[0].keys()


def test_metrics_may_want_a_key_of_their_own(upstream: Upstream) -> None:
    with proxied(upstream, keys=[ONE], metrics_sha256=OTHER_SHA256) as proxy:
        for headers, status in (({}, 401), (bearer(KEY), 401), (bearer(OTHER), 200)):
            assert proxy.get("/metrics", headers=headers).status_code == status
        assert [proxy.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        assert proxy.ask(headers=bearer(OTHER)).status_code == 401


def test_a_report_is_for_the_key_that_asked(upstream: Upstream) -> None:
    with proxied(upstream, keys=[ONE, TWO]) as proxy:
        upstream.play(Script(HARMFUL))
        stream = proxy.ask(headers=bearer(KEY)).headers["x-shieldguard-id"]
        assert until(lambda: proxy.log)
        for key, status in ((KEY, 200), (OTHER, 404), ("sg-wrong", 401)):
            assert proxy.get(f"/shieldguard/streams/{stream}", headers=bearer(key)).status_code == status
        stream = proxy.ask(headers=bearer(OTHER)).headers["x-shieldguard-id"]
        assert until(lambda: len(proxy.log) == 2)
        for key, status in ((KEY, 404), (OTHER, 200)):
            assert proxy.get(f"/shieldguard/streams/{stream}", headers=bearer(key)).status_code == status


def test_a_key_may_have_a_policy_of_its_own(upstream: Upstream) -> None:
    lenient = {**TWO, "policy": {"reasoning": {"harmful": "flag"}, "answer": "none"}}
    with proxied(upstream, keys=[ONE, lenient], policy={"reasoning": {"potential": "abort"}}) as proxy:
        for frames, aborted in (
            (HARMFUL, [True, False]),
            (chat(["DOUBT"], ["fine"]), [True, True]),  # the guard's rule for what the key has none for
            (chat([], ["HARM"]), [True, False]),
        ):
            upstream.play(Script(frames))
            bodies = [parted(proxy.ask(headers=bearer(key)).content)[0] for key in (KEY, OTHER)]
            assert [body != b"".join(frames) for body in bodies] == aborted
        assert len({id(guard._judges) for guard in (proxy.proxy._guard, *proxy.proxy._guards.values())}) == 1


def test_a_key_may_ask_so_often(upstream: Upstream) -> None:
    with proxied(upstream, keys=[{**ONE, "requests_per_minute": 2}, TWO]) as proxy:
        upstream.play(WHOLE)
        found = [proxy.ask(headers=bearer(KEY)) for _ in range(3)]
        assert [response.status_code for response in found] == [200, 200, 429]
        assert 1 <= int(found[2].headers["retry-after"]) <= 30
        assert found[2].json()["error"]["code"] == "rate"
        assert proxy.ask(headers=bearer(OTHER)).status_code == 200
        stream = found[0].headers["x-shieldguard-id"]  # to look it up is not to ask
        assert proxy.get(f"/shieldguard/streams/{stream}", headers=bearer(KEY)).status_code == 200


def test_what_needs_no_key(upstream: Upstream, keyed: Proxied) -> None:
    assert [keyed.get(path).status_code for path in ("/", "/healthz", "/readyz", "/metrics")] == [200] * 4


def test_each_key_is_named_in_the_log(upstream: Upstream, keyed: Proxied) -> None:
    upstream.play(WHOLE)
    keyed.ask(headers=bearer(KEY), json=QUESTION)
    assert until(lambda: '"key": "one"' in str(keyed.log))
    assert '"key": "one"' in keyed.log[-1]
