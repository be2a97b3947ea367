"""The real Cohere SDK, guarded: each of its ways to ask, in each way a message can go."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest

pytest.importorskip("cohere")

import cohere
import httpx

from shieldguard import Action, Ended, Guard, JudgeError, Rule, StreamReport, UnguardedClient, WireError
from shieldguard_adapters.clients import assert_guarded, guard_client, report_of
from shieldguard_adapters.wire.cohere_chat import MessageStream
from tests.clients.rig import PROGRAMS, guard, reasoning
from tests.upstream import Script, Upstream
from tests.wire.cohere import body, cited, event, message, plan, text, thinking, tool

WAYS = ["stream", "raw stream", "whole", "raw whole"]
THOUGHT = reasoning()
ANSWER = ["All is well. ", "It really is."]
REQUEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "What do you think?"}]}


@dataclass
class Reports:
    """An observer that keeps the reports."""

    closed: list[StreamReport] = field(default_factory=list)

    def window_judged(self, event: object) -> None: ...

    def stream_closed(self, report: StreamReport) -> None:
        self.closed.append(report)


@dataclass
class Outcome:
    thought: str = ""
    plan: str = ""
    text: str = ""
    calls: int = 0
    citations: int = 0
    finish_reason: str | None = None
    error: str | None = None
    output_tokens: float | None = None
    types: list[str] = field(default_factory=list)
    report: Any = None

    def event(self, event: Any) -> None:
        self.types.append(event.type)
        inner: Any = getattr(getattr(event, "delta", None), "message", None)
        if event.type in ("content-start", "content-delta"):
            self.thought += inner.content.thinking or ""
            self.text += inner.content.text or ""
        elif event.type == "tool-plan-delta":
            self.plan += inner.tool_plan
        elif event.type == "tool-call-start":
            self.calls += 1
        elif event.type == "citation-start":
            self.citations += 1
        elif event.type == "message-end":
            self.end(event.delta.finish_reason, event.delta.usage)
            self.error = event.delta.error

    def end(self, reason: str, usage: Any) -> None:
        self.finish_reason = reason
        self.output_tokens = usage.tokens.output_tokens if usage else None

    def whole(self, response: Any) -> None:
        for block in response.message.content or ():
            self.thought += getattr(block, "thinking", None) or ""
            self.text += getattr(block, "text", None) or ""
        self.plan = response.message.tool_plan or ""
        self.calls = len(response.message.tool_calls or ())
        self.citations = len(response.message.citations or ())
        self.end(response.finish_reason, response.usage)


def _base(upstream: Upstream) -> str:
    return upstream.url.removesuffix("/v1")


def ask(program: str, way: str, upstream: Upstream, by: Guard) -> Outcome:
    reports = Reports()
    by = replace(by, observers=[reports])
    out = Outcome()
    if program == "sync":
        with cohere.ClientV2("none", base_url=_base(upstream), max_retries=0) as client:
            _ask(guard_client(client, by), way, out)
    else:

        async def main() -> None:
            async with cohere.AsyncClientV2("none", base_url=_base(upstream), max_retries=0) as client:
                await _ask_async(guard_client(client, by), way, out)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Async generator '(cohere|http)", ResourceWarning)
            anyio.run(main, backend=program)
    [report] = reports.closed
    assert out.report in (None, report)
    out.report = report
    return out


def _ask(client: Any, way: str, out: Outcome) -> None:
    if way == "stream":
        each(out, client.chat_stream(**REQUEST))
    elif way == "raw stream":
        with client.with_raw_response.chat_stream(**REQUEST) as raw:
            each(out, raw.data)
            out.report = report_of(raw)
    elif way == "whole":
        out.whole(client.chat(**REQUEST))
    else:
        raw = client.with_raw_response.chat(**REQUEST)
        out.whole(raw.data)
        out.report = report_of(raw)


async def _ask_async(client: Any, way: str, out: Outcome) -> None:
    if way == "stream":
        async for one in client.chat_stream(**REQUEST):
            out.event(one)
    elif way == "raw stream":
        async with client.with_raw_response.chat_stream(**REQUEST) as raw:
            async for one in raw.data:
                out.event(one)
            out.report = report_of(raw)
    elif way == "whole":
        out.whole(await client.chat(**REQUEST))
    else:
        raw = await client.with_raw_response.chat(**REQUEST)
        out.whole(raw.data)
        out.report = report_of(raw)


def each(out: Outcome, events: Iterable[Any]) -> None:
    for one in events:
        out.event(one)


def play(
    upstream: Upstream, way: str, thought: list[str], answer: list[str], *calls: str, planned: str = "I send."
) -> None:
    if "whole" in way:
        tool_calls = [
            {"id": "t", "type": "function", "function": {"name": "send", "arguments": f'{{"to": "{call}"}}'}}
            for call in calls
        ]
        citations = [{"start": 0, "end": 1, "text": answer[0][:4], "sources": []}] if answer else []
        whole = body(
            {"type": "thinking", "thinking": "".join(thought)},
            {"type": "text", "text": "".join(answer)},
            tool_plan=planned,
            tool_calls=tool_calls,
            citations=citations,
        )
        upstream.play(Script([whole], content_type="application/json"))
        return
    tools = [tool(number, f'{{"to": "{call}"}}') for number, call in enumerate(calls)]
    said = [*text(1, *answer)]
    said[-1:-1] = cited(0, answer[0][:4])
    upstream.play(Script(message(plan(0, planned), thinking(0, *thought), said, *tools)))


each_way = pytest.mark.parametrize("way", WAYS)
each_program = pytest.mark.parametrize("program", PROGRAMS)


@pytest.mark.parametrize("instant", [True, False], ids=["judge in place", "judge on its loop"])
@each_way
@each_program
def test_a_harmless_message_passes(program: str, way: str, instant: bool, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, ANSWER, "a friend", "a cousin")
    out = ask(program, way, upstream, guard(instant=instant))
    assert (out.thought, out.plan, out.text) == ("".join(THOUGHT), "I send.", "".join(ANSWER))
    assert (out.calls, out.citations, out.finish_reason, out.output_tokens) == (2, 1, "COMPLETE", 9)
    assert (out.report.ended, out.report.query) == (Ended.COMPLETE, "What do you think?")


@pytest.mark.parametrize("harm_in", [0, 4], ids=["before any text", "in mid-reasoning"])
@each_way
@each_program
def test_a_harmful_thought_ends_it(program: str, way: str, harm_in: int, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=harm_in), ANSWER, "a friend", planned="")
    out = ask(program, way, upstream, guard())
    assert (out.text, out.finish_reason) == (out.report.aborted.notice, "COMPLETE")
    assert (out.calls, out.citations, out.plan) == (0, 0, "")
    assert "HARM" not in out.thought
    assert bool(out.thought) is (harm_in > 0 and "whole" not in way)


@each_way
@each_program
def test_a_harmful_plan_ends_it(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, [], ANSWER, "a friend", planned="I do HARM.")
    out = ask(program, way, upstream, guard())
    assert (out.plan, out.text, out.calls) == ("", out.report.aborted.notice, 0)


@each_way
@each_program
def test_a_harmful_answer_ends_it(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, reasoning(harm_in=3))
    out = ask(program, way, upstream, guard())
    assert out.report.aborted is not None
    assert "HARM" not in out.text
    assert out.text.endswith(out.report.aborted.notice)
    assert len(out.text) > len(out.report.aborted.notice) or "whole" in way


@each_way
@each_program
def test_a_harmful_call_ends_it(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, ANSWER, "a friend", "HARM")
    out = ask(program, way, upstream, guard())
    assert (out.report.aborted.channel, out.calls) == ("tool_call", 0)


@each_way
@each_program
def test_a_redacted_thought_has_a_notice_and_no_calls(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=4), ANSWER, "a friend")
    out = ask(program, way, upstream, guard(reasoning=Rule(harmful=Action.REDACT)))
    assert out.thought.endswith("harmful.]")
    assert "HARM" not in out.thought
    assert out.text.startswith("".join(ANSWER))
    assert (out.calls, out.citations, out.report.ended) == (0, 0, Ended.COMPLETE)


@each_way
@each_program
def test_a_judge_that_fails_ends_it(program: str, way: str, upstream: Upstream) -> None:
    def fail(window: object) -> JudgeError:
        return JudgeError("no verdict today")

    play(upstream, way, THOUGHT, ANSWER)
    out = ask(program, way, upstream, guard(fail))
    assert (out.report.aborted.cause, out.thought, out.plan) == ("judge_failure", "", "")
    assert out.text == out.report.aborted.notice


@pytest.mark.parametrize("termination", ["refusal", "content_filter", "error"])
def test_no_ending_of_a_stream_raises(termination: str, upstream: Upstream) -> None:
    for way in ("stream", "whole")[: 1 if termination == "error" else 2]:
        play(upstream, way, reasoning(harm_in=2), ANSWER)
        out = Outcome()
        with cohere.ClientV2("none", base_url=_base(upstream)) as client:
            _ask(guard_client(client, guard(), termination=termination), way, out)
        assert out.finish_reason == ("COMPLETE" if termination == "refusal" else "ERROR")
        assert bool(out.text) is (termination != "error")
        assert bool(out.error) is (termination != "refusal" and way == "stream")


def test_a_whole_body_can_end_as_an_error_that_is_raised(upstream: Upstream) -> None:
    play(upstream, "whole", reasoning(harm_in=2), ANSWER)
    with cohere.ClientV2("none", base_url=_base(upstream)) as client:
        guard_client(client, guard(), termination="error")
        with pytest.raises(cohere.BadRequestError, match="Withheld"):
            client.chat(**REQUEST)


def test_output_to_be_parsed_is_not_redacted(upstream: Upstream) -> None:
    play(upstream, "whole", reasoning(harm_in=0), ANSWER)
    with cohere.ClientV2("none", base_url=_base(upstream)) as client:
        guard_client(client, guard(reasoning=Rule(harmful=Action.REDACT)))
        response = client.chat(**REQUEST, response_format={"type": "json_object"})
    assert (response.finish_reason, response.message.content) == ("ERROR", [])


@pytest.mark.parametrize("harm_in", [None, 4])
def test_a_keep_alive_changes_nothing(harm_in: int | None, upstream: Upstream) -> None:
    frames = message(thinking(0, *reasoning(harm_in=harm_in)), text(1, *ANSWER), tool(0, "{}"))

    def sent(pieces: Iterator[bytes]) -> Outcome:
        upstream.play(Script(list(pieces)))
        out = Outcome()
        with cohere.ClientV2("none", base_url=_base(upstream)) as client:
            _ask(client, "stream", out)
        return out

    def encoded(*, with_keep_alives: bool) -> Iterator[bytes]:
        codec = MessageStream()
        with guard().stream_sync(iter([*map(codec.decode, frames), codec.flush()])) as stream:
            while batch := stream.next_batch():
                if with_keep_alives:
                    yield codec.keep_alive()
                yield codec.encode(batch)

    assert sent(encoded(with_keep_alives=True)) == sent(encoded(with_keep_alives=False))


def test_a_client_that_leaves_closes_the_upstream(upstream: Upstream) -> None:
    frames = message(thinking(0, *reasoning(sentences=200)), text(1, *ANSWER))
    upstream.play(Script(frames, delay=0.002))
    reports = Reports()
    by = replace(guard(instant=False), observers=[reports])
    with cohere.ClientV2("none", base_url=_base(upstream)) as client:
        stream: Any = guard_client(client, by).chat_stream(**REQUEST)
        for _ in range(20):
            next(stream)
        stream.close()
    assert upstream.finished.wait(20)
    assert upstream.sent < len(frames) / 2
    [report] = reports.closed
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.judged == report.reasoning.seen > 0


@pytest.mark.parametrize(
    "frames", [[event("idea", idea="HARM")], [b"data: HARM\n\n"]], ids=["an event", "no JSON"]
)
def test_what_is_not_known_ends_it(frames: list[bytes], upstream: Upstream) -> None:
    upstream.play(Script([*message()[:1], *frames]))
    out = ask("sync", "stream", upstream, guard())
    assert isinstance(out.report.aborted.error, WireError)
    assert out.types == ["message-start", "content-start", "content-delta", "content-end", "message-end"]


REFUSED: dict[str, Callable[[Any], Any]] = {
    "batches": lambda client: client.batches.list(),
    "transcriptions": lambda client: client.audio.transcriptions.create(
        model="m", language="en", file=b"", request_options={"max_retries": 0}
    ),
    "v1 generate": lambda client: client.generate(prompt="Why?"),
    "v1 summarize": lambda client: client.summarize(text="Why?"),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_what_would_come_unguarded_is_not_sent(call: Any, upstream: Upstream) -> None:
    upstream.play(Script([]))
    with cohere.ClientV2("none", base_url=_base(upstream)) as client:
        guard_client(client, guard())
        assert_guarded(client)
        with pytest.raises(UnguardedClient, match="was not sent"):
            call(client)
    assert upstream.requests == []


@pytest.mark.parametrize("way", ["chat", "chat_stream"])
def test_the_first_version_is_not_sent(way: str, upstream: Upstream) -> None:
    upstream.play(Script([]))
    with cohere.Client("none", base_url=_base(upstream)) as client:
        guard_client(client, guard())
        with pytest.raises(UnguardedClient, match="/v1/chat"):
            list(getattr(client, way)(message="Why?"))
    assert upstream.requests == []


def test_what_is_harmless_is_sent(upstream: Upstream) -> None:
    upstream.play(Script([b'{"id": "r", "results": []}'], content_type="application/json"))
    with cohere.ClientV2("none", base_url=_base(upstream)) as client:
        guard_client(client, guard()).rerank(model="m", query="q", documents=["d"])
    assert len(upstream.requests) == 1


def test_a_client_for_bedrock_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = cohere.BedrockClientV2(aws_region="us-east-1", aws_access_key="a", aws_secret_key="b")
    http: httpx.Client = client._client_wrapper.httpx_client.httpx_client
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(500)

    http._transport = httpx.MockTransport(answer)
    guard_client(client, guard())
    with pytest.raises(UnguardedClient, match="was not sent"):
        client.chat(**REQUEST)
    assert sent == []
