"""Frames of server-sent events, and lines: cut anywhere, they say the same and keep their bytes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import WireError
from shieldguard_adapters.wire.framing import LineFramer, SseFramer, parse_sse
from tests.wire.rig import cut_at

LINE_ENDS = ["\n", "\r\n", "\r"]
FIELDS = [
    "data: a",
    "data:b",
    "data",
    "data: ",
    ": comment",
    "event: ping",
    "id: 7",
    "retry: 10",
    "other: x",
    "",
]

streams = st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from(LINE_ENDS)), max_size=12).map(
    lambda lines: "".join(field + end for field, end in lines).encode()
)


def frames_of(pieces: list[bytes]) -> list[bytes]:
    framer = SseFramer()
    return [frame for piece in pieces for frame in framer.feed(piece)] + framer.flush()


def data_of(frames: list[bytes]) -> list[str]:
    return [data for frame in frames if (data := parse_sse(frame).data) is not None]


def data_by_the_standard(stream: bytes) -> list[str]:
    """The standard's own algorithm, line by line over the whole text (a last frame without end counts)."""
    found: list[str] = []
    lines: list[str] = []
    for line in [*re.split("\r\n|\r|\n", stream.decode().removeprefix("\ufeff")), ""]:
        if line == "":
            found += ["\n".join(lines)] if lines else []
            lines = []
        elif line.partition(":")[0] == "data":
            lines.append(line.partition(":")[2].removeprefix(" "))
    return found


@given(streams, st.lists(st.integers(0, 200), max_size=6))
@settings(deadline=None)
def test_any_chunking_gives_the_standards_data_and_keeps_every_byte(stream: bytes, cuts: list[int]) -> None:
    frames = frames_of(cut_at(stream, cuts))
    assert b"".join(frames) == stream
    assert data_of(frames) == data_by_the_standard(stream)


@pytest.mark.parametrize("end", LINE_ENDS, ids=repr)
def test_every_single_cut_says_the_same(end: str) -> None:
    stream = f": hi{end}{end}event: x{end}data: é1{end}data: 2{end}{end}data: 3{end}{end}".encode()
    for at in range(len(stream) + 1):
        assert data_of(frames_of([stream[:at], stream[at:]])) == ["é1\n2", "3"]
    assert data_of(frames_of([bytes([byte]) for byte in stream])) == ["é1\n2", "3"]


def test_a_byte_order_mark_before_the_first_field_is_no_part_of_it() -> None:
    assert parse_sse("\ufeffdata: x\n\n".encode()).data == "x"


def test_a_comment_has_no_data_and_an_empty_field_has_empty_data() -> None:
    assert parse_sse(b": OPENROUTER PROCESSING\n\n").data is None
    assert parse_sse(b"data\n\n").data == ""


def test_an_event_has_its_name_and_only_one_space_is_dropped() -> None:
    frame = parse_sse(b"event: error\ndata:  two\n\n")
    assert (frame.event, frame.data) == ("error", " two")


def test_a_last_frame_without_its_blank_line_counts() -> None:
    assert frames_of([b"data: a\n\nda", b"ta: b"]) == [b"data: a\n\n", b"data: b"]


def test_bytes_that_are_not_utf_8_raise() -> None:
    with pytest.raises(WireError, match="UTF-8"):
        parse_sse(b"data: \xff\n\n")


@pytest.mark.parametrize(
    "frame",
    [
        b'{"message": "HARM"}',
        b'data: 1\n [{"message": "HARM"}]\n\n',
        b'"HARM"\n\n',
        '{"message": "HARM"}'.encode("utf-16-be"),
        ": x\u2028data: HARM\n\n".encode(),
        "event: x\x85data: HARM\n\n".encode(),
    ],
)
def test_what_some_client_reads_and_the_standard_does_not_raises(frame: bytes) -> None:
    with pytest.raises(WireError, match="not passed on"):
        parse_sse(frame)


@pytest.mark.parametrize("pieces", [[b"data: " + b"x" * 30], [b"data: x", b"x" * 30], [b"y" * 30 + b"\n\n"]])
def test_a_frame_over_the_limit_raises_even_if_it_never_ends(pieces: list[bytes]) -> None:
    framer = SseFramer(max_frame=16)
    with pytest.raises(WireError, match="max_frame=16"):
        [framer.feed(piece) for piece in pieces]


def test_many_small_frames_in_one_chunk_are_not_too_large() -> None:
    assert len(SseFramer(max_frame=16).feed(b"data: x\n\n" * 100)) == 100


lines = st.lists(
    st.tuples(
        st.sampled_from(['{"a":1}', '{"é":"😀"}', '"\u2028\x85"', " ", ""]), st.sampled_from(LINE_ENDS)
    ),
    max_size=12,
).map(lambda parts: "".join(text + end for text, end in parts).encode())


@given(lines, st.binary(max_size=4), st.lists(st.integers(0, 200), max_size=6))
@settings(deadline=None)
def test_any_chunking_gives_the_same_lines_and_keeps_every_byte(
    stream: bytes, rest: bytes, cuts: list[int]
) -> None:
    stream += rest
    framer = LineFramer()
    found = [line for piece in cut_at(stream, cuts) for line in framer.feed(piece)] + framer.flush()
    assert found == re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", stream)


def test_a_line_that_ends_by_cr_may_have_its_lf_in_the_next_chunk() -> None:
    framer = LineFramer()
    assert framer.feed(b"{}\r") == []
    assert framer.feed(b"\n{}\r") == [b"{}\r\n"]
    assert framer.feed(b"{}") == [b"{}\r"]
    assert framer.flush() == [b"{}"]
    assert framer.flush() == []


@pytest.mark.parametrize("pieces", [[b"x" * 11], [b"x" * 6] * 2, [b"x" * 10 + b"\n"]])
def test_a_line_that_does_not_end_is_refused(pieces: list[bytes]) -> None:
    framer = LineFramer(max_frame=10)
    with pytest.raises(WireError, match="max_frame=10"):
        [framer.feed(piece) for piece in pieces]
