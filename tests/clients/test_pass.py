"""Harmless responses pass as they are; what is redacted, and where a redaction has no place."""

import json
from typing import Any

import openai
import pydantic
import pytest

from shieldguard import Action, Ended, Rule
from shieldguard_adapters.clients import guard_client
from tests.clients.rig import PROGRAMS, QUESTION, STREAMED, ask, guard, raw_bytes, reasoning
from tests.upstream import DONE, USAGE, Script, Upstream, chat, chunk, completion

REDACT = Rule(harmful=Action.REDACT)
ANSWER = ["It is ", "fine."]
CALLS = [
    chunk(
        {
            "tool_calls": [
                {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
            ]
        }
    ),
    *(chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}) for part in ('{"a"', ": 1}")),
    chunk({}, finish_reason="tool_calls"),
    USAGE,
    DONE,
]


class Bill(pydantic.BaseModel):
    total: int


@pytest.mark.parametrize("instant", [True, False], ids=["judge in place", "judge on its loop"])
@pytest.mark.parametrize("delay", [0.0, 0.001], ids=["in a burst", "bit by bit"])
@pytest.mark.parametrize(
    "script",
    [
        chat(reasoning(), ANSWER),
        chat(reasoning(), ANSWER, field="reasoning"),
        chat(["<think>", *reasoning(sentences=2), "</thi"], ["nk>", *ANSWER], field="content"),
        [b": OPENROUTER PROCESSING\n\n", *chat(reasoning(sentences=2), [])[:-3], *CALLS],
        [raw.replace(b"\n\n", b"\r\n\r\n") for raw in chat(reasoning(sentences=2), ANSWER)],
        [b"".join(chat(reasoning(), ANSWER))],
    ],
    ids=["reasoning_content", "reasoning", "think tags", "tool call", "CRLF", "one piece"],
)
def test_harmless_streams_pass_byte_for_byte(
    script: list[bytes], delay: float, instant: bool, upstream: Upstream
) -> None:
    upstream.play(Script(script, delay=delay))
    assert raw_bytes(upstream, guard(instant=instant)) == raw_bytes(upstream, None) == b"".join(script)


@pytest.mark.parametrize("instant", [True, False], ids=["judge in place", "judge on its loop"])
def test_a_harmless_body_passes_byte_for_byte(instant: bool, upstream: Upstream) -> None:
    body = completion(
        {"reasoning_content": "".join(reasoning()), "content": "It is fine.", "extra": {"a": [1]}},
        {"reasoning_content": "", "content": "".join(reasoning())},
    )
    upstream.play(Script([body[:90], body[90:]], content_type="application/json"))
    by = guard(instant=instant)
    assert raw_bytes(upstream, by, stream=False) == raw_bytes(upstream, None, stream=False) == body


@pytest.mark.parametrize("way", [*STREAMED, "whole"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_way_to_ask_gets_what_an_unguarded_client_gets(
    program: str, way: str, upstream: Upstream
) -> None:
    if way == "whole":
        body = completion({"reasoning_content": "".join(reasoning()), "content": "".join(ANSWER)})
        upstream.play(Script([body], content_type="application/json"))
    else:
        upstream.play(Script(chat(reasoning(), ANSWER)))
    outcome, plain = ask(program, way, upstream, guard()), ask(program, way, upstream, None)
    assert outcome.account.ended is Ended.COMPLETE
    assert outcome.account.reasoning.judged == len("".join(reasoning()))
    outcome.report = None
    assert outcome == plain
    assert outcome.usage == 14


def test_the_judge_is_told_what_the_model_was_asked(upstream: Upstream) -> None:
    upstream.play(Script(chat(["A thought."], ANSWER)))
    by = guard()
    ask("sync", "create", upstream, by)
    assert {window.query for window in by.judge.windows} == {QUESTION[0]["content"]}  # type: ignore[attr-defined]


def test_the_query_can_be_made_otherwise(upstream: Upstream) -> None:
    upstream.play(Script(chat(["A thought."], ANSWER)))
    by = guard()
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, by, query_from=lambda messages: f"{len(messages)} messages", thinking="explicit")
        list(client.chat.completions.create(model="m", messages=QUESTION, stream=True))
    assert by.judge.windows[0].query == "1 messages"  # type: ignore[attr-defined]


# -- redaction ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_redacted_thought_shows_its_notice_once_and_the_safe_answer_follows(
    program: str, way: str, upstream: Upstream
) -> None:
    upstream.play(Script(chat(reasoning(harm_in=4), ANSWER)))
    outcome = ask(program, way, upstream, guard(reasoning=REDACT, notice="[gone]", join_after=60))
    assert outcome.account.aborted is None
    thought = outcome.reasoning[0]
    assert thought == "".join(reasoning(harm_in=4))[: len(thought) - len("[gone]")] + "[gone]"
    assert "Sentence 3" in thought
    assert "Sentence 4" not in thought
    assert (outcome.content[0], outcome.usage) == ("It is fine.", 14)


@pytest.mark.parametrize("way", STREAMED)
def test_tool_calls_after_a_redaction_are_refused(way: str, upstream: Upstream) -> None:
    upstream.play(Script([*chat(["HARM. "], [])[:-3], *CALLS]))
    outcome = ask("asyncio", way, upstream, guard(reasoning=REDACT, notice="[gone]"))
    assert outcome.tool_calls == 0
    assert (outcome.content[0], outcome.finish_reason[0]) == ("[gone]", "stop")


def test_tool_calls_wait_for_the_thought_and_come_whole(upstream: Upstream) -> None:
    upstream.play(Script([*chat(reasoning(sentences=2), [])[:-3], *CALLS], delay=0.002))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, guard(instant=False, delay=0.05))
        with client.chat.completions.stream(model="m", messages=QUESTION) as helper:
            completed = helper.get_final_completion()
    calls = completed.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.arguments == '{"a": 1}'
    assert completed.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("program", PROGRAMS)
def test_json_output_cannot_carry_a_notice_so_a_redaction_aborts(program: str, upstream: Upstream) -> None:
    upstream.play(Script(chat(["HARM. "], ['{"total":', " 7}"])))
    outcome = ask(
        program, "create", upstream, guard(reasoning=REDACT), response_format={"type": "json_object"}
    )
    assert outcome.account.aborted is not None
    assert outcome.content[0] == outcome.account.aborted.notice


# -- structured output -------------------------------------------------------------------------------


def parsed(upstream: Upstream) -> Any:
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, guard())
        completed = client.chat.completions.parse(model="m", messages=QUESTION, response_format=Bill)
    return completed.choices[0].message


def test_parse_gives_the_object_of_a_harmless_response(upstream: Upstream) -> None:
    upstream.play(Script([completion({"content": '{"total": 7}'})], content_type="application/json"))
    assert parsed(upstream).parsed == Bill(total=7)


def test_parse_gives_a_refusal_and_no_object_of_a_harmful_one(upstream: Upstream) -> None:
    body = completion({"reasoning_content": "HARM", "content": '{"total": 7}'})
    upstream.play(Script([body], content_type="application/json"))
    message = parsed(upstream)
    assert message.parsed is None
    assert message.refusal.startswith("[Withheld")


@pytest.mark.parametrize(("harmful", "in_the_middle"), [(False, False), (True, False), (True, True)])
def test_the_helper_does_not_raise_on_structured_output(
    harmful: bool, in_the_middle: bool, upstream: Upstream
) -> None:
    whole = json.dumps({"total": 7, "note": " ".join(["calm and quiet, as is right."] * 30)})
    mark = "HARM" if harmful else "calm"
    if in_the_middle:
        frames = chat([], [*(whole[at : at + 9] for at in range(0, 600, 9)), mark])[:-3]
    else:
        frames = chat([mark], [whole])[:-3]
    upstream.play(Script([*frames, chunk({}, finish_reason="stop"), DONE]))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, guard())
        with client.chat.completions.stream(model="m", messages=QUESTION, response_format=Bill) as helper:
            message = helper.get_final_completion().choices[0].message
    assert message.parsed == (None if harmful else Bill(total=7))
    assert bool(message.refusal) is harmful
