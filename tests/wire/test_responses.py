"""Streamed OpenAI responses through the codec."""

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
    Opaque,
    OpaqueKind,
    Passthrough,
    Reasoning,
    Rule,
    ToolCall,
    WireError,
)
from shieldguard.testing import InstantScriptedJudge
from shieldguard_adapters.wire import Termination
from shieldguard_adapters.wire.openai_responses import ResponseStream
from tests.wire.responses import (
    START,
    Item,
    bodies_in,
    call,
    event,
    frames_of,
    message,
    said,
    summary,
    text_of,
    thinking,
)
from tests.wire.rig import cut_at, guard, guarded, read, unjudged

REDACT = Rule(harmful=Action.REDACT)
EVERYWHERE: dict[str, Any] = {"reasoning": REDACT, "answer": REDACT, "tool_call": REDACT}
NOTICE = guard().policy.notice
FINE = "All is fine here, " * 20 + "and it stays so. "
SEALED = {"encrypted_content": "AAAA"}


def made(blocks: list[tuple[str, list[str]]]) -> list[Item]:
    makers: dict[str, Any] = {
        "thought": thinking,
        "sealed": lambda *texts, id_: thinking(*texts, id_=id_, **SEALED),
        "summary": lambda *texts, id_: summary(list(texts), [*texts, "."], id_=id_),
        "message": message,
        "refusal": lambda *texts, id_: message(*texts, id_=id_, refusal=True),
        "call": call,
    }
    return [makers[kind](*texts, id_=f"id_{number}") for number, (kind, texts) in enumerate(blocks)]


WORDS = st.text(st.sampled_from('ab .é😀\n"\\'), max_size=40)
KINDS = st.sampled_from(["thought", "sealed", "summary", "message", "refusal", "call"])
ITEMS = st.lists(st.tuples(KINDS, st.lists(WORDS, max_size=4)), max_size=6).map(made)
CUTS = st.lists(st.integers(0, 9000), max_size=12)


@given(ITEMS, CUTS, st.booleans())
def test_harmless_bytes_leave_as_they_came(items: list[Item], cuts: list[int], whole: bool) -> None:
    data = b"".join(frames_of(*items))
    pieces = cut_at(data, cuts)
    assert unjudged(ResponseStream(whole_thoughts=whole), pieces) == data
    assert read(ResponseStream(), pieces) == read(ResponseStream(), [data])
    assert guarded(pieces, guard({}), ResponseStream(whole_thoughts=whole))[0] == data


@given(ITEMS, CUTS, st.sampled_from([Rule(), REDACT]), st.booleans())
def test_how_the_bytes_were_cut_changes_nothing(
    items: list[Item], cuts: list[int], rule: Rule, whole: bool
) -> None:
    data = b"".join(frames_of(*items))
    by = guard({"ab": 1.0}, reasoning=rule, answer=rule, tool_call=rule)
    out, report = guarded(cut_at(data, cuts), by, ResponseStream(whole_thoughts=whole))
    other_out, other = guarded([data], by, ResponseStream(whole_thoughts=whole))
    assert said(out) == said(other_out)
    assert report.ended == other.ended
    assert b"ab" not in out.replace(b'"stable', b"").replace(b"available", b"")


@given(ITEMS, CUTS)
def test_no_text_leaves_before_its_verdict(items: list[Item], cuts: list[int]) -> None:
    codec = ResponseStream(whole_thoughts=False)
    judge = InstantScriptedJudge({})
    by = Guard(judge=judge, policy=guard().policy)
    pieces = cut_at(b"".join(frames_of(*items)), cuts)
    with by.stream_sync(iter([*map(codec.decode, pieces), codec.flush()])) as stream:
        while batch := stream.next_batch():
            for released in batch:
                if isinstance(released, Reasoning | Answer | ToolCall) and released.text.strip():
                    assert any(released.text in window.text for window in judge.windows)
            codec.encode(batch)


@given(ITEMS, CUTS, st.booleans())
def test_a_keep_alive_may_stand_between_any_two_frames(
    items: list[Item], cuts: list[int], whole: bool
) -> None:
    codec = ResponseStream(whole_thoughts=whole)
    out = b""
    by = guard({"ab": 1.0}, **EVERYWHERE)
    pieces = cut_at(b"".join(frames_of(*items)), cuts)
    with by.stream_sync(iter([*map(codec.decode, pieces), codec.flush()])) as stream:
        while batch := stream.next_batch():
            out += codec.keep_alive() + codec.encode(batch)
    assert bodies_in(out) == bodies_in(out.replace(codec.keep_alive(), b""))


# -- what a frame says -------------------------------------------------------------------------------

P = Passthrough(choice=0)
ORIGINS: dict[str, tuple[Item, list[Any]]] = {
    "a thought": (thinking("x"), [P, P, Reasoning("x", block=2), P, P, P]),
    "a summary": (
        summary(["x"]),
        [P, P, Opaque(OpaqueKind.SUMMARISED), Reasoning("x", block=2), P, P, P],
    ),
    "an encrypted thought": (
        Item({"type": "reasoning", "id": "r", **SEALED}, {"type": "reasoning", "id": "r", **SEALED}),
        [Opaque(OpaqueKind.ENCRYPTED), P, P],
    ),
    "a hidden thought": (
        Item({"type": "reasoning", "id": "r", "summary": []}, {"type": "reasoning", "id": "r"}),
        [P, Opaque(OpaqueKind.HIDDEN), P],
    ),
    "an answer": (message("x"), [P, P, Answer("x", block=2), P, P, P]),
    "a refusal": (message("x", refusal=True), [P, P, Answer("x", block=2), P, P, P]),
    "a call": (call("x"), [ToolCall("send ", block=1), ToolCall("x", block=1), P, P]),
    "a call of the server's": (
        Item(
            {"type": "web_search_call", "id": "w", "action": {"type": "search", "query": "x"}},
            {"type": "web_search_call", "id": "w", "status": "in_progress"},
            {"type": "response.web_search_call.searching"},
        ),
        [ToolCall("", block=1), P, ToolCall("x ", block=1)],
    ),
    "code": (
        Item(
            {"type": "code_interpreter_call", "id": "c", "code": "xy", "outputs": None},
            {"type": "code_interpreter_call", "id": "c", "code": ""},
            {"type": "response.code_interpreter_call_code.delta", "delta": "x"},
            {"type": "response.code_interpreter_call_code.delta", "delta": "y"},
            {"type": "response.code_interpreter_call_code.done", "code": "xy"},
        ),
        [ToolCall("", block=1), ToolCall("x", block=1), ToolCall("y", block=1), P, P],
    ),
    "a shell command": (
        Item(
            {"type": "shell_call", "id": "s", "call_id": "c", "action": {"commands": ["ls -l"]}},
            {"type": "shell_call", "id": "s", "call_id": "c", "action": {"commands": []}},
            {"type": "response.shell_call_command.added", "command_index": 0, "command": ""},
            {"type": "response.shell_call_command.delta", "command_index": 0, "delta": "ls -l"},
            {"type": "response.shell_call_command.done", "command_index": 0, "command": "ls -l"},
        ),
        [ToolCall("", block=1), P, ToolCall("ls -l", block=1), P, P],
    ),
    "a call nobody knows": (
        Item({"type": "wish", "id": "w", "for": "x"}, {"type": "wish", "id": "w", "for": "x"}),
        [ToolCall("x ", block=1), P],
    ),
    "an item without a beginning": (message("x"), [Answer("x", block=2), P]),
}


@pytest.mark.parametrize(("item", "events"), ORIGINS.values(), ids=ORIGINS.keys())
def test_a_frame_gives_its_events(item: Item, events: list[Any], request: pytest.FixtureRequest) -> None:
    if "without a beginning" in request.node.name:
        item.bodies = item.bodies[-1:]
    got = read(ResponseStream(), frames_of(item))
    own = [one if not isinstance(one, ToolCall) or one.text != " " else ToolCall("", block=1) for one in got]
    assert own == [P, P, *events, End("completed")]


def test_silent_frames_pass() -> None:
    frames = [b": hello\n\n", event("keepalive", sequence_number=0), event("error", message="m", code="c")]
    data = [*frames, *frames_of(message("x")), b"data: [DONE]\n\n"]
    assert guarded(data, codec=ResponseStream())[0] == b"".join(data)


def as_of_llama_cpp(*items: Item) -> list[bytes]:
    """Without numbers; the items end together, and calls have no name of their own."""
    frames, ends = [], []
    for one in map(dict, bodies_in(b"".join(frames_of(*items)))):
        type_, _, _ = one.pop("type"), one.pop("sequence_number"), one.pop("output_index", None)
        if "item" in one and one["item"]["type"] == "function_call":
            one["item"] = {**one["item"], "call_id": one["item"]["id"]}
            del one["item"]["id"]
        raw = event(type_, **one)
        if type_ == "response.output_item.done":
            ends.append(raw)
        else:
            frames += [*ends, raw] if type_ == "response.completed" else [raw]
    return frames


def as_of_older_vllm(*items: Item) -> list[bytes]:
    """With a name of their own for parts of a thought, and other identifiers in the end."""
    frames = []
    for one in map(dict, bodies_in(b"".join(frames_of(*items)))):
        if one["type"] == "response.completed":
            output = [{**item, "id": f"{item['id']}_again"} for item in one["response"]["output"]]
            one["response"] = {**one["response"], "output": output}
        if one.get("part", {}).get("type") == "reasoning_text":
            one["type"] = one["type"].replace("content_part", "reasoning_part")
        frames.append(event(one.pop("type"), **one))
    return frames


@pytest.mark.parametrize("served", [as_of_llama_cpp, as_of_older_vllm])
def test_servers_differ(served: Any) -> None:
    items = [thinking("Fine. ", "So."), message("Well. ", "Yes."), call("{", "}"), call("{}", id_="fc_2")]
    frames = served(*items)
    out, report = guarded(frames, codec=ResponseStream())
    assert out == b"".join(frames)
    assert (report.reasoning.judged, report.answer.judged) == (len("Fine. So."), len("Well. Yes."))
    frames = served(thinking(FINE, "So."), message("A HARM."), call("{}"))
    out, report = guarded(frames, codec=ResponseStream())
    assert report.aborted is not None
    assert b"HARM" not in out
    output = bodies_in(out)[-1]["response"]["output"]
    assert [text_of(item) for item in output] == [f"{FINE}So.", "", NOTICE]


BEGUN = [event("response.created", response=START)]
MESSAGE = {"type": "message", "id": "m", "role": "assistant", "content": []}
OPEN = [*BEGUN, event("response.output_item.added", output_index=0, item=MESSAGE)]
CALLING = [*BEGUN, event("response.output_item.added", output_index=0, item={**call().final, "status": "x"})]


@pytest.mark.parametrize(
    "frames",
    [
        [event("response.thought", text="HARM")],
        [event("response.thought", output_index=0, text="HARM")],
        [b'event: response.created\ndata: {"type":"error","message":"HARM"}\n\n'],
        [b'data: {"text":"HARM"}\n\n'],
        [b"data: {HARM\n\n"],
        [event("response.created", response="HARM")],
        [event("response.created", response={"output": "HARM"})],
        [event("response.output_item.added", output_index=0, item=message("HARM").final)],
        [*BEGUN, event("response.output_item.added", output_index="HARM", item=MESSAGE)],
        [*BEGUN, event("response.output_item.added", output_index=0, item="HARM")],
        [*BEGUN, event("response.output_text.delta", output_index=0, content_index=0, delta="HARM")],
        [*OPEN, event("response.output_item.added", output_index=0, item=MESSAGE)],
        [*OPEN, event("response.output_item.done", output_index=0, item=call("HARM").final)],
        [*OPEN, event("response.output_text.delta", output_index=0, content_index=0, delta=["HARM"])],
        [*OPEN, event("response.output_text.delta", output_index=0, content_index="HARM", delta="x")],
        [*OPEN, event("response.thought.delta", output_index=0, delta="HARM")],
        [*OPEN, event("response.content_part.added", output_index=0, part={"type": "output_audio"})],
        [*OPEN, event("response.content_part.added", output_index=0, part=["HARM"])],
        [*OPEN, event("response.content_part.added", output_index=0, part=None)],
        [*OPEN, event("response.output_text.delta", output_index=0, delta="x", item=[1])],
        [*OPEN, b'data: {"type":"response.x\\n\\ndata: HARM","output_index":0}\n\n'],
        [*OPEN, b'data: {"type":"response.\\ud800","output_index":0}\n\n'],
        [event("response.audio.transcript.delta", delta="HARM")],
        [event("response.created", response=START, note="HARM")],
        [event("error", message="No.", output="HARM")],
        [*OPEN, event("response.output_text.delta", output_index=0, content_index=0, delta="x", note="HARM")],
        [*OPEN, event("response.output_text.done", output_index=0, content_index=0, text="x", note=["HARM"])],
        [*CALLING, event("response.function_call_arguments.delta", output_index=0, delta="x", note="HARM")],
        [*BEGUN, event("response.output_item.added", output_index=0, item={"type": "image_generation_call"})],
        [*CALLING, event("response.output_item.added", output_index=1, item=MESSAGE)],
    ],
)
def test_what_cannot_be_read_raises_and_never_leaves(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        read(ResponseStream(), frames)
    out, report = guarded(frames, codec=ResponseStream())
    assert report.aborted is not None
    assert report.aborted.cause == "source"
    assert b"HARM" not in out
    assert said(out)[-1] == ("message", report.aborted.notice)


# -- what is said twice ------------------------------------------------------------------------------

REPEATS = {
    "text": lambda one: {"text": "Fine. HARM."} if "text" in one else None,
    "refusal": lambda one: {"refusal": "HARM."} if "refusal" in one else None,
    "part": lambda one: {"part": {**one["part"], "text": "HARM."}} if "part" in one else None,
    "another part": lambda one: {"part": {"type": "secret", "idea": "HARM."}} if "part" in one else None,
    "arguments": lambda one: {"arguments": "HARM"} if "arguments" in one else None,
    "item": lambda one: {"item": {**one["item"], "note": "HARM"}} if "item" in one else None,
    "response": lambda one: {"response": {**one["response"], "x": "HARM"}} if "response" in one else None,
    "output": lambda one: (
        {"response": {**one["response"], "output": [message("HARM").final]}}
        if one["type"] == "response.completed"
        else None
    ),
    "a call in the output": lambda one: (
        {"response": {**one["response"], "output": [*one["response"]["output"][:3], call("HARM").final]}}
        if one["type"] == "response.completed"
        else None
    ),
    "annotation": lambda one: (
        {"part": {**one["part"], "annotations": [{"type": "url_citation", "said": "HARM"}]}}
        if "part" in one
        else None
    ),
}
ALL = (thinking("Fine."), summary(["Fine."], id_="rs_2"), message("Fine."), call('{"to": "you"}'))


@pytest.mark.parametrize("rule", [Rule(), REDACT], ids=["abort", "redact"])
@pytest.mark.parametrize("lie", REPEATS.values(), ids=REPEATS.keys())
def test_a_repeat_that_says_something_else_is_judged(lie: Any, rule: Rule) -> None:
    frames = frames_of(*ALL, message("No.", id_="msg_2", refusal=True))
    tried = 0
    for place, raw in enumerate(frames):
        (one,) = bodies_in(raw)
        if (changed := lie(one)) is None:
            continue
        tried += 1
        lying = event(type_=one["type"], **{k: v for k, v in {**one, **changed}.items() if k != "type"})
        by = guard(reasoning=rule, answer=rule, tool_call=rule)
        out, report = guarded([*frames[:place], lying, *frames[place + 1 :]], by, ResponseStream())
        assert b"HARM" not in out
        assert report.level == 1.0
        assert (report.aborted is not None) is (rule is not REDACT)
        if rule is not REDACT:
            said(out)
    assert tried


# What the client is told beside the model's text.
TOLD = {"id", "type", "object", "status", "model", "instructions", "tool_choice", "format", "role"}
TOLD |= {"item_id", "call_id", "encrypted_content"}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where there are texts."""
    if isinstance(value, str):
        return [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, one in inner if key not in TOLD for found in places(one, (*path, key))]


@given(ITEMS, st.data(), st.sampled_from([Rule(), REDACT]), st.booleans())
def test_a_lie_leaves_nowhere(items: list[Item], data: st.DataObject, rule: Rule, whole: bool) -> None:
    bodies = bodies_in(b"".join(frames_of(*items)))
    body = data.draw(st.sampled_from(bodies))
    *way, last = data.draw(st.sampled_from([*places(body), ("unheard-of",)]))
    holder: Any = body
    for key in way:
        holder = holder[key]
    holder[last] = data.draw(st.sampled_from(["HARM", {"so": ["HARM"]}, f"HARM{holder.get(last)}"]))
    by = guard(reasoning=rule, answer=rule, tool_call=rule)
    frames = [event(one["type"], **{k: v for k, v in one.items() if k != "type"}) for one in bodies]
    out, report = guarded(frames, by, ResponseStream(whole_thoughts=whole))
    assert b"HARM" not in out
    assert report.aborted is not None or rule is REDACT


def test_a_harmless_repeat_that_says_more_passes() -> None:
    frames = frames_of(message("Fine."))
    longer = frames_of(message("Fine.", " And more."))[-1]
    out, report = guarded([*frames[:-1], longer], codec=ResponseStream())
    assert out == b"".join([*frames[:-1], longer])
    assert report.answer.judged == len("Fine. And more.")


def test_what_was_refused_of_a_call_is_so_when_it_is_said_again() -> None:
    frames = frames_of(call("{}"), message("Well."))
    lie = event("response.output_item.done", output_index=0, item=call("HARM").final)
    out, report = guarded([*frames[:-1], lie, lie, frames[-1]], guard(tool_call=REDACT), ResponseStream())
    assert report.aborted is None
    done = [one["item"] for one in bodies_in(out) if one["type"] == "response.output_item.done"]
    calls = [item["arguments"] for item in done if item["type"] == "function_call"]
    assert calls == ["{}"]


def test_texts_without_deltas_are_judged() -> None:
    item = message("It is HARM.")
    item.bodies = [item.bodies[0], item.bodies[-1]]
    out, report = guarded(frames_of(item), codec=ResponseStream())
    assert report.aborted is not None
    assert b"HARM" not in out


# -- redactions --------------------------------------------------------------------------------------


def test_a_redacted_text_is_so_wherever_it_is_said() -> None:
    frames = frames_of(thinking(FINE, "A HARM."), message("Well. " + FINE, "Not HARM. ", "It is so."))
    out, report = guarded(frames, guard(**EVERYWHERE), ResponseStream())
    assert said(out) == [
        ("reasoning", FINE.rstrip() + NOTICE),
        ("message", ("Well. " + FINE).rstrip() + NOTICE),
    ]
    assert report.aborted is None


@pytest.mark.parametrize("whole", [True, False])
def test_a_thought_with_its_encrypted_form_is_left_out_or_loses_it(whole: bool) -> None:
    items = [message("Hm."), thinking(FINE, "A HARM.", **SEALED), message("Last.", id_="msg_2")]
    out, report = guarded(frames_of(*items), guard(**EVERYWHERE), ResponseStream(whole_thoughts=whole))
    thought = ("message", NOTICE) if whole else ("reasoning", FINE.rstrip() + NOTICE)
    assert said(out) == [("message", "Hm."), thought, ("message", "Last.")]
    assert report.aborted is None
    assert "AAAA" not in json.dumps(bodies_in(out)[-1])


def test_what_is_kept_of_a_thought_that_never_ends_leaves_in_the_end() -> None:
    frames = frames_of(thinking("Fine.", **SEALED))[:-2]
    assert guarded(frames, codec=ResponseStream())[0] == b"".join(frames)


def test_calls_behind_a_redaction_are_refused() -> None:
    items = [thinking("HARM."), call('{"to": "you"}'), call("{}", id_="fc_2"), message("Well.")]
    out, _ = guarded(frames_of(*items), guard(reasoning=REDACT), ResponseStream())
    assert said(out) == [("reasoning", NOTICE), ("message", NOTICE), ("message", "Well.")]


# -- endings -----------------------------------------------------------------------------------------


def test_a_harmful_call_leaves_nothing_of_itself() -> None:
    out, _ = guarded(frames_of(thinking("I send."), call('{"to": ', '"HARM"}')), codec=ResponseStream())
    assert said(out) == [("reasoning", "I send."), ("message", NOTICE)]
    assert b"fc_1" not in out


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("more", [{}, SEALED])
def test_an_ending_closes_what_is_open(whole: bool, more: dict[str, str]) -> None:
    codec = ResponseStream(whole_thoughts=whole)
    out, _ = guarded(frames_of(thinking(FINE, "Not HARM.", **more), message("x")), codec=codec)
    expected = [] if whole and more else [("reasoning", FINE.rstrip())]
    assert said(out) == [*expected, ("message", NOTICE)]
    final = bodies_in(out)[-1]["response"]
    assert (final["id"], final["status"], final["instructions"]) == ("resp_1", "completed", "Be kind.")
    assert final["output"][-1]["content"] == [{"type": "refusal", "refusal": NOTICE}]
    assert "AAAA" not in json.dumps(final)


@pytest.mark.parametrize("part", [{"type": ["output_text"]}, {"type": "idea"}, {}])
def test_a_part_that_nobody_knows_is_not_closed(part: dict[str, Any]) -> None:
    frames = [*OPEN, event("response.content_part.added", output_index=0, content_index=0, part=part)]
    out, _ = guarded([*frames, b"data: nonsense\n\n"], codec=ResponseStream())
    assert out.startswith(b"".join(frames))
    (item, notice) = bodies_in(out)[-1]["response"]["output"]
    assert (item["content"], text_of(notice)) == ([part], guard().policy.failure_notice)
    assert b"response.content_part.done" not in out.partition(b"msg_shieldguard")[0]


@pytest.mark.parametrize("index", [{}, {"content_index": [1], "summary_index": [1]}])
def test_what_begins_no_known_part_passes(index: dict[str, Any]) -> None:
    frames = [*OPEN, event("response.idea.added", output_index=0, part={}, **index)]
    assert guarded(frames, codec=ResponseStream())[0] == b"".join(frames)


@pytest.mark.parametrize("item", [None, {}])
def test_an_item_where_none_belongs_is_no_part_of_a_thought(item: Any) -> None:
    frames = [
        event(one.pop("type"), **one, **({"item": item} if "delta" in one else {}))
        for one in bodies_in(b"".join(frames_of(thinking("A HARM.", "More."), message("Well."))))
    ]
    out, report = guarded(frames, guard(reasoning=REDACT), ResponseStream())
    assert said(out) == [("reasoning", NOTICE), ("message", "Well.")]
    assert report.aborted is None


def test_an_ending_before_all_else_begins_the_response() -> None:
    out, _ = guarded([b"data: nonsense\n\n"], codec=ResponseStream())
    assert said(out) == [("message", guard().policy.failure_notice)]


def test_nothing_follows_the_end() -> None:
    frames = frames_of(message("Fine."))
    out, report = guarded([*frames, b"data: nonsense\n\n"], codec=ResponseStream())
    assert out == b"".join(frames)
    assert report.aborted is not None


def test_an_ending_as_of_a_content_filter() -> None:
    codec = ResponseStream(termination=Termination.CONTENT_FILTER)
    out, _ = guarded(frames_of(thinking("HARM.")), codec=codec)
    final = bodies_in(out)[-1]
    assert final["type"] == "response.incomplete"
    assert final["response"]["incomplete_details"] == {"reason": "content_filter"}
    assert text_of(final["response"]["output"][-1]) == NOTICE


def test_an_ending_in_error() -> None:
    codec = ResponseStream(termination=Termination.ERROR)
    out, _ = guarded(frames_of(thinking("HARM.")), codec=codec)
    error = bodies_in(out)[-1]
    assert (error["type"], error["code"], error["message"]) == ("error", "risk", NOTICE)


@pytest.mark.parametrize("termination", [Termination.REFUSAL, Termination.CONTENT_FILTER])
def test_output_to_be_parsed_is_taken_back(termination: Termination) -> None:
    frames = frames_of(message('{"a": "' + FINE, 'HARM"}'))
    codec = ResponseStream(strict_output=True, termination=termination)
    out, _ = guarded(frames, codec=codec, redactable=False)
    (item,) = bodies_in(out)[-1]["response"]["output"]
    refusal = [{"type": "refusal", "refusal": NOTICE}]
    assert item["content"] == (refusal if termination is Termination.REFUSAL else [])
    assert not any(one["type"] == "response.output_text.done" for one in bodies_in(out))
