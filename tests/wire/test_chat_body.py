"""Chat completions in one piece."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shieldguard import Action, Answer, End, Passthrough, Reasoning, Rule, SizeWindower, ToolCall, WireError
from shieldguard_adapters.wire.openai_chat import ChatBody
from tests.upstream import completion
from tests.wire.rig import cut_at, guard, guarded, read, unjudged

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def redacted(data: bytes, size: int = 4) -> dict[str, Any]:
    by = guard(windower=SizeWindower(size=size), reasoning=Rule(harmful=Action.REDACT), notice="[gone]")
    out, report = guarded([data], by, ChatBody())
    assert report.aborted is None
    assert b"HARM" not in out
    body: dict[str, Any] = json.loads(out)
    return body


def test_a_message_gives_its_texts_in_order() -> None:
    data = completion({"reasoning_content": "x", "content": "y", "refusal": None, "tool_calls": [CALL]})
    assert read(ChatBody(), [data]) == [Reasoning("x"), Answer("y"), ToolCall("f {}"), End("stop")]


def test_inline_thinking_is_told_from_the_answer() -> None:
    events = read(ChatBody(), [completion({"content": "<think>x</think>y"})])
    assert [event for event in events if not isinstance(event, Passthrough)] == [
        Reasoning("x"),
        Answer("y"),
        End("stop"),
    ]


def test_a_body_without_choices_passes_through() -> None:
    assert guarded([b'{"object":"list"}'], codec=ChatBody())[0] == b'{"object":"list"}'


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["content", "reasoning", "thought"]), st.text(max_size=9)), max_size=3
    ),
    st.lists(st.integers(0, 9999), max_size=5),
)
@settings(deadline=None)
def test_what_is_released_whole_leaves_byte_for_byte(messages: list[dict[str, str]], cuts: list[int]) -> None:
    data = completion(*messages)
    assert unjudged(ChatBody(), cut_at(data, cuts)) == data
    assert guarded(cut_at(data, cuts), guard({}, windower=SizeWindower(size=2)), ChatBody())[0] == data


def test_redacted_reasoning_becomes_its_notice_and_the_safe_answer_stays() -> None:
    body = redacted(completion({"reasoning": "ok, HARM and more", "content": "The answer"}))
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "reasoning": "ok, [gone]",
        "content": "The answer",
    }
    assert body["usage"]["total_tokens"] == 14
    assert body["choices"][0]["finish_reason"] == "stop"


def test_tool_calls_are_refused_after_a_redaction() -> None:
    body = redacted(
        completion({"reasoning": "HARM", "content": None, "tool_calls": [CALL]}, finish_reason="tool_calls")
    )
    assert body["choices"][0]["message"] == {"role": "assistant", "reasoning": "[gone]", "content": "[gone]"}
    assert body["choices"][0]["finish_reason"] == "stop"


def test_what_repeats_the_message_does_not_leave() -> None:
    body = json.loads(completion({"content": "The answer"}))
    body["choices"][0]["text"] = "HARM"
    out, _ = guarded([json.dumps(body).encode()], codec=ChatBody())
    assert json.loads(out) == json.loads(completion({"content": "The answer"}))


def test_a_redaction_in_one_choice_leaves_the_others_alone() -> None:
    body = redacted(
        completion({"reasoning": "HARM", "content": "one"}, {"reasoning": "fine", "content": "two"})
    )
    assert [choice["message"].get("reasoning") for choice in body["choices"]] == ["[gone]", "fine"]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["one", "two"]


def test_redacted_inline_thinking_keeps_its_tags() -> None:
    body = redacted(completion({"content": "<think>ok, HARM</think>The answer"}))
    assert body["choices"][0]["message"]["content"] == "<think>ok, [gone]</think>The answer"


def test_a_body_over_its_limit_is_not_kept() -> None:
    codec = ChatBody(max_body=100)
    with pytest.raises(WireError, match="max_body=100"):
        read(codec, [b" " * 60, b" " * 60])


def test_sound_cannot_be_judged() -> None:
    with pytest.raises(WireError, match="audio"):
        read(ChatBody(), [completion({"audio": {"data": "UklGRg=="}})])
