"""The real Google SDK, guarded: each of its ways to ask, in each way a response can go."""

import json
import warnings
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
import pytest

pytest.importorskip("google.genai")
pytest.importorskip("httpx2")

import httpx2
from google import genai
from google.genai import errors, types

from shieldguard import (
    Action,
    Ended,
    Guard,
    JudgeError,
    OpaqueKind,
    Policy,
    Rule,
    StreamReport,
    UnguardedClient,
    WindowJudged,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge
from shieldguard_adapters.clients import assert_guarded, guard_client, report_of
from shieldguard_adapters.wire import Termination
from tests.clients.rig import MARKS, PROGRAMS, reasoning
from tests.upstream import Script, Upstream
from tests.wire.contents import body, call, candidate, content, frame, said, thought

MAJOR = int(genai.__version__.partition(".")[0])

T = TypeVar("T")

WAYS = ["stream", "chat stream", "whole", "chat"]
WHOLE = WAYS[2:]
THOUGHT = reasoning()
ANSWER = ["All is well. ", "It really is."]
QUESTION = "What do you think?"
JSON = "application/json"


class Reports:
    """An observer: a result of this SDK keeps nothing that a report could be found by but headers."""

    def __init__(self) -> None:
        self.all: list[StreamReport] = []

    def window_judged(self, event: WindowJudged) -> None:
        pass

    def stream_closed(self, report: StreamReport) -> None:
        self.all.append(report)

    @property
    def last(self) -> StreamReport:
        return self.all[-1]


def guard(marks: Any = MARKS, *, instant: bool = True, **policy: Any) -> tuple[Guard, Reports]:
    reports = Reports()
    judge = (InstantScriptedJudge if instant else ScriptedJudge)(marks)
    return Guard(judge=judge, policy=Policy(**policy), observers=[reports]), reports


@dataclass
class Outcome:
    """What a caller who adds the chunks up has, of the first choice."""

    report: StreamReport
    thought: str = ""
    text: str = ""
    calls: list[Any] = field(default_factory=list)
    signatures: list[bytes] = field(default_factory=list)
    reason: str | None = None
    tokens: int | None = None


def outcome(responses: Iterable[Any], reports: Reports) -> Outcome:
    out = Outcome(reports.last)
    for response in responses:
        assert response.sdk_http_response.headers["x-shieldguard-id"] == reports.last.stream
        if response.usage_metadata:
            out.tokens = response.usage_metadata.total_token_count
        for held in response.candidates or ():
            for part in (held.content and held.content.parts) or ():
                if part.thought:
                    out.thought += part.text or ""
                else:
                    out.text += part.text or ""
                out.calls += [part.function_call] if part.function_call else []
                out.signatures += [part.thought_signature] if part.thought_signature else []
            out.reason = held.finish_reason.value if held.finish_reason else out.reason
    return out


def made(upstream: Upstream, **options: Any) -> genai.Client:
    base = upstream.url.removesuffix("/v1")
    return genai.Client(api_key="none", http_options=types.HttpOptions(base_url=base, **options))


def ask(
    program: str,
    way: str,
    upstream: Upstream,
    by: Guard,
    reports: Reports,
    termination: Termination = Termination.REFUSAL,
    **config: Any,
) -> Outcome:
    if program == "sync":
        with made(upstream) as client:
            guard_client(client, by, termination=termination)
            return outcome(_ask(client, way, config), reports)

    async def asked(client: Any) -> list[Any]:
        return await _ask_async(guard_client(client, by, termination=termination), way, config)

    return outcome(run(program, upstream, asked), reports)


def run(program: str, upstream: Upstream, asked: Callable[[Any], Awaitable[T]]) -> T:
    """What is `asked` of the async side of a client."""

    async def main() -> T:
        if program == "asyncio":
            async with made(upstream).aio as client:
                return await asked(client)
        # The HTTP client that it has by itself is for asyncio alone.
        async with httpx2.AsyncClient() as http:
            return await asked(made(upstream, httpx_async_client=http).aio)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Async generator '(google|http)", ResourceWarning)
        return anyio.run(main, backend=program)


def _ask(client: Any, way: str, config: dict[str, Any]) -> list[Any]:
    asked: dict[str, Any] = {"model": "m", "config": config or None}
    if way == "stream":
        return list(client.models.generate_content_stream(contents=QUESTION, **asked))
    if way == "chat stream":
        return list(client.chats.create(**asked).send_message_stream(QUESTION))
    if way == "chat":
        return [client.chats.create(**asked).send_message(QUESTION)]
    return [client.models.generate_content(contents=QUESTION, **asked)]


async def _ask_async(client: Any, way: str, config: dict[str, Any]) -> list[Any]:
    asked: dict[str, Any] = {"model": "m", "config": config or None}
    if way == "stream":
        stream = await client.models.generate_content_stream(contents=QUESTION, **asked)
        return [chunk async for chunk in stream]
    if way == "chat stream":
        stream = await client.chats.create(**asked).send_message_stream(QUESTION)
        return [chunk async for chunk in stream]
    if way == "chat":
        return [await client.chats.create(**asked).send_message(QUESTION)]
    return [await client.models.generate_content(contents=QUESTION, **asked)]


def play(upstream: Upstream, way: str, thoughts: list[str], answer: list[str], *calls: str) -> None:
    upstream.play(script(way, thoughts, answer, *calls))


def script(way: str, thoughts: list[str], answer: list[str], *calls: str) -> Script:
    called = [call(to, thoughtSignature="c2ln") for to in calls]
    if way in WHOLE:
        parts = [thought("".join(thoughts)), said("".join(answer)), *called]
        return Script([body(candidate(*parts, finishReason="STOP"))], content_type=JSON)
    return Script(content(*map(thought, thoughts), *map(said, answer), *called))


each_way = pytest.mark.parametrize("way", WAYS)
each_program = pytest.mark.parametrize("program", PROGRAMS)


@each_way
@each_program
def test_a_harmless_response_passes(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, ANSWER, "a friend")
    out = ask(program, way, upstream, *guard())
    assert (out.thought, out.text) == ("".join(THOUGHT), "".join(ANSWER))
    assert [(one.name, one.args) for one in out.calls] == [("send", {"to": "a friend"})]
    assert (out.signatures, out.reason, out.tokens) == ([b"sig"], "STOP", 14)
    assert (out.report.ended, out.report.query) == (Ended.COMPLETE, QUESTION)
    assert out.report.unobservable == {OpaqueKind.SUMMARISED, OpaqueKind.ENCRYPTED}


@pytest.mark.parametrize("harm_in", [0, 4], ids=["before any text", "in mid-reasoning"])
@each_way
@each_program
def test_a_harmful_thought_ends_it(program: str, way: str, harm_in: int, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=harm_in), ANSWER, "a friend")
    out = ask(program, way, upstream, *guard())
    assert out.report.aborted is not None
    assert (out.text, out.reason, out.calls) == (out.report.aborted.notice, "SAFETY", [])
    assert out.tokens == 14
    assert "HARM" not in out.thought
    assert bool(out.thought) is (harm_in > 0 and way not in WHOLE)


@each_way
@each_program
def test_a_harmful_answer_ends_it(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, reasoning(harm_in=3))
    out = ask(program, way, upstream, *guard())
    assert out.report.aborted is not None
    assert out.reason == "SAFETY"
    assert "HARM" not in out.text
    assert out.text.endswith(out.report.aborted.notice)


@each_way
@each_program
def test_a_harmful_call_is_not_made(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, THOUGHT, ANSWER, "a friend", "HARM")
    out = ask(program, way, upstream, *guard())
    assert out.report.aborted is not None
    assert (out.calls, out.signatures, out.reason) == ([], [], "SAFETY")


@each_way
@each_program
def test_a_redacted_thought_says_so_and_nothing_is_called(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=4), ANSWER, "a friend")
    by, reports = guard(reasoning=Rule(harmful=Action.REDACT))
    out = ask(program, way, upstream, by, reports)
    notice = by.policy.notice
    assert "HARM" not in out.thought
    assert out.thought.endswith(notice)
    assert (out.text, out.calls, out.signatures) == ("".join(ANSWER) + notice, [], [])
    assert (out.reason, out.report.ended) == ("STOP", Ended.COMPLETE)


@each_way
@each_program
def test_a_judge_that_fails_ends_it(program: str, way: str, upstream: Upstream) -> None:
    def fail(window: object) -> JudgeError:
        return JudgeError("no verdict today")

    play(upstream, way, THOUGHT, ANSWER)
    out = ask(program, way, upstream, *guard(fail))
    assert out.report.aborted is not None
    assert (out.report.aborted.cause, out.reason, out.thought) == ("judge_failure", "SAFETY", "")


@each_way
@each_program
def test_an_ending_in_error(program: str, way: str, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=4), ANSWER)
    by, reports = guard()
    with pytest.raises(errors.ClientError, match="Withheld"):
        ask(program, way, upstream, by, reports, Termination.ERROR)


@each_way
@each_program
@pytest.mark.parametrize("harm_in", [None, 0])
def test_output_to_be_parsed_gets_no_notice(
    program: str, way: str, harm_in: int | None, upstream: Upstream
) -> None:
    play(upstream, way, reasoning(harm_in=harm_in), ['{"num', 'ber": 7}'])
    by, reports = guard(reasoning=Rule(harmful=Action.REDACT))
    schema = {"type": "OBJECT", "properties": {"number": {"type": "INTEGER"}}}
    out = ask(
        program, way, upstream, by, reports, response_mime_type="application/json", response_schema=schema
    )
    if harm_in is None:
        assert json.loads(out.text) == {"number": 7}
    else:
        assert (out.text, out.reason, out.report.ended) == ("", "SAFETY", Ended.ABORTED)


@each_way
@each_program
def test_one_harmful_choice_ends_all(program: str, way: str, upstream: Upstream) -> None:
    both = [candidate(said("Fine."), finishReason="STOP"), candidate(said("HARM."), index=1)]
    if way in WHOLE:
        upstream.play(Script([body(*both)], content_type=JSON))
    else:
        upstream.play(Script([frame(both[0]), frame(both[1])]))
    by, _ = guard()
    if program == "sync":
        with made(upstream) as client:
            responses = _ask(guard_client(client, by), way, {})
    else:
        responses = run(program, upstream, lambda client: _ask_async(guard_client(client, by), way, {}))
    held = [one for response in responses for one in response.candidates]
    reasons = {one.index or 0: one.finish_reason.value for one in held}
    assert reasons == ({0: "SAFETY", 1: "SAFETY"} if way in WHOLE else {0: "STOP", 1: "SAFETY"})
    assert "HARM" not in str(responses)


# -- functions that the SDK calls itself -------------------------------------------------------------


@pytest.mark.parametrize("harm", ["in the thought", "in the call", None])
@each_way
@each_program
def test_a_function_is_called_by_a_call_that_passed_alone(
    program: str, way: str, harm: str | None, upstream: Upstream
) -> None:
    if program == "trio" and harm is None:
        pytest.skip("the SDK calls functions from asyncio alone")
    called: list[str] = []

    def send(to: str) -> str:
        """Send it."""
        called.append(to)
        return "sent"

    thoughts = reasoning(harm_in=4 if harm == "in the thought" else None)
    upstream.play(script(way, THOUGHT, ANSWER))
    upstream.first.append(script(way, thoughts, [], "HARM" if harm == "in the call" else "a friend"))
    by, reports = guard()
    if program == "sync":
        with made(upstream) as client:
            responses = _ask(guard_client(client, by), way, {"tools": [send]})
    else:
        asked = {"tools": [send]}
        responses = run(program, upstream, lambda client: _ask_async(guard_client(client, by), way, asked))
    if harm is None:
        assert called == ["a friend"]
        assert [report.ended for report in reports.all] == [Ended.COMPLETE, Ended.COMPLETE]
        assert responses[-1].candidates[0].finish_reason.value == "STOP"
    else:
        assert called == []
        assert len(upstream.requests) == 1
        assert responses[-1].candidates[0].finish_reason.value == "SAFETY"


@pytest.mark.parametrize("way", WAYS)
def test_a_redacted_turn_calls_no_function(way: str, upstream: Upstream) -> None:
    called: list[str] = []

    def send(to: str) -> None:
        """Send it."""
        called.append(to)

    play(upstream, way, reasoning(harm_in=4), ANSWER, "a friend")
    by, _ = guard(reasoning=Rule(harmful=Action.REDACT))
    with made(upstream) as client:
        _ask(guard_client(client, by), way, {"tools": [send]})
    assert called == []
    assert len(upstream.requests) == 1


# -- turns that the SDK goes on with ----------------------------------------------------------------


@pytest.mark.parametrize("termination", list(Termination))
@each_program
def test_a_turn_that_was_ended_does_not_go_on(
    program: str, termination: Termination, upstream: Upstream
) -> None:
    """Where a stream ends without a reason, the SDK asks again with the last token that it was given."""
    thoughts = [candidate(thought(text), continuationToken="AA==") for text in reasoning(harm_in=4)]
    upstream.play(Script([*map(frame, thoughts), *content(said("Done."))]))
    with suppress(errors.ClientError):
        out = ask(program, "stream", upstream, *guard(), termination)
        assert (out.reason, termination is Termination.ERROR) == ("SAFETY", False)
    assert len(upstream.requests) == 1


def play_on(upstream: Upstream, way: str, text: str) -> None:
    """A turn of two responses."""
    first = candidate(said(text), continuationToken="AA==", finishReason="CONTINUATION")
    play(upstream, way, [], ["Done."])
    if way == "whole":
        upstream.first.append(Script([body(first)], content_type=JSON))
    else:
        upstream.first.append(Script([frame(first)]))


@pytest.mark.parametrize("way", ["stream", "whole"])
def test_each_response_of_a_turn_that_goes_on_is_guarded(way: str, upstream: Upstream) -> None:
    play_on(upstream, way, "Fine. ")
    by, reports = guard()
    with made(upstream) as client:
        responses = _ask(guard_client(client, by), way, {})
    assert "".join(response.text or "" for response in responses) == "Fine. Done."
    assert len(reports.all) == 2


@pytest.mark.parametrize("way", ["stream", "whole"])
@each_program
def test_a_turn_that_was_redacted_does_not_go_on(program: str, way: str, upstream: Upstream) -> None:
    play_on(upstream, way, "HARM.")
    by, reports = guard(answer=Rule(harmful=Action.REDACT))
    out = ask(program, way, upstream, by, reports)
    assert (out.text, out.reason) == (by.policy.notice, "SAFETY")
    assert len(upstream.requests) == 1


# -- silence, and leaving ----------------------------------------------------------------------------


@each_program
def test_a_client_that_leaves_closes_the_upstream(program: str, upstream: Upstream) -> None:
    frames = content(*map(thought, reasoning(sentences=200)), said("Done."))
    upstream.play(Script(frames, delay=0.002))
    by, reports = guard(instant=False)
    if program == "sync" and MAJOR < 3:
        pytest.skip("google-genai 2 leaves the response open when its generator is closed")

    async def asked(client: Any) -> None:
        guard_client(client, by)
        stream = await client.models.generate_content_stream(model="m", contents=QUESTION)
        for _ in range(20):
            await anext(stream)
        await stream.aclose()

    if program == "sync":
        with made(upstream) as client:
            guard_client(client, by)
            stream: Any = client.models.generate_content_stream(model="m", contents=QUESTION)
            for _ in range(20):
                next(stream)
            stream.close()
    else:
        run(program, upstream, asked)
    assert upstream.finished.wait(20)
    assert upstream.sent < len(frames) / 2
    assert reports.last.ended is Ended.CLIENT_LEFT
    assert reports.last.reasoning.judged == reports.last.reasoning.seen > 0


def test_keep_alives_change_nothing(upstream: Upstream) -> None:
    from shieldguard_adapters.wire.gemini import ContentStream

    frames = content(*map(thought, THOUGHT), *map(said, ANSWER), call("a friend"))
    quiet = ContentStream().keep_alive()
    apart = [piece for one in frames for piece in (quiet, one)] + [quiet]
    heard = []
    for pieces in (frames, apart):
        upstream.play(Script(pieces))
        with made(upstream) as client:
            heard.append(
                [chunk.model_dump(exclude={"sdk_http_response"}) for chunk in _ask(client, "stream", {})]
            )
    assert heard[0] == heard[1]


# -- which clients, and what they do not send --------------------------------------------------------

REFUSED: dict[str, Callable[[Any], Any]] = {
    "batches": lambda client: client.batches.list(),
    "a batch": lambda client: client.batches.create(model="m", src=[{"contents": "hi"}]),
    "interactions": lambda client: client.interactions.create(model="m", input="hi"),
    "tokens for live": lambda client: client.auth_tokens.create(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_what_would_come_unguarded_is_not_sent(call: Any, upstream: Upstream) -> None:
    upstream.play(Script([]))
    with made(upstream, api_version="v1alpha") as client:
        guard_client(client, guard()[0])
        with pytest.raises(UnguardedClient, match="was not sent"):
            call(client)
    assert upstream.requests == []


HARMLESS: dict[str, Callable[[Any], Any]] = {
    "models": lambda client: client.models.list(),
    "a model": lambda client: client.models.get(model="m"),
    "tokens counted": lambda client: client.models.count_tokens(model="m", contents="hi"),
    "embeddings": lambda client: client.models.embed_content(model="m", contents="hi"),
    "files": lambda client: client.files.list(),
    "caches": lambda client: client.caches.create(model="m", config={"contents": "hi"}),
    "file search": lambda client: client.file_search_stores.list(),
}


@pytest.mark.parametrize("call", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_holds_no_model_text_is_sent(call: Any, upstream: Upstream) -> None:
    upstream.play(Script([b"{}"], content_type=JSON))
    with made(upstream) as client:
        call(guard_client(client, guard()[0]))
    assert len(upstream.requests) == 1


def test_the_client_and_its_async_side_are_guarded_as_one(upstream: Upstream) -> None:
    by, _ = guard()
    client = made(upstream)
    with pytest.raises(UnguardedClient):
        assert_guarded(client)
    assert guard_client(client, by) is client
    assert_guarded(client.aio)
    assert guard_client(client.aio, by) is client.aio
    with pytest.raises(UnguardedClient, match="guarded already"):
        guard_client(client.aio, guard()[0])
    client.close()


def test_a_loop_that_the_client_knew_before_is_guarded_too(upstream: Upstream) -> None:
    """The async client sends by one of its own for each loop."""

    async def main() -> None:
        async with made(upstream).aio as client:
            play(upstream, "whole", reasoning(harm_in=0), ANSWER)
            (bare,) = await _ask_async(client, "whole", {})
            assert bare.text == "".join(ANSWER)
            by, reports = guard()
            guard_client(client, by)
            out = outcome(await _ask_async(client, "whole", {}), reports)
            assert out.reason == "SAFETY"

    anyio.run(main)


def test_a_client_that_is_sent_to_another_loop_is_guarded_there(upstream: Upstream) -> None:
    by, reports = guard()
    client = guard_client(made(upstream), by)
    for _ in range(2):
        play(upstream, "stream", reasoning(harm_in=0), ANSWER)

        async def main() -> list[Any]:
            return await _ask_async(client.aio, "stream", {})

        assert outcome(anyio.run(main), reports).reason == "SAFETY"
    assert len(reports.all) == 2
    client.close()


@pytest.mark.skipif(MAJOR < 3, reason="google-genai 2 sends by the client itself")
@pytest.mark.parametrize("missing", ["_client_kwargs", "_loop_clients"])
def test_an_async_client_that_sends_in_another_way_cannot_be_guarded(
    missing: str, upstream: Upstream
) -> None:
    client = made(upstream)
    delattr(client._api_client._async_httpx_client, missing)
    with pytest.raises(UnguardedClient, match="not known here"):
        guard_client(client, guard()[0])


def test_a_client_that_sends_by_aiohttp_cannot_be_guarded(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the SDK does by itself where aiohttp is installed."""
    monkeypatch.setattr("google.genai._api_client.has_aiohttp", True)
    with pytest.raises(UnguardedClient, match="httpx_async_client"):
        guard_client(made(upstream), guard()[0])
    client = made(upstream, httpx_client=httpx2.Client(), httpx_async_client=httpx2.AsyncClient())
    assert_guarded(guard_client(client, guard()[0]))


def test_a_client_on_legacy_httpx_is_guarded(upstream: Upstream) -> None:
    httpx = pytest.importorskip("httpx")
    play(upstream, "stream", reasoning(harm_in=0), ANSWER)
    by, reports = guard()
    client = guard_client(made(upstream, httpx_client=httpx.Client()), by)
    assert outcome(_ask(client, "stream", {}), reports).reason == "SAFETY"


@pytest.mark.parametrize("way", WAYS)
def test_googles_other_service_is_guarded(way: str, upstream: Upstream) -> None:
    play(upstream, way, reasoning(harm_in=0), ANSWER)
    by, reports = guard()
    base = upstream.url.removesuffix("/v1")
    with genai.Client(vertexai=True, api_key="none", http_options=types.HttpOptions(base_url=base)) as client:
        out = outcome(_ask(guard_client(client, by), way, {}), reports)
    assert out.reason == "SAFETY"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.models.generate_images(model="m", prompt="hi"),
        lambda client: client.models.generate_videos(model="m", prompt="hi"),
        lambda client: client.models.embed_content(model="text-embedding-005", contents="hi"),
    ],
    ids=["images", "videos", "embeddings, asked for as predictions"],
)
def test_what_googles_other_service_predicts_is_not_sent(call: Any, upstream: Upstream) -> None:
    upstream.play(Script([]))
    base = upstream.url.removesuffix("/v1")
    with genai.Client(vertexai=True, api_key="none", http_options=types.HttpOptions(base_url=base)) as client:
        guard_client(client, guard()[0])
        with pytest.raises(UnguardedClient, match="was not sent"):
            call(client)
    assert upstream.requests == []


def test_a_result_has_no_report_but_the_name_of_its_stream(upstream: Upstream) -> None:
    play(upstream, "whole", THOUGHT, ANSWER)
    with made(upstream) as client:
        (result,) = _ask(guard_client(client, guard()[0]), "whole", {})
    with pytest.raises(UnguardedClient, match="observers"):
        report_of(result)


def test_a_stream_that_comes_as_an_array_is_not_read(upstream: Upstream) -> None:
    upstream.play(Script([b"[", body(candidate(said("HARM"))), b"]"], content_type=JSON))
    with made(upstream) as client:
        guard_client(client, guard()[0])
        with pytest.raises(Exception, match="content type") as raised:
            _ask(client, "stream", {})
    assert "HARM" not in str(raised.value)


def test_a_bare_http_client_is_guarded(upstream: Upstream) -> None:
    play(upstream, "stream", reasoning(harm_in=0), ANSWER)
    base = upstream.url.removesuffix("/v1")
    asked = {"contents": [{"parts": [{"text": QUESTION}]}]}
    by, reports = guard()
    with httpx2.Client(base_url=base) as http:
        guard_client(http, by)
        response = http.post("/v1beta/models/m:streamGenerateContent?alt=sse", json=asked)
        assert "HARM" not in response.text
        with pytest.raises(UnguardedClient, match="was not sent"):
            http.post("/v1beta/models/m:predict", json=asked)
    assert reports.last.ended is Ended.ABORTED
