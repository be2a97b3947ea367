"""Chat completion frames: what each of them says."""

from typing import Any

import pytest

from shieldguard import (
    Answer,
    End,
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    Relabel,
    SourceEvent,
    Thinking,
    ToolCall,
    WireError,
)
from shieldguard_adapters.wire.openai_chat import ChatStream
from tests.wire.rig import choices_in, chunk, events_of, frame, guarded, read, text_in

ENCRYPTED = Opaque(OpaqueKind.ENCRYPTED)
SUMMARISED = Opaque(OpaqueKind.SUMMARISED)

DELTAS: dict[str, tuple[dict[str, Any], list[SourceEvent]]] = {
    "content": ({"content": "x"}, [Answer("x", tentative=True)]),
    "refusal": ({"refusal": "no"}, [Answer("no")]),
    "reasoning_content": ({"reasoning_content": "x"}, [Reasoning("x")]),
    "reasoning": ({"reasoning": "x"}, [Reasoning("x")]),
    "reasoning_text": ({"reasoning_text": "x"}, [Reasoning("x")]),
    "a field nobody knows": ({"inner_voice": "x"}, [Reasoning("x")]),
    "an object nobody knows": ({"inner": {"voice": {"words": "x"}}}, [Reasoning("x")]),
    "a list nobody knows": ({"steps": [{"words": "x"}, {"words": ["y"]}]}, [Reasoning("x"), Reasoning("y")]),
    "thinking blocks": (
        {"thinking_blocks": [{"type": "thinking", "thinking": "x", "signature": "c2ln"}]},
        [Reasoning("x")],
    ),
    "reasoning items": (
        {"reasoning_items": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}]}]},
        [Reasoning("x")],
    ),
    "reasoning details, text": (
        {"reasoning_details": [{"type": "reasoning.text", "text": "x"}]},
        [Reasoning("x")],
    ),
    "reasoning details, summary": (
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "x"}]},
        [SUMMARISED, Reasoning("x")],
    ),
    "reasoning details, encrypted": (
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "Z2lk"}]},
        [ENCRYPTED],
    ),
    "the same text under three names": (
        {
            "reasoning": "x",
            "reasoning_content": "x",
            "reasoning_details": [{"type": "reasoning.text", "text": "x"}],
        },
        [Reasoning("x")],
    ),
    "a list of contents": (
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "x"}]},
                {"type": "text", "text": "y"},
            ]
        },
        [Reasoning("x"), Answer("y")],
    ),
    "a tool call": (
        {
            "tool_calls": [
                {"index": 1, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ]
        },
        [ToolCall("f {}", block=1)],
    ),
    "a custom tool call": (
        {"tool_calls": [{"index": 0, "type": "custom", "custom": {"name": "f", "input": "x"}}]},
        [ToolCall("f x")],
    ),
    "a legacy function call": ({"function_call": {"name": "f", "arguments": "{"}}, [ToolCall("f {")]),
    "a function call that is a word": ({"function_call": "auto"}, [ToolCall("auto")]),
    "a call whose arguments are no string, and its other texts": (
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": {"a": 1}}, "draft": ["x"]}]},
        [ToolCall('f {"a": 1} x')],
    ),
    "another text beside that of a content": (
        {"content": [{"type": "text", "text": "y", "draft": "x"}]},
        [Reasoning("x"), Answer("y")],
    ),
    "reasoning before the answer, whatever their order": (
        {"content": "y", "reasoning": "x"},
        [Reasoning("x"), Answer("y")],
    ),
    "a role": ({"role": "assistant", "content": ""}, [Passthrough(choice=0)]),
    "nothing": ({}, [Passthrough(choice=0)]),
    "nulls": ({"content": None, "reasoning": None, "tool_calls": None}, [Passthrough(choice=0)]),
    "annotations": ({"annotations": [{"url": "http://a.example"}]}, [Passthrough(choice=0)]),
}


@pytest.mark.parametrize(("delta", "events"), DELTAS.values(), ids=DELTAS.keys())
def test_a_delta_gives_its_texts(delta: dict[str, Any], events: list[SourceEvent]) -> None:
    assert events_of(frame(delta)) == events


@pytest.mark.parametrize(
    "raw",
    [
        b": keep-alive\n\n",
        b"\n\n",
        b"data: [DONE]\n\n",
        b"data:\n\n",
        b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n',
    ],
)
def test_a_frame_without_choices_passes_through(raw: bytes) -> None:
    assert events_of(raw) == [Passthrough()]
    assert guarded([raw])[0] == raw


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"error":{"message":"overloaded"}}\n\n',
        b'event: error\ndata: {"error":{"message":"overloaded"}}\n\n',
        b'data: {"error":"overloaded"}\n\n',
    ],
)
def test_an_error_is_judged_as_an_answer(raw: bytes) -> None:
    assert events_of(raw) == [Answer("overloaded", block=-2)]
    assert guarded([raw])[0] == raw


@pytest.mark.parametrize(
    "raw",
    [
        b"data: {\n\n",
        b"data: [1]\n\n",
        b'data: "text"\n\n',
        b'data: {"choices":{"index":0}}\n\n',
        b'data: {"choices":["text"]}\n\n',
        b"data: \xff\n\n",
        frame("text"),
        frame({}, index="0"),
        frame({"audio": {"data": "UklGRg=="}}),
        frame({"content": ["text"]}),
        frame({"content": [{"type": "text"}]}),
        frame({"tool_calls": {"index": 0}}),
        frame({"tool_calls": ["f"]}),
        frame({"tool_calls": [{"index": "0"}]}),
    ],
    ids=repr,
)
def test_what_cannot_be_read_raises_and_never_leaves(raw: bytes) -> None:
    with pytest.raises(WireError):
        events_of(raw)
    out, report = guarded([frame({"content": "Hello. "}), raw, frame({"content": "more"})])
    assert report.aborted is not None
    assert report.aborted.cause == "source"
    assert raw not in out
    assert "more" not in text_in(out)
    assert text_in(out).endswith(report.aborted.notice)


def test_a_chunk_of_choices_says_them_in_their_order() -> None:
    two = [
        {"index": 1, "delta": {"content": "b"}},
        {"index": 0, "delta": {"reasoning": "a"}, "finish_reason": "stop"},
    ]
    assert events_of(chunk(two)) == [
        Answer("b", choice=1, tentative=True),
        Reasoning("a"),
        End("stop"),
    ]


def test_a_choice_without_an_index_is_the_first() -> None:
    assert events_of(chunk({"delta": {"reasoning": "a"}})) == [Reasoning("a")]


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_halves_of_a_character_in_two_frames_are_kept(field: str) -> None:
    frames = [
        b'data: {"choices":[{"index":0,"delta":{"%s":"%s"}}]}\n\n' % (field.encode(), half)
        for half in (rb"\ud83d", rb"\ude00", rb"\ud83d", rb"\ude00")
    ]
    assert guarded(frames)[0] == b"".join(frames)


# -- inline thinking ---------------------------------------------------------------------------------


def texts(events: list[SourceEvent], kind: type[Reasoning] | type[Answer], choice: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, kind) and event.choice == choice)


@pytest.mark.parametrize("size", range(1, 30))
def test_think_tags_are_found_wherever_the_frames_part_them(size: int) -> None:
    text = "<think>\nLet me see.</think>\n\nAll is well."
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    events = events_of(*(frame({"content": piece}) for piece in pieces))
    assert texts(events, Reasoning) == "\nLet me see."
    assert texts(events, Answer) == "\n\nAll is well."


def test_a_lone_closing_tag_makes_reasoning_of_what_came_before() -> None:
    events = events_of(frame({"content": "I wonder.</thi"}), frame({"content": "nk>So."}))
    assert Relabel() in events
    assert events[-1] == Answer("So.")


def test_a_template_that_opens_the_thought_begins_with_reasoning() -> None:
    events = events_of(frame({"content": "I wonder.</think>So."}), thinking=Thinking.PREOPENED)
    assert [events[0], events[-1]] == [Reasoning("I wonder."), Answer("So.")]


def test_after_reasoning_of_its_own_field_a_text_is_the_answer() -> None:
    assert events_of(frame({"reasoning": "x"}), frame({"content": "y"})) == [Reasoning("x"), Answer("y")]


def test_an_unclosed_thought_is_reasoning_to_its_end() -> None:
    events = events_of(frame({"content": "<think>On and on</thi"}), frame({}, finish_reason="length"))
    assert texts(events, Reasoning) == "On and on</thi"
    assert events[-1] == End("length")


def test_a_kept_beginning_of_a_tag_comes_at_the_end_of_the_bytes() -> None:
    assert texts(events_of(frame({"content": "1 <"})), Answer) == "1 <"


def test_interleaved_choices_do_not_share_their_tags() -> None:
    frames = [
        frame({"content": text}, index=index)
        for text in ("<thi", "nk>a", "</think>", "b")
        for index in (0, 1)
    ]
    frames.insert(3, frame({"content": "c"}, index=2))
    events = events_of(*frames)
    for index in (0, 1):
        assert (texts(events, Reasoning, index), texts(events, Answer, index)) == ("a", "b")
    assert texts(events, Answer, 2) == "c"


def test_decoding_a_byte_at_a_time_gives_the_same_texts() -> None:
    stream = b"".join(frame({"content": text}) for text in ("<think>a b", "</think>", "c é"))
    assert read(ChatStream(), [bytes([byte]) for byte in stream]) == events_of(stream)


def test_what_repeats_the_choice_within_a_chunk_does_not_leave() -> None:
    repeats: dict[str, Any] = {"message": {"content": "All of it"}, "text": "All of it"}
    out, _ = guarded(
        [frame({"content": "All "}), frame({"content": "of it"}, **repeats, finish_reason="stop")]
    )
    assert text_in(out) == "All of it"
    assert not any({"message", "text"} & choice.keys() for choice in choices_in(out))
