"""What is read by comparing bytes is what parsing reads."""

import json
from itertools import cycle
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import Answer, Reasoning, Relabel, SourceEvent
from shieldguard.events import cut
from shieldguard_adapters.wire.openai_chat import ChatStream
from shieldguard_adapters.wire.template import FrameTemplate
from tests.wire.rig import chunks_in, cut_at, frame, read

texts = st.text(alphabet='ab"\\é\n{}:,🙂', min_size=1, max_size=3)


@st.composite
def frames(draw: st.DrawFn) -> tuple[bytes, str]:
    """A frame and its text: the text may stand elsewhere too, as a value and as a key."""
    text = draw(texts)
    other = draw(st.sampled_from(["a", "b", text, "content"]))
    delta: list[tuple[str, Any]] = [("content", text)]
    if draw(st.booleans()):
        delta.insert(draw(st.integers(0, 1)), ("extra", {other: other}))
    body: list[tuple[str, Any]] = [("delta", dict(delta))]
    for name, value in (("id", other), ("created", draw(st.integers(1, 2))), ("logprobs", [{"token": text}])):
        if draw(st.booleans()):
            body.insert(draw(st.integers(0, len(body))), (name, value))
    encoded = json.dumps(
        dict(body),
        ensure_ascii=draw(st.booleans()),
        separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])),
    )
    return b"data: " + encoded.encode() + b"\n\n", text


def learned(*texts: str) -> FrameTemplate:
    template = FrameTemplate()
    for text in texts:
        template = template.learn(frame({"content": text}), text)
    return template


@given(st.lists(frames(), min_size=3, max_size=12))
@settings(deadline=None, max_examples=300)
def test_whatever_a_template_reads_equals_what_parsing_reads(stream: list[tuple[bytes, str]]) -> None:
    template = FrameTemplate()
    for raw, text in stream:
        known = template.text_of(raw)
        if known is None:
            template = template.learn(raw, text)
        else:
            assert known == text


@given(st.lists(texts, min_size=3, max_size=12))
@settings(deadline=None)
def test_frames_alike_are_soon_read_without_parsing(stream: list[str]) -> None:
    template = learned("x", "yz")
    for text in stream:
        plain = not set(text) & set('"\\\n')
        assert template.text_of(frame({"content": text})) == (text if plain else None)


def test_a_frame_with_another_text_is_the_frame_that_says_it() -> None:
    template = learned("x", "yz")
    written = template.with_text('say "é"\n')
    assert json.loads(written.removeprefix(b"data: "))["choices"][0]["delta"]["content"] == 'say "é"\n'


def test_bytes_that_are_not_utf_8_are_left_to_the_parser() -> None:
    template = learned("x", "yz")
    assert template.text_of(frame({"content": "!"}).replace(b"!", b"\xff")) is None


@st.composite
def runs(draw: st.DrawFn) -> list[bytes]:
    """Some chunks alike but for their text, as they come between two changes of id, time, field or choice."""
    field = draw(st.sampled_from(["content", "reasoning_content", "reasoning"]))
    head = {"id": draw(st.sampled_from(["A", "B"])), "created": draw(st.sampled_from([1, 2]))}
    text = st.text(alphabet="ab é<>", min_size=1, max_size=9) | st.sampled_from(["<think>", "</think>", "<"])
    index = draw(st.sampled_from([0, 0, 0, 1]))
    return [frame({field: one}, head=head, index=index) for one in draw(st.lists(text, max_size=6))]


def read_and_written(pieces: list[bytes], parts: list[int]) -> tuple[list[SourceEvent], list[Any]]:
    """The events, and the chunks written when all of them were read first and each then left in two parts."""
    codec = ChatStream()
    events = read(codec, pieces)
    out = b""
    for event, part in zip(events, cycle(parts), strict=False):
        if isinstance(event, Reasoning | Answer) and len(event.text) > 1:
            for half in cut(event, 1 + part % (len(event.text) - 1)):
                out += codec.encode([half])
        elif not isinstance(event, Relabel):
            out += codec.encode([event])
    return events, chunks_in(out)


@given(
    st.lists(runs(), max_size=5).map(lambda found: [one for run in found for one in run]),
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.lists(st.integers(0, 9999), max_size=4),
)
@settings(deadline=None, max_examples=200)
def test_a_stream_says_the_same_with_and_without_templates(
    stream: list[bytes], parts: list[int], cuts: list[int]
) -> None:
    pieces = cut_at(b"".join(stream), cuts)
    with_templates = read_and_written(pieces, parts)
    with patch.object(FrameTemplate, "text_of", return_value=None):
        assert with_templates == read_and_written(pieces, parts)


def test_a_held_frame_keeps_its_own_id_though_later_frames_have_another() -> None:
    stream = [frame({"content": text}, head={"id": "A"}) for text in ("one ", "two ", "three four ")]
    stream += [frame({"content": text}, head={"id": "B"}) for text in ("five ", "six ", "seven ")]
    _, written = read_and_written(stream, [4])
    texts = {name: "".join(text_of(one) for one in written if one["id"] == name) for name in "AB"}
    assert texts == {"A": "one two three four ", "B": "five six seven "}


def text_of(chunk: dict[str, Any]) -> str:
    return str(chunk["choices"][0]["delta"]["content"])
