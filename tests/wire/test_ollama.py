"""Ollama's API through the codec."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import (
    AbortCause,
    Aborted,
    Action,
    Answer,
    End,
    Passthrough,
    Reasoning,
    Rule,
    ToolCall,
    WireError,
    history,
)
from shieldguard_adapters.wire import Codec, Termination
from shieldguard_adapters.wire.ollama import (
    CHAT,
    GENERATE,
    OllamaBody,
    OllamaStream,
    Shape,
    read_chat_request,
    read_generate_request,
)
from tests.wire.ndjson import (
    COSTS,
    bodies_in,
    call,
    chat_line,
    chat_lines,
    generate_line,
    generate_lines,
    line,
    whole,
)
from tests.wire.rig import cut_at, guard, guarded, read, unjudged

REDACT = Rule(harmful=Action.REDACT)
PIECES = st.sampled_from(["a", "b", " ", ".", "é😀", "\n", '"', "\\", "<", "think>", "</", "ab"])
WORDS = st.lists(st.lists(PIECES, min_size=1, max_size=8).map("".join), max_size=5)
CUTS = st.lists(st.integers(0, 5000), max_size=12)
SHAPES: list[tuple[Shape, Callable[..., list[bytes]]]] = [(CHAT, chat_lines), (GENERATE, generate_lines)]
shapes = pytest.mark.parametrize(("shape", "lines"), SHAPES, ids=["chat", "generate"])


def said(out: bytes, shape: Shape) -> dict[str, str]:
    """The texts as a client adds them up."""
    found = {"thinking": "", shape.answer: ""}
    for body in bodies_in(out):
        texts = body[shape.holder] if shape.holder else body
        for key in found:
            found[key] += texts.get(key, "")
    return found


@shapes
@given(thought=WORDS, answer=WORDS, cuts=CUTS, end=st.sampled_from([b"\n", b"\r\n", b"\r"]))
@settings(deadline=None)
def test_harmless_bytes_leave_as_they_came(
    shape: Shape, lines: Any, thought: list[str], answer: list[str], cuts: list[int], end: bytes
) -> None:
    data = b"".join(lines(thought, answer, call())).replace(b"\n", end)
    for given_ in (data, data.removesuffix(end)):
        assert unjudged(OllamaStream(shape), cut_at(given_, cuts)) == given_
        out, report = guarded(cut_at(given_, cuts), guard({}), OllamaStream(shape))
        assert report.ended == "complete"
        assert said(out, shape) == said(given_, shape)
        assert out == given_ or "<" in "".join(answer)  # a tag does not wait for the text beside it
    body = whole(lines(thought, answer, call()), shape.holder, shape.answer)
    assert guarded(cut_at(body, cuts), guard({}), OllamaBody(shape))[0] == body


@shapes
@given(thought=WORDS, answer=WORDS, cuts=CUTS, rule=st.sampled_from([Rule(), REDACT]))
@settings(deadline=None)
def test_how_the_bytes_were_cut_changes_nothing(
    shape: Shape, lines: Any, thought: list[str], answer: list[str], cuts: list[int], rule: Rule
) -> None:
    data = b"".join(lines(thought, answer, call("ab")))
    by = guard({"ab": 1.0}, reasoning=rule, answer=rule, tool_call=rule)
    out, report = guarded(cut_at(data, cuts), by, OllamaStream(shape))
    other_out, other = guarded([data], by, OllamaStream(shape))
    assert (report.ended, bodies_in(out)[-1]["done"]) == (other.ended, True)
    if report.aborted is None:  # how much of an answer was out by then depends on when it came
        assert said(out, shape) == said(other_out, shape)


@shapes
def test_what_a_stream_says(shape: Shape, lines: Any) -> None:
    data = b"".join(lines(["I ", "think."], ["Yes."], call("a"), call("b")))
    events = read(OllamaStream(shape, thinking="explicit"), [data])
    assert [event for event in events if not isinstance(event, ToolCall)] == [
        Reasoning("I "),
        Reasoning("think."),
        Answer("Yes."),
        End("stop"),
    ]
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert [one.block for one in calls] == [0, 1]
    assert json.loads(calls[1].text) == {"function": call("b")["function"]}


@shapes
def test_inline_reasoning_is_told_from_the_answer(shape: Shape, lines: Any) -> None:
    events = read(OllamaStream(shape), [b"".join(lines([], ["<th", "ink>No", "t so.</thi", "nk>Yes."]))])
    assert events[:3] == [Passthrough("<th", choice=0), Passthrough("ink>", choice=0), Reasoning("No")]
    assert [event for event in events if isinstance(event, Answer)] == [Answer("Yes.")]
    (marker, *_) = read(OllamaStream(shape, thinking="preopened"), [b"".join(lines([], ["So. </think>Yes"]))])
    assert marker == Reasoning("So. ")


TEXTS = {
    "another list": {"parts": [{"text": "HARM"}]},
    "another text": {"reasoning": "HARM"},
    "an object": {"audio": {"data": "HARM"}},
    "no text": {"content": ["HARM"], "response": ["HARM"]},
    "calls": {"tool_calls": {"name": "HARM"}},
    "a call": {"tool_calls": ["HARM"]},
    "images": {"images": ["iVBORw0KGgo="]},
}


@pytest.mark.parametrize("field", TEXTS.values(), ids=TEXTS.keys())
@shapes
def test_what_is_not_known_is_not_passed_on(shape: Shape, lines: Any, field: dict[str, Any]) -> None:
    data = line(message={"role": "assistant", **field}) if shape.holder else line(**field)
    for codec in (OllamaStream(shape), OllamaBody(shape)):
        with pytest.raises(WireError):
            read(codec, [data])


def test_what_is_beside_the_message_and_not_known_is_not_passed_on() -> None:
    with pytest.raises(WireError, match="reasoning"):
        read(OllamaStream(CHAT), [chat_line("Yes.", head={"reasoning": "HARM"})])


def test_an_image_is_not_passed_on() -> None:
    with pytest.raises(WireError, match="image"):
        read(OllamaStream(GENERATE), [generate_line(image="iVBORw0KGgo=")])


@pytest.mark.parametrize(
    "data", [b"HARM\n", b"[1]\n", b'"HARM"\n', line(message="HARM"), b'{"message":{"content":"\xff"}}\n']
)
def test_what_is_no_line_of_this_api_is_not_passed_on(data: bytes) -> None:
    with pytest.raises(WireError):
        read(OllamaStream(CHAT), [data])


@pytest.mark.parametrize("make", [OllamaStream, OllamaBody])
@pytest.mark.parametrize(
    "field",
    [
        {"done": True, "done_reason": "load"},
        {"remote_model": "m", "remote_host": "https://ollama.com"},
        {"completed": 1, "total": 4},
        {"_debug_info": {"rendered_template": "a prompt"}},
        {"something_new": 7, "something_else": None},
    ],
)
def test_metadata_passes(make: Any, field: dict[str, Any]) -> None:
    data = chat_line(head=field)
    assert guarded([data], guard(), make(CHAT))[0] == data


@shapes
@pytest.mark.parametrize("harm", ["thought", "answer", "call"])
def test_an_ending_keeps_what_is_known(shape: Shape, lines: Any, harm: str) -> None:
    thought, answer, to = (["HARM." if harm == one else "Fine."] for one in ("thought", "answer", "call"))
    out, report = guarded([b"".join(lines(thought, answer, call(to[0])))], guard(), OllamaStream(shape))
    last = bodies_in(out)[-1]
    assert report.aborted is not None
    assert b"HARM" not in out
    assert (last["model"], last["done"], last["done_reason"]) == ("m", True, "content_filter")
    assert said(out, shape)[shape.answer].endswith(report.aborted.notice)
    assert "context" not in last
    assert {key: last[key] for key in COSTS} == COSTS
    data = whole(lines(thought, answer, call(to[0])), shape.holder, shape.answer)
    assert bodies_in(guarded([data], guard(), OllamaBody(shape))[0]) == [last]


ABORTED = Aborted(cause=AbortCause.RISK, notice="No.")


@shapes
def test_an_ending_of_what_has_not_begun_or_has_ended(shape: Shape, lines: Any) -> None:
    (ending,) = bodies_in(OllamaStream(shape).encode([ABORTED]))
    assert ending == {**shape.saying("No."), "done": True, "done_reason": "content_filter"}
    codec = OllamaStream(shape)
    codec.encode([event for event in read(codec, lines([], [])) if isinstance(event, End)])
    assert codec.encode([ABORTED]) == b""
    body = OllamaBody(shape)
    body.encode([ABORTED])
    assert bodies_in(body.close()) == [ending]


@pytest.mark.parametrize("kept_alive", [True, False])
@shapes
def test_an_ending_begins_a_line(shape: Shape, lines: Any, kept_alive: bool) -> None:
    codec = OllamaStream(shape)
    events: Any = read(codec, [lines(["So"], [])[0].rstrip()])
    out = codec.encode(events)
    if kept_alive:
        out += codec.keep_alive()
    assert [one["done"] for one in bodies_in(out + codec.encode([ABORTED]))][-1] is True


@shapes
def test_an_error_may_end_it(shape: Shape, lines: Any) -> None:
    codec = OllamaStream(shape, termination=Termination.ERROR)
    out, _ = guarded([b"".join(lines(["HARM."], ["Yes."]))], guard(), codec)
    assert list(bodies_in(out)[-1]) == ["error"]
    data = whole(lines(["HARM."], ["Yes."]), shape.holder, shape.answer)
    out, _ = guarded([data], guard(), OllamaBody(shape, termination="error"))
    assert bodies_in(out)[0]["error"].startswith("[Withheld")


@shapes
def test_what_is_withheld_leaves_no_trace(shape: Shape, lines: Any) -> None:
    """Neither as log-probabilities nor as a context."""
    by = guard(reasoning=REDACT, answer=REDACT, tool_call=REDACT)
    data = lines(["HARM."], ["Fine."], call())
    for out in (
        guarded([b"".join(data)], by, OllamaStream(shape))[0],
        guarded([whole(data, shape.holder, shape.answer)], by, OllamaBody(shape))[0],
    ):
        assert said(out, shape)["thinking"].startswith("[Withheld")
        assert said(out, shape)[shape.answer].startswith("Fine.")
        assert b"context" not in out
        assert b"tool_calls" not in out
        assert {key: bodies_in(out)[-1][key] for key in COSTS} == COSTS


def _logprobs(*tokens: str) -> list[dict[str, Any]]:
    return [{"token": token, "logprob": -0.1, "bytes": list(token.encode())} for token in tokens]


def test_no_error_is_none_in_a_line_that_is_written_anew() -> None:
    by = guard(answer=REDACT)
    line = chat_line("HARM", head={"error": None})
    out, _ = guarded([line, chat_line("", done=True)], by, OllamaStream(CHAT))
    assert [body["message"]["content"] for body in bodies_in(out)] == [by.policy.notice, ""]


@pytest.mark.parametrize("make", [OllamaStream, OllamaBody])
def test_log_probabilities_pass_beside_what_they_spell_out(make: Any) -> None:
    spelled = chat_line("Yes.", head={"logprobs": _logprobs("Yes", "."), "done": True})
    assert guarded([spelled], guard(), make(CHAT))[0] == spelled
    held_back = chat_line(head={"logprobs": _logprobs("HARM"), "done": True})
    assert b"HARM" not in guarded([held_back], guard(), make(CHAT))[0]
    with pytest.raises(WireError, match="logprobs"):
        read(make(CHAT), [chat_line("a", head={"logprobs": ["a"]})])


def test_log_probabilities_do_not_pass_beside_a_part_of_it() -> None:
    head = {"logprobs": _logprobs("It is so. HARM."), "done": True}
    spelled = chat_line("It is so. HARM.", head=head)
    out, _ = guarded([spelled], guard(answer=REDACT), OllamaStream(CHAT))
    assert b"HARM" not in out


@shapes
def test_a_keep_alive_says_nothing(shape: Shape, lines: Any) -> None:
    codec = OllamaStream(shape)
    assert bodies_in(codec.keep_alive()) == [{**shape.saying(""), "done": False}]
    read(codec, lines(["So"], []))
    (body,) = bodies_in(codec.keep_alive())
    assert (body["model"], body["done"], said(codec.keep_alive(), shape)[shape.answer]) == ("m", False, "")


def test_a_blank_line_keeps_its_place() -> None:
    data = b"\n" + chat_line("Yes.") + b"\r\n" + chat_lines([], [])[-1]
    assert guarded([data], guard(), OllamaStream(CHAT))[0] == data


def test_an_error_of_the_server_passes() -> None:
    data = chat_line("Yes.") + b'{"error":"out of memory"}\n'
    assert guarded([data], guard(), OllamaStream(CHAT))[0] == data


@shapes
def test_an_error_that_quotes_the_model_is_judged(shape: Shape, lines: Any) -> None:
    data = b"".join(lines([], ["Yes."])[:-1]) + b'{"error":"error parsing tool call: raw=HARM"}\n'
    out, report = guarded([data], guard(), OllamaStream(shape))
    assert report.aborted is not None
    assert bodies_in(out)[-1]["done_reason"] == "content_filter"
    out, _ = guarded([data], guard(answer=REDACT), OllamaStream(shape))
    assert b"HARM" not in out
    assert list(bodies_in(out)[-1]) == ["error"]


def test_no_text_leaves_before_its_verdict() -> None:
    codec: Codec = OllamaStream(CHAT)
    events = codec.decode(chat_line("", thinking="Thought") + chat_line("said"))
    assert [type(event) for event in events] == [Reasoning, Answer]


def _request(**body: Any) -> bytes:
    return json.dumps({"model": "m", **body}).encode()


def test_the_question_of_a_chat() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is this?", "images": ["iVBORw0KGgo="]},
        {"role": "assistant", "content": "", "tool_calls": [call()]},
        {"role": "tool", "tool_name": "send", "content": "sent"},
    ]
    asked = read_chat_request(_request(messages=messages))
    assert (asked.query, asked.redactable) == ("What is this?\n[image]", True)
    told = read_chat_request(_request(messages=messages), history()).query
    assert "Be brief." in told
    assert "sent" in told
    with pytest.raises(WireError, match="messages"):
        read_chat_request(_request(messages="What?"))


def test_the_question_of_a_text_to_go_on_from() -> None:
    asked = read_generate_request(_request(prompt="def f(", suffix="return x", system="Be brief."))
    assert asked.query == "def f(\nreturn x"
    assert "Be brief." in read_generate_request(_request(prompt="Go", system="Be brief."), history()).query
    assert read_generate_request(_request()).query == ""


@pytest.mark.parametrize("read_request", [read_chat_request, read_generate_request])
@pytest.mark.parametrize(
    ("format_", "redactable"), [("", True), ("json", False), ({"type": "object"}, False)]
)
def test_output_to_be_parsed_gets_no_notice(read_request: Any, format_: Any, redactable: bool) -> None:
    assert read_request(_request(format=format_)).redactable is redactable
