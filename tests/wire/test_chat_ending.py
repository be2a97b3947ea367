"""How an aborted response ends, streamed and whole, for each way to end."""

import json
from typing import Any

import pytest

from shieldguard import SizeWindower
from shieldguard_adapters.wire import Termination
from shieldguard_adapters.wire.openai_chat import ChatBody, ChatStream
from tests.upstream import DONE, completion
from tests.wire.rig import choices_in, chunks_in, frame, guard, guarded, text_in

NOTICE = "[withheld]"
ENDINGS = list(Termination)


def aborted(*frames: bytes, termination: Termination = Termination.REFUSAL) -> bytes:
    by = guard(windower=SizeWindower(size=8), notice=NOTICE)
    out, report = guarded(frames, by, ChatStream(termination=termination))
    assert report.aborted is not None
    assert b"HARM" not in out
    return out


def aborted_body(data: bytes, termination: Termination = Termination.REFUSAL) -> dict[str, Any]:
    out, report = guarded([data], guard(notice=NOTICE), ChatBody(termination=termination))
    assert report.aborted is not None
    assert b"HARM" not in out
    ending: dict[str, Any] = json.loads(out)
    return ending


def test_a_refusal_comes_with_content_in_one_delta_and_the_choice_stops() -> None:
    out = aborted(frame({"role": "assistant", "content": ""}), frame({"reasoning": "HARM"}))
    assert choices_in(out)[1:] == [
        {"index": 0, "delta": {"refusal": NOTICE, "content": NOTICE}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "stop"},
    ]
    assert out.endswith(DONE)


def test_a_content_filter_shows_the_notice_as_content() -> None:
    out = aborted(frame({"reasoning": "HARM"}), termination=Termination.CONTENT_FILTER)
    assert choices_in(out) == [
        {"index": 0, "delta": {"role": "assistant", "content": NOTICE}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "content_filter"},
    ]
    assert out.endswith(DONE)


def test_an_error_is_a_frame_with_an_error_and_nothing_more() -> None:
    out = aborted(frame({"reasoning": "HARM"}), termination=Termination.ERROR)
    assert chunks_in_error(out) == {"message": NOTICE, "type": "shieldguard", "code": "risk"}


def chunks_in_error(out: bytes) -> Any:
    assert out.count(b"\n\n") == 1
    return json.loads(out.removeprefix(b"data: "))["error"]


@pytest.mark.parametrize("termination", [Termination.REFUSAL, Termination.CONTENT_FILTER])
def test_the_ending_is_of_the_same_completion(termination: Termination) -> None:
    head = {"id": "chatcmpl-7", "created": 77, "model": "thinker"}
    out = aborted(frame({"reasoning": "HARM"}, head=head), termination=termination)
    for one in chunks_in(out):
        assert {**one, **head, "object": "chat.completion.chunk"} == one


@pytest.mark.parametrize("termination", ENDINGS)
def test_what_was_judged_before_stays_and_what_was_not_never_leaves(termination: Termination) -> None:
    frames = [
        frame({"reasoning": "all fine"}),
        frame({"reasoning": "not HARM"}),
        frame({"content": "The answer"}),
    ]
    out = aborted(*frames, termination=termination)
    assert out.startswith(frames[0])
    assert b"The answer" not in out


def test_every_choice_that_was_open_ends_and_one_that_had_ended_does_not_again() -> None:
    out = aborted(
        *(frame({"role": "assistant"}, index=index) for index in (0, 1, 2)),
        frame({"content": "all fine"}, index=1),
        frame({}, index=1, finish_reason="stop"),
        frame({"reasoning": "HARM"}, index=2),
    )
    ends = [choice["index"] for choice in choices_in(out) if choice["finish_reason"] == "stop"]
    assert sorted(ends) == [0, 1, 2]
    assert [text_in(out, choice=index) for index in (0, 1, 2)] == [NOTICE, "all fine", NOTICE]
    assert not any("role" in choice["delta"] for choice in choices_in(out)[4:])


def test_a_stream_that_never_began_still_ends_as_one() -> None:
    out, report = guarded([b"data: nonsense\n\n"])
    assert report.aborted is not None
    [first, last] = choices_in(out)
    assert first["delta"]["refusal"] == report.aborted.notice
    assert last["finish_reason"] == "stop"


def test_a_risk_in_the_tool_call_leaves_no_part_of_it() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "HARM"}}]}
    out = aborted(frame({"reasoning": "I send."}), frame(call), frame({}, finish_reason="tool_calls"))
    assert b"tool_calls" not in out
    assert choices_in(out)[-1]["finish_reason"] == "stop"


# -- in one piece ------------------------------------------------------------------------------------


def test_a_whole_completion_ends_as_a_refusal_with_its_usage() -> None:
    body = aborted_body(completion({"reasoning": "HARM", "content": "The answer"}))
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "refusal": NOTICE, "content": NOTICE},
            "finish_reason": "stop",
        }
    ]
    assert (body["id"], body["object"]) == ("chatcmpl-1", "chat.completion")
    assert body["usage"]["total_tokens"] == 14


def test_one_harmful_choice_withholds_all_of_a_whole_completion() -> None:
    body = aborted_body(completion({"content": "The answer"}, {"content": "HARM"}))
    assert [choice["message"]["content"] for choice in body["choices"]] == [NOTICE, NOTICE]
    assert [choice["index"] for choice in body["choices"]] == [0, 1]


def test_a_whole_completion_filtered() -> None:
    body = aborted_body(completion({"content": "HARM"}), Termination.CONTENT_FILTER)
    assert body["choices"][0]["message"] == {"role": "assistant", "refusal": None, "content": NOTICE}
    assert body["choices"][0]["finish_reason"] == "content_filter"


def test_a_whole_completion_in_error() -> None:
    body = aborted_body(completion({"content": "HARM"}), Termination.ERROR)
    assert body == {"error": {"message": NOTICE, "type": "shieldguard", "code": "risk"}}


@pytest.mark.parametrize("data", [b"not json", b"[]", b'{"choices":[1]}'])
def test_a_body_that_cannot_be_read_ends_as_a_refusal(data: bytes) -> None:
    out, report = guarded([data], codec=ChatBody())
    assert report.aborted is not None
    assert report.aborted.cause == "source"
    assert json.loads(out)["choices"][0]["message"]["refusal"] == report.aborted.notice
