"""Events of Bedrock's Converse, and the binary event stream that they come in."""

import json
import struct
import zlib
from collections.abc import Iterable
from typing import Any

Event = dict[str, Any]

USAGE = {"inputTokens": 5, "outputTokens": 9, "totalTokens": 14}
METADATA = {"usage": USAGE, "metrics": {"latencyMs": 7}}


def delta(index: int, **piece: Any) -> Event:
    return {"contentBlockDelta": {"delta": piece, "contentBlockIndex": index}}


def start(index: int, **block: Any) -> Event:
    return {"contentBlockStart": {"start": block, "contentBlockIndex": index}}


def stop(index: int) -> Event:
    return {"contentBlockStop": {"contentBlockIndex": index}}


def thinking(index: int, *texts: str, signature: str = "c2ln") -> list[Event]:
    signed = [delta(index, reasoningContent={"signature": signature})] if signature else []
    return [*(delta(index, reasoningContent={"text": text}) for text in texts), *signed, stop(index)]


def text(index: int, *texts: str) -> list[Event]:
    return [*(delta(index, text=one) for one in texts), stop(index)]


def tool(index: int, *pieces: str, name: str = "send") -> list[Event]:
    return [
        start(index, toolUse={"toolUseId": f"tooluse_{index}", "name": name}),
        *(delta(index, toolUse={"input": piece}) for piece in pieces),
        stop(index),
    ]


def response(*blocks: list[Event], stop_reason: str = "end_turn") -> list[Event]:
    """The events of a whole streamed response."""
    return [
        {"messageStart": {"role": "assistant"}},
        *(event for block in blocks for event in block),
        {"messageStop": {"stopReason": stop_reason}},
        {"metadata": METADATA},
    ]


def body(*content: Event, stop_reason: str = "end_turn", **more: Any) -> bytes:
    """A response in one piece."""
    message = {"role": "assistant", "content": content}
    return json.dumps(
        {"output": {"message": message}, "stopReason": stop_reason, **METADATA, **more}
    ).encode()


def framed(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of the event stream."""
    named = b""
    for name, value in headers.items():
        named += struct.pack(f">B{len(name)}sBH", len(name), name.encode(), 7, len(value)) + value.encode()
    lengths = struct.pack(">II", 16 + len(named) + len(payload), len(named))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + named + payload
    return message + struct.pack(">I", zlib.crc32(message))


def wired(*events: Event, padding: str = "abcdefg") -> list[bytes]:
    """Events as Bedrock sends them."""
    messages = []
    for event in events:
        [(type_, inner)] = event.items()
        payload = json.dumps({**inner, "p": padding}, ensure_ascii=False).encode()
        kind = "exception" if type_.endswith("Exception") else "event"
        headers = {
            f":{kind}-type": type_,
            ":content-type": "application/json",
            ":message-type": kind,
        }
        messages.append(framed(headers, payload))
    return messages


def events_in(out: bytes) -> list[Event]:
    """The events of these bytes, without padding."""
    events = []
    while out:
        size, headers, _ = struct.unpack_from(">III", out)
        message, out = out[:size], out[size:]
        assert zlib.crc32(message[:-4]) == struct.unpack(">I", message[-4:])[0]
        named, payload = message[12 : 12 + headers], json.loads(message[12 + headers : -4])
        at, found = 0, {}
        while at < len(named):
            name = named[at + 1 : at + 1 + named[at]].decode()
            at += 2 + named[at]
            (length,) = struct.unpack_from(">H", named, at)
            found[name] = named[at + 2 : at + 2 + length].decode()
            at += 2 + length
        payload.pop("p", None)
        events.append({found[":event-type" if ":event-type" in found else ":exception-type"]: payload})
    return events


def said(events: Iterable[Event]) -> list[tuple[str, str]]:
    """The blocks as a client has them: kind, text. Each has the index that its place is, and ends before
    the next begins; the last two events say why it stopped, and what it took."""
    blocks: list[tuple[str, str]] = []
    is_open = False
    order = []
    for event in events:
        [(type_, inner)] = event.items()
        order.append(type_)
        if type_ not in ("contentBlockStart", "contentBlockDelta", "contentBlockStop"):
            continue
        index = inner["contentBlockIndex"]
        if type_ == "contentBlockStop":
            if not is_open:
                blocks.append(("text", ""))
            assert index == len(blocks) - 1
            is_open = False
            continue
        [(kind, piece)] = (inner.get("delta") or inner["start"]).items()
        if not is_open:
            blocks.append((kind, ""))
            is_open = True
        assert index == len(blocks) - 1
        new = piece if isinstance(piece, str) else piece.get("text", "") + piece.get("input", "")
        blocks[-1] = (blocks[-1][0], blocks[-1][1] + new)
    assert not is_open
    assert order[0] == "messageStart"
    assert order[-2:] == ["messageStop", "metadata"]
    return blocks
