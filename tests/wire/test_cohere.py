"""Cohere's chat through the codec."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shieldguard import (
    Action,
    Answer,
    End,
    Guard,
    Passthrough,
    Reasoning,
    Rule,
    ToolCall,
    WireError,
)
from shieldguard.testing import InstantScriptedJudge
from shieldguard_adapters.wire import Termination
from shieldguard_adapters.wire.apis import ANY, COHERE
from shieldguard_adapters.wire.cohere_chat import MessageBody, MessageStream
from tests.wire.cohere import bodies_in, body, cited, event, message, plan, text, thinking, told, tool
from tests.wire.rig import cut_at, guard, guarded, read, unjudged

REDACT = Rule(harmful=Action.REDACT)
WORDS = st.text(st.sampled_from('ab .é😀\n"\\'), max_size=40)
BLOCKS = st.lists(
    st.tuples(st.sampled_from([thinking, text, tool, plan]), st.lists(WORDS, max_size=4)), max_size=6
).map(lambda blocks: [make(index, *pieces) for index, (make, pieces) in enumerate(blocks)])
CUTS = st.lists(st.integers(0, 5000), max_size=12)
START = told("content-start", "content", {"type": "text", "text": ""}, index=0)


@given(BLOCKS, CUTS)
def test_harmless_bytes_leave_as_they_came(blocks: list[list[bytes]], cuts: list[int]) -> None:
    data = b"".join(message(*blocks))
    pieces = cut_at(data, cuts)
    assert unjudged(MessageStream(), pieces) == data
    assert read(MessageStream(), pieces) == read(MessageStream(), [data])


@given(BLOCKS, CUTS, st.sampled_from([Rule(), REDACT]))
def test_how_the_bytes_were_cut_changes_nothing(
    blocks: list[list[bytes]], cuts: list[int], rule: Rule
) -> None:
    data = b"".join(message(*blocks))
    by = guard({"ab": 1.0}, reasoning=rule, answer=rule, tool_call=rule)
    out, report = guarded(cut_at(data, cuts), by, MessageStream())
    whole, other = guarded([data], by, MessageStream())
    assert said(out) == said(whole)
    assert report.ended == other.ended


def said(out: bytes) -> list[tuple[str, str]]:
    """What a client has: the type and the text of each block, the plan, the calls. A block ends before the
    next begins, and has an index that no other has."""
    parts: list[tuple[str, str]] = []
    is_open: int | None = None
    indexes = [-1]

    def add(kind: str, new: str) -> None:
        if not parts or parts[-1][0] != kind or kind in ("thinking", "text"):
            parts.append((kind, ""))
        parts[-1] = (kind, parts[-1][1] + new)

    sent = bodies_in(out)
    for one in sent:
        inner = one.get("delta", {}).get("message", {})
        if one["type"] == "content-start":
            assert is_open is None
            is_open = one["index"]
            assert is_open > indexes[-1]
            indexes.append(is_open)
            content = inner["content"]
            add(content["type"], content[content["type"]])
        elif one["type"] == "content-delta":
            assert one["index"] == is_open
            kind, so_far = parts[-1]
            parts[-1] = (kind, so_far + inner["content"][kind])
        elif one["type"] == "content-end":
            assert one["index"] == is_open
            is_open = None
        elif one["type"] == "tool-plan-delta":
            add("plan", inner["tool_plan"])
        elif one["type"] == "tool-call-delta":
            add("call", inner["tool_calls"]["function"]["arguments"])
    assert is_open is None
    assert (sent[0]["type"], sent[-1]["type"]) == ("message-start", "message-end")
    return parts


@given(BLOCKS, CUTS)
def test_no_text_leaves_before_its_verdict(blocks: list[list[bytes]], cuts: list[int]) -> None:
    codec = MessageStream()
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
        [Passthrough(choice=0), Reasoning("x"), Passthrough(choice=0)],
    ),
    "text in the start": (
        [told("content-start", "content", {"type": "text", "text": "x"}, index=2)],
        [Answer("x", block=2)],
    ),
    "a plan": (plan(0, "x"), [Reasoning("x", block=-1)]),
    "a tool call": (tool(0, "{}"), [ToolCall("send "), ToolCall("{}"), Passthrough(choice=0)]),
    "a citation": (
        [*text(0, "Salt it."), *cited(0, "Salt")],
        [Passthrough(choice=0), Answer("Salt it."), *[Passthrough(choice=0)] * 3],
    ),
    "a citation of what was not said": (cited(0, "Salt"), [Answer("Salt", block=-4), Passthrough(choice=0)]),
    "a comment": ([b": hello\n\n"], [Passthrough()]),
    "done": ([b"data: [DONE]\n\n"], [Passthrough()]),
    "an end": ([event("message-end", delta={"finish_reason": "MAX_TOKENS"})], [End("MAX_TOKENS")]),
}


@pytest.mark.parametrize(("frames", "events"), ORIGINS.values(), ids=ORIGINS.keys())
def test_a_frame_gives_its_event(frames: list[bytes], events: list[Any]) -> None:
    assert read(MessageStream(), frames) == events


@pytest.mark.parametrize(
    "frames",
    [
        [event("thought-start")],
        [b'data: {"type":["content-delta"],"delta":"HARM"}\n\n'],
        [event("debug", prompt="HARM")],
        [b'event: content-end\ndata: {"type":"message-end"}\n\n'],
        [b"event: content-delta\ndata: {\n\n"],
        [b'data: {"text":"HARM"}\n\n'],
        [event("message-start", delta={"message": {"content": [{"type": "text", "text": "HARM"}]}})],
        [event("message-end", delta={"finish_reason": "COMPLETE", "message": "HARM"})],
        [told("content-start", "content", {"type": "idea", "idea": "HARM"}, index=0)],
        [told("content-delta", "content", {"text": "HARM"}, index=0)],
        [START, told("content-delta", "content", {"thinking": "HARM"}, index=0)],
        [START, told("content-delta", "content", {"text": "x", "aside": "HARM"}, index=0)],
        [START, told("content-delta", "content", {"text": ["HARM"]}, index=0)],
        [START, told("content-delta", "content", {"text": "HARM"}, index="0")],
        [START, START],
        [told("tool-plan-delta", "plan", "HARM")],
        [told("tool-call-delta", "tool_calls", ["HARM"], index=0)],
        [told("tool-call-delta", "tool_calls", {"function": {"arguments": {"to": "HARM"}}}, index=0)],
        [told("citation-start", "citations", {"text": "x", "note": "HARM"}, index=0)],
        [told("citation-start", "citations", {"text": "", "start": "HARM"}, index=0)],
        [event("message-end", delta={"finish_reason": "COMPLETE"}, index="HARM")],
        [START, told("content-end", "content", {"text": "HARM"}, index=0)],
        [told("citation-end", "citations", {"text": "HARM"}, index=0)],
        [event("message-end", delta={"finish_reason": "COMPLETE"}, logprobs={"text": "HARM"})],
    ],
    ids=repr,
)
def test_what_cannot_be_read_raises_and_never_leaves(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        read(MessageStream(), frames)
    out, report = guarded([*message()[:1], *frames], codec=MessageStream())
    assert report.aborted is not None
    assert report.aborted.cause == "source"
    assert b"HARM" not in out
    assert said(out)[-1] == ("text", report.aborted.notice)


def test_a_notice_stands_in_the_place_of_a_thought_and_of_a_plan() -> None:
    frames = message(thinking(0, "A HARM. ", "More."), plan(0, "And send."), text(1, "Well."))
    out, report = guarded(frames, guard(reasoning=REDACT), MessageStream())
    notice = guard().policy.notice
    assert said(out) == [("thinking", notice), ("plan", notice), ("text", "Well.")]
    assert report.aborted is None


def test_calls_behind_a_redaction_are_refused_and_a_notice_is_said_in_a_block_of_its_own() -> None:
    frames = message(
        plan(0, "HARM."), tool(0, '{"to": "you"}'), tool(1, "{}"), text(0, "So."), finish_reason="TOOL_CALL"
    )
    out, _ = guarded(frames, guard(reasoning=REDACT), MessageStream())
    notice = guard().policy.notice
    assert said(out) == [("plan", notice), ("text", notice), ("text", "So.")]
    assert b"tool-call" not in out
    end = bodies_in(out)[-1]["delta"]
    assert (end["finish_reason"], end["usage"]["tokens"]["output_tokens"]) == ("COMPLETE", 9)


def test_a_harmful_call_leaves_nothing_of_itself() -> None:
    frames = message(thinking(0, "I send."), tool(0, '{"to": ', '"HARM"}'), finish_reason="TOOL_CALL")
    out, _ = guarded(frames, codec=MessageStream())
    assert [kind for kind, _ in said(out)] == ["thinking", "text"]
    assert b"send_1" not in out


def test_no_citation_leaves_behind_what_was_left_out() -> None:
    frames = message(text(0, "Salt it. "), cited(0, "Salt"), text(1, "HARM."), cited(1, "Salt"))
    out, _ = guarded(frames, guard(answer=REDACT), MessageStream())
    assert [one["index"] for one in bodies_in(out) if one["type"].startswith("citation")] == [0, 0]


@pytest.mark.parametrize("harm", [True, False])
def test_a_citation_of_what_was_not_said_is_judged(harm: bool) -> None:
    quoted = "Some is fine. " * 20 + ("HARM" if harm else "Fine")
    frames = message(text(0, "Salt it."), cited(0, quoted))
    out, report = guarded(frames, codec=MessageStream())
    assert (report.aborted is not None) is harm
    assert (out == b"".join(frames)) is not harm
    assert b"HARM" not in out


def test_log_probabilities_go_where_they_spell_something_else() -> None:
    def frame(spelled: str) -> bytes:
        logprobs = {"text": spelled, "token_ids": [7], "logprobs": [-0.1]}
        return told("content-delta", "content", {"text": "Salt."}, index=0, logprobs=logprobs)

    frames = [START, frame("Salt."), frame("HARM")]
    out = unjudged(MessageStream(), frames)
    assert out.startswith(START + frame("Salt."))
    assert bodies_in(out)[2] == {
        "type": "content-delta",
        "index": 0,
        "delta": {"message": {"content": {"text": "Salt."}}},
    }


STATES: dict[str, list[bytes]] = {
    "before the first frame": [],
    "before any text": message()[:1],
    "in a thought": message(thinking(0, "Fine. "))[:3],
    "in a plan": message(plan(0, "Fine. "))[:2],
    "in an answer": message(thinking(0, "Fine. "), text(1, "Yes. "))[:6],
    "in a tool call": message(plan(0, "Fine. "), tool(0, '{"to": '))[:4],
    "behind a tool call": message(plan(0, "Fine. "), tool(0, "{}"))[:5],
    "behind the end": message(text(0, "Fine. ")),
}


@pytest.mark.parametrize("termination", Termination)
@pytest.mark.parametrize("frames", STATES.values(), ids=STATES.keys())
def test_an_ending_fits_every_state(frames: list[bytes], termination: Termination) -> None:
    out, report = guarded([*frames, event("oops", text="HARM")], codec=MessageStream(termination=termination))
    assert report.aborted is not None
    parts, end = said(out), bodies_in(out)[-1]["delta"]
    assert b"HARM" not in out
    assert b"tool-call" not in out
    has_notice = bool(parts) and parts[-1] == ("text", report.aborted.notice)
    if end.get("usage"):
        assert not has_notice
    else:
        assert has_notice is (termination is not Termination.ERROR)
        assert end["finish_reason"] == ("COMPLETE" if termination is Termination.REFUSAL else "ERROR")
        assert end.get("error") == (None if termination is Termination.REFUSAL else report.aborted.notice)


def test_output_to_be_parsed_gets_no_notice() -> None:
    frames = message(text(0, '{"a": "fine. ', 'HARM"}'))
    out, _ = guarded(frames, codec=MessageStream(strict_output=True), redactable=False)
    assert said(out) == [("text", "")]
    assert bodies_in(out)[-1]["delta"]["finish_reason"] == "ERROR"


# -- in one piece ------------------------------------------------------------------------------------

THOUGHT = {"type": "thinking", "thinking": "All fine. A HARM."}
TEXT = {"type": "text", "text": "Well, salt."}
CALL = {"id": "t", "type": "function", "function": {"name": "send", "arguments": '{"to": "you"}'}}
CITATION = {"start": 6, "end": 10, "text": "salt", "sources": [], "type": "TEXT_CONTENT"}


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_whole_message_leaves_as_it_came(size: int) -> None:
    data = body(
        {"type": "thinking", "thinking": "Fine."},
        {"type": "text", "text": "é salt"},
        tool_plan="I send.",
        tool_calls=[CALL],
        citations=[CITATION],
    )
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert guarded(pieces, codec=MessageBody())[0] == data


def test_a_whole_message_loses_its_thought_its_calls_and_its_citations() -> None:
    data = body(THOUGHT, TEXT, tool_calls=[CALL], citations=[CITATION], finish_reason="TOOL_CALL")
    out = json.loads(guarded([data], guard(reasoning=REDACT), MessageBody())[0])
    notice = guard().policy.notice
    assert out["message"] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": notice},
            TEXT,
            {"type": "text", "text": notice},
        ],
    }
    assert (out["finish_reason"], out["usage"]["tokens"]["output_tokens"]) == ("COMPLETE", 9)


def test_a_plan_is_redacted() -> None:
    data = body(TEXT, tool_plan="HARM.")
    out = json.loads(guarded([data], guard(reasoning=REDACT), MessageBody())[0])
    assert out["message"] == {"role": "assistant", "tool_plan": guard().policy.notice, "content": [TEXT]}


def test_an_edited_body_has_no_log_probabilities() -> None:
    whole = json.loads(body(THOUGHT, TEXT))
    whole["logprobs"] = [{"text": "All fine. A HARM.", "token_ids": [1]}]
    out = guarded([json.dumps(whole).encode()], guard(reasoning=REDACT), MessageBody())[0]
    assert b"HARM" not in out
    assert "logprobs" not in json.loads(out)


@pytest.mark.parametrize(
    "data",
    [
        body(THOUGHT),
        body(TEXT, tool_plan="HARM"),
        body(TEXT, citations=[{"text": "HARM"}]),
        body(TEXT, note="HARM"),
        body({"type": "idea", "text": "HARM"}),
        body(TEXT, tool_calls=[{"function": {"name": "f", "arguments": "HARM"}}]),
        json.dumps({**json.loads(body(TEXT)), "logprobs": [{"text": "HARM"}]}).encode(),
        json.dumps({**json.loads(body(TEXT)), "text": "HARM"}).encode(),
        b"not json",
        b'{"message":"HARM"}',
    ],
)
@pytest.mark.parametrize("termination", Termination)
def test_a_whole_message_ends_in_its_place(data: bytes, termination: Termination) -> None:
    out, report = guarded([data], codec=MessageBody(termination=termination))
    assert report.aborted is not None
    assert b"HARM" not in out
    ending = json.loads(out)
    is_error = termination is Termination.ERROR
    notice = {"type": "text", "text": report.aborted.notice}
    assert ending["message"]["content"] == ([] if is_error else [notice])
    assert ending["finish_reason"] == ("COMPLETE" if termination is Termination.REFUSAL else "ERROR")


def test_what_is_too_large_is_not_read() -> None:
    with pytest.raises(WireError, match="max_body"):
        read(MessageBody(max_body=10), [body()])
    with pytest.raises(WireError, match="max_frame"):
        read(MessageStream(), [b"data: " + b"x" * (1 << 21)])


def test_only_the_second_version_is_guarded() -> None:
    for api in (COHERE, ANY):
        assert api.endpoint("POST", "/v2/chat") is not None
        for path in ("/v1/chat", "/v1/generate", "/v1/summarize", "/v2/batches"):
            assert api.endpoint("POST", path) is None
            assert not api.is_harmless("POST", path)
