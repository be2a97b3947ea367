"""The real Anthropic SDK, guarded: each of its ways to ask, in each way a message can go."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("anthropic")

import anthropic
import pydantic

from shieldguard import Action, Ended, Guard, JudgeError, Rule, StreamReport, UnguardedClient
from shieldguard_adapters.clients import assert_guarded, guard_client, report_of
from tests.clients.rig import PROGRAMS, guard, reasoning, run_async
from tests.upstream import Script, Upstream
from tests.wire.messages import body, delta, message, start, stop, text, thinking, tool

# What older SDKs say of a name that newer ones have kept.
pytestmark = pytest.mark.filterwarnings("ignore:The 'output_format' parameter:DeprecationWarning")

WAYS = [
    "create",
    "helper",
    "raw response",
    "streaming response",
    "whole",
    "whole streaming response",
    "beta create",
    "beta helper",
    "beta whole",
]
THOUGHT = reasoning()
ANSWER = ["All is well. ", "It really is."]
REQUEST: dict[str, Any] = {
    "model": "m",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "What do you think?"}],
}


@dataclass
class Outcome:
    thought: str
    signature: str
    text: str
    calls: int
    stop_reason: str | None
    report: StreamReport


def _read(events: list[Any], report: StreamReport) -> Outcome:
    """What a caller who adds the events up has."""
    out = Outcome("", "", "", 0, None, report)
    for event in events:
        if event.type == "content_block_delta":
            out.thought += getattr(event.delta, "thinking", "")
            out.signature += getattr(event.delta, "signature", "")
            out.text += getattr(event.delta, "text", "")
        elif event.type == "content_block_start":
            out.calls += event.content_block.type == "tool_use"
        elif event.type == "message_delta":
            out.stop_reason = event.delta.stop_reason
    return out


def _whole(message: Any, report: StreamReport) -> Outcome:
    out = Outcome("", "", "", 0, message.stop_reason, report)
    for block in message.content:
        out.thought += getattr(block, "thinking", "")
        out.signature += getattr(block, "signature", "")
        out.text += getattr(block, "text", "")
        out.calls += block.type == "tool_use"
    return out


def ask(program: str, way: str, upstream: Upstream, by: Guard) -> Outcome:
    if program == "sync":
        with anthropic.Anthropic(base_url=_base(upstream), api_key="none", max_retries=0) as client:
            return _ask(_messages(guard_client(client, by), way), way.removeprefix("beta "))

    async def main() -> Outcome:
        async with anthropic.AsyncAnthropic(
            base_url=_base(upstream), api_key="none", max_retries=0
        ) as client:
            return await _ask_async(_messages(guard_client(client, by), way), way.removeprefix("beta "))

    return run_async(program, main)


def _messages(client: Any, way: str) -> Any:
    return client.beta.messages if way.startswith("beta") else client.messages


def _base(upstream: Upstream) -> str:
    return upstream.url.removesuffix("/v1")


def _ask(messages: Any, way: str) -> Outcome:
    if way == "whole":
        raw = messages.with_raw_response.create(**REQUEST)
        return _whole(raw.parse(), report_of(raw))
    if way == "whole streaming response":
        with messages.with_streaming_response.create(**REQUEST) as response:
            return _whole(response.parse(), report_of(response))
    if way == "streaming response":
        with messages.with_streaming_response.create(**REQUEST, stream=True) as response:
            return _read(list(response.parse()), report_of(response))
    if way == "helper":
        with messages.stream(**REQUEST) as helper:
            return _whole(helper.get_final_message(), report_of(helper.response))
    if way == "raw response":
        raw = messages.with_raw_response.create(**REQUEST, stream=True)
        return _read(list(raw.parse()), report_of(raw))
    stream = messages.create(**REQUEST, stream=True)
    events = list(stream)
    return _read(events, report_of(stream))


async def _ask_async(messages: Any, way: str) -> Outcome:
    if way == "whole":
        raw = await messages.with_raw_response.create(**REQUEST)
        return _whole(await _parsed(raw), report_of(raw))
    if way == "whole streaming response":
        async with messages.with_streaming_response.create(**REQUEST) as response:
            return _whole(await _parsed(response), report_of(response))
    if way == "streaming response":
        async with messages.with_streaming_response.create(**REQUEST, stream=True) as response:
            stream = await _parsed(response)
            return _read([event async for event in stream], report_of(response))
    if way == "helper":
        async with messages.stream(**REQUEST) as helper:
            return _whole(await helper.get_final_message(), report_of(helper.response))
    if way == "raw response":
        raw = await messages.with_raw_response.create(**REQUEST, stream=True)
        stream = await _parsed(raw)
        events = [event async for event in stream]
        return _read(events, report_of(raw))
    stream = await messages.create(**REQUEST, stream=True)
    events = [event async for event in stream]
    return _read(events, report_of(stream))


async def _parsed(raw: Any) -> Any:
    parsed = raw.parse()
    return await parsed if hasattr(parsed, "__await__") else parsed


def play(upstream: Upstream, way: str, thought: list[str], answer: list[str], *calls: str) -> None:
    if "whole" in way:
        blocks: list[dict[str, Any]] = [
            {"type": "thinking", "thinking": "".join(thought), "signature": "c2ln"},
            {"type": "text", "text": "".join(answer)},
        ]
        blocks += [{"type": "tool_use", "id": "t", "name": "send", "input": {"to": call}} for call in calls]
        upstream.play(Script([body(*blocks)], content_type="application/json"))
        return
    tools = [tool(number, f'{{"to": "{call}"}}') for number, call in enumerate(calls, 2)]
    upstream.play(Script(message(thinking(0, *thought), text(1, *answer), *tools)))


each_way = pytest.mark.parametrize("way", WAYS)
each_program = pytest.mark.parametrize("program", PROGRAMS)


@each_way
@each_program
def test_a_harmless_message_passes(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, ANSWER, "a friend")
    out = ask(program, way, upstream, guard())
    assert (out.thought, out.signature, out.text) == ("".join(THOUGHT), "c2ln", "".join(ANSWER))
    assert (out.calls, out.stop_reason, out.report.ended) == (1, "end_turn", Ended.COMPLETE)
    assert out.report.query == "What do you think?"


@pytest.mark.parametrize("harm_in", [0, 4], ids=["before any text", "in mid-reasoning"])
@each_way
@each_program
def test_a_harmful_thought_ends_it(program: str, way: str, harm_in: int, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=harm_in), ANSWER, "a friend")
    out = ask(program, way, upstream, guard())
    aborted = out.report.aborted
    assert aborted is not None
    assert (out.text, out.stop_reason, out.calls) == (aborted.notice, "refusal", 0)
    assert "HARM" not in out.thought
    assert bool(out.thought) is (harm_in > 0 and "whole" not in way)


@each_way
@each_program
def test_a_harmful_answer_ends_it(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, reasoning(harm_in=3))
    out = ask(program, way, upstream, guard())
    assert out.report.aborted is not None
    assert out.stop_reason == "refusal"
    assert "HARM" not in out.text
    assert out.text.endswith(out.report.aborted.notice)


@each_way
@each_program
def test_a_redacted_thought_goes_whole_with_its_signature(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=4), ANSWER, "a friend")
    out = ask(program, way, upstream, guard(reasoning=Rule(harmful=Action.REDACT)))
    assert (out.thought, out.signature, out.calls) == ("", "", 0)
    assert out.text.startswith("[Withheld")
    assert out.text.endswith("".join(ANSWER))
    assert (out.stop_reason, out.report.ended) == ("end_turn", Ended.COMPLETE)


@each_way
@each_program
def test_a_judge_that_fails_ends_it(program: str, way: str, upstream: Upstream) -> None:
    def fail(window: object) -> JudgeError:
        return JudgeError("no verdict today")

    play(upstream, way, THOUGHT, ANSWER)
    out = ask(program, way, upstream, guard(fail))
    assert out.report.aborted is not None
    assert (out.report.aborted.cause, out.stop_reason, out.thought) == ("judge_failure", "refusal", "")


@pytest.mark.parametrize("harm_in", [None, 0])
def test_output_to_be_parsed_gets_no_notice(harm_in: int | None, upstream: Upstream) -> None:
    upstream.play(Script(message(thinking(0, *reasoning(harm_in=harm_in)), text(1, '{"num', 'ber": 7}'))))
    with anthropic.Anthropic(base_url=_base(upstream), api_key="none") as client:
        guard_client(client, guard())
        with client.messages.stream(**REQUEST, output_format=Number) as helper:
            final = helper.get_final_message()
    if harm_in is None:
        assert final.parsed_output == Number(number=7)
    else:
        assert final.stop_reason == "refusal"
        assert [block.type for block in final.content] == ["thinking"]


class Number(pydantic.BaseModel):
    number: int


@pytest.mark.parametrize("beta", [False, True])
@pytest.mark.parametrize("harmful", [False, True])
@each_program
def test_parse_gives_the_object_or_a_refusal(
    program: str, harmful: bool, beta: bool, upstream: Upstream
) -> None:
    thought = {"type": "thinking", "thinking": "HARM" if harmful else "calm", "signature": "c2ln"}
    data = body(thought, {"type": "text", "text": '{"number": 7}'})
    upstream.play(Script([data], content_type="application/json"))

    def sync_main() -> Any:
        with anthropic.Anthropic(base_url=_base(upstream), api_key="none") as client:
            guard_client(client, guard())
            return (client.beta.messages if beta else client.messages).parse(**REQUEST, output_format=Number)

    async def main() -> Any:
        async with anthropic.AsyncAnthropic(base_url=_base(upstream), api_key="none") as client:
            guard_client(client, guard())
            asked = client.beta.messages if beta else client.messages
            return await asked.parse(**REQUEST, output_format=Number)

    parsed = sync_main() if program == "sync" else run_async(program, main)
    assert parsed.parsed_output == (None if harmful else Number(number=7))
    assert parsed.stop_reason == ("refusal" if harmful else "end_turn")


SUMMARY = {"type": "compaction", "content": None, "encrypted_content": None}
HANDED_OVER = {
    "type": "fallback",
    "from": {"model": "m"},
    "to": {"model": "n"},
    "trigger": {"type": "refusal", "category": None},
}


@pytest.mark.parametrize("way", ["beta create", "beta helper"])
@pytest.mark.parametrize("harmful", [False, True])
def test_summaries_of_the_chat_and_other_models(harmful: bool, way: str, upstream: Upstream) -> None:
    summary = " ".join(["The user asked for bread."] * 40) + (" HARM" if harmful else "")
    frames = message(
        [start(0, SUMMARY), delta(0, "compaction_delta", content=summary, encrypted_content="AA"), stop(0)],
        text(1, "Well. "),
        [start(2, HANDED_OVER), stop(2)],
        text(3, *ANSWER),
    )
    upstream.play(Script(frames))
    with anthropic.Anthropic(base_url=_base(upstream), api_key="none") as client:
        messages = guard_client(client, guard()).beta.messages
        if way == "beta create":
            stream = messages.create(**REQUEST, stream=True)
            found = [event.delta for event in stream if event.type == "content_block_delta"]
            contents = [one.content for one in found if one.type == "compaction_delta"]
            said = "".join(one.text for one in found if one.type == "text_delta")
        else:
            with messages.stream(**REQUEST) as helper:
                blocks = helper.get_final_message().content
            contents = [one.content for one in blocks if one.type == "compaction"]
            said = "".join(one.text for one in blocks if one.type == "text")
    assert contents == ([] if harmful else [summary])
    assert said == (guard().policy.notice if harmful else "Well. " + "".join(ANSWER))


@each_program
def test_an_abort_can_end_as_an_error_of_the_sdks_own(program: str, upstream: Upstream) -> None:
    async def main() -> None:
        async with anthropic.AsyncAnthropic(base_url=_base(upstream), api_key="none") as client:
            guard_client(client, guard(), termination="error")
            play(upstream, "create", ["HARM"], ANSWER)
            with pytest.raises(anthropic.APIStatusError, match="safety check"):
                async for _ in await client.messages.create(**REQUEST, stream=True):
                    pass
            play(upstream, "whole", ["HARM"], ANSWER)
            with pytest.raises(anthropic.BadRequestError, match="safety check"):
                await client.messages.create(**REQUEST)

    def sync_main() -> None:
        with anthropic.Anthropic(base_url=_base(upstream), api_key="none") as client:
            guard_client(client, guard(), termination="error")
            play(upstream, "create", ["HARM"], ANSWER)
            with pytest.raises(anthropic.APIStatusError, match="safety check"):
                list(client.messages.create(**REQUEST, stream=True))
            play(upstream, "whole", ["HARM"], ANSWER)
            with pytest.raises(anthropic.BadRequestError, match="safety check"):
                client.messages.create(**REQUEST)

    sync_main() if program == "sync" else run_async(program, main)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "frames",
    [
        message([start(0, {"type": "idea"})]),
        message(thinking(0, *reasoning(harm_in=0))),
        message(thinking(0, *reasoning(harm_in=4))),
        message(text(0, "HARM")),
    ],
    ids=["before any block", "before any text", "in mid-reasoning", "in the answer"],
)
def test_a_refusal_of_ours_does_not_make_the_sdk_ask_another_model(
    frames: list[bytes], strict: bool, upstream: Upstream
) -> None:
    middleware = pytest.importorskip("anthropic.lib.middleware")
    again = middleware.BetaRefusalFallbackMiddleware([{"model": "other"}])
    upstream.play(Script(frames))
    more: dict[str, Any] = {"output_format": Number} if strict else {}
    with (
        anthropic.Anthropic(base_url=_base(upstream), api_key="none", middleware=[again]) as client,
        guard_client(client, guard()).beta.messages.stream(**REQUEST, **more) as helper,
    ):
        final = helper.get_final_message()
    assert final.stop_reason == "refusal"
    assert len(upstream.requests) == 1


def test_a_client_that_leaves_closes_the_upstream(upstream: Upstream) -> None:
    frames = message(thinking(0, *reasoning(sentences=200)), text(1, *ANSWER))
    upstream.play(Script(frames, delay=0.002))
    with anthropic.Anthropic(base_url=_base(upstream), api_key="none") as client:
        stream = guard_client(client, guard(instant=False)).messages.create(**REQUEST, stream=True)
        for _ in range(20):
            next(stream)
        stream.close()
        report = report_of(stream)
    assert upstream.finished.wait(20)
    assert upstream.sent < len(frames) / 2
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.judged == report.reasoning.seen > 0


REFUSED: dict[str, Callable[[Any], Any]] = {
    "batches": lambda client: client.messages.batches.list(),
    "legacy completions": lambda client: client.post("/v1/complete", cast_to=object),
    "a prediction of Vertex": lambda client: client.post(
        "/v1/projects/p/locations/l/publishers/anthropic/models/c:streamRawPredict", cast_to=object
    ),
    "chat completions": lambda client: client.post("/v1/chat/completions", cast_to=object),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_what_would_come_unguarded_is_not_sent(call: Any, upstream: Upstream) -> None:
    upstream.play(Script([]))
    with anthropic.Anthropic(base_url=_base(upstream), api_key="none") as client:
        guard_client(client, guard())
        assert_guarded(client.with_options(timeout=5))
        with pytest.raises(UnguardedClient, match="was not sent") as raised:
            call(client)
    assert isinstance(raised.value, anthropic.AnthropicError)
    assert upstream.requests == []


def test_a_model_asked_by_its_own_path_is_not_asked(upstream: Upstream) -> None:
    """The path says "models", and is not one that lists them."""
    upstream.play(Script(message(text(0, "HARM"))))
    with anthropic.AnthropicVertex(
        base_url=_base(upstream), region="r", project_id="p", access_token="none"
    ) as client:
        guard_client(client, guard())
        with pytest.raises(UnguardedClient, match="was not sent"):
            client.messages.create(**REQUEST, stream=True)
    assert upstream.requests == []


def test_a_content_type_that_is_not_known_is_not_read(upstream: Upstream) -> None:
    upstream.play(Script([b"HARM"], content_type="application/vnd.amazon.eventstream"))
    with anthropic.Anthropic(base_url=_base(upstream), api_key="none") as client:
        guard_client(client, guard())
        with pytest.raises(anthropic.AnthropicError, match="content type"):
            client.messages.create(**REQUEST, stream=True)
    assert len(upstream.requests) == 1
