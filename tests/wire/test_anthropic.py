"""Anthropic messages through the codec."""

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shieldguard import (
    Action,
    Answer,
    End,
    Guard,
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    Rule,
    SizeWindower,
    ToolCall,
    WireError,
    history,
)
from shieldguard.testing import InstantScriptedJudge
from shieldguard_adapters.wire import Termination
from shieldguard_adapters.wire.anthropic_messages import MessageBody, MessageStream
from shieldguard_adapters.wire.anthropic_parts import read_request
from shieldguard_adapters.wire.template import FrameTemplate
from tests.wire.messages import (
    TEXT,
    THINKING,
    bodies_in,
    body,
    delta,
    event,
    message,
    start,
    stop,
    text,
    thinking,
    tool,
)
from tests.wire.rig import cut_at, guard, guarded, read, unjudged

REDACT = Rule(harmful=Action.REDACT)
WORDS = st.text(st.sampled_from('ab .é😀\n"\\'), max_size=40)
BLOCKS = st.lists(
    st.tuples(st.sampled_from([thinking, text, tool]), st.lists(WORDS, max_size=4)), max_size=6
).map(lambda blocks: [make(index, *pieces) for index, (make, pieces) in enumerate(blocks)])
CUTS = st.lists(st.integers(0, 5000), max_size=12)
CALL = {"type": "tool_use", "id": "t", "name": "send", "input": {"to": "you"}}
RESULT = {
    "type": "web_search_tool_result",
    "tool_use_id": "s",
    "content": [{"type": "web_search_result", "title": "Bread", "encrypted_content": "AAAA"}],
}


@given(BLOCKS, CUTS, st.booleans())
def test_harmless_bytes_leave_as_they_came(blocks: list[list[bytes]], cuts: list[int], whole: bool) -> None:
    data = b"".join(message(*blocks))
    pieces = cut_at(data, cuts)
    assert unjudged(MessageStream(whole_thoughts=whole), pieces) == data
    assert read(MessageStream(), pieces) == read(MessageStream(), [data])


@pytest.mark.parametrize(
    "end", [message()[-2:], message()[-1:], [event("error", error={"type": "overloaded_error"})], []]
)
def test_a_thought_that_is_never_closed_leaves_before_the_end(end: list[bytes]) -> None:
    frames = [*message(thinking(0, "Fine. ", "And well."))[:-4], *end]
    assert unjudged(MessageStream(), frames) == b"".join(frames)


@given(BLOCKS, CUTS, st.sampled_from([Rule(), REDACT]))
def test_how_the_bytes_were_cut_changes_nothing(
    blocks: list[list[bytes]], cuts: list[int], rule: Rule
) -> None:
    data = b"".join(message(*blocks))
    marks = {"ab": 1.0}
    out, report = guarded(
        cut_at(data, cuts), guard(marks, reasoning=rule, answer=rule, tool_call=rule), MessageStream()
    )
    whole, other = guarded([data], guard(marks, reasoning=rule, answer=rule, tool_call=rule), MessageStream())
    assert said(out) == said(whole)
    assert report.ended == other.ended


@given(BLOCKS, CUTS, st.sampled_from([Rule(), REDACT]))
def test_a_stream_says_the_same_with_and_without_templates(
    blocks: list[list[bytes]], cuts: list[int], rule: Rule
) -> None:
    by = guard({"aba": 1.0}, windower=SizeWindower(size=30), reasoning=rule, answer=rule, tool_call=rule)
    pieces = cut_at(b"".join(message(*blocks)), cuts)
    read_so = read(MessageStream(), pieces)
    out, _ = guarded(pieces, by, MessageStream())
    with patch.object(FrameTemplate, "text_of", return_value=None):
        assert read_so == read(MessageStream(), pieces)
        assert out == guarded(pieces, by, MessageStream())[0]


def test_a_delta_alike_of_a_block_that_has_ended_is_refused() -> None:
    codec = MessageStream()
    for data in (*thinking(0, "a", "b", "c"), start(1, TEXT)):
        codec.decode(data)
    with pytest.raises(WireError, match="which is not open"):
        codec.decode(delta(0, "thinking_delta", thinking="d"))


def said(out: bytes) -> list[tuple[int, str, str]]:
    """The blocks as a client has them: number, type, text. Each begins behind the end of the one before."""
    blocks: list[tuple[int, str, str]] = []
    is_open = False
    for one in bodies_in(out):
        if one["type"] == "content_block_start":
            assert not is_open
            assert one["index"] == len(blocks)
            is_open = True
            block = one["content_block"]
            blocks.append((one["index"], block["type"], block.get("text", "") + block.get("thinking", "")))
        elif one["type"] == "content_block_delta":
            assert is_open
            number, type_, so_far = blocks[-1]
            assert one["index"] == number
            pieces = one["delta"]
            new = pieces.get("text", "") + pieces.get("thinking", "") + pieces.get("partial_json", "")
            blocks[-1] = (number, type_, so_far + new)
        elif one["type"] == "content_block_stop":
            assert is_open
            is_open = False
    assert not is_open
    assert bodies_in(out)[-1]["type"] == "message_stop"
    return blocks


@given(BLOCKS, CUTS)
def test_no_text_leaves_before_its_verdict(blocks: list[list[bytes]], cuts: list[int]) -> None:
    codec = MessageStream(whole_thoughts=False)
    judge = InstantScriptedJudge({})
    by = Guard(judge=judge, policy=guard().policy)
    pieces = cut_at(b"".join(message(*blocks)), cuts)
    with by.stream_sync(iter([*map(codec.decode, pieces), codec.flush()])) as stream:
        while batch := stream.next_batch():
            for released in batch:
                if isinstance(released, Reasoning | Answer | ToolCall) and released.text.strip():
                    assert any(released.text in window.text for window in judge.windows)
            codec.encode(batch)


ORIGINS: dict[str, tuple[list[bytes], list[Any]]] = {
    "a thought": (
        thinking(0, "x"),
        [Passthrough(choice=0), Reasoning("x"), Passthrough(choice=0), Passthrough(choice=0)],
    ),
    "a thought not shown": (
        thinking(0),
        [Passthrough(choice=0), Opaque(OpaqueKind.HIDDEN), Passthrough(choice=0)],
    ),
    "an encrypted thought": (
        [start(0, {"type": "redacted_thinking", "data": "AA"}), stop(0)],
        [Opaque(OpaqueKind.ENCRYPTED), Passthrough(choice=0)],
    ),
    "text in the start": (
        [start(0, {"type": "text", "text": "x"}), stop(0)],
        [Answer("x"), Passthrough(choice=0)],
    ),
    "a tool call": (tool(0, "{}"), [ToolCall("send "), ToolCall("{}"), Passthrough(choice=0)]),
    "a tool's result": ([start(0, RESULT), stop(0)], [ToolCall("Bread"), Passthrough(choice=0)]),
    "a call's other texts": (
        [start(0, {**CALL, "input": {}, "caller": {"type": "direct"}, "draft": "x"})],
        [ToolCall("send  x")],
    ),
    "a summary of the chat": (
        [
            start(0, {"type": "compaction", "content": None}),
            delta(0, "compaction_delta", content="We spoke.", encrypted_content="AA"),
        ],
        [ToolCall(""), ToolCall("We spoke.")],
    ),
    "a server's tools": (
        [start(0, {"type": "mcp_tool_listing", "mcp_server_name": "a", "tools": [{"name": "b"}]})],
        [ToolCall("a\nb")],
    ),
    "another model": (
        [
            start(
                0,
                {
                    "type": "fallback",
                    "from": {"model": "m"},
                    "to": {"model": "n"},
                    "trigger": {"type": "refusal", "category": None},
                },
            )
        ],
        [Passthrough(choice=0)],
    ),
    "a file": ([start(0, {"type": "container_upload", "file_id": "f"})], [Passthrough(choice=0)]),
    "a citation": (
        [start(0, {"type": "text", "text": ""}), delta(0, "citations_delta", citation={"cited_text": "q"})],
        [Passthrough(choice=0), Passthrough(choice=0)],
    ),
    "a comment": ([b": hello\n\n"], [Passthrough()]),
    "an error": ([event("error", error={"type": "overloaded_error"})], [Passthrough()]),
    "an end": ([event("message_delta", delta={"stop_reason": "max_tokens"})], [End("max_tokens")]),
}


@pytest.mark.parametrize(("frames", "events"), ORIGINS.values(), ids=ORIGINS.keys())
def test_a_frame_gives_its_event(frames: list[bytes], events: list[Any]) -> None:
    assert read(MessageStream(), frames) == events


@pytest.mark.parametrize(
    "frames",
    [
        [event("thought_start")],
        [b'event: ping\ndata: {"type":"message_stop"}\n\n'],
        [b"event: ping\ndata: {\n\n"],
        [event("message_start", message={"content": [{"type": "text", "text": "HARM"}]})],
        [start(0, {"type": "idea", "text": "HARM"})],
        [start(0, {"type": ["text"], "text": "HARM"})],
        [start(0, {"type": "text", "text": "", "draft": "HARM"})],
        [start(0, {"type": "thinking", "thinking": "", "draft": ["HARM"]})],
        [start(0, {"type": "redacted_thinking", "data": "AA", "draft": {"a": "HARM"}})],
        [start(0, {"type": "container_upload", "file_id": "f", "draft": "HARM"})],
        [start(0, {"type": "fallback", "from": {"model": "m"}, "to": {"model": "n", "draft": "HARM"}})],
        [start(0, {"type": "fallback", "from": "HARM"})],
        [start(0, {"type": "text", "text": ""}), delta(0, "text_delta", text="", draft="HARM")],
        [start(0, {"type": "text", "text": ""}), delta(0, "compaction_delta", content="HARM")],
        [start(0, THINKING), delta(0, "thinking_delta", thinking="", draft="HARM")],
        [start(0, THINKING), delta(0, "signature_delta", signature="AA", draft="HARM")],
        [event("ping", delta={"text": "HARM"})],
        [event("ping", index="HARM")],
        [event("message_stop", text="HARM")],
        [event("message_start", message={"content": [], "draft": "HARM"})],
        [event("message_delta", delta={"stop_reason": "end_turn", "draft": "HARM"})],
        [b'event: ping\ndata: {"type":"ping","a":' + b"[" * 101 + b"]" * 101 + b"}\n\n"],
        [b'event: ping\ndata: {"type":"ping","a":' + b"[" * 100_000 + b"\n\n"],
        [delta(0, "text_delta", text="HARM")],
        [start(0, {"type": "text", "text": ""}), delta(0, "thought_delta", thought="HARM")],
        [start(0, {"type": "text", "text": ""}), delta(0, "thinking_delta", thinking="HARM")],
        [start(0, {"type": "text", "text": ""}), delta(1, "text_delta", text="HARM")],
        [start(0, {"type": "text", "text": ""}), start(1, {"type": "text", "text": ""})],
        [*text(0), start(0, {"type": "text", "text": ""})],
        [start(0, {"type": "text", "text": ["HARM"]})],
    ],
    ids=repr,
)
def test_what_cannot_be_read_raises_and_never_leaves(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        read(MessageStream(), frames)
    out, report = guarded(frames, codec=MessageStream())
    assert report.aborted is not None
    assert report.aborted.cause == "source"
    assert b"HARM" not in out
    assert said(out)[-1][1:] == ("text", report.aborted.notice)


def test_blocks_behind_one_that_is_left_out_are_numbered_anew() -> None:
    frames = message(text(0, "First."), thinking(1, "A HARM."), thinking(2, "More."), text(3, "Last."))
    out, report = guarded(frames, guard(reasoning=REDACT), MessageStream())
    notice = guard().policy.notice
    assert said(out) == [(0, "text", "First."), (1, "text", notice), (2, "text", "Last.")]
    assert b"signature_delta" not in out
    assert report.aborted is None


@pytest.mark.parametrize("beside", [{}, {"delta": 1}])
def test_a_block_that_begins_with_text_is_cut(beside: dict[str, Any]) -> None:
    fine = "All is fine here, " * 20 + "and it stays so. "
    begun = event(
        "content_block_start", index=0, content_block={"type": "text", "text": fine + "HARM."}, **beside
    )
    out, _ = guarded(message([begun, stop(0)]), guard(answer=REDACT), MessageStream())
    assert said(out) == [(0, "text", fine.rstrip() + guard().policy.notice)]


def test_calls_behind_a_redaction_are_refused_and_the_message_ends_without_them() -> None:
    frames = message(thinking(0, "HARM."), tool(1, '{"to": "you"}'), stop_reason="tool_use")
    out, _ = guarded(frames, guard(reasoning=REDACT), MessageStream())
    assert [type_ for _, type_, _ in said(out)] == ["text"]
    assert bodies_in(out)[-2]["delta"]["stop_reason"] == "end_turn"


def test_a_harmful_call_leaves_nothing_of_itself() -> None:
    frames = message(thinking(0, "I send."), tool(1, '{"to": ', '"HARM"}'), stop_reason="tool_use")
    out, _ = guarded(frames, codec=MessageStream(whole_thoughts=False))
    assert [type_ for _, type_, _ in said(out)] == ["thinking", "text"]
    assert b"toolu" not in out
    assert bodies_in(out)[-2]["delta"]["stop_reason"] == "refusal"


@pytest.mark.parametrize("whole", [True, False])
def test_an_ending_closes_what_is_open_and_keeps_the_usage(whole: bool) -> None:
    fine = "All is fine here, " * 20 + "and it stays so. "
    frames = message(thinking(0, fine, "Not HARM."), text(1, "The answer"))
    out, _ = guarded(frames, codec=MessageStream(whole_thoughts=whole))
    expected = [] if whole else [(0, "thinking", fine.rstrip())]
    assert said(out)[:-1] == expected
    assert bodies_in(out)[-2]["usage"] == {"output_tokens": 3}


def test_an_ending_in_error() -> None:
    codec = MessageStream(termination=Termination.ERROR)
    out, _ = guarded(message(thinking(0, "HARM.")), codec=codec)
    assert bodies_in(out)[-1]["type"] == "error"
    assert bodies_in(out)[-1]["error"]["code"] == "risk"


def test_output_to_be_parsed_stays_open_and_gets_no_notice() -> None:
    frames = message(text(0, '{"a": "fine. ', 'HARM"}'))
    out, _ = guarded(frames, codec=MessageStream(strict_output=True), redactable=False)
    types = [one["type"] for one in bodies_in(out)]
    assert types[-2:] == ["message_delta", "message_stop"]
    assert "content_block_stop" not in types


# -- in one piece ------------------------------------------------------------------------------------

SIGNED = {"type": "thinking", "thinking": "All fine. A HARM.", "signature": "c2ln"}


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_whole_message_leaves_as_it_came(size: int) -> None:
    data = body({**SIGNED, "thinking": "Fine."}, {"type": "text", "text": "é"}, CALL, RESULT)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert guarded(pieces, codec=MessageBody())[0] == data


def test_a_whole_message_loses_its_thought_and_its_calls() -> None:
    data = body(SIGNED, {"type": "text", "text": "Well."}, CALL, stop_reason="tool_use")
    out = json.loads(guarded([data], guard(reasoning=REDACT), MessageBody())[0])
    notice = guard().policy.notice
    assert out["content"] == [{"type": "text", "text": notice}, {"type": "text", "text": "Well."}]
    assert (out["stop_reason"], out["usage"]["output_tokens"]) == ("end_turn", 9)


@pytest.mark.parametrize(
    "data",
    [
        body(SIGNED),
        b"not json",
        b'{"content":"HARM"}',
        b'{"content":[],"draft":"HARM"}',
        body({"type": "idea", "text": "HARM"}),
        body({"type": "compaction", "content": "HARM"}),
    ],
)
def test_a_whole_message_ends_as_a_refusal(data: bytes) -> None:
    out, report = guarded([data], codec=MessageBody())
    assert report.aborted is not None
    assert b"HARM" not in out
    message_ = json.loads(out)
    assert message_["content"] == [{"type": "text", "text": report.aborted.notice}]
    assert message_["stop_reason"] == "refusal"


def test_a_body_over_the_limit_is_not_read() -> None:
    with pytest.raises(WireError, match="max_body"):
        read(MessageBody(max_body=10), [body()])


# -- the request -------------------------------------------------------------------------------------

CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "Why salt?"}]},
    {"role": "assistant", "content": [CALL]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "Taste."}]},
]


def request(**more: Any) -> bytes:
    return json.dumps({"system": "Be kind.", "messages": CHAT, **more}).encode()


def test_the_query_is_what_a_user_wrote_last() -> None:
    assert read_request(request()).query == "Why salt?"
    assert read_request(request(), history()).query == (
        "system: Be kind.\nuser: Why salt?\nassistant: [tool_use]\ntool: [tool_result]"
    )
    odd = {"role": "user", "content": [{"type": ["tool_result"], "text": "Why not?"}]}
    assert read_request(request(messages=[odd])).query == "Why not?"
    step = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}, CALL]}
    assert read_request(request(messages=[step]), history()).query.endswith(
        "\nreasoning: Hm.\nassistant: [tool_use]"
    )


@pytest.mark.parametrize(
    "more", [{"output_format": {}}, {"output_config": {"format": {"type": "json_schema"}}}]
)
def test_a_format_admits_no_notice(more: dict[str, Any]) -> None:
    assert read_request(request()).redactable
    assert not read_request(request(**more)).redactable
