"""Chat completion frames on their way out: untouched where nothing was withheld, cut where something was."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import Action, Answer, Reasoning, Rule, SizeWindower
from shieldguard.events import cut
from shieldguard_adapters.wire.openai_chat import ChatStream
from tests.upstream import DONE, USAGE
from tests.wire.rig import (
    choices_in,
    chunk,
    chunks_in,
    cut_at,
    frame,
    guard,
    guarded,
    text_in,
    unjudged,
)

# No beginnings of tags: the frame of one may be overtaken by frames that are not of its choice.
text = st.sampled_from(["a\u2028b", "\x00", "[DONE]"]) | st.text(max_size=12).map(
    lambda one: one.translate(str.maketrans("<[◁", "((("))
)
one_text = st.dictionaries(
    st.sampled_from(["content", "reasoning", "reasoning_content", "refusal", "thought"]), text, max_size=3
)
one_list = st.one_of(
    st.builds(lambda t: {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": t}]}]}, text),
    st.builds(lambda t: {"content": [{"type": "text", "text": t}]}, text),
    st.builds(lambda t: {"reasoning": t, "reasoning_details": [{"type": "reasoning.text", "text": t}]}, text),
    st.builds(lambda t: {"reasoning_details": [{"type": "reasoning.encrypted", "data": t}]}, text),
    st.builds(lambda t: {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": t}}]}, text),
    st.just({"role": "assistant", "content": ""}),
)
one_choice = st.builds(
    lambda delta, index, reason: {"index": index, "delta": delta, "finish_reason": reason, "logprobs": None},
    one_text | one_list,
    st.integers(0, 2),
    st.sampled_from([None, None, None, "stop", "tool_calls"]),
)
one_frame = st.one_of(
    st.lists(one_choice, max_size=3).map(chunk),
    st.sampled_from([b": ping\n\n", USAGE, DONE, b"\n", b'data: {"error":{"message":"busy"}}\r\n\r\n']),
    st.lists(one_choice, min_size=1, max_size=1).map(lambda c: chunk(c).replace(b"\n\n", b"\r\n\r\n")),
)


@given(
    st.lists(one_frame, max_size=12),
    st.lists(st.integers(0, 9999), max_size=8),
    st.sampled_from([b"", b"data: {}"]),
)
@settings(deadline=None, max_examples=300)
def test_what_is_released_whole_leaves_byte_for_byte(
    frames: list[bytes], cuts: list[int], rest: bytes
) -> None:
    stream = b"".join(frames) + rest
    assert unjudged(ChatStream(), cut_at(stream, cuts)) == stream


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "</thi", "nk>", "<", "a b", "\n"]), min_size=1, max_size=9
    ),
    st.lists(st.integers(0, 9999), max_size=8),
)
@settings(deadline=None)
def test_tags_and_their_beginnings_leave_byte_for_byte_and_before_the_end(
    parts: list[str], cuts: list[int]
) -> None:
    stream = b"".join(frame({"content": part}) for part in parts) + DONE
    assert unjudged(ChatStream(), cut_at(stream, cuts)) == stream


def test_harmless_text_leaves_byte_for_byte_through_a_guard() -> None:
    words = ["First, ", "I look", " at the chain. ", "<b>", "It is worn. "] * 20
    frames = [
        b": OPENROUTER PROCESSING\n\n",
        frame({"role": "assistant", "content": ""}),
        *(frame({"reasoning": word}) for word in words),
        *(frame({"content": word}) for word in words),
        frame({}, finish_reason="stop"),
        USAGE,
        DONE,
    ]
    # One read: a window's end inside of a frame parts it only where the rest comes later.
    assert guarded([b"".join(frames)])[0] == b"".join(frames)


def test_a_frame_that_must_be_parted_is_written_anew_and_all_others_keep_their_bytes() -> None:
    frames = [frame({"reasoning": f"{n:03}" + "-" * 5}, head={"id": str(n)}) for n in range(4)]
    frames.append(frame({"reasoning": "----HARM"}))
    out, report = guarded(frames, guard(windower=SizeWindower(size=20)))
    assert report.aborted is not None
    # The first window ends in the third frame, the second is harmful.
    assert out.startswith(frames[0] + frames[1])
    parted, *ending = chunks_in(out)[2:]
    assert (parted["id"], parted["choices"][0]["delta"]) == ("2", {"reasoning": "002-"})
    assert all("reasoning" not in one["choices"][0]["delta"] for one in ending)


def in_halves(raw: bytes, at: int) -> list[dict[str, Any]]:
    """The choices of a frame whose one text leaves in two parts."""
    codec = ChatStream()
    [event] = codec.decode(raw)
    assert isinstance(event, Answer | Reasoning)
    return [choice for half in cut(event, at) for choice in choices_in(codec.encode([half]))]


def parted(delta: dict[str, Any], size: int, /, **choice: Any) -> list[dict[str, Any]]:
    """The choices that are left of one frame of which a redaction begins after `size` characters."""
    by = guard(windower=SizeWindower(size=size), reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    out, report = guarded([frame(delta, **choice), frame({}, finish_reason="stop")], by)
    assert report.aborted is None
    assert b"HARM" not in out
    return choices_in(out)


def test_logprobs_do_not_go_with_a_part_of_their_frame() -> None:
    logprobs = {"content": [{"token": "okHARM", "logprob": -1}]}
    first, *_ = parted({"reasoning": "ok, HARM"}, 4, logprobs=logprobs)
    assert first == {"index": 0, "delta": {"reasoning": "ok, [gone]"}, "finish_reason": None}


def test_a_text_under_several_names_is_withheld_under_each() -> None:
    delta = {
        "reasoning": "ok, HARM",
        "reasoning_content": "ok, HARM",
        "reasoning_details": [{"type": "reasoning.text", "text": "ok, HARM", "index": 0}],
    }
    first, *_ = parted(delta, 4)
    assert first["delta"] == {
        "reasoning": "ok, [gone]",
        "reasoning_content": "ok, [gone]",
        "reasoning_details": [{"type": "reasoning.text", "text": "ok, [gone]", "index": 0}],
    }


def test_a_redaction_that_begins_long_into_the_stream_is_its_notice_alone() -> None:
    by = guard(windower=SizeWindower(size=6), reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    frames = [frame({"reasoning": text}) for text in ("one...", "two...", "three.", "HARM..", "after.")]
    out, _ = guarded(frames, by)
    assert text_in(out, "reasoning") == "one...two...three.[gone]"
    assert out.startswith(b"".join(frames[:3]))


def test_what_cannot_be_read_stays_beside_a_redacted_text() -> None:
    hidden = {"type": "reasoning.encrypted", "data": "Z2lk", "index": 0}
    shown = {"type": "reasoning.text", "text": "ok, HARM", "index": 1}
    first, *_ = parted({"reasoning_details": [hidden, shown]}, 4)
    assert first["delta"]["reasoning_details"] == [hidden, {**shown, "text": "ok, [gone]"}]


def test_a_redacted_text_is_left_out_of_lists_too() -> None:
    delta = {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "ok, HARM"}]}]}
    first, *_ = parted(delta, 4)
    assert first["delta"]["content"][0]["thinking"][0]["text"] == "ok, [gone]"


def test_a_nested_text_nobody_knows_is_redacted_where_it_stands() -> None:
    first, *_ = parted({"inner": {"voice": "ok, HARM", "id": "7"}}, 4)
    assert first["delta"] == {"inner": {"voice": "ok, [gone]", "id": "7"}}


@pytest.mark.parametrize("before", [[], ["one ", "two "]], ids=["parsed", "alike"])
def test_what_may_become_a_tag_does_not_leave_with_the_text_before_it(before: list[str]) -> None:
    codec = ChatStream()
    for text in before:
        codec.encode([event for event in codec.decode(frame({"content": text})) if isinstance(event, Answer)])
    [event] = codec.decode(frame({"content": "three </thi"}))
    assert isinstance(event, Answer)
    assert text_in(codec.encode([event])) == "three "
    [rest] = codec.decode(frame({"content": "s is it"}))[:1]
    assert isinstance(rest, Answer)
    assert text_in(codec.encode([rest])) == "</thi"


def test_the_parts_of_a_frame_send_its_role_once() -> None:
    deltas = [choice["delta"] for choice in in_halves(frame({"role": "assistant", "reasoning": "abcdef"}), 4)]
    assert deltas == [{"role": "assistant", "reasoning": "abcd"}, {"reasoning": "ef"}]


def test_tool_calls_leave_together_and_byte_for_byte() -> None:
    calls = [
        frame({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}) for part in ("{", '"a":', "1}")
    ]
    stream = [frame({"reasoning": "I call it."}), *calls, frame({}, finish_reason="tool_calls"), DONE]
    assert guarded(stream)[0] == b"".join(stream)
    assert guarded(stream[:3])[0] == b"".join(stream[:3])  # complete, as nothing more can come


def test_a_refused_tool_call_becomes_its_notice_and_the_end_says_stop() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    by = guard(reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    frames = [
        frame({"reasoning": "HARM"}),
        frame(call),
        frame(call),
        frame({}, finish_reason="tool_calls"),
        DONE,
    ]
    out, _ = guarded(frames, by)
    assert b"tool_calls" not in out
    assert [choice["delta"] for choice in choices_in(out)] == [
        {"reasoning": "[gone]"},
        {"content": "[gone]"},
        {},
    ]
    assert choices_in(out)[-1]["finish_reason"] == "stop"
    assert out.endswith(DONE)


def test_usage_in_every_chunk_is_kept() -> None:
    usages = [{"usage": {"completion_tokens": n}} for n in range(1, 7)]
    frames = [frame({"reasoning": "words"}, head=usage) for usage in usages]
    assert guarded(frames, guard({}, windower=SizeWindower(size=7)))[0] == b"".join(frames)


@given(
    st.lists(one_text, min_size=1, max_size=10), st.integers(1, 9), st.lists(st.integers(0, 9999), max_size=4)
)
@settings(deadline=None, max_examples=200)
def test_wherever_windows_end_no_text_is_lost_or_told_twice(
    deltas: list[dict[str, str]], size: int, cuts: list[int]
) -> None:
    stream = b"".join([*(frame(delta) for delta in deltas), frame({}, finish_reason="stop"), DONE])
    out, report = guarded(cut_at(stream, cuts), guard({}, windower=SizeWindower(size=size)))
    for field in ("content", "reasoning", "reasoning_content", "refusal", "thought"):
        assert text_in(out, field) == text_in(stream, field)
    assert report.reasoning.withheld == report.answer.withheld == 0


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_tag_split_over_frames_is_not_lost_where_windows_end(size: int) -> None:
    whole = "<think>I look.</think>It is worn."
    stream = [frame({"content": whole[at : at + 2]}) for at in range(0, len(whole), 2)]
    out, report = guarded(stream, guard({}, windower=SizeWindower(size=size)))
    assert text_in(out) == whole
    assert (report.reasoning.judged, report.answer.judged) == (len("I look."), len("It is worn."))


def test_written_frames_are_plain_json_in_ascii() -> None:
    codec = ChatStream()
    [event] = codec.decode(frame({"reasoning": "é\u2028🙂!"}))
    assert isinstance(event, Reasoning)
    out = codec.encode([cut(event, 3)[0]])
    assert out.isascii()
    assert text_in(out, "reasoning") == "é\u2028🙂"
