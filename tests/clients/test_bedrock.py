"""The real boto3, guarded, against a server that speaks the binary event stream; and what else of Bedrock's
and Vertex's goes over HTTP."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

pytest.importorskip("boto3")
pytest.importorskip("httpx")

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from botocore.stub import Stubber

from shieldguard import Action, Ended, Guard, JudgeError, Rule, UnguardedClient, WireError
from shieldguard_adapters.clients import assert_guarded, guard_client, report_of
from shieldguard_adapters.wire.bedrock_converse import ConverseStream
from tests.clients.rig import PROGRAMS, guard, reasoning
from tests.upstream import Script, Upstream
from tests.wire.bedrock import USAGE, body, delta, response, text, thinking, tool, wired

EVENT_STREAM = "application/vnd.amazon.eventstream"
WAYS = ["stream", "whole"]
THOUGHT = reasoning()
ANSWER = ["All is well. ", "It really is."]
REQUEST: dict[str, Any] = {
    "modelId": "m",
    "messages": [{"role": "user", "content": [{"text": "What do you think?"}]}],
}


def _base(upstream: Upstream) -> str:
    return upstream.url.removesuffix("/v1")


MADE: list[Any] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the clients that a test made: what boto3 does not close itself is a warning."""
    yield
    while MADE:
        MADE.pop().close()


def boto(upstream: Upstream, service: str = "bedrock-runtime") -> Any:
    client = boto3.client(
        service,
        endpoint_url=_base(upstream),
        region_name="us-east-1",
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(retries={"total_max_attempts": 1}),
    )
    MADE.append(client)
    return client


@dataclass
class Outcome:
    thought: str = ""
    signature: str = ""
    text: str = ""
    calls: int = 0
    stop_reason: str | None = None
    usage: Any = None
    types: list[str] = field(default_factory=list)
    report: Any = None

    def event(self, event: dict[str, Any]) -> None:
        [(type_, inner)] = event.items()
        self.types.append(type_)
        if type_ == "contentBlockDelta":
            self.text += inner["delta"].get("text", "")
            self.thought += inner["delta"].get("reasoningContent", {}).get("text", "")
            self.signature += inner["delta"].get("reasoningContent", {}).get("signature", "")
        elif type_ == "contentBlockStart":
            self.calls += "toolUse" in inner["start"]
        elif type_ == "messageStop":
            self.stop_reason = inner["stopReason"]
        elif type_ == "metadata":
            self.usage = inner["usage"]

    def whole(self, response: dict[str, Any]) -> None:
        for block in response["output"]["message"]["content"]:
            thought = block.get("reasoningContent", {}).get("reasoningText", {})
            self.thought += thought.get("text", "")
            self.signature += thought.get("signature", "")
            self.text += block.get("text", "")
            self.calls += "toolUse" in block
        self.stop_reason = response["stopReason"]
        self.usage = response["usage"]


def ask(client: Any, way: str) -> Outcome:
    out = Outcome()
    if way == "whole":
        answer = client.converse(**REQUEST)
        out.whole(answer)
    else:
        answer = client.converse_stream(**REQUEST)
        with closing(answer["stream"]) as stream:
            for event in stream:
                out.event(event)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert type(copy.deepcopy(answer["ResponseMetadata"])) is dict
    json.dumps(answer["ResponseMetadata"])
    try:
        out.report = report_of(answer)
    except UnguardedClient:
        out.report = None
    return out


def guarded(upstream: Upstream, way: str, by: Guard, **options: Any) -> Outcome:
    return ask(guard_client(boto(upstream), by, **options), way)


def play(upstream: Upstream, way: str, thought: list[str], answer: list[str], *calls: str) -> None:
    if way == "whole":
        blocks: list[dict[str, Any]] = [
            {"reasoningContent": {"reasoningText": {"text": "".join(thought), "signature": "c2ln"}}},
            {"text": "".join(answer)},
        ]
        blocks += [{"toolUse": {"toolUseId": "t", "name": "send", "input": {"to": call}}} for call in calls]
        upstream.play(Script([body(*blocks)], content_type="application/json"))
        return
    tools = [tool(number, f'{{"to": "{call}"}}') for number, call in enumerate(calls, 2)]
    events = response(thinking(0, *thought), text(1, *answer), *tools)
    upstream.play(Script(wired(*events), content_type=EVENT_STREAM))


each_way = pytest.mark.parametrize("way", WAYS)


@each_way
def test_a_harmless_response_passes_as_it_came(way: str, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, ANSWER, "a friend", "a cousin")
    bare = ask(boto(upstream), way)
    out = guarded(upstream, way, guard())
    assert (out.thought, out.signature, out.text) == ("".join(THOUGHT), "c2ln", "".join(ANSWER))
    assert (out.calls, out.stop_reason, out.usage) == (2, "end_turn", USAGE)
    assert (out.report.ended, out.report.query) == (Ended.COMPLETE, "What do you think?")
    assert out.types == bare.types


@pytest.mark.parametrize("redacts", [True, False])
@pytest.mark.parametrize("harm_in", [0, 4], ids=["before any text", "in mid-reasoning"])
@each_way
def test_a_harmful_thought_ends_it(way: str, harm_in: int, redacts: bool, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=harm_in), ANSWER, "a friend")
    rule = Rule(harmful=Action.REDACT) if redacts else Rule()
    out = guarded(upstream, way, guard(answer=rule))
    assert (out.text, out.stop_reason) == (out.report.aborted.notice, "guardrail_intervened")
    assert (out.calls, out.signature) == (0, "")
    assert "HARM" not in out.thought
    assert bool(out.thought) is (harm_in > 0 and way == "stream" and not redacts)
    assert out.usage is not None


@each_way
def test_a_harmful_answer_ends_it(way: str, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, reasoning(harm_in=3))
    out = guarded(upstream, way, guard())
    assert out.stop_reason == "guardrail_intervened"
    assert "HARM" not in out.text
    assert out.text.endswith(out.report.aborted.notice)
    assert len(out.text) > len(out.report.aborted.notice) or way == "whole"


@each_way
def test_a_harmful_call_ends_it(way: str, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, ANSWER, "a friend", "HARM")
    out = guarded(upstream, way, guard())
    assert (out.report.aborted.channel, out.calls) == ("tool_call", 0)


@each_way
def test_a_redacted_thought_goes_whole_with_its_signature(way: str, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=4), ANSWER, "a friend")
    out = guarded(upstream, way, guard(reasoning=Rule(harmful=Action.REDACT)))
    assert (out.thought, out.signature, out.calls) == ("", "", 0)
    assert out.text.startswith("[Withheld")
    assert out.text.endswith("".join(ANSWER))
    assert (out.stop_reason, out.usage, out.report.ended) == ("end_turn", USAGE, Ended.COMPLETE)


@each_way
def test_a_judge_that_fails_ends_it(way: str, upstream: Upstream) -> None:
    def fail(window: object) -> JudgeError:
        return JudgeError("no verdict today")

    play(upstream, way, THOUGHT, ANSWER)
    out = guarded(upstream, way, guard(fail))
    assert (out.report.aborted.cause, out.thought) == ("judge_failure", "")
    assert (out.text, out.stop_reason) == (out.report.aborted.notice, "guardrail_intervened")


@each_way
def test_an_ending_can_be_that_of_a_filter_or_an_error(way: str, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=4), ANSWER)
    assert guarded(upstream, way, guard(), termination="content_filter").stop_reason == "content_filtered"
    play(upstream, way, reasoning(harm_in=4), ANSWER)
    with pytest.raises(ClientError, match="Withheld") as raised:
        guarded(upstream, way, guard(), termination="error")
    assert isinstance(raised.value, EventStreamError) is (way == "stream")


@each_way
def test_output_to_be_parsed_is_not_redacted_and_gets_no_notice(way: str, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=0), ANSWER)
    client = guard_client(boto(upstream), guard(reasoning=Rule(harmful=Action.REDACT)))
    schema = {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{}"}}}
    request = {**REQUEST, "outputConfig": {"textFormat": schema}}
    out = Outcome()
    if way == "whole":
        out.whole(client.converse(**request))
    else:
        for event in client.converse_stream(**request)["stream"]:
            out.event(event)
    assert (out.text, out.thought, out.stop_reason) == ("", "", "guardrail_intervened")


def test_blobs_and_hidden_thoughts_pass(upstream: Upstream) -> None:
    hidden = delta(0, reasoningContent={"redactedContent": "AAEC"})
    events = response([hidden, {"contentBlockStop": {"contentBlockIndex": 0}}], text(1, "Well."))
    upstream.play(Script(wired(*events), content_type=EVENT_STREAM))
    answer = guard_client(boto(upstream), guard()).converse_stream(**REQUEST)
    first = list(answer["stream"])[1]["contentBlockDelta"]["delta"]
    assert first == {"reasoningContent": {"redactedContent": b"\x00\x01\x02"}}
    assert report_of(answer).unobservable == {"encrypted"}


def test_what_boto3_does_not_know_ends_it(upstream: Upstream) -> None:
    upstream.play(Script(wired(response()[0], delta(0, idea={"text": "HARM"})), content_type=EVENT_STREAM))
    out = guarded(upstream, "stream", guard())
    assert isinstance(out.report.aborted.error, WireError)
    assert out.text == out.report.aborted.notice


def test_an_exception_in_the_stream_is_raised(upstream: Upstream) -> None:
    events = [*response(text(0, *ANSWER))[:2], {"throttlingException": {"message": "slow down"}}]
    upstream.play(Script(wired(*events), content_type=EVENT_STREAM))
    with pytest.raises(EventStreamError, match="slow down"):
        guarded(upstream, "stream", guard())


@each_way
def test_an_error_of_the_service_is_raised(way: str, upstream: Upstream) -> None:
    upstream.play(Script([b'{"message": "no"}'], content_type="application/json", status=403))
    with pytest.raises(ClientError, match="no"):
        guarded(upstream, way, guard())


def test_a_client_that_leaves_closes_the_upstream(upstream: Upstream) -> None:
    events = wired(*response(thinking(0, *reasoning(sentences=200)), text(1, *ANSWER)))
    upstream.play(Script(events, delay=0.002, content_type=EVENT_STREAM))
    by = guard(instant=False)
    answer = guard_client(boto(upstream), by).converse_stream(**REQUEST)
    for _, _ in zip(range(20), answer["stream"], strict=False):
        pass
    answer["stream"].close()
    assert list(answer["stream"]) == []
    assert upstream.finished.wait(20)
    assert upstream.sent < len(events) / 2
    report = report_of(answer)
    assert report.ended is Ended.CLIENT_LEFT
    assert report.reasoning.judged == report.reasoning.seen > 0


def test_an_abort_closes_the_upstream(upstream: Upstream) -> None:
    events = wired(*response(thinking(0, *reasoning(sentences=200, harm_in=2)), text(1, *ANSWER)))
    upstream.play(Script(events, delay=0.002, content_type=EVENT_STREAM))
    assert guarded(upstream, "stream", guard(instant=False)).stop_reason == "guardrail_intervened"
    assert upstream.finished.wait(20)
    assert upstream.sent < len(events) / 2


REFUSED: dict[str, Callable[[Any], Any]] = {
    "InvokeModel": lambda client: client.invoke_model(modelId="m", body=b"{}"),
    "InvokeModelWithResponseStream": lambda client: client.invoke_model_with_response_stream(
        modelId="m", body=b"{}"
    ),
    "StartAsyncInvoke": lambda client: client.start_async_invoke(
        modelId="m", modelInput={}, outputDataConfig={"s3OutputDataConfig": {"s3Uri": "s3://b/k"}}
    ),
}


@pytest.mark.parametrize("operation", REFUSED)
def test_what_would_come_unguarded_is_not_sent(operation: str, upstream: Upstream) -> None:
    upstream.play(Script([b"{}"], content_type="application/json"))
    client = guard_client(boto(upstream), guard())
    assert_guarded(client)
    with pytest.raises(UnguardedClient, match=f"{operation} is not guarded"):
        REFUSED[operation](client)
    assert upstream.requests == []


def test_what_is_harmless_is_sent(upstream: Upstream) -> None:
    upstream.play(Script([b'{"inputTokens": 3}'], content_type="application/json"))
    client = guard_client(boto(upstream), guard())
    assert client.count_tokens(modelId="m", input={"converse": {}})["inputTokens"] == 3


def test_a_client_is_guarded_once_and_by_one_guard(upstream: Upstream) -> None:
    play(upstream, "stream", THOUGHT, ANSWER)
    by, client = guard(), boto(upstream)
    with pytest.raises(UnguardedClient, match="not guarded"):
        assert_guarded(client)
    guard_client(guard_client(client, by), by)
    with pytest.raises(UnguardedClient, match="guarded already"):
        guard_client(client, guard())
    assert ask(client, "stream").text == "".join(ANSWER)
    assert ask(boto(upstream), "stream").report is None


@pytest.mark.parametrize("service", ["bedrock-agent-runtime", "sagemaker-runtime", "s3"])
def test_a_client_of_another_service_is_refused(service: str, upstream: Upstream) -> None:
    with pytest.raises(UnguardedClient, match=service):
        guard_client(boto(upstream, service), guard())


def test_a_response_whose_request_was_not_seen_is_not_passed_on(upstream: Upstream) -> None:
    client = guard_client(boto(upstream), guard())
    stubbed = {"output": {"message": {"role": "assistant", "content": [{"text": "HARM"}]}}}
    with Stubber(client) as stubber:
        stubber.add_response(
            "converse",
            {**stubbed, "stopReason": "end_turn", "usage": USAGE, "metrics": {"latencyMs": 1}},
            REQUEST,
        )
        with pytest.raises(UnguardedClient, match="without its request being seen"):
            client.converse(**REQUEST)


# -- over HTTP ---------------------------------------------------------------------------------------


def encoded(codec: ConverseStream, frames: list[bytes], *, with_keep_alives: bool) -> Iterator[bytes]:
    with guard().stream_sync(iter([*map(codec.decode, frames), codec.flush()])) as stream:
        while batch := stream.next_batch():
            if with_keep_alives:
                yield codec.keep_alive()
            yield codec.encode(batch)
    yield codec.close()


@pytest.mark.parametrize("harm_in", [None, 0, 4])
@pytest.mark.parametrize("whole", [True, False])
def test_boto3_reads_what_the_codec_writes_and_no_keep_alive(
    harm_in: int | None, whole: bool, upstream: Upstream
) -> None:
    frames = wired(*response(thinking(0, *reasoning(harm_in=harm_in)), text(1, *ANSWER), tool(2, "{}")))

    def sent(**options: bool) -> Outcome:
        pieces = list(encoded(ConverseStream(whole_thoughts=whole), frames, **options))
        upstream.play(Script(pieces, content_type=EVENT_STREAM))
        return ask(boto(upstream), "stream")

    out = sent(with_keep_alives=True)
    assert out == sent(with_keep_alives=False)
    assert out.stop_reason == ("end_turn" if harm_in is None else "guardrail_intervened")
    assert out.usage is not None


def test_boto3_raises_an_ending_in_error(upstream: Upstream) -> None:
    frames = wired(*response(thinking(0, "HARM.")))
    pieces = list(encoded(ConverseStream(termination="error"), frames, with_keep_alives=False))
    upstream.play(Script(pieces, content_type=EVENT_STREAM))
    with pytest.raises(EventStreamError, match="Withheld"):
        ask(boto(upstream), "stream")


@pytest.mark.parametrize("harm_in", [None, 4])
@each_way
def test_an_http_client_is_guarded(way: str, harm_in: int | None, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=harm_in), ANSWER)
    path = "converse" if way == "whole" else "converse-stream"
    model = "arn:aws:bedrock:us-east-1:1:imported-model%2Fm"
    with guard_client(httpx.Client(), guard()) as client:
        answer = client.post(
            f"{_base(upstream)}/model/{model}/{path}", json={"messages": REQUEST["messages"]}
        )
    assert (b"guardrail_intervened" in answer.content) is (harm_in is not None)
    assert b"HARM" not in answer.content
    assert report_of(answer).query == "What do you think?"


@pytest.mark.parametrize("path", ["invoke", "invoke-with-response-stream", "converse-stream/x"])
def test_an_http_client_sends_no_other_request_to_a_model(path: str, upstream: Upstream) -> None:
    upstream.play(Script([]))
    with guard_client(httpx.Client(), guard()) as client, pytest.raises(UnguardedClient):
        client.post(f"{_base(upstream)}/model/m/{path}", json={})
    assert upstream.requests == []


# -- the forms of Anthropic's client ------------------------------------------------------------------

MESSAGE: dict[str, Any] = {
    "model": "m",
    "max_tokens": 10,
    "messages": [{"role": "user", "content": "What do you think?"}],
}


def bedrock(anthropic: Any, prefix: str, **options: Any) -> Any:
    made = getattr(anthropic, f"{prefix}AnthropicBedrock")
    return made(aws_region="us-east-1", aws_access_key="none", aws_secret_key="none", **options)


def vertex(anthropic: Any, prefix: str, **options: Any) -> Any:
    made = getattr(anthropic, f"{prefix}AnthropicVertex")
    return made(region="us-east-1", project_id="p", access_token="none", **options)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("make", [bedrock, vertex])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_forms_of_anthropics_client_send_nothing(
    program: str, make: Any, stream: bool, upstream: Upstream
) -> None:
    anthropic = pytest.importorskip("anthropic")
    upstream.play(Script([b"HARM"]))
    options = {"base_url": _base(upstream), "max_retries": 0}
    if program == "sync":
        with make(anthropic, "", **options) as client, pytest.raises(UnguardedClient, match="was not sent"):
            guard_client(client, guard()).messages.create(**MESSAGE, stream=stream)
    else:

        async def main() -> None:
            async with make(anthropic, "Async", **options) as client:
                with pytest.raises(UnguardedClient, match="was not sent"):
                    await guard_client(client, guard()).messages.create(**MESSAGE, stream=stream)

        anyio.run(main, backend=program)
    assert upstream.requests == []
