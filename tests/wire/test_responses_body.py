"""OpenAI responses in one piece, and what is asked."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shieldguard import Action, End, Opaque, OpaqueKind, Passthrough, Rule, WireError, history
from shieldguard_adapters.wire import Termination
from shieldguard_adapters.wire.openai_responses import (
    ResponseBody,
    ResponseStream,
    read_request,
    read_stored_request,
)
from tests.wire.responses import (
    START,
    USAGE,
    Item,
    body,
    call,
    event,
    frames_of,
    message,
    summary,
    text_of,
    thinking,
    whole,
)
from tests.wire.rig import cut_at, guard, guarded, read, unjudged
from tests.wire.test_responses import ITEMS

REDACT = Rule(harmful=Action.REDACT)
EVERYWHERE: dict[str, Any] = {"reasoning": REDACT, "answer": REDACT, "tool_call": REDACT}
NOTICE = guard().policy.notice
SEALED = {"encrypted_content": "AAAA"}


@given(ITEMS, st.lists(st.integers(0, 9000), max_size=8))
def test_a_harmless_body_leaves_as_it_came(items: list[Item], cuts: list[int]) -> None:
    data = body(*items)
    assert guarded(cut_at(data, cuts), guard({}), ResponseBody())[0] == data


@given(ITEMS, st.sampled_from([Rule(), REDACT]))
def test_nothing_harmful_leaves(items: list[Item], rule: Rule) -> None:
    by = guard({"ab": 1.0}, reasoning=rule, answer=rule, tool_call=rule)
    out, report = guarded([body(*items)], by, ResponseBody())
    response = json.loads(out)
    assert "ab" not in json.dumps(response["output"])
    assert (report.aborted is not None) is (report.level == 1.0 and rule is not REDACT)
    assert response["usage"] == USAGE


def test_hidden_reasoning_is_told() -> None:
    hidden = {"type": "reasoning", "id": "r", "summary": []}
    items = [Item(hidden, {}), summary(["x"], id_="s"), thinking("y", id_="t", **SEALED)]
    kinds = [one.kind for one in read(ResponseBody(), [body(*items)]) if isinstance(one, Opaque)]
    assert kinds == [OpaqueKind.HIDDEN, OpaqueKind.SUMMARISED, OpaqueKind.ENCRYPTED]


def test_a_redacted_body_keeps_the_rest() -> None:
    items = [
        thinking("A HARM.", **SEALED),
        summary(["Then HARM."], id_="rs_2"),
        message("Well. Fine."),
        call("{}"),
    ]
    out = json.loads(guarded([body(*items)], guard(**EVERYWHERE), ResponseBody())[0])
    told = [(item["type"], text_of(item)) for item in out["output"]]
    assert told == [("message", NOTICE), ("reasoning", NOTICE), ("message", "Well. Fine.")]


def test_a_refused_call_leaves_a_notice() -> None:
    items = [message("Look:"), call("HARM"), call("{}", id_="fc_2")]
    out = json.loads(guarded([body(*items)], guard(tool_call=REDACT), ResponseBody())[0])
    assert [(item["type"], text_of(item)) for item in out["output"]] == [
        ("message", "Look:"),
        ("message", NOTICE),
    ]


def test_text_in_a_field_nobody_knows_is_judged() -> None:
    data = body(message("Fine."), output_text="HARM")
    out, report = guarded([data], codec=ResponseBody())
    assert report.aborted is not None
    assert b"HARM" not in out
    out, report = guarded([data], guard(answer=REDACT), ResponseBody())
    assert json.loads(out)["output_text"] == NOTICE


def test_what_is_no_text_of_a_response_is_text_deeper_in_it() -> None:
    data = body(message("Fine."), said=[{"type": "output_text", "text": "HARM"}])
    out, report = guarded([data], codec=ResponseBody())
    assert report.aborted is not None
    assert b"HARM" not in out


@pytest.mark.parametrize(
    "item", [message("data:image/HARM"), call("data:image/HARM"), summary(["data:image/HARM"])]
)
def test_a_text_that_begins_as_an_image_is_judged(item: Item) -> None:
    out, report = guarded([body(item)], codec=ResponseBody())
    assert report.aborted is not None
    assert b"HARM" not in out


FAILED = {"code": "server_error", "message": "raw='HARM'"}


@pytest.mark.parametrize(
    "frame",
    [
        event("error", param=None, **FAILED),
        event("error", error=FAILED),
        event("response.failed", response=whole(status="failed", error=FAILED)),
    ],
)
def test_an_error_that_quotes_the_model_is_judged(frame: bytes) -> None:
    frames = [*frames_of(message("Fine."))[:5], frame]
    assert unjudged(ResponseStream(), frames) == b"".join(frames)
    assert b"HARM" not in guarded(frames, codec=ResponseStream())[0]
    out, report = guarded(frames, guard(answer=REDACT), ResponseStream())
    assert report.aborted is None
    assert b"HARM" not in out
    assert b"server_error" in out


@pytest.mark.parametrize("type_", [["x"], {"a": "x"}])
def test_a_type_that_is_no_text_raises_nothing_unknown(type_: Any) -> None:
    item = Item({"type": "function_call", "id": "f", "action": {"type": type_}}, {})
    assert guarded([body(item)], codec=ResponseBody())[1].aborted is None


ENDED: dict[Termination, Any] = {
    Termination.REFUSAL: ("completed", None, None, NOTICE),
    Termination.CONTENT_FILTER: ("incomplete", {"reason": "content_filter"}, None, NOTICE),
    Termination.ERROR: ("failed", None, {"code": "risk", "message": NOTICE}, ""),
}


@pytest.mark.parametrize(("termination", "expected"), ENDED.items())
def test_a_body_ends(termination: Termination, expected: Any) -> None:
    out, _ = guarded([body(thinking("HARM"))], codec=ResponseBody(termination=termination))
    response = json.loads(out)
    text = "".join(map(text_of, response["output"]))
    assert (response["status"], response["incomplete_details"], response["error"], text) == expected
    assert (response["id"], response["usage"]) == ("resp_1", USAGE)


@pytest.mark.parametrize("data", [b"HARM", b'{"output":"HARM"}', b'{"output":["HARM"]}'])
def test_a_body_that_cannot_be_read_ends_as_a_refusal(data: bytes) -> None:
    out, report = guarded([data], codec=ResponseBody())
    assert report.aborted is not None
    assert b"HARM" not in out
    assert json.loads(out)["output"][0]["content"] == [{"type": "refusal", "refusal": report.aborted.notice}]


def test_strict_output_of_a_content_filter_is_empty() -> None:
    codec = ResponseBody(termination=Termination.CONTENT_FILTER, strict_output=True)
    out, _ = guarded([body(message("HARM"))], codec=codec, redactable=False)
    assert json.loads(out)["output"] == []


def test_a_queued_or_deleted_response_says_nothing() -> None:
    for value in ({**START, "status": "queued"}, {"id": "resp_1", "object": "response", "deleted": True}):
        data = json.dumps(value).encode()
        assert guarded([data], codec=ResponseBody())[0] == data
        (end,) = read(ResponseBody(), [data])
        assert isinstance(end, End)
        assert not isinstance(end, Passthrough)


# -- the request -------------------------------------------------------------------------------------

CHAT: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "content": [{"type": "input_text", "text": "Why salt?"}, {"type": "input_image"}]},
    {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "c"},
    {"type": "function_call_output", "call_id": "c", "output": "Taste."},
    {"type": "item_reference", "id": "msg_1"},
]


def request(**more: Any) -> bytes:
    return json.dumps({"model": "m", **more}).encode()


def test_the_query_is_what_a_user_wrote_last() -> None:
    assert read_request(request(input="Why salt?")).query == "Why salt?"
    assert read_request(request(input=CHAT)).query == "Why salt?\n[input_image]"
    assert read_request(request()).query == ""
    asked = request(input=CHAT, instructions="Be short.", previous_response_id="resp_0")
    assert read_request(asked, history()).query.split("\n") == [
        "conversation: (history held by the server, not seen)",
        "system: Be short.",
        "developer: Be kind.",
        "user: Why salt?",
        "[input_image]",
        "reasoning: Hm.",
        "assistant: [function_call]",
        "tool: Taste.",
        "conversation: (history held by the server, not seen)",
    ]


def test_what_a_stored_response_answers_is_not_seen() -> None:
    assert read_stored_request(b"").query == ""
    assert read_stored_request(b"", history()).query.endswith("(history held by the server, not seen)")
    assert not read_stored_request(b"").redactable


@pytest.mark.parametrize(
    ("format_", "redactable"),
    [
        (None, True),
        ({"type": "text"}, True),
        ({}, True),
        ({"type": "json_object"}, False),
        ({"type": "json_schema", "name": "a", "schema": {}}, False),
    ],
)
def test_a_notice_has_no_place_in_formatted_output(format_: Any, redactable: bool) -> None:
    assert read_request(request(text={"format": format_})).redactable is redactable
    assert read_request(request()).redactable


@pytest.mark.parametrize("data", [b"", b"[]", b'{"input":{"a":1}}', b'{"input":["hi"]}'])
def test_a_request_that_cannot_be_read_raises(data: bytes) -> None:
    with pytest.raises(WireError):
        read_request(data)
