"""A model server for benchmarks: raw asyncio, on a loopback port that it prints.

A model's name says how its answer comes: "burst" 200 pieces of thought all at once, "paced" 60 of them, one
each 20 ms; with "inline" in it, the thought stands between think tags in the answer's field, for readers that
know no other.
"""

import asyncio
import json
import random
import sys

PIECES, PACED_PIECES, PACE = 200, 60, 0.02
ANSWER = ["ANSWER", *[" word"] * 9]
_SENTENCE = (
    "the water level of the river rises when it rains so we take measures and compare them with those from "
    "last year before writing any number down because small errors add up over time"
)
_WORDS = _SENTENCE.split()


def thought(pieces: int, size: int = 16) -> list[str]:
    """Harmless prose, in pieces of about four tokens."""
    rng = random.Random(0)
    text = ""
    while len(text) < pieces * size:
        text += " ".join(rng.choice(_WORDS) for _ in range(rng.randint(6, 18))).capitalize() + ". "
    return [text[at : at + size] for at in range(0, pieces * size, size)]


def frame(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
    return b"data: " + json.dumps({**body, "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"


def frames(count: int, *, inline: bool) -> list[bytes]:
    """The response, in HTTP chunks."""
    pieces = thought(count)
    if inline:
        deltas = [{"content": piece} for piece in ("<think>", *pieces, "</think>")]
    else:
        deltas = [{"reasoning_content": piece} for piece in pieces]
    deltas += [{"content": piece} for piece in ANSWER]
    bodies = [frame({"role": "assistant", "content": ""}), *map(frame, deltas), frame({}, "stop")]
    bodies.append(b"data: [DONE]\n\n")
    return [*(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies), b"0\r\n\r\n"]


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BURST, PACED = (
    {inline: frames(count, inline=inline) for inline in (False, True)} for count in (PIECES, PACED_PIECES)
)


class Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        if not end or len(body) < length:
            return
        self._data = body[length:]
        model = str(json.loads(body[:length])["model"]) if length else "burst"
        inline = "inline" in model
        if "paced" in model:
            self._transport.write(HEAD)
            self._send(PACED[inline], 0, asyncio.get_running_loop().time())
        else:
            self._transport.write(HEAD + b"".join(BURST[inline]))

    def _send(self, pieces: list[bytes], number: int, began: float) -> None:
        loop = asyncio.get_running_loop()
        while number < len(pieces) and began + number * PACE <= loop.time():
            self._transport.write(pieces[number])
            number += 1
        if number < len(pieces) and not self._transport.is_closing():
            loop.call_at(began + number * PACE, self._send, pieces, number, began)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        sys.exit()
