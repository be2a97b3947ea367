"""Bedrock's Converse through the codec, and its binary event stream."""

import json
import struct
import zlib
from typing import Any

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
    ToolCall,
    WireError,
    history,
)
from shieldguard.testing import InstantScriptedJudge
from shieldguard_adapters.wire import Termination
from shieldguard_adapters.wire.bedrock_converse import ConverseBody, ConverseStream
from shieldguard_adapters.wire.bedrock_parts import read_request
from shieldguard_adapters.wire.eventstream import EventStreamFramer, message_bytes, parse_message
from tests.wire.bedrock import (
    METADATA,
    Event,
    body,
    delta,
    events_in,
    framed,
    response,
    said,
    start,
    stop,
    text,
    thinking,
    tool,
    wired,
)
from tests.wire.rig import cut_at, guard, guarded, read, unjudged

REDACT = Rule(harmful=Action.REDACT)
WORDS = st.text(st.sampled_from('ab .é😀\n"\\'), max_size=40)
BLOCKS = st.lists(
    st.tuples(st.sampled_from([thinking, text, tool]), st.lists(WORDS, max_size=4)), max_size=6
).map(lambda blocks: [make(index, *pieces) for index, (make, pieces) in enumerate(blocks)])
CUTS = st.lists(st.integers(0, 5000), max_size=12)
HEADERS = st.dictionaries(st.text(st.characters(codec="ascii"), min_size=1, max_size=9), WORDS, max_size=4)
BEGIN: Event = {"messageStart": {"role": "assistant"}}


# -- the event stream --------------------------------------------------------------------------------


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=40)), max_size=6), CUTS)
def test_messages_are_cut_out_wherever_the_chunks_were_cut(
    messages: list[tuple[dict[str, str], bytes]], cuts: list[int]
) -> None:
    raw = [message_bytes(headers, payload) for headers, payload in messages]
    framer = EventStreamFramer()
    assert [one for piece in cut_at(b"".join(raw), cuts) for one in framer.feed(piece)] == raw
    framer.flush()
    assert [(parse_message(one).headers, parse_message(one).payload) for one in raw] == messages


def test_our_messages_are_those_of_the_specification() -> None:
    headers = {":event-type": "messageStart", ":message-type": "event"}
    assert message_bytes(headers, b"{}") == framed(headers, b"{}")


@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_bit_that_is_wrong_raises(place: int, bit: int) -> None:
    data = bytearray(wired(delta(0, text="Salt it."))[0])
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(WireError):
        read(ConverseStream(), [bytes(data)])


def headed(headers: bytes) -> bytes:
    lengths = struct.pack(">II", 16 + len(headers), len(headers))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers
    return message + struct.pack(">I", zlib.crc32(message))


def test_headers_of_all_types_are_read() -> None:
    values = [
        *(bytes([type_]) for type_ in (0, 1)),
        *(bytes([type_]) + bytes(size) for type_, size in {2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}.items()),
        b"\x06\x00\x03abc",
        b"\x07\x00\x03abc",
    ]
    message = headed(b"".join(b"\x01" + bytes([97 + at]) + value for at, value in enumerate(values)))
    assert list(parse_message(message).headers.values()) == [*[""] * 9, "abc"]


@pytest.mark.parametrize(
    "headers",
    [b"\x01a\x07\x00\x09ab", b"\x01a\x0a", b"\x09a", b"\x01a", b"\x01\xff\x00", b"\x01a\x00\x01a\x00"],
)
def test_headers_that_cannot_be_read_raise(headers: bytes) -> None:
    with pytest.raises(WireError):
        parse_message(headed(headers))


def test_sizes_have_a_limit() -> None:
    with pytest.raises(WireError, match="max_frame"):
        EventStreamFramer(max_frame=100).feed(message_bytes({}, bytes(100))[:12])
    lengths = struct.pack(">II", 20, 10)
    with pytest.raises(WireError, match="cannot have"):
        EventStreamFramer().feed(lengths + struct.pack(">I", zlib.crc32(lengths)))
    with pytest.raises(WireError, match="max_body"):
        read(ConverseBody(max_body=10), [body()])


# -- a stream ----------------------------------------------------------------------------------------


@given(BLOCKS, CUTS, st.booleans())
def test_harmless_bytes_leave_as_they_came(blocks: list[list[Event]], cuts: list[int], whole: bool) -> None:
    data = b"".join(wired(*response(*blocks)))
    pieces = cut_at(data, cuts)
    assert unjudged(ConverseStream(whole_thoughts=whole), pieces) == data
    assert read(ConverseStream(), pieces) == read(ConverseStream(), [data])


@given(BLOCKS, CUTS, st.sampled_from([Rule(), REDACT]))
def test_how_the_bytes_were_cut_changes_nothing(
    blocks: list[list[Event]], cuts: list[int], rule: Rule
) -> None:
    data = b"".join(wired(*response(*blocks)))
    by = guard({"ab": 1.0}, reasoning=rule, answer=rule, tool_call=rule)
    out, report = guarded(cut_at(data, cuts), by, ConverseStream())
    whole, other = guarded([data], by, ConverseStream())
    assert said(events_in(out)) == said(events_in(whole))
    assert report.ended == other.ended


@given(BLOCKS, CUTS)
def test_no_text_leaves_before_its_verdict(blocks: list[list[Event]], cuts: list[int]) -> None:
    codec = ConverseStream(whole_thoughts=False)
    judge = InstantScriptedJudge({})
    by = Guard(judge=judge, policy=guard().policy)
    pieces = cut_at(b"".join(wired(*response(*blocks))), cuts)
    with by.stream_sync(iter([*map(codec.decode, pieces), codec.flush()])) as stream:
        while batch := stream.next_batch():
            for released in batch:
                if isinstance(released, Reasoning | Answer | ToolCall) and released.text.strip():
                    assert any(released.text in window.text for window in judge.windows)
            codec.encode(batch)


RESULT = start(0, toolResult={"toolUseId": "s", "type": "nova_grounding_result", "status": "success"})
ORIGINS: dict[str, tuple[list[Event], list[Any]]] = {
    "a thought": (thinking(0, "x"), [Reasoning("x"), Passthrough(choice=0), Passthrough(choice=0)]),
    "a thought not shown": (thinking(0), [Opaque(OpaqueKind.HIDDEN), Passthrough(choice=0)]),
    "an encrypted thought": (
        [delta(0, reasoningContent={"redactedContent": "AA"}), stop(0)],
        [Opaque(OpaqueKind.ENCRYPTED), Passthrough(choice=0)],
    ),
    "text": (text(1, "x", ""), [Answer("x", block=1), Passthrough(choice=0), Passthrough(choice=0)]),
    "an empty block": ([stop(0)], [Passthrough(choice=0)]),
    "a tool call": (tool(0, "{}"), [ToolCall("send "), ToolCall("{}"), Passthrough(choice=0)]),
    "a tool's result": (
        [RESULT, delta(0, toolResult=[{"text": "Bread"}, {"json": {"of": "rye"}}]), stop(0)],
        [ToolCall(""), ToolCall("Bread\nrye"), Passthrough(choice=0)],
    ),
    "a citation": (
        [delta(0, text="x"), delta(0, citation={"title": "t", "sourceContent": [{"text": "q"}]})],
        [Answer("x"), Passthrough(choice=0)],
    ),
    "an exception": ([{"throttlingException": {"message": "slow"}}], [Passthrough()]),
    "an end": (
        [{"messageStop": {"stopReason": "x", "additionalModelResponseFields": {"stop_sequence": "END"}}}],
        [End("x")],
    ),
    "metadata": ([{"metadata": METADATA}], [Passthrough()]),
}


@pytest.mark.parametrize(("events", "read_"), ORIGINS.values(), ids=ORIGINS.keys())
def test_a_frame_gives_its_event(events: list[Event], read_: list[Any]) -> None:
    assert read(ConverseStream(), wired(*events)) == read_
    assert unjudged(ConverseStream(), wired(*events)) == b"".join(wired(*events))


TEXT = delta(0, text="Fine.")


@pytest.mark.parametrize(
    "events",
    [
        [{"idea": {"text": "HARM"}}],
        [{"messageStart": {"role": "assistant", "content": "HARM"}}],
        [start(0, image={"format": "png"})],
        [start(0, text="HARM")],
        [start(0, toolUse={"name": "send", "note": "HARM"})],
        [*tool(0)[:1], *tool(0)[:1]],
        [delta(0, image={"source": {"bytes": "HARM"}})],
        [delta(0, toolUse={"input": "HARM"})],
        [delta(0, toolUse={"input": "x", "aside": {"type": "HARM"}})],
        [RESULT, delta(0, toolResult=[{"image": {"source": {"bytes": "HARM"}}}])],
        [delta(0, idea="HARM")],
        [delta(0, text="x", aside="HARM")],
        [delta(0, text=["HARM"])],
        [delta(0)],
        [delta(0, reasoningContent={"idea": "HARM"})],
        [delta(0, reasoningContent={"text": "x", "signature": "HARM"})],
        [delta(0, citation={"title": "x", "note": "HARM"})],
        [TEXT, delta(0, reasoningContent={"text": "HARM"})],
        [TEXT, stop(0), delta(0, text="HARM")],
        [TEXT, stop(0), stop(0)],
        [{"contentBlockDelta": {"delta": {"text": "HARM"}, "contentBlockIndex": "0"}}],
        [{"messageStop": {"stopReason": "x", "additionalModelResponseFields": {"thought": "HARM"}}}],
        [{"messageStop": {"stopReason": "x", "additionalModelResponseFields": 1}}],
        [{"messageStop": {"stopReason": "x", "additionalModelResponseFields": [{"thought": "HARM"}]}}],
    ],
    ids=repr,
)
def test_what_cannot_be_read_raises_and_never_leaves(events: list[Event]) -> None:
    frames = wired(BEGIN, *events)
    with pytest.raises(WireError):
        read(ConverseStream(), frames)
    out, report = guarded(frames, codec=ConverseStream())
    assert report.aborted is not None
    assert report.aborted.cause == "source"
    assert b"HARM" not in out
    assert said(events_in(out))[-1] == ("text", report.aborted.notice)


SPOKEN = b'{"contentBlockIndex": 0, "delta": {"text": "HARM"}}'


@pytest.mark.parametrize(
    "frame",
    [
        framed({":event-type": "messageStart", ":message-type": "event", "note": "HARM"}, b"{}"),
        framed({":event-type": "messageStart", ":message-type": "event"}, b"HARM"),
        framed({":event-type": "contentBlockDelta", ":message-type": "Event"}, SPOKEN),
        framed({":event-type": "contentBlockDelta"}, SPOKEN),
        *wired(BEGIN, padding="HARM it"),
        wired(delta(0, text="HARM"))[0][:-1],
    ],
    ids=["a header", "no JSON", "type of message", "no type of message", "padding", "cut"],
)
def test_messages_that_cannot_be_read_never_leave(frame: bytes) -> None:
    out, report = guarded([*wired(BEGIN), frame], codec=ConverseStream())
    assert report.aborted is not None
    assert b"HARM" not in out
    assert said(events_in(out)) == [("text", report.aborted.notice)]


@pytest.mark.parametrize("trace", ["HARM", ["HARM"], 1, None])
def test_a_trace_that_is_none_is_left_out(trace: Any) -> None:
    events = [*response(text(0, "Fine."))[:-1], {"metadata": {**METADATA, "trace": trace}}]
    out, report = guarded(wired(*events), codec=ConverseStream())
    assert report.aborted is None
    assert events_in(out)[-1] == {"metadata": METADATA}
    assert "trace" not in json.loads(guarded([body(trace=trace)], codec=ConverseBody())[0])


def test_a_guardrails_trace_of_what_the_model_said_is_left_out() -> None:
    router = {"promptRouter": {"invokedModelId": "m"}}
    trace = {"guardrail": {"modelOutput": ["HARM"]}, **router}
    events = [*response(text(0, "Fine."))[:-1], {"metadata": {**METADATA, "trace": trace, "more": "HARM"}}]
    out, report = guarded(wired(*events), codec=ConverseStream())
    assert report.aborted is None
    assert events_in(out)[-1] == {"metadata": {**METADATA, "trace": router}}
    whole = guarded([body({"text": "Fine."}, trace=trace)], codec=ConverseBody())[0]
    assert json.loads(whole)["trace"] == router


def test_blocks_behind_one_that_is_left_out_are_numbered_anew() -> None:
    events = response(text(0, "First."), thinking(1, "A HARM."), thinking(2, "More."), text(3, "Last."))
    out, report = guarded(wired(*events), guard(reasoning=REDACT), ConverseStream())
    notice = guard().policy.notice
    assert said(events_in(out)) == [("text", "First."), ("text", notice), ("text", "Last.")]
    assert b"signature" not in out
    assert report.aborted is None


def test_calls_behind_a_redaction_are_refused_and_the_response_ends_without_them() -> None:
    events = response(thinking(0, "HARM."), tool(1, '{"to": "you"}'), tool(2, "{}"), stop_reason="tool_use")
    out, _ = guarded(wired(*events), guard(reasoning=REDACT), ConverseStream())
    assert said(events_in(out)) == [("text", guard().policy.notice)]
    assert events_in(out)[-2:] == [{"messageStop": {"stopReason": "end_turn"}}, {"metadata": METADATA}]


def test_a_harmful_call_leaves_nothing_of_itself() -> None:
    events = response(thinking(0, "I send."), tool(1, '{"to": ', '"HARM"}'), stop_reason="tool_use")
    out, _ = guarded(wired(*events), codec=ConverseStream(whole_thoughts=False))
    assert [kind for kind, _ in said(events_in(out))] == ["reasoningContent", "text"]
    assert b"tooluse" not in out


def test_a_redacted_answer_has_its_notice_in_the_same_block() -> None:
    out, _ = guarded(wired(*response(text(0, "HARM."))), guard(answer=REDACT), ConverseStream())
    assert said(events_in(out)) == [("text", guard().policy.notice)]


STATES: dict[str, list[Event]] = {
    "before the first frame": [],
    "before any text": [BEGIN],
    "in a thought": response(thinking(0, "Fine. "))[:2],
    "behind a thought": response(thinking(0, "Fine. "))[:4],
    "in an answer": response(thinking(0, "Fine. "), text(1, "Yes. "))[:5],
    "in a tool call": response(text(0, "Fine. "), tool(1, '{"to": '))[:5],
    "behind a tool call": response(text(0, "Fine. "), tool(1, "{}"))[:6],
    "behind the end": response(text(0, "Fine. "))[:-1],
    "behind everything": response(text(0, "Fine. ")),
}


@pytest.mark.parametrize("termination", Termination)
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("events", STATES.values(), ids=STATES.keys())
def test_an_ending_fits_every_state(events: list[Event], whole: bool, termination: Termination) -> None:
    codec = ConverseStream(termination=termination, whole_thoughts=whole)
    out, report = guarded(wired(*events, {"oops": {"text": "HARM"}}), codec=codec)
    assert report.aborted is not None
    assert b"HARM" not in out
    assert b"tooluse" not in out
    sent, notice = events_in(out), report.aborted.notice
    if termination is Termination.ERROR:
        assert sent[-1] == {"modelStreamErrorException": {"message": notice}}
        return
    blocks = said(sent)
    has_ended = {"messageStop": {"stopReason": "end_turn"}} in sent
    assert (blocks[-1] == ("text", notice)) is not has_ended
    if not has_ended:
        stop = "guardrail_intervened" if termination is Termination.REFUSAL else "content_filtered"
        assert sent[-2] == {"messageStop": {"stopReason": stop}}


def test_output_to_be_parsed_gets_no_notice() -> None:
    frames = wired(*response(text(0, '{"a": "fine. ', 'HARM"}')))
    out, _ = guarded(frames, codec=ConverseStream(strict_output=True), redactable=False)
    assert said(events_in(out)) == []
    assert events_in(out)[-2] == {"messageStop": {"stopReason": "guardrail_intervened"}}


# -- in one piece ------------------------------------------------------------------------------------

SIGNED = {"reasoningContent": {"reasoningText": {"text": "All fine. A HARM.", "signature": "c2ln"}}}
CALL = {"toolUse": {"toolUseId": "t", "name": "send", "input": {"to": "you"}}}
CITED = {"citationsContent": {"content": [{"text": "Salt."}], "citations": [{"title": "Bread"}]}}
FOUND = {"toolResult": {"toolUseId": "t", "content": [{"json": {"a": "Bread"}}], "status": "success"}}


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_whole_response_leaves_as_it_came(size: int) -> None:
    fine = {"reasoningContent": {"reasoningText": {"text": "Fine.", "signature": "c2ln"}}}
    hidden = {"reasoningContent": {"redactedContent": "AA=="}}
    data = body(fine, hidden, {"text": "é"}, {"text": ""}, CALL, FOUND, CITED)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert guarded(pieces, codec=ConverseBody())[0] == data


def test_a_whole_response_loses_its_thought_and_its_calls() -> None:
    data = body(SIGNED, {"text": "Well."}, CITED, CALL, stop_reason="tool_use")
    out = json.loads(guarded([data], guard(reasoning=REDACT), ConverseBody())[0])
    notice = guard().policy.notice
    assert out["output"]["message"]["content"] == [{"text": notice}, {"text": "Well."}, CITED]
    assert (out["stopReason"], out["usage"]["outputTokens"]) == ("end_turn", 9)


def test_a_redacted_answer_loses_its_citations() -> None:
    harmful = {"citationsContent": {"content": [{"text": "HARM."}], "citations": [{"title": "HARM"}]}}
    out = json.loads(guarded([body(harmful, CITED)], guard(answer=REDACT), ConverseBody())[0])
    assert out["output"]["message"]["content"] == [{"text": guard().policy.notice}, CITED]


@pytest.mark.parametrize(
    "data",
    [
        body(SIGNED),
        body(CITED, {"text": "HARM"}),
        body({"image": {"format": "png", "source": {"bytes": "HARM"}}}),
        body({"document": {"name": "HARM", "source": {"text": "HARM"}}}),
        body({"toolResult": {"toolUseId": "t", "content": [{"image": {"source": {"bytes": "HARM"}}}]}}),
        body({"reasoningContent": {"idea": "HARM"}}),
        body({"idea": "HARM"}),
        body({"text": "x", "aside": "HARM"}),
        body({"text": "x"}, additionalModelResponseFields={"thought": "HARM"}),
        body({"text": "x"}, note="HARM"),
        b"not json",
        b'{"output":"HARM"}',
    ],
)
@pytest.mark.parametrize("termination", Termination)
def test_a_whole_response_ends_in_its_place(data: bytes, termination: Termination) -> None:
    out, report = guarded([data], codec=ConverseBody(termination=termination))
    assert report.aborted is not None
    assert b"HARM" not in out
    ending = json.loads(out)
    if termination is Termination.ERROR:
        assert ending == {"message": report.aborted.notice}
        return
    assert ending["output"]["message"]["content"] == [{"text": report.aborted.notice}]
    assert ending["usage"]["totalTokens"] in (0, 14)


# -- the request -------------------------------------------------------------------------------------

CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": [{"text": "Why salt?"}]},
    {"role": "assistant", "content": [CALL]},
    {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"text": "Taste."}]}}]},
]


def request(**more: Any) -> bytes:
    return json.dumps({"system": [{"text": "Be kind."}], "messages": CHAT, **more}).encode()


def test_the_query_is_what_a_user_wrote_last() -> None:
    assert read_request(request()).query == "Why salt?"
    assert read_request(request(), history()).query == (
        "system: Be kind.\nuser: Why salt?\nassistant: [toolUse]\ntool: [toolResult]"
    )


def test_a_format_admits_no_notice() -> None:
    assert read_request(request(outputConfig={"effort": "high"})).redactable
    assert not read_request(request(outputConfig={"textFormat": {"type": "json_schema"}})).redactable
