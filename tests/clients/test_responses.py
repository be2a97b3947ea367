"""OpenAI's responses through the real SDK, guarded: each way to ask, in each way a response can go."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import openai
import pydantic
import pytest

from shieldguard import (
    AbortCause,
    Action,
    Ended,
    Guard,
    JudgeError,
    OpaqueKind,
    Rule,
    StreamReport,
    UnguardedClient,
)
from shieldguard_adapters.clients import guard_client, report_of
from shieldguard_adapters.wire.openai_responses import ResponseStream
from tests.clients.rig import PROGRAMS, guard, reasoning
from tests.upstream import Script, Upstream
from tests.wire.responses import (
    START,
    Item,
    bodies_in,
    body,
    call,
    event,
    frames_of,
    message,
    summary,
    thinking,
)

WAYS = ["create", "helper", "raw response", "streaming response", "whole", "parse"]
STREAMED = WAYS[:4]
THOUGHT = reasoning()
ANSWER = ["All is well. ", "It really is."]
QUESTION = "What do you think?"
REQUEST: dict[str, Any] = {"model": "m", "input": QUESTION}
REDACT = Rule(harmful=Action.REDACT)
JSON = "application/json"


@dataclass
class Outcome:
    """What a caller has who adds the deltas up, and of the response in the end."""

    thought: str = ""
    text: str = ""
    refusal: str = ""
    calls: list[str] = field(default_factory=list)
    status: str = ""
    usage: int | None = None
    report: StreamReport | None = None

    def event(self, one: Any) -> None:
        if one.type in ("response.completed", "response.incomplete", "response.failed"):
            deltas = (self.thought, self.text, self.refusal)
            self.response(one.response)
            assert deltas == (self.thought, self.text, self.refusal)
        elif one.type in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
            self.thought += one.delta
        elif one.type == "response.output_text.delta":
            self.text += one.delta
        elif one.type == "response.refusal.delta":
            self.refusal += one.delta

    def response(self, response: Any) -> None:
        self.thought = self.text = self.refusal = ""
        self.status = response.status
        self.usage = response.usage.total_tokens if response.usage else None
        for item in response.output:
            if item.type == "reasoning":
                self.thought += "".join(part.text for part in [*item.summary, *(item.content or [])])
            elif item.type == "message":
                self.text += "".join(getattr(part, "text", "") for part in item.content)
                self.refusal += "".join(getattr(part, "refusal", "") for part in item.content)
            elif item.type == "function_call":
                self.calls.append(item.arguments)

    @property
    def account(self) -> StreamReport:
        assert self.report is not None
        return self.report


def ask(program: str, way: str, upstream: Upstream, by: Guard, **options: Any) -> Outcome:
    settings: dict[str, Any] = {"base_url": upstream.url, "api_key": "none", "max_retries": 0}
    if program == "sync":
        with openai.OpenAI(**settings) as client:
            return _ask(guard_client(client, by, **options).responses, way)

    async def main() -> Outcome:
        async with openai.AsyncOpenAI(**settings) as client:
            return await _ask_async(guard_client(client, by, **options).responses, way)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Async generator '(openai|http)", ResourceWarning)
        return anyio.run(main, backend=program)


def _ask(responses: Any, way: str) -> Outcome:
    out = Outcome()
    if way == "helper":
        with responses.stream(**REQUEST) as helper:
            for one in helper:
                out.event(one)
            out.report = report_of(helper._response)
            final = Outcome(report=out.report)
            final.response(helper.get_final_response())
            assert final == out
    elif way == "raw response":
        raw = responses.with_raw_response.create(**REQUEST, stream=True)
        for one in raw.parse():
            out.event(one)
        out.report = report_of(raw)
    elif way == "streaming response":
        with responses.with_streaming_response.create(**REQUEST, stream=True) as response:
            for one in response.parse():
                out.event(one)
            out.report = report_of(response)
    elif way == "create":
        stream = responses.create(**REQUEST, stream=True)
        for one in stream:
            out.event(one)
        out.report = report_of(stream)
    else:
        raw = getattr(responses.with_raw_response, "create" if way == "whole" else "parse")(**REQUEST)
        out.response(raw.parse())
        out.report = report_of(raw)
    return out


async def _ask_async(responses: Any, way: str) -> Outcome:
    out = Outcome()
    if way == "helper":
        async with responses.stream(**REQUEST) as helper:
            async for one in helper:
                out.event(one)
            out.report = report_of(helper._response)
            final = Outcome(report=out.report)
            final.response(await helper.get_final_response())
            assert final == out
    elif way == "raw response":
        raw = await responses.with_raw_response.create(**REQUEST, stream=True)
        async for one in raw.parse():
            out.event(one)
        out.report = report_of(raw)
    elif way == "streaming response":
        async with responses.with_streaming_response.create(**REQUEST, stream=True) as response:
            async for one in await response.parse():
                out.event(one)
            out.report = report_of(response)
    elif way == "create":
        stream = await responses.create(**REQUEST, stream=True)
        async for one in stream:
            out.event(one)
        out.report = report_of(stream)
    else:
        asked = getattr(responses.with_raw_response, "create" if way == "whole" else "parse")
        raw = await asked(**REQUEST)
        out.response(raw.parse())
        out.report = report_of(raw)
    return out


def play(upstream: Upstream, way: str, *items: Item, **script: Any) -> None:
    if way in STREAMED:
        upstream.play(Script(frames_of(*items), **script))
    else:
        upstream.play(Script([body(*items)], content_type=JSON, **script))


each_way = pytest.mark.parametrize("way", WAYS)
each_program = pytest.mark.parametrize("program", PROGRAMS)


@pytest.mark.parametrize("instant", [True, False], ids=["judge in place", "judge on its loop"])
@each_way
@each_program
def test_a_harmless_response_passes(program: str, way: str, instant: bool, upstream: Upstream) -> None:
    play(upstream, way, thinking(*THOUGHT), message(*ANSWER), call('{"to":', ' "you"}'))
    out = ask(program, way, upstream, guard(instant=instant))
    assert (out.thought, out.text, out.refusal) == ("".join(THOUGHT), "".join(ANSWER), "")
    assert (out.calls, out.status, out.usage) == (['{"to": "you"}'], "completed", 14)
    assert (out.account.ended, out.account.query) == (Ended.COMPLETE, QUESTION)
    assert out.account.reasoning.judged == len("".join(THOUGHT))


@pytest.mark.parametrize("harm_in", [0, 4], ids=["before any text", "in mid-reasoning"])
@each_way
@each_program
def test_a_harmful_thought_ends_it(program: str, way: str, harm_in: int, upstream: Upstream) -> None:
    play(upstream, way, thinking(*reasoning(harm_in=harm_in)), message(*ANSWER), call("{}"))
    out = ask(program, way, upstream, guard())
    aborted = out.account.aborted
    assert aborted is not None
    assert (out.text, out.refusal, out.calls) == ("", aborted.notice, [])
    assert out.status == "completed"
    assert "HARM" not in out.thought
    assert bool(out.thought) is (harm_in > 0 and way in STREAMED)


@each_way
@each_program
def test_a_harmful_answer_ends_it(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, thinking(*THOUGHT), message(*reasoning(harm_in=3)))
    out = ask(program, way, upstream, guard())
    assert out.account.aborted is not None
    assert out.refusal == out.account.aborted.notice
    assert "HARM" not in out.text
    assert bool(out.text) is (way in STREAMED)


@pytest.mark.parametrize("sealed", [{}, {"encrypted_content": "AAAA"}], ids=["plain", "encrypted"])
@each_way
@each_program
def test_a_redacted_thought_shows_a_notice(
    program: str, way: str, sealed: dict[str, str], upstream: Upstream
) -> None:
    play(upstream, way, summary(reasoning(harm_in=4), **sealed), message(*ANSWER), call("{}"))
    out = ask(program, way, upstream, guard(reasoning=REDACT, notice="[gone]", join_after=60))
    assert out.account.aborted is None
    assert (out.calls, out.status, out.usage) == ([], "completed", 14)
    answer = "".join(ANSWER)
    if sealed:
        assert (out.thought, out.text) == ("", f"[gone]{answer}")
    else:
        assert out.thought.endswith("[gone]")
        assert "Sentence 3" in out.thought
        assert "Sentence 4" not in out.thought
        assert out.text == f"{answer}[gone]"  # of the call
    kinds = {OpaqueKind.SUMMARISED, OpaqueKind.ENCRYPTED} if sealed else {OpaqueKind.SUMMARISED}
    assert out.account.unobservable == kinds


@pytest.mark.parametrize("instant", [True, False])
@each_way
@each_program
def test_a_judge_that_fails_closes(program: str, way: str, instant: bool, upstream: Upstream) -> None:
    play(upstream, way, thinking(*THOUGHT), message(*ANSWER))
    out = ask(program, way, upstream, guard(lambda _: JudgeError("no verdict today"), instant=instant))
    assert out.account.aborted is not None
    assert out.account.aborted.cause is AbortCause.JUDGE_FAILURE
    assert (out.thought, out.text, out.refusal) == ("", "", out.account.aborted.notice)


@each_way
@each_program
def test_a_harmful_call_leaves_nothing_of_itself(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, thinking(*THOUGHT), call('{"to": ', '"HARM"}'), call("{}", id_="fc_2"))
    out = ask(program, way, upstream, guard())
    assert out.account.aborted is not None
    assert (out.calls, out.refusal) == ([], out.account.aborted.notice)


@pytest.mark.parametrize("way", STREAMED)
@each_program
def test_a_client_makes_nothing_of_a_keep_alive(program: str, way: str, upstream: Upstream) -> None:
    items = (thinking(*THOUGHT), message(*ANSWER), call("{}"))
    upstream.play(Script(frames_of(*items)))
    plain = ask(program, way, upstream, guard())
    codec = ResponseStream()
    upstream.play(Script([part for frame in frames_of(*items) for part in (codec.keep_alive(), frame)]))
    kept = ask(program, way, upstream, guard())
    assert kept.account.ended is Ended.COMPLETE
    plain.report = kept.report = None
    assert kept == plain


def raw_bytes(upstream: Upstream, by: Guard, *, stream: bool = True) -> bytes:
    with openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
        asked = guard_client(client, by).responses.with_streaming_response
        with asked.create(**REQUEST, stream=stream) as response:
            return b"".join(response.iter_bytes())


@pytest.mark.parametrize("delay", [0.0, 0.001], ids=["in a burst", "bit by bit"])
def test_harmless_bytes_leave_as_they_came(delay: float, upstream: Upstream) -> None:
    frames = frames_of(
        thinking(*THOUGHT), summary(["Hm. "], ["So."], id_="rs_2"), message(*ANSWER), call("{}")
    )
    upstream.play(Script([*frames, b"data: [DONE]\n\n"], delay=delay))
    assert raw_bytes(upstream, guard(instant=False)) == b"".join([*frames, b"data: [DONE]\n\n"])
    data = body(thinking(*THOUGHT), message(*ANSWER))
    upstream.play(Script([data[:80], data[80:]], content_type=JSON))
    assert raw_bytes(upstream, guard(), stream=False) == data


# -- other endings -----------------------------------------------------------------------------------


def test_an_abort_can_end_as_an_error_of_the_sdks_own(upstream: Upstream) -> None:
    play(upstream, "create", thinking(*reasoning(harm_in=0)))
    with pytest.raises(openai.APIError, match="safety check"):
        ask("sync", "create", upstream, guard(), termination="error")
    assert len(upstream.requests) == 1
    play(upstream, "whole", thinking(*reasoning(harm_in=0)))
    with pytest.raises(openai.BadRequestError, match="safety check"):
        ask("sync", "whole", upstream, guard(), termination="error")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("way", ["create", "raw response", "streaming response", "whole"])
@each_program
def test_an_abort_can_end_as_a_content_filter(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, thinking(*reasoning(harm_in=3)), message(*ANSWER))
    out = ask(program, way, upstream, guard(), termination="content_filter")
    assert out.account.aborted is not None
    assert (out.status, out.text, out.refusal) == ("incomplete", out.account.aborted.notice, "")


@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("count", [1, 3, 7, 40])
def test_a_frame_that_cannot_be_guarded_ends_as_a_refusal(way: str, count: int, upstream: Upstream) -> None:
    frames = frames_of(thinking("A thought."), message(*ANSWER), call("{}"))
    upstream.play(Script([*frames[:count], b"data: nonsense\n\n"]))
    out = ask("asyncio", way, upstream, guard())
    assert out.account.aborted is not None
    assert out.account.aborted.cause is AbortCause.SOURCE
    assert out.status == "completed"
    assert out.refusal == (out.account.aborted.notice if count < len(frames) else "")


# -- structured output -------------------------------------------------------------------------------


class Bill(pydantic.BaseModel):
    total: int
    note: str = ""


BILL = ['{"total":', ' 7, "note": "', *(" calm and quiet, as is right." for _ in range(30))]


@pytest.mark.parametrize("by", [guard(), guard(reasoning=REDACT, answer=REDACT)], ids=["abort", "redact"])
@pytest.mark.parametrize(("thought", "end"), [("Fine.", '"}'), ("HARM.", '"}'), ("Fine.", 'HARM"}')])
@pytest.mark.parametrize("way", ["helper", "parse"])
def test_output_to_be_parsed_is_whole_or_refused(
    way: str, thought: str, end: str, by: Guard, upstream: Upstream
) -> None:
    play(upstream, "create" if way == "helper" else way, thinking(thought), message(*BILL, end))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        responses = guard_client(client, by).responses
        if way == "helper":
            with responses.stream(**REQUEST, text_format=Bill) as helper:
                final = helper.get_final_response()
        else:
            final = responses.parse(**REQUEST, text_format=Bill)
    if "HARM" in thought + end:
        assert final.output_parsed is None
        refusal: Any = final.output[-1]
        assert refusal.content[-1].refusal.startswith("[Withheld")
    else:
        assert final.output_parsed is not None
        assert final.output_parsed.total == 7


# -- stored responses --------------------------------------------------------------------------------


@pytest.fixture
def client(upstream: Upstream) -> Any:
    upstream.play(Script([]))
    with openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
        yield guard_client(client, guard())


def test_a_response_in_the_background_is_guarded_when_it_is_had(client: Any, upstream: Upstream) -> None:
    queued = body(status="queued", background=True, usage=None)
    upstream.play(Script([queued], content_type=JSON))
    response = client.responses.create(**REQUEST, background=True)
    assert (response.id, response.status, response.output) == ("resp_1", "queued", [])
    play(upstream, "whole", thinking("HARM."), message(*ANSWER))
    raw = client.responses.with_raw_response.retrieve(response.id)
    assert raw.parse().output[0].content[0].refusal.startswith("[Withheld")
    assert report_of(raw).query == ""
    play(upstream, "whole", thinking("Fine."), message(*ANSWER))
    assert client.responses.retrieve(response.id).output_text == "".join(ANSWER)


def test_a_stored_response_is_guarded_as_it_streams(client: Any, upstream: Upstream) -> None:
    play(upstream, "create", thinking("HARM."), message(*ANSWER))
    out = Outcome()
    for one in client.responses.retrieve("resp_1", stream=True):
        out.event(one)
    assert (out.thought, out.text, out.status) == ("", "", "completed")
    assert out.refusal.startswith("[Withheld")


def test_a_stream_is_not_taken_up_in_the_middle(client: Any, upstream: Upstream) -> None:
    with pytest.raises(UnguardedClient, match="starting_after"):
        client.responses.retrieve("resp_1", stream=True, starting_after=4)
    assert upstream.requests == []


def test_a_stream_that_starts_in_the_middle_nevertheless_is_refused(client: Any, upstream: Upstream) -> None:
    upstream.play(Script(frames_of(message("A HARM."))[4:]))
    stream = client.responses.retrieve("resp_1", stream=True)
    out = Outcome()
    for one in stream:
        if one.type != "response.created":
            out.event(one)
    assert out.refusal == report_of(stream).aborted.notice  # type: ignore[union-attr]
    assert "starting_after" in str(report_of(stream).aborted.error)  # type: ignore[union-attr]


def test_a_cancelled_response_is_guarded(client: Any, upstream: Upstream) -> None:
    upstream.play(Script([body(message("HARM"), status="cancelled")], content_type=JSON))
    assert client.responses.cancel("resp_1").output[0].content[0].refusal.startswith("[Withheld")
    upstream.play(Script([body(message("Fine."), status="cancelled")], content_type=JSON))
    assert client.responses.cancel("resp_1").status == "cancelled"


def test_a_response_can_be_deleted(client: Any, upstream: Upstream) -> None:
    upstream.play(Script([b'{"id":"resp_1","object":"response","deleted":true}'], content_type=JSON))
    client.responses.delete("resp_1")
    assert len(upstream.requests) == 1


def test_tokens_can_be_counted(client: Any, upstream: Upstream) -> None:
    counted = b'{"object":"response.input_tokens","input_tokens":5}'
    upstream.play(Script([counted], content_type=JSON))
    assert client.responses.input_tokens.count(model="m", input="hi").input_tokens == 5


REFUSED: dict[str, Callable[[Any], Any]] = {
    "what went in": lambda client: client.responses.input_items.list("resp_1"),
    "a compaction": lambda client: client.responses.compact(model="m", input="hi"),
    "a conversation": lambda client: client.conversations.items.list("conv_1"),
}


@pytest.mark.parametrize("asked", REFUSED.values(), ids=REFUSED.keys())
def test_what_would_come_unguarded_is_not_sent(asked: Any, client: Any, upstream: Upstream) -> None:
    with pytest.raises(UnguardedClient, match="was not sent"):
        asked(client)
    assert upstream.requests == []


def test_azure_clients_are_guarded(upstream: Upstream) -> None:
    play(upstream, "whole", message("HARM"))
    with openai.AzureOpenAI(
        azure_endpoint=upstream.url.removesuffix("/v1"), api_key="none", api_version="2025-04-01-preview"
    ) as client:
        response: Any = guard_client(client, guard()).responses.create(**REQUEST)
    assert response.output[0].content[0].refusal.startswith("[Withheld")


# -- leaving -----------------------------------------------------------------------------------------

ENDLESS = frames_of(thinking(*reasoning(sentences=200)), message(*ANSWER))


@each_program
def test_a_client_that_leaves_closes_the_upstream(program: str, upstream: Upstream) -> None:
    upstream.play(Script(ENDLESS, delay=0.002))
    settings: dict[str, Any] = {"base_url": upstream.url, "api_key": "none"}

    def leave() -> StreamReport:
        with openai.OpenAI(**settings) as client:
            stream = guard_client(client, guard(instant=False)).responses.create(**REQUEST, stream=True)
            for _ in range(20):
                next(stream)
            stream.close()
            return report_of(stream)

    async def leave_async() -> StreamReport:
        async with openai.AsyncOpenAI(**settings) as client:
            guard_client(client, guard(instant=False))
            stream = await client.responses.create(**REQUEST, stream=True)
            for _ in range(20):
                await anext(stream)
            await stream.close()
            return report_of(stream)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Async generator '(openai|http)", ResourceWarning)
        report = leave() if program == "sync" else anyio.run(leave_async, backend=program)
    assert upstream.finished.wait(20)
    assert upstream.sent < len(ENDLESS) / 2
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.judged == report.reasoning.seen > 0


@each_program
def test_an_abort_closes_the_upstream(program: str, upstream: Upstream) -> None:
    frames = frames_of(thinking(*reasoning(sentences=200, harm_in=1)), message(*ANSWER))
    upstream.play(Script(frames, delay=0.002))
    out = ask(program, "create", upstream, guard(instant=False))
    assert out.account.ended is Ended.ABORTED
    assert upstream.finished.wait(20)
    assert upstream.sent < len(frames) / 2


def test_errors_of_the_server_reach_the_caller_as_they_are(upstream: Upstream) -> None:
    failed = [event("response.created", response=START, sequence_number=0)]
    failed.append(event("error", code="server_error", message="No.", param=None, sequence_number=1))
    upstream.play(Script(failed))
    assert [one["type"] for one in bodies_in(raw_bytes(upstream, guard()))] == ["response.created", "error"]
