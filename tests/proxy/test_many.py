"""Many at once, and slow readers."""

import asyncio
import gc
import json
import resource
import socket
import time

import httpx2
import pytest

from shieldguard import Window
from tests.clients.rig import reasoning
from tests.proxy.rig import CHAT, QUESTION, Proxied, connected, parted, proxied, until
from tests.upstream import Script, Upstream, chat

STREAMS = 1000


@pytest.fixture(autouse=True)
def _enough_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 5 * STREAMS:
        if hard != resource.RLIM_INFINITY and hard < 5 * STREAMS:
            pytest.skip(f"no more than {hard} files may be open")
        resource.setrlimit(resource.RLIMIT_NOFILE, (5 * STREAMS, hard))


@pytest.mark.slow
def test_a_thousand_streams_at_once_do_not_mix(upstream: Upstream) -> None:
    """Every tenth is harmful, and each has an answer of its own."""
    thought = "".join(reasoning(sentences=1))
    for number in range(STREAMS):
        mark = "HARM" if number % 10 == 0 else f"The answer is {number}."
        upstream.models[f"m{number}"] = Script(chat([thought], [mark], usage=False), delay=0.5)
    peak = 0

    async def ask(proxy: Proxied, number: int) -> bytes:
        nonlocal peak
        address = httpx2.URL(proxy.url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            body = json.dumps({**QUESTION, "model": f"m{number}"})
            head = f"POST {CHAT} HTTP/1.0\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write((head + body).encode())
            head, _, got = (await reader.read()).partition(b"\r\n\r\n")  # type: ignore[assignment]
            peak = max(peak, len(proxy.proxy._streams))
            assert b" 200 " in head  # type: ignore[operator]
            return got
        finally:
            writer.close()
            await writer.wait_closed()

    async def main(proxy: Proxied) -> list[bytes]:
        return await asyncio.gather(*(ask(proxy, number) for number in range(STREAMS)))

    with proxied(upstream, keep_alive="none") as proxy:
        for number, body in enumerate(asyncio.run(main(proxy))):
            if number % 10:
                assert parted(body)[0] == b"".join(upstream.models[f"m{number}"].pieces)
            else:
                assert b"HARM" not in body
                assert b"Withheld" in body
        assert peak > STREAMS / 2
        assert until(proxy.is_idle)
        assert proxy.metric("shieldguard_streams_ended_total", ended="complete") == STREAMS * 0.9
        assert proxy.metric("shieldguard_streams_ended_total", ended="aborted") == STREAMS * 0.1
        assert proxy.metric("shieldguard_streams") == 0
        assert len(proxy.proxy._reports._kept) == len(proxy.proxy._reports._owners) == STREAMS


@pytest.mark.parametrize("guarded", [True, False])
def test_a_slow_reader_slows_the_upstream_down(guarded: bool, upstream: Upstream) -> None:
    """Of 60 MB, what is between the two is bounded: by the policy, and by the buffers of sockets."""
    padding = b": %s\n\n" % (b"x" * 30_000)
    frames = [frame for frame in chat(["This is calm. "] * 2000, []) for frame in (frame, padding)]
    with proxied(upstream, policy={"max_held": 100_000}) as proxy:
        upstream.play(Script(frames, content_type="text/event-stream" if guarded else "application/json"))
        with connected(proxy.url, seconds=20) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.sendall(_request(guarded))
            assert until(lambda: upstream.sent > 10)
            before = -1
            while before != upstream.sent:  # until it stands still
                before = upstream.sent
                time.sleep(0.3)
            assert upstream.sent < 1000  # of 4000, and most of it is in the kernel
            got = 0
            while got < 8_000_000:  # it goes on when the client does
                got += len(connection.recv(1 << 20))
            assert until(lambda: upstream.sent > before)
        assert upstream.finished.wait(20)
        assert until(proxy.is_idle)


def _request(guarded: bool) -> bytes:
    if not guarded:
        return b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n"
    body = b'{"model": "m", "messages": []}'
    return b"POST %s HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body


@pytest.mark.slow
def test_nothing_stays_behind(upstream: Upstream) -> None:
    """After some hundred requests of all kinds there is no more than after some."""

    def left(proxy: Proxied) -> int:
        for number in range(8):
            upstream.play(Script(chat(reasoning(sentences=3, harm_in=number % 4), ["It is fine."])))
            proxy.ask()
            proxy.ask(path="/nowhere")
            with connected(proxy.url) as connection:
                connection.sendall(_request(True))
        assert until(proxy.is_idle)
        gc.collect()
        ours = [one for one in gc.get_objects() if str(type(one).__module__).startswith("shieldguard")]
        return sum(not isinstance(one, Window) for one in ours)  # the scripted judge keeps these

    with proxied(upstream, reports=1) as proxy:
        first, second, third = (left(proxy) for _ in range(3))
        assert third <= max(first, second) + 5
