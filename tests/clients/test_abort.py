"""A harmful thought ends the response before its answer, whichever way it was asked for."""

import time
from dataclasses import replace
from typing import Any

import openai
import pytest

from shieldguard import AbortCause, Ended, JudgeError, StreamReport, WindowJudged
from shieldguard_adapters.clients import guard_client
from shieldguard_adapters.wire import Termination
from tests.clients.rig import PROGRAMS, STREAMED, ask, guard, reasoning, run, run_async
from tests.upstream import Script, Upstream, chat, chunk, completion

ANSWER = ["The answer ", "that must not be seen."]


@pytest.mark.parametrize("instant", [True, False], ids=["judge in place", "judge on its loop"])
@pytest.mark.parametrize("way", STREAMED)
@pytest.mark.parametrize("program", PROGRAMS)
def test_no_unjudged_character_leaves_and_the_sdk_reads_a_refusal(
    program: str, way: str, instant: bool, upstream: Upstream
) -> None:
    thought = reasoning(harm_in=4)
    upstream.play(Script(chat(thought, ANSWER)))
    outcome = ask(program, way, upstream, guard(instant=instant))
    aborted = outcome.account.aborted
    assert aborted is not None
    assert (aborted.cause, outcome.account.ended) == (AbortCause.RISK, Ended.ABORTED)
    assert outcome.reasoning[0] == "".join(thought)[: len(outcome.reasoning[0])]
    assert "HARM" not in outcome.reasoning[0]
    assert outcome.account.reasoning.exposed == outcome.account.answer.released == 0
    assert outcome.content[0] == outcome.refusal[0] == aborted.notice
    assert outcome.finish_reason == {0: "stop"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_sent_in_one_piece_becomes_a_refusal(program: str, upstream: Upstream) -> None:
    body = completion({"reasoning_content": "".join(reasoning(harm_in=4)), "content": "".join(ANSWER)})
    upstream.play(Script([body], content_type="application/json"))
    outcome = ask(program, "whole", upstream, guard())
    aborted = outcome.account.aborted
    assert aborted is not None
    assert (outcome.content[0], outcome.refusal[0], outcome.reasoning) == (aborted.notice, aborted.notice, {})
    assert (outcome.finish_reason, outcome.usage) == ({0: "stop"}, 14)


class Clock:
    """When the harmful verdict came."""

    def __init__(self) -> None:
        self.at = 0.0

    def window_judged(self, event: WindowJudged) -> None:
        if event.verdict and event.verdict.level == 1.0:
            self.at = time.monotonic()

    def stream_closed(self, report: StreamReport) -> None:
        pass


@pytest.mark.parametrize("instant", [True, False], ids=["judge in place", "judge on its loop"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_upstream_is_closed_within_ten_milliseconds_of_the_verdict(
    program: str, instant: bool, upstream: Upstream
) -> None:
    frames = chat(reasoning(sentences=60, harm_in=1), ANSWER)
    for _ in range(10):  # one of ten has to, as other programs run on this machine too
        clock = Clock()
        upstream.play(Script(frames, delay=0.002))
        report = ask(program, "create", upstream, replace(guard(instant=instant), observers=[clock])).account
        assert report.closed_after is not None
        assert upstream.finished.wait(20)
        assert upstream.closed_at is not None
        assert upstream.sent < len(frames) / 2
        if report.closed_after < 0.010 and upstream.closed_at - clock.at < 1:
            return
    pytest.fail("the upstream was closed too late each time")


def test_a_verdict_aborts_though_the_upstream_has_fallen_silent(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(sentences=2, harm_in=0), [])[:-3], hold_open=True))
    began = time.monotonic()
    outcome = ask("asyncio", "create", upstream, guard(instant=False, delay=0.2))
    assert outcome.account.aborted is not None
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("program", PROGRAMS[1:])
def test_aborted_connections_are_given_back(program: str, upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(sentences=9, harm_in=0), ANSWER), delay=0.001))

    async def several(client: Any) -> int:
        for _ in range(4):
            stream = await client.chat.completions.create(model="m", messages=[], stream=True)
            assert [one async for one in stream]
        return len(client._client._transport._pool.connections)

    assert run(program, upstream, several, guard()) == 0


@pytest.mark.parametrize("way", STREAMED)
def test_one_harmful_choice_ends_them_all(way: str, upstream: Upstream) -> None:
    thoughts = [reasoning(), reasoning(harm_in=3)]
    frames = [chunk({"role": "assistant", "content": ""}, index=index) for index in (0, 1)]
    for pair in zip(*thoughts, strict=True):
        frames += [chunk({"reasoning_content": text}, index=index) for index, text in enumerate(pair)]
    frames += [chunk({"content": "The answer"}, index=index) for index in (0, 1)]
    frames += [chunk({}, index=index, finish_reason="stop") for index in (0, 1)]
    upstream.play(Script([*frames, b"data: [DONE]\n\n"]))
    outcome = ask("asyncio", way, upstream, guard(), n=2)
    aborted = outcome.account.aborted
    assert aborted is not None
    assert aborted.choice == 1
    assert outcome.content == outcome.refusal == {0: aborted.notice, 1: aborted.notice}
    assert outcome.finish_reason == {0: "stop", 1: "stop"}
    assert all("HARM" not in text for text in outcome.reasoning.values())


def test_aborted_connections_of_a_sync_program_are_given_back(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(sentences=9, harm_in=0), ANSWER), delay=0.001))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, guard())
        for _ in range(4):
            assert list(client.chat.completions.create(model="m", messages=[], stream=True))
        assert not client._client._transport._pool.connections  # type: ignore[attr-defined]


def test_a_harmful_answer_behind_a_harmless_thought_ends_too(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(), ["It is ", "HARM."])))
    outcome = ask("asyncio", "create", upstream, guard())
    assert outcome.reasoning[0] == "".join(reasoning())
    assert "HARM" not in outcome.content[0]


# -- the judge fails ---------------------------------------------------------------------------------


def failing(_: object) -> JudgeError:
    return JudgeError("no verdict today")


@pytest.mark.parametrize("instant", [True, False])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_judge_that_fails_closes(program: str, instant: bool, upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(), ANSWER)))
    outcome = ask(program, "create", upstream, guard(failing, instant=instant))
    aborted = outcome.account.aborted
    assert aborted is not None
    assert aborted.cause is AbortCause.JUDGE_FAILURE
    assert outcome.reasoning == {}
    assert outcome.content[0] == aborted.notice


def test_a_judge_that_is_too_late_closes(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(), ANSWER)))
    outcome = ask("asyncio", "create", upstream, guard({}, instant=False, delay=5, judge_timeout=0.05))
    assert outcome.account.aborted is not None
    assert outcome.account.aborted.cause is AbortCause.JUDGE_FAILURE


def test_failing_open_is_explicit_and_on_the_record(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(), ANSWER)))
    outcome = ask("asyncio", "create", upstream, guard(failing, on_failure="flag"))
    assert outcome.content[0] == "".join(ANSWER)
    assert outcome.account.failures == len(outcome.account.windows) > 0
    assert outcome.account.reasoning.exposed == len("".join(reasoning()))


# -- other endings -----------------------------------------------------------------------------------


def test_an_abort_can_end_as_an_error_of_the_sdks_own(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(harm_in=0), ANSWER)))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, guard(), termination=Termination.ERROR)
        stream = client.chat.completions.create(model="m", messages=[], stream=True)
        with pytest.raises(openai.APIError, match="safety check"):
            list(stream)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_abort_in_one_piece_can_end_as_an_error_of_the_sdks_own(program: str, upstream: Upstream) -> None:
    body = completion({"reasoning_content": "HARM", "content": "No."})
    upstream.play(Script([body], content_type="application/json"))

    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=upstream.url, api_key="none") as client:
            guard_client(client, guard(), termination=Termination.ERROR)
            completions = client.chat.completions
            with pytest.raises(openai.BadRequestError, match="safety check"):
                await completions.create(model="m", messages=[])
            with pytest.raises(openai.BadRequestError, match="safety check"):
                async with completions.with_streaming_response.create(model="m", messages=[]):
                    pass

    def sync_main() -> None:
        with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
            guard_client(client, guard(), termination=Termination.ERROR)
            completions = client.chat.completions
            for ask_ in (completions.create, completions.with_raw_response.create, completions.parse):
                with pytest.raises(openai.BadRequestError, match="safety check"):
                    ask_(model="m", messages=[])

    sync_main() if program == "sync" else run_async(program, main)
    assert len(upstream.requests) == (3 if program == "sync" else 2)


def test_a_harmless_body_that_might_have_been_an_error_is_as_it_was(upstream: Upstream) -> None:
    upstream.play(Script([completion({"content": "Fine."})], content_type="application/json"))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, guard(), termination=Termination.ERROR)
        whole = client.chat.completions.create(model="m", messages=[])
        with client.chat.completions.with_streaming_response.create(model="m", messages=[]) as response:
            assert b"".join(response.iter_bytes()) == upstream.script.pieces[0]
    assert whole.choices[0].message.content == "Fine."


def test_an_abort_can_end_as_a_content_filter(upstream: Upstream) -> None:
    upstream.play(Script(chat(reasoning(harm_in=0), ANSWER)))
    with openai.OpenAI(base_url=upstream.url, api_key="none") as client:
        guard_client(client, guard(), termination="content_filter")
        chunks = list(client.chat.completions.create(model="m", messages=[], stream=True))
    assert chunks[-1].choices[0].finish_reason == "content_filter"


def test_a_frame_that_cannot_be_guarded_ends_as_a_refusal(upstream: Upstream) -> None:
    frames = chat(reasoning(sentences=2), ANSWER)
    upstream.play(Script([*frames[:-4], b"data: {nonsense\n\n", *frames[-4:]]))
    outcome = ask("asyncio", "create", upstream, guard())
    assert outcome.account.aborted is not None
    assert outcome.account.aborted.cause is AbortCause.SOURCE
    assert outcome.refusal[0] == outcome.account.aborted.notice
