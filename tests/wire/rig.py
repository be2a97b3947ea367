"""Bytes through a codec, with a guard between its two directions or without."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from shieldguard import Guard, Policy, Relabel, ReleasedEvent, SourceEvent, StreamReport
from shieldguard.testing import InstantScriptedJudge
from shieldguard.windows import SentenceWindower, Windower
from shieldguard_adapters.wire import Codec
from shieldguard_adapters.wire.openai_chat import ChatStream

MARKS = {"HARM": 1.0, "DOUBT": 0.5}


def guard(
    marks: dict[str, float] = MARKS, *, windower: Windower = SentenceWindower(), **policy: Any
) -> Guard:
    """A guard that finds harm where its mark stands, and is not hurried by the clock."""
    return Guard(judge=InstantScriptedJudge(marks), policy=Policy(max_wait=None, **policy), windower=windower)


def read(codec: Codec, pieces: Iterable[bytes]) -> list[SourceEvent]:
    """All events of these bytes."""
    return [event for piece in pieces for event in codec.decode(piece)] + codec.flush()


def events_of(*frames: bytes, **options: Any) -> list[SourceEvent]:
    """What a stream of these frames says."""
    return read(ChatStream(**options), frames)


def unjudged(codec: Codec, pieces: Iterable[bytes]) -> bytes:
    """The bytes again, all events released at once."""
    released: list[ReleasedEvent] = [event for event in read(codec, pieces) if not isinstance(event, Relabel)]
    return codec.encode(released) + codec.close()


def guarded(
    pieces: Iterable[bytes],
    by: Guard | None = None,
    codec: Codec | None = None,
    *,
    redactable: bool = True,
) -> tuple[bytes, StreamReport]:
    """What leaves of these bytes, and the report."""
    codec = codec or ChatStream()

    def source(codec: Codec) -> Iterator[list[SourceEvent]]:
        for piece in pieces:
            yield codec.decode(piece)
        yield codec.flush()

    out = b""
    with (by or guard()).stream_sync(source(codec), redactable=redactable) as stream:
        while batch := stream.next_batch():
            out += codec.encode(batch)
    return out + codec.close(), stream.report


def frame(delta: Any = None, *, head: dict[str, Any] | None = None, **choice: Any) -> bytes:
    """One chunk. Keyword arguments go to its choice, `head` to the chunk."""
    return chunk({"index": 0, "delta": {} if delta is None else delta, "finish_reason": None, **choice}, head)


def chunk(choices: dict[str, Any] | list[dict[str, Any]], head: dict[str, Any] | None = None) -> bytes:
    """One chunk with these choices."""
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **(head or {})}
    body["choices"] = choices if isinstance(choices, list) else [choices]
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def chunks_in(out: bytes) -> list[dict[str, Any]]:
    """The JSON of the frames that have any."""
    found = []
    for raw in out.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = raw.removeprefix(b"data:").strip()
        if raw.startswith(b"data:") and data != b"[DONE]":
            found.append(json.loads(data))
    return found


def choices_in(out: bytes) -> list[dict[str, Any]]:
    return [choice for one in chunks_in(out) for choice in one["choices"]]


def text_in(out: bytes, field: str = "content", choice: int = 0) -> str:
    """All text of one field of one choice."""
    return "".join(one["delta"].get(field) or "" for one in choices_in(out) if one.get("index", 0) == choice)


def cut_at(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The same bytes in pieces."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[begin:end] for begin, end in zip([0, *places], [*places, len(data)], strict=True)]
