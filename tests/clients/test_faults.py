"""What goes wrong upstream stays the SDK's to report, and nothing unjudged leaves on the way."""

import gzip
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import openai
import pytest

from shieldguard import Ended, WireError
from shieldguard_adapters.clients import guard_client, report_of
from tests.clients.rig import HTTP, PROGRAMS, QUESTION, ask, guard, raw_bytes, reasoning, run
from tests.upstream import Script, Upstream, chat, completion

ERROR = b'{"error":{"message":"too much at once","type":"rate_limit","code":null}}'


def squeezed(pieces: Sequence[bytes], bits: int) -> list[bytes]:
    press = zlib.compressobj(wbits=bits)
    return [press.compress(piece) + press.flush(zlib.Z_SYNC_FLUSH) for piece in pieces] + [press.flush()]


@pytest.mark.parametrize(("encoding", "bits"), [("gzip", 31), ("deflate", 15)])
def test_a_server_that_compresses_nevertheless_is_read_and_judged(
    encoding: str, bits: int, upstream: Upstream
) -> None:
    headers = {"content-encoding": encoding}
    frames = chat(reasoning(), ["It is fine."])
    upstream.play(Script(squeezed(frames, bits), headers=headers))
    assert raw_bytes(upstream, guard()) == b"".join(frames)
    upstream.play(Script(squeezed(chat(reasoning(harm_in=0), []), bits), headers=headers))
    assert b"HARM" not in raw_bytes(upstream, guard())


def test_a_compressed_body_is_read_and_judged(upstream: Upstream) -> None:
    body = gzip.compress(completion({"content": "HARM"}))
    upstream.play(Script([body], content_type="application/json", headers={"content-encoding": "gzip"}))
    outcome = ask("sync", "whole", upstream, guard())
    assert outcome.account.aborted is not None


def test_bytes_that_are_not_compressed_as_they_say_end_as_a_refusal(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(), []), headers={"content-encoding": "gzip"}))
    outcome = ask("sync", "create", upstream, guard())
    assert outcome.account.aborted is not None
    assert outcome.refusal[0] == outcome.account.aborted.notice


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    "script",
    [
        Script([b"..."], headers={"content-encoding": "br"}),
        Script([b"HARM"], content_type="text/plain"),
        Script([b"HARM"], content_type=""),
    ],
    ids=["unknown encoding", "unknown content type", "no content type"],
)
def test_what_cannot_be_guarded_is_refused_at_once(script: Script, program: str, upstream: Upstream) -> None:
    upstream.play(script)
    with pytest.raises(WireError):
        ask(program, "create", upstream, guard())
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_errors_of_the_server_reach_the_caller_as_they_are(
    program: str, status: int, error: type[openai.APIStatusError], upstream: Upstream
) -> None:
    upstream.play(Script([ERROR], status=status, content_type="application/json"))
    with pytest.raises(error, match="too much at once") as raised:
        ask(program, "create", upstream, guard())
    assert raised.value.response.content == ERROR


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_an_error_is_guarded_too(status: int, upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(harm_in=0), ["No."])))
    upstream.first.append(Script([ERROR], status=status, headers={"retry-after-ms": "1"}))
    with openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=1) as client:
        stream = guard_client(client, guard()).chat.completions.create(
            model="m", messages=QUESTION, stream=True
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text.startswith("[Withheld")
    assert len(upstream.requests) == 2


def test_an_abort_is_not_tried_again(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(harm_in=0), ["No."])))
    with openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=2) as client:
        list(guard_client(client, guard()).chat.completions.create(model="m", messages=QUESTION, stream=True))
    assert len(upstream.requests) == 1


Broken = tuple[str, Ended, Exception]


def sync_break(upstream: Upstream, **options: Any) -> Broken:
    """The reasoning that came before a stream broke, how its report says it ended, and what was raised."""
    with openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0, **options) as client:
        guard_client(client, guard())
        stream = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
        text = ""
        try:
            for chunk in stream:
                text += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
        except (HTTP.TransportError, openai.APIError) as error:
            return text, report_of(stream).ended, error
    raise AssertionError("the stream did not break")


def async_break(upstream: Upstream, **options: Any) -> Broken:
    async def broken(client: openai.AsyncOpenAI) -> Broken:
        asked = client.with_options(**options).chat.completions
        stream = await asked.create(model="m", messages=QUESTION, stream=True)
        text = ""
        try:
            async for chunk in stream:
                text += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
        except (HTTP.TransportError, openai.APIError) as error:
            return text, report_of(stream).ended, error
        raise AssertionError("the stream did not break")

    return run("asyncio", upstream, broken, guard())


@pytest.mark.parametrize("read", [sync_break, async_break])
def test_a_connection_that_breaks_raises_as_without_a_guard_behind_all_that_was_judged(
    read: Callable[..., Broken], upstream: Upstream
) -> None:
    thought = reasoning()
    upstream.play(Script(chat(thought, [])[:-3], cut=True))
    text, ended, error = read(upstream)
    assert text == "".join(thought)
    assert ended is Ended.SOURCE_FAILED
    assert not isinstance(error, openai.APITimeoutError)


@pytest.mark.parametrize("read", [sync_break, async_break])
def test_a_harmful_end_before_a_broken_connection_does_not_leave(
    read: Callable[..., Broken], upstream: Upstream
) -> None:
    upstream.play(Script(chat(["HARM, it broke"], [])[:-3], cut=True))
    outcome = ask("sync" if read is sync_break else "asyncio", "create", upstream, guard())
    assert outcome.account.aborted is not None
    assert outcome.reasoning == {}


@pytest.mark.parametrize("read", [sync_break, async_break])
def test_a_server_that_falls_silent_runs_into_the_clients_own_timeout(
    read: Callable[..., Broken], upstream: Upstream
) -> None:
    upstream.play(Script(chat(reasoning(), [])[:-3], hold_open=True))
    began = time.monotonic()
    text, _, error = read(upstream, timeout=0.3)
    assert text.startswith("Sentence 0")
    assert isinstance(error, HTTP.TimeoutException | openai.APITimeoutError)
    assert time.monotonic() - began < 20
    assert upstream.finished.wait(20)
