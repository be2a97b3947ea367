"""What a chat completion request says of what may follow."""

import json
from typing import Any

import pytest

from shieldguard import WireError, history
from shieldguard_adapters.wire.openai_chat import read_request

CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": None, "tool_calls": []},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is"},
            {"type": "image_url"},
            {"type": "text", "text": "it?"},
        ],
    },
    {"role": "tool", "content": "a picture"},
]


def body(**request: Any) -> bytes:
    return json.dumps({"messages": CHAT, **request}).encode()


def test_the_query_is_the_last_user_turn_with_its_parts() -> None:
    assert read_request(body()).query == "What is\n[image_url]\nit?"


def test_the_query_can_be_the_whole_chat() -> None:
    query = read_request(body(), history()).query
    assert query.startswith("system: Be kind.\nuser: Hello\nassistant: \nuser: What is")
    assert query.endswith("tool: a picture")


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_what_was_thought_is_part_of_the_chat(field: str) -> None:
    step = {"role": "assistant", "content": None, field: "Hm."}
    assert read_request(body(messages=[step]), history()).query == "reasoning: Hm.\nassistant: "


@pytest.mark.parametrize("request_", [{"messages": []}, {"messages": None}, {"messages": [{"role": "user"}]}])
def test_without_a_user_turn_there_is_no_query(request_: dict[str, Any]) -> None:
    assert read_request(body(**request_)).query == ""


@pytest.mark.parametrize(
    ("response_format", "redactable"),
    [
        (None, True),
        ({"type": "text"}, True),
        ({}, True),
        ({"type": "json_object"}, False),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}, False),
        ({"type": "grammar", "grammar": "root ::= 'a'"}, False),
    ],
)
def test_a_notice_has_no_place_in_formatted_output(response_format: Any, redactable: bool) -> None:
    assert read_request(body(response_format=response_format)).redactable is redactable


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"messages":{"a":1}}', b'{"messages":["hi"]}']
)
def test_a_request_that_cannot_be_read_raises(data: bytes) -> None:
    with pytest.raises(WireError):
        read_request(data)
