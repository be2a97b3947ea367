"""What must hold for any bytes: nothing harmful leaves, whatever leaves unchanged keeps its bytes, and how
the bytes were cut changes nothing."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

from shieldguard import (
    Action,
    Answer,
    Ended,
    Guard,
    Passthrough,
    Policy,
    Reasoning,
    Relabel,
    Release,
    ReleasedEvent,
    Rule,
    SourceEvent,
    WireError,
)
from shieldguard.testing import InstantScriptedJudge
from shieldguard_adapters.wire import Codec
from shieldguard_adapters.wire.eventstream import EventStreamFramer
from shieldguard_adapters.wire.framing import LineFramer, SseFramer, parse_sse
from tests.wire.rig import cut_at

SECRET = "HARM"
CUTS = 4  # bytes at the front of an input, which say where the rest is cut

#: Names of what is no model text, wherever it stands.
# fmt: off
METADATA = frozenset({
    "annotations", "caller", "citation", "citations", "data", "encrypted_content", "format", "id",
    "index", "model", "name", "role", "signature", "status", "stop_details", "stop_reason",
    "stop_sequence", "tool_call_id", "tool_use_id", "toolset_name", "type", "url", "usage",
})
# fmt: on

_REDACT = Rule(harmful=Action.REDACT)
_ABORTS = Policy(max_wait=None)
_REDACTS = Policy(max_wait=None, reasoning=_REDACT, answer=_REDACT, tool_call=_REDACT)
_LAGS = Policy(max_wait=None, release=Release.LAG)

Bodies: TypeAlias = Callable[[bytes], Iterator[bytes | str]]


@dataclass(frozen=True)
class Target:
    """`texts`: the objects in a body of JSON in which all strings are model text, but for those named by
    `metadata`. `bodies`: of what leaves. `keeps`: whether the codec says it leaves these bytes as they are.
    `wired`: the stream that an input stands for. `by_frame`: whether an event is of one frame, however that
    was cut."""

    name: str
    make: Callable[[], Codec]
    seeds: Callable[[], Sequence[bytes]]
    texts: Callable[[dict[str, Any]], Any]
    bodies: Bodies = field(default=lambda data: iter([data]))
    keeps: Callable[[bytes], bool] = field(default=lambda data: True)
    metadata: frozenset[str] = METADATA
    wired: Callable[[bytes], bytes] = bytes
    by_frame: bool = True


def check(target: Target, data: bytes) -> None:
    """Raise `AssertionError`, or whatever broke, where something does not hold for these bytes."""
    stream = target.wired(data[CUTS:])
    pieces = _pieces(data[:CUTS], stream)
    events, again = _events(target, [stream]), _events(target, pieces)
    assert events == again, "how the bytes were cut changes the events"
    if events is not None and target.keeps(stream):
        assert _unjudged(target.make(), pieces) == stream, "bytes that nothing changed were changed"
    outs = [_guarded(target.make(), cut) for cut in ([stream], pieces)]
    for out, _ in outs:
        assert not _leaks(target, out), f"{SECRET} leaves"
    if events is not None:
        assert outs[0][1] == outs[1][1], "how the bytes were cut changes how it ends"


def check_policies(target: Target, data: bytes) -> None:
    """The same of bytes without cuts, be what is harmful aborted, redacted or found late: they are read or
    refused, and nothing breaks."""
    for policy in (_ABORTS, _REDACTS, _LAGS):
        out, _ = _guarded(target.make(), [target.wired(data)], policy)
        assert policy is _LAGS or not _leaks(target, out), f"{SECRET} leaves: {data!r}"


class _Framer(Protocol):
    def feed(self, data: bytes) -> list[bytes]: ...

    def flush(self) -> list[bytes] | None: ...


def check_framing(data: bytes) -> None:
    """The same of server-sent events, lines and the event stream: only bytes into frames."""
    stream = data[CUTS:]
    pieces = _pieces(data[:CUTS], stream)
    events = [_frames(SseFramer(), cut) for cut in ([stream], pieces)]
    lines = [_frames(LineFramer(), cut) for cut in ([stream], pieces)]
    for frames in (*events, *lines):
        assert b"".join(frames) == stream, "the frames are not the bytes"
    said = []
    for frames in events:
        try:
            said.append([one for one in map(parse_sse, frames) if one.data is not None])
        except WireError:
            said.append([])
    assert said[0] == said[1], "how the bytes were cut changes what they say"
    texts = [[text for line in own if (text := line.rstrip(b"\r\n"))] for own in lines]
    assert texts[0] == texts[1], "how the bytes were cut changes the lines"
    messages = []
    for cut in ([stream], pieces):
        try:
            messages.append(_frames(EventStreamFramer(), cut))
        except WireError:
            messages.append([])
    assert messages[0] == messages[1], "how the bytes were cut changes the messages"
    assert b"".join(messages[0]) in (b"", stream), "the messages are not the bytes"


def _pieces(cuts: bytes, stream: bytes) -> list[bytes]:
    return cut_at(stream, [cut * (len(stream) + 1) // 256 for cut in cuts])


def _frames(framer: _Framer, pieces: Sequence[bytes]) -> list[bytes]:
    return [frame for piece in pieces for frame in framer.feed(piece)] + (framer.flush() or [])


def _events(target: Target, pieces: Sequence[bytes]) -> list[SourceEvent] | None:
    """None where they cannot be read. Frames that say nothing are left out: an empty line that a CRLF becomes
    when it is cut is one."""
    codec = target.make()
    try:
        events = [event for piece in pieces for event in codec.decode(piece)] + codec.flush()
    except WireError:
        return None
    if target.by_frame:
        return [event for event in events if event not in (Passthrough(), Passthrough(choice=0))]
    joined: list[SourceEvent] = []
    for event in events:
        last = joined[-1] if joined else None
        if (
            isinstance(event, Reasoning | Answer | Passthrough)
            and isinstance(last, Reasoning | Answer | Passthrough)
            and replace(last, text="") == replace(event, text="")
        ):
            joined[-1] = replace(last, text=last.text + event.text)
        else:
            joined.append(event)
    return joined


def _unjudged(codec: Codec, pieces: Sequence[bytes]) -> bytes:
    events = [event for piece in pieces for event in codec.decode(piece)] + codec.flush()
    released: list[ReleasedEvent] = [event for event in events if not isinstance(event, Relabel)]
    return codec.encode(released) + codec.close()


def _guarded(codec: Codec, pieces: Sequence[bytes], policy: Policy = _ABORTS) -> tuple[bytes, Ended]:
    judge = InstantScriptedJudge(lambda window: float(SECRET in window.text))
    by = Guard(judge=judge, policy=policy)

    def source() -> Iterator[list[SourceEvent]]:
        for piece in pieces:
            yield codec.decode(piece)
        yield codec.flush()

    out = b""
    with by.stream_sync(source()) as stream:
        while batch := stream.next_batch():
            out += codec.encode(batch)
    return out + codec.close(), stream.report.ended


def _leaks(target: Target, out: bytes) -> bool:
    if SECRET.encode() not in out and b"\\u" not in out:
        return False
    for data in target.bodies(out):
        try:
            parsed = json.loads(data)
        except ValueError:
            continue  # nor can a client
        if isinstance(parsed, dict) and any(
            SECRET in text for text in _strings(target.texts(parsed), target.metadata)
        ):
            return True
    return False


def _strings(value: Any, metadata: frozenset[str]) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, metadata)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in metadata:
                yield from _strings(inner, metadata)


def sse_bodies(out: bytes) -> Iterator[str]:
    framer = SseFramer()
    for frame in framer.feed(out) + framer.flush():
        try:
            data = parse_sse(frame).data
        except WireError:  # a client may read it as JSON: Gemini's errors come like that
            yield frame.decode()
        else:
            if data is not None:
                yield data
