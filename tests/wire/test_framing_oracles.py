"""The framer against the decoders of those who read what it passes on.

They differ from ours, and from each other, in a few things, each written down here:

* An event without data: an `event`, `id` or `retry` alone makes one for the SDKs, with empty data. Nobody
  reads text in it, so events are compared where they have data; so is the anthropic client's, which skips
  those without a name too.
* A rest without its blank line: ours gives it, as httpx2 and the SDKs may. They never give it: a guard that
  judges what no client reads is on the safe side.
* A byte order mark: ours takes it from the front of any frame, the standard from the front of the stream
  alone, the SDKs from nowhere: they do not read the field behind it, which we judge.
* Other ends of lines, such as U+2028, where they are in no data: ours refuses them, as google-genai reads on
  behind them.
"""

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shieldguard_adapters.wire.framing import SseFramer, parse_sse
from tests.wire.rig import cut_at

Said = list[tuple[str, str]]

NAMES = ["data", "event", "id", "retry", "", "other", "Data", " data", "data "]
CHARACTERS = 'a: {}"\\é😀\x00'
COLONS = st.sampled_from([":", ": ", ":  "])
VALUES = st.text(st.sampled_from(CHARACTERS), max_size=8) | st.sampled_from(["[DONE]", "7"])
DATA = st.text(st.sampled_from(CHARACTERS + "\u2028\x0b\x85"), max_size=8)
LINES = st.one_of(
    st.builds(lambda name, colon, value: name + colon + value, st.sampled_from(NAMES), COLONS, VALUES),
    st.builds(lambda colon, value: "data" + colon + value, COLONS, DATA),
    st.sampled_from(["", "", "", "data", "event", ": a comment", "data: x"]),
)
STREAMS = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\n", "\r\n", "\r"])), max_size=16).map(
    lambda lines: "".join(line + end for line, end in lines).encode()
)
RESTS = st.sampled_from([b"", b"data: rest", b"event: x\ndata: rest\n", b": rest", "data: é".encode()])
CUTS = st.lists(st.integers(0, 400), max_size=8)


def ours(pieces: list[bytes]) -> Said:
    framer = SseFramer()
    frames = [frame for piece in pieces for frame in framer.feed(piece)] + framer.flush()
    return [(said.event, said.data) for said in map(parse_sse, frames) if said.data]


def by_sdk(module: str) -> Callable[[list[bytes]], Said]:
    def read(pieces: list[bytes]) -> Said:
        decoder = pytest.importorskip(module).SSEDecoder()
        return [(event.event or "", event.data) for event in decoder.iter_bytes(iter(pieces)) if event.data]

    return read


def by_httpx2(pieces: list[bytes]) -> Said:
    httpx2 = pytest.importorskip("httpx2")
    source: Any = getattr(import_module("httpx2"), "EventSource", None)
    if source is None:
        pytest.skip("this httpx2 reads no server-sent events")

    def stream() -> Iterator[bytes]:
        yield from pieces

    response = httpx2.Response(
        200,
        headers={"content-type": "text/event-stream; charset=utf-8"},
        content=stream(),
        request=httpx2.Request("GET", "http://localhost"),
    )
    names = {"message": ""}
    return [(names.get(event.event, event.event), event.data) for event in source(response) if event.data]


ORACLES = {
    "openai": by_sdk("openai._streaming"),
    "anthropic": by_sdk("anthropic._streaming"),
    "httpx2": by_httpx2,
}
each_oracle = pytest.mark.parametrize("theirs", ORACLES.values(), ids=ORACLES.keys())


def no_message_names(said: Said) -> Said:
    """ "message" is what an event without a name is called."""
    return [("" if name == "message" else name, data) for name, data in said]


@each_oracle
@given(STREAMS)
@settings(deadline=None, max_examples=300)
def test_complete_events_are_the_same(theirs: Callable[[list[bytes]], Said], stream: bytes) -> None:
    stream += b"\n\n"
    assert no_message_names(theirs([stream])) == no_message_names(ours([stream]))


@each_oracle
@given(STREAMS, CUTS)
@settings(deadline=None, max_examples=300)
@example(b"data: a\r\n\r\ndata: b", [9, 10])
def test_wherever_the_bytes_are_cut_ours_are_those_of_the_whole(
    theirs: Callable[[list[bytes]], Said], stream: bytes, cuts: list[int]
) -> None:
    stream += b"\n\n"
    pieces = cut_at(stream, cuts)
    assert ours(pieces) == ours([stream])
    assert no_message_names(theirs(pieces)) == no_message_names(ours(pieces))


@each_oracle
@given(STREAMS, RESTS, CUTS)
@settings(deadline=None)
def test_nothing_is_read_that_ours_does_not_give(
    theirs: Callable[[list[bytes]], Said], stream: bytes, rest: bytes, cuts: list[int]
) -> None:
    found = no_message_names(theirs([stream + rest]))
    given_ = no_message_names(ours(cut_at(stream + rest, cuts)))
    assert given_[: len(found)] == found
    assert len(given_) - len(found) in (0, 1)


@each_oracle
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=repr)
def test_what_is_passed_on_a_frame_at_a_time_is_read_as_it_came(
    theirs: Callable[[list[bytes]], Said], end: bytes
) -> None:
    lines = [b": hi", b"", b"event: x", "data: é1".encode(), b"data: 2", b"", b"id: 7", b"data: 3", b"", b""]
    stream = end.join(lines)
    for at in range(len(stream) + 1):
        framer = SseFramer()
        frames = [frame for piece in (stream[:at], stream[at:]) for frame in framer.feed(piece)]
        assert b"".join([*frames, *framer.flush()]) == stream
        assert theirs(frames) == [("x", "é1\n2"), ("", "3")]


@each_oracle
def test_a_byte_order_mark_hides_its_field_from_the_sdks_and_not_from_us(
    theirs: Callable[[list[bytes]], Said],
) -> None:
    stream = "\ufeffdata: x\n\ndata: y\n\n".encode()
    assert ours([stream]) == [("", "x"), ("", "y")]
    assert theirs([stream])[-1] == ("", "y")


def test_lines_end_as_the_standard_says_and_nowhere_else() -> None:
    text = "a\u2028b\x0bc\x85d"
    assert ours([f"data: {text}\n\n".encode()]) == [("", text)]
    assert len(re.split("\r\n|\r|\n", text)) == 1
