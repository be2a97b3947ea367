"""Each way in which a server can fail, on real sockets."""

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
import uvicorn

from shieldguard import (
    ConfigError,
    JudgeBusy,
    JudgeError,
    JudgeRefused,
    JudgeTimeout,
    JudgeUnreachable,
    RiskLevel,
    UnparsedVerdict,
)
from shieldguard.config import GuardConfig
from shieldguard.judges.remote import RemoteJudge
from tests.judges.remote.rig import (
    HARMFUL,
    JSON,
    SAFE,
    WRITTEN,
    analysis,
    judging,
    make,
    reply,
    servers,
    window,
)
from tests.ports import unheard
from tests.upstream import DONE, Script, Upstream, chunk

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def one() -> Iterator[Upstream]:
    with servers(1) as [upstream]:
        yield upstream


@pytest.fixture(scope="module")
def three() -> Iterator[list[Upstream]]:
    with servers(3) as upstreams:
        yield upstreams


@pytest.fixture(autouse=True)
def _safe_again(one: Upstream, three: list[Upstream]) -> None:
    for upstream in (one, *three):
        upstream.play(SAFE)


def asked(upstreams: list[Upstream]) -> list[int]:
    return [len(upstream.requests) for upstream in upstreams]


async def asking(upstream: Upstream, count: int = 1) -> None:
    """Come back once it is asked that often."""
    with anyio.fail_after(20):
        while len(upstream.requests) < count:  # noqa: ASYNC110
            await anyio.sleep(0.005)


# -- one server --------------------------------------------------------------------------------------

ERRORS: list[tuple[Script, type[JudgeError], str]] = [
    (reply({"error": {"message": "Bad key"}}, status=401), JudgeRefused, "status 401: Bad key; .*api_key"),
    (reply({"detail": "No"}, status=403), JudgeRefused, "status 403: No; .*may not use"),
    (reply({"message": "No such model"}, status=404), JudgeRefused, "No such model; look at the URL"),
    (reply({"error": "maximum context length"}, status=400), JudgeRefused, "context length; .*too long"),
    (reply({"detail": [{"loc": "x"}]}, status=422), JudgeRefused, "status 422: .*a field"),
    (reply({}, status=418), JudgeRefused, "status 418: .*OpenAI kind"),
    (reply({}, status=307, headers={"location": "http://elsewhere/v1"}), JudgeRefused, "not followed"),
    (reply({"error": "CUDA"}, status=500), JudgeUnreachable, "status 500: CUDA"),
    (Script([b"<html>"], status=502, content_type="text/html"), JudgeUnreachable, "status 502: <html>"),
    (Script([b"<html>"], content_type="text/html"), UnparsedVerdict, "no completion"),
    (Script([b"{"], content_type=JSON, cut=True), JudgeUnreachable, "127.0.0.1"),
    (Script([b"x" * (1 << 20)] * 2, content_type=JSON), JudgeUnreachable, "more than 1048576 bytes"),
    (reply({}, status=429, headers={"retry-after": "3600"}), JudgeBusy, "status 429"),
    (reply({}, status=503, headers={"retry-after": "3600"}), JudgeBusy, "status 503"),
]


@pytest.mark.parametrize(("script", "kind", "says"), ERRORS)
async def test_each_failure_has_its_type_and_says_what_happened(
    one: Upstream, script: Script, kind: type[JudgeError], says: str
) -> None:
    one.play(script)
    async with judging([one]) as judge:
        with pytest.raises(kind, match=says) as error:
            await judge.judge(window())
        assert type(error.value) is kind
        assert one.url in str(error.value)
        one.play(HARMFUL)  # and nothing of it stays
        assert (await judge.judge(window())).level is RiskLevel.HARMFUL


async def test_a_port_where_nobody_listens_is_named() -> None:
    with unheard() as port:
        url = f"http://127.0.0.1:{port}/v1"
        async with judging(url) as judge:
            with pytest.raises(JudgeUnreachable, match=url):
                await judge.judge(window())


async def test_a_server_that_says_nothing_counts_as_failed(one: Upstream) -> None:
    one.play(Script([b" "], hold_open=True, content_type=JSON))
    async with judging([one], timeout=0.2) as judge:
        with pytest.raises(JudgeUnreachable, match="nothing"):
            await judge.judge(window(seconds=20))


async def test_the_windows_deadline_holds(one: Upstream) -> None:
    one.play(Script([b" "] * 100, delay=0.1, content_type=JSON))
    async with judging([one]) as judge:
        began = time.monotonic()
        with pytest.raises(JudgeTimeout):
            await judge.judge(window(seconds=0.4))
        assert time.monotonic() - began < 5  # of the ten that the answer takes


async def test_a_busy_server_is_waited_for(one: Upstream) -> None:
    one.first.append(reply({}, status=429, headers={"retry-after": "0.3"}))
    async with judging([one]) as judge:
        began = time.monotonic()
        assert (await judge.judge(window())).level is RiskLevel.SAFE
        assert time.monotonic() - began > 0.25


async def test_a_server_busy_beyond_the_deadline_is_not(one: Upstream) -> None:
    one.play(reply({}, status=429, headers={"retry-after": "60"}))
    async with judging([one]) as judge:
        began = time.monotonic()
        with pytest.raises(JudgeBusy):
            await judge.judge(window(seconds=20))
        assert time.monotonic() - began < 10


async def test_a_connection_that_was_gone_is_made_anew(one: Upstream) -> None:
    one.first.append(Script([b"{"], content_type=JSON, cut=True))
    async with judging([one]) as judge:
        assert (await judge.judge(window())).level is RiskLevel.SAFE
    assert len(one.requests) == 2


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (analysis(*WRITTEN[:1]), UnparsedVerdict),
        (analysis(*WRITTEN, ended="length"), UnparsedVerdict),  # perhaps a 0.5 that lacks its end
        (analysis(*WRITTEN, ended="content_filter"), UnparsedVerdict),
        (analysis('"Judgment": 0.7'), UnparsedVerdict),
        (analysis(), UnparsedVerdict),
        (analysis(*WRITTEN, ended=None), JudgeUnreachable),
        (analysis(*WRITTEN, ended=None, cut=True), JudgeUnreachable),
        (Script([b'data: {"error": {"message": "out of memory"}}\n\n']), JudgeUnreachable),
        (Script([b"data: {]\n\n"]), UnparsedVerdict),
        (Script([b"data: " + b"x" * (1 << 20)] * 6), JudgeUnreachable),
    ],
)
async def test_an_analysis_without_its_end_is_no_verdict(
    one: Upstream, script: Script, kind: type[JudgeError]
) -> None:
    one.play(script)
    async with judging([one], mode="full") as judge:
        with pytest.raises(kind) as error:
            await judge.judge(window())
        assert type(error.value) is kind


async def test_the_analysis_is_left_as_soon_as_the_judgment_is_there(one: Upstream) -> None:
    frames = [chunk({"content": piece}) for piece in (*WRITTEN, "\n\n", *["more"] * 100)]
    one.play(Script([*frames, DONE], delay=0.05))
    async with judging([one], mode="full") as judge:
        verdict = await judge.judge(window())
        assert (verdict.level, verdict.analysis) == (RiskLevel.SAFE, "It is calm.")
        assert await anyio.to_thread.run_sync(one.finished.wait, 20)
    assert one.closed_at is not None
    assert one.sent < 50


async def test_cancelling_closes_the_request(one: Upstream) -> None:
    one.play(Script([b" "] * 200, delay=0.05, content_type=JSON))
    async with judging([one]) as judge:
        async with anyio.create_task_group() as group:
            group.start_soon(judge.judge, window())
            await asking(one)
            group.cancel_scope.cancel()
        assert await anyio.to_thread.run_sync(one.finished.wait, 20)
    assert one.closed_at is not None


async def test_closing_ends_what_is_judged(one: Upstream) -> None:
    one.play(Script([b" "] * 200, delay=0.05, content_type=JSON))
    async with judging([one]) as judge:
        async with anyio.create_task_group() as group:

            async def expect() -> None:
                with pytest.raises(JudgeError, match="closed"):
                    await judge.judge(window())

            group.start_soon(expect)
            await asking(one)
            await judge.aclose()
        assert await anyio.to_thread.run_sync(one.finished.wait, 20)
        with pytest.raises(JudgeError, match="make a new one"):
            await judge.judge(window())
    assert one.closed_at is not None
    assert not [thread for thread in threading.enumerate() if thread.name == "shieldguard-remote"]


# -- what is asked -----------------------------------------------------------------------------------


async def test_fast_asks_for_the_label_behind_a_forced_judgment(one: Upstream) -> None:
    async with judging([one], api_key="sk-1", headers={"x-team": "red"}, body={"cache_salt": "c"}) as judge:
        await judge.judge(window("calm <|eot_id|>", query="why?"))
    [asked] = one.requests
    prompt = asked.pop("prompt")
    assert prompt.startswith("<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date")
    assert prompt.endswith(
        "Rate it.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQuery: why?\nThought: calm < |eot_id|>"
        '<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"Judgment": '
    )
    assert asked == {"model": "shield", "max_tokens": 3, "temperature": 0, "logprobs": 20, "cache_salt": "c"}
    [headers] = one.headers
    assert (headers["authorization"], headers["x-team"]) == ("Bearer sk-1", "red")


async def test_full_asks_for_an_analysis(one: Upstream) -> None:
    one.play(analysis(*WRITTEN))
    async with judging([one], mode="full") as judge:
        await judge.judge(window("calm <|eot_id|>", query="why?"))
    assert one.requests == [
        {
            "model": "shield",
            "messages": [
                {"role": "system", "content": "Rate it."},
                {"role": "user", "content": "Query: why?\nThought: calm < |eot_id|>"},
            ],
            "max_tokens": 1024,
            "temperature": 0,
            "stream": True,
            "chat_template_kwargs": {"date_string": "26 Jul 2024"},
        }
    ]


async def test_what_there_is_no_room_for_is_left_out_and_said(one: Upstream) -> None:
    async with judging([one], context=1000) as judge:
        text = "".join(f"{number:03} " for number in range(1000))
        verdict = await judge.judge(window(text, query="why? " * 100))
        later = await judge.judge(window(f"{text}and", query="why? " * 100))
    first, second = (request["prompt"] for request in one.requests)
    assert "998 999<|eot_id|>" in first
    assert "Thought: […] " in first
    assert " […] " in first.partition("Thought: ")[0]
    assert len(first) < 1400
    assert verdict.analysis == later.analysis
    assert verdict.analysis == (
        "(The context had no room for the first 3348 characters "
        "and 250 characters in the middle of the question.)"
    )
    shared = first[: first.index("999<|eot_id|>")]
    assert second.startswith(shared)  # so that the server's cache is of use


# -- replicas ----------------------------------------------------------------------------------------


async def test_a_stream_stays_with_its_replica_and_others_go_to_the_least_loaded(
    three: list[Upstream],
) -> None:
    async with judging(three) as judge:
        for stream in ("a", "b", "c"):
            for _ in range(4):
                await judge.judge(window(stream=stream))
        assert asked(three) == [4, 4, 4]
        judge.forget("b")
        await judge.judge(window(stream="d"))
        assert sum(asked(three)) == 13
        await judge.judge(window(stream="e"))
        assert sorted(asked(three)) == [4, 5, 5]


async def test_a_dead_replica_is_passed_over_and_tried_again_later(three: list[Upstream]) -> None:
    first, *others = three
    async with judging(three, retry_after=3) as judge:
        await judge.judge(window(stream="a"))
        assert asked(three) == [1, 0, 0]
        first.play(reply({}, status=500))
        for _ in range(3):
            assert (await judge.judge(window(stream="a"))).level is RiskLevel.SAFE
        assert len(first.requests) == 1  # the one that failed
        assert sum(asked(others)) == 3
        first.play(SAFE)
        await anyio.sleep(3.1)
        for stream in ("b", "c", "d"):
            await judge.judge(window(stream=stream))
        assert len(first.requests) > 0


async def test_a_replica_that_hangs_past_a_deadline_is_passed_over(three: list[Upstream]) -> None:
    first, *others = three
    first.play(Script([], hold_open=True, content_type=JSON))
    async with judging(three) as judge:
        with pytest.raises(JudgeTimeout):
            await judge.judge(window(stream="a", seconds=0.3))
        assert (await judge.judge(window(stream="a"))).level is RiskLevel.SAFE
    assert sum(asked(others)) == 1


async def test_where_all_fail_each_ones_failure_is_named(three: list[Upstream]) -> None:
    for number, upstream in enumerate(three):
        upstream.play(reply({"error": f"failure {number}"}, status=500 + number))
    async with judging(three) as judge:
        with pytest.raises(JudgeUnreachable) as error:
            await judge.judge(window())
        for number, upstream in enumerate(three):
            assert f"{upstream.url}: status {500 + number}: failure {number}" in str(error.value)
        assert asked(three) == [1, 1, 1]
        three[2].play(SAFE)  # none is up, and yet they are asked
        assert (await judge.judge(window())).level is RiskLevel.SAFE


async def test_a_refusal_is_not_taken_to_other_replicas(three: list[Upstream]) -> None:
    three[0].play(reply({"error": "no"}, status=401))
    async with judging(three) as judge:
        with pytest.raises(JudgeRefused):
            await judge.judge(window())
    assert asked(three) == [1, 0, 0]


async def test_a_busy_replicas_stream_goes_to_another(three: list[Upstream]) -> None:
    three[0].play(reply({}, status=429, headers={"retry-after": "3600"}))
    async with judging(three) as judge:
        for _ in range(3):
            assert (await judge.judge(window())).level is RiskLevel.SAFE
    assert asked(three) == [1, 3, 0]


# -- loops, threads, limits --------------------------------------------------------------------------


def test_one_judge_serves_one_loop_after_the_other(one: Upstream) -> None:
    with closing(make([one])) as judge:
        for library in ("asyncio", "trio", "asyncio", "trio"):
            verdict = anyio.run(judge.judge, window(), backend=library)
            assert verdict.level is RiskLevel.SAFE


def test_a_judge_that_is_no_longer_used_ends_its_thread(one: Upstream) -> None:
    judge = RemoteJudge(one.url, model="shield")
    anyio.run(judge.judge, window())
    [thread] = [thread for thread in threading.enumerate() if thread.name == "shieldguard-remote"]
    del judge
    thread.join(5)
    assert not thread.is_alive()


async def test_no_more_connections_than_it_may_have(one: Upstream) -> None:
    one.play(Script([b" ", *SAFE.pieces], delay=0.2, content_type=JSON))
    async with judging([one], max_connections=2) as judge:
        began = time.monotonic()
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(judge.judge, window(stream=str(number)))
        assert time.monotonic() - began > 0.9  # three rounds of two, 0.4 seconds each


async def test_one_window_too_many_is_refused_at_once(one: Upstream) -> None:
    one.play(Script([b" ", *SAFE.pieces], delay=1, content_type=JSON))
    async with judging([one], queue=2) as judge:
        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(judge.judge, window(stream=str(number)))
            await asking(one, 2)
            with pytest.raises(JudgeBusy, match="queue=2"):
                await judge.judge(window())
        await judge.judge(window())


# -- TLS ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with a certificate of an authority of its own: its URL, and that authority's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(folder / "cert.pem", append=number > 0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"".join(SAFE.pieces)})

    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="critical",
            lifespan="off",
            ssl_keyfile=str(folder / "key.pem"),
            ssl_certfile=str(folder / "cert.pem"),
        )
    )
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}", folder / "ca.pem"
    server.should_exit = server.force_exit = True
    thread.join(timeout=5)


async def test_certificates_are_checked_against_the_authority_given(secured: tuple[str, Path]) -> None:
    url, authority = secured
    contexts = [ssl.create_default_context(cafile=authority), False]
    for verify in (*contexts, str(authority)):
        async with judging(url, verify=verify) as judge:
            assert (await judge.judge(window())).level is RiskLevel.SAFE
    async with judging(url) as judge:
        with pytest.raises(JudgeUnreachable, match=r"CERTIFICATE_VERIFY_FAILED.*give the judge verify="):
            await judge.judge(window())


# -- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"urls": []}, "one URL or more"),
        ({"urls": ["http://a", "http://a/v1/"]}, "each once"),
        ({"urls": "a:8000"}, "such as"),
        ({"urls": "ftp://a"}, "such as"),
        ({"urls": "http://me:secret@a"}, "holds a password"),
        ({"urls": "http://a/?key=1"}, "has a query"),
        ({"model": ""}, "model=''"),
        ({"mode": "slow"}, "mode='slow'"),
        ({"prompt": " "}, "is empty"),
        ({"prompt": Path("nowhere.txt")}, "cannot read the prompt"),
        ({"template": "{user}"}, "must hold"),
        ({"template": "{user}{system}"}, "must hold"),
        ({"special": ["<"]}, "two characters"),
        ({"context": 10}, "context=10"),
        ({"potential": 2}, "potential=2"),
        ({"timeout": 0}, "timeout=0"),
        ({"retry_after": float("inf")}, "retry_after=inf"),
        ({"max_connections": 0}, "max_connections=0"),
        ({"verify": "nowhere.pem"}, "verify='nowhere.pem'"),
        ({"api_key": "a\nb"}, "HTTP cannot carry"),
    ],
)
def test_settings_that_cannot_work_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        RemoteJudge(**{"urls": "http://127.0.0.1:1", "model": "shield", **options})
    assert "secret" not in str(error.value)


def test_a_configuration_makes_such_a_judge(
    one: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "guard.toml"
    file.write_text(f'judge = "remote"\n[judge_options]\nurls = ["{one.url}"]\nmodel = "shield"\n')
    monkeypatch.setenv("SHIELDGUARD_JUDGE_OPTIONS__API_KEY", "sk-1")
    guard = GuardConfig.load(file).build()
    with guard.stream_sync(["<think>It is calm.</think>Bread."]) as stream:
        list(stream)
    assert (stream.report.level, stream.report.failures) == (0.0, 0)
    assert one.headers[0]["authorization"] == "Bearer sk-1"
    assert isinstance(guard.judge, RemoteJudge)
    guard.judge.close()


def test_the_command_takes_it_from_a_file(one: Upstream, tmp_path: Path) -> None:
    one.play(HARMFUL)
    file, trace = tmp_path / "guard.toml", tmp_path / "trace.txt"
    file.write_text(f'judge = "remote"\n[judge_options]\nurls = "{one.url}"\nmodel = "shield"\n')
    trace.write_text("<think>It is not calm.</think>Bread.")
    command = [sys.executable, "-c", "from shieldguard_adapters.cli import main; main()"]
    done = subprocess.run([*command, "check", str(trace), "--config", str(file)], timeout=60)
    assert done.returncode == 1
    assert one.requests
