"""What goes through the proxy is guarded: the official clients and curl ask."""

import json
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from shieldguard import Ended, JudgeError
from shieldguard.evaluation.replay import again
from shieldguard.evaluation.timeline import output
from shieldguard.recording import read
from tests.clients.rig import PROGRAMS, STREAMED, ask, reasoning
from tests.proxy.rig import CHAT, QUESTION, Proxied, parted, proxied, until
from tests.upstream import Script, Upstream, chat, completion
from tests.wire import messages

anthropic = pytest.importorskip("anthropic")

THOUGHT = reasoning()
HARMFUL = reasoning(harm_in=3)
ANSWER = ["It is ", "fine."]
NOTICE = "[Withheld: a safety check rated this content as harmful.]"


def behind(proxy: Proxied) -> Upstream:
    """Where a client of the rig asks the proxy."""
    return Upstream(url=f"{proxy.url}/v1")


def summary(proxy: Proxied, response: httpx2.Response) -> dict[str, Any]:
    found = proxy.get(f"/shieldguard/streams/{response.headers['x-shieldguard-id']}")
    assert found.status_code == 200
    told: dict[str, Any] = found.json()
    return told


@pytest.mark.parametrize(
    ("program", "way"),
    [("sync", way) for way in STREAMED] + [(program, "create") for program in PROGRAMS[1:]],
)
def test_openais_client_gets_what_was_judged(
    program: str, way: str, upstream: Upstream, proxy: Proxied
) -> None:
    upstream.play(Script(chat(THOUGHT, ANSWER)))
    passed = ask(program, way, behind(proxy), None)
    assert (passed.content[0], passed.reasoning[0]) == ("It is fine.", "".join(THOUGHT))
    upstream.play(Script(chat(HARMFUL, ANSWER)))
    aborted = ask(program, way, behind(proxy), None)
    assert aborted.refusal[0] == NOTICE
    assert "Sentence 2" in aborted.reasoning[0]
    assert "HARM" not in str(aborted)
    assert until(proxy.is_idle)


@pytest.mark.parametrize("program", PROGRAMS)
def test_openais_client_gets_whole_completions(program: str, upstream: Upstream, proxy: Proxied) -> None:
    refused: list[tuple[str, dict[int, str]]] = [("fine", {}), ("HARM", {0: NOTICE})]
    for text, refusal in refused:
        upstream.play(Script([completion({"content": text})], content_type="application/json"))
        outcome = ask(program, "whole", behind(proxy), None)
        assert (outcome.refusal, outcome.content[0]) == (refusal, refusal.get(0, text))


def test_anthropics_client_gets_what_was_judged(upstream: Upstream, proxy: Proxied) -> None:
    asked: Any = {"max_tokens": 9, **QUESTION}
    with anthropic.Anthropic(base_url=proxy.url, api_key="none") as client:
        for thought, answer in ((THOUGHT, "It is fine."), (HARMFUL, NOTICE)):
            frames = messages.message(messages.thinking(0, *thought), messages.text(1, *ANSWER))
            upstream.play(Script(frames))
            with client.messages.stream(**asked) as stream:
                message = stream.get_final_message()
            assert message.content[-1].text == answer
            assert "HARM" not in str(message)
        upstream.play(
            Script([messages.body({"type": "text", "text": "HARM"})], content_type="application/json")
        )
        assert client.messages.create(**asked).stop_reason == "refusal"
        assert upstream.headers[0]["authorization"] == "Bearer none"


def test_bytes_that_nothing_changes_pass_as_they_are(upstream: Upstream, proxy: Proxied) -> None:
    frames = chat(THOUGHT, ANSWER)
    upstream.play(Script(frames, headers={"x-request-id": "r1", "content-type": "text/event-stream"}))
    response = proxy.ask()
    assert parted(response.content)[0] == b"".join(frames)
    assert response.headers["x-request-id"] == "r1"
    assert response.headers["content-type"] == "text/event-stream"
    assert upstream.requests == [QUESTION]


def test_streams_are_recorded_where_it_is_asked_for(upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "streams.jsonl"
    with proxied(upstream, record=file) as proxy:
        for thought in (THOUGHT, HARMFUL):
            upstream.play(Script(chat(thought, ANSWER)))
            ask("sync", "create", behind(proxy), None)
        assert until(lambda: file.read_text().count('"step": "closed"') == 2)
    passed, aborted = map(again, read(file))
    assert output(passed) == "".join(THOUGHT) + "It is fine."
    assert aborted.report.ended is Ended.ABORTED
    assert output(aborted).endswith(NOTICE)
    assert "HARM" not in output(aborted)


def test_what_happened_is_told_by_id(upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script(chat(HARMFUL, ANSWER)))
    told = summary(proxy, proxy.ask())
    assert (told["ended"], told["cause"], told["level"]) == (Ended.ABORTED, "risk", 1.0)
    assert [window["level"] for window in told["windows"]] == [0.0, 0.0, 0.0, 1.0]
    assert "Sentence" not in json.dumps(told)
    assert proxy.get("/shieldguard/streams/0123").status_code == 404


def test_what_is_known_when_a_response_starts_is_told_in_its_headers(
    upstream: Upstream, proxy: Proxied
) -> None:
    upstream.play(Script(chat(reasoning(harm_in=0), ANSWER)[1:]))
    assert proxy.ask().headers["x-shieldguard-aborted"] == "risk"
    upstream.play(Script([completion({"content": "fine"})], content_type="application/json"))
    headers = proxy.ask().headers
    assert (headers["x-shieldguard-ended"], headers["x-shieldguard-level"]) == ("complete", "0")


def test_how_it_ended_is_told_behind_a_stream(upstream: Upstream, proxy: Proxied) -> None:
    for frames, said in (
        (chat(THOUGHT, ANSWER), {"ended": "complete", "level": "0"}),
        (chat(HARMFUL, ANSWER), {"aborted": "risk", "ended": "aborted", "level": "1"}),
    ):
        upstream.play(Script(frames))
        response = proxy.ask()
        came, told = parted(response.content)
        assert came.endswith(b"data: [DONE]\n\n")
        named = {"id": response.headers["x-shieldguard-id"], **said}
        assert told == {f"x-shieldguard-{name}": value for name, value in named.items()}


def test_a_frame_that_was_not_ended_is_not_a_part_of_it(upstream: Upstream, proxy: Proxied) -> None:
    frames = [*chat(THOUGHT, ANSWER)[:-1], b"data: [DONE]"]
    upstream.play(Script(frames))
    came, told = parted(proxy.ask().content)
    assert came == b"".join(frames)
    assert told["x-shieldguard-ended"] == "complete"


def test_it_is_not_told_where_the_settings_say_so(upstream: Upstream) -> None:
    with proxied(upstream, outcome_at_end=False) as proxy:
        upstream.play(Script(chat(THOUGHT, ANSWER)))
        assert proxy.ask().content == b"".join(chat(THOUGHT, ANSWER))


@pytest.mark.parametrize("harmful", [True, False])
def test_a_judge_that_failed_is_told_too_and_verdicts_still_to_come_are_not(
    harmful: bool, upstream: Upstream
) -> None:
    def judge(window: Any) -> float:
        raise JudgeError("no")

    policy = {"on_failure": "flag"}
    with proxied(upstream, marks=judge, policy=policy) as proxy:
        upstream.play(Script(chat(["One."], ["Two."])))
        _, told = parted(proxy.ask().content)
        assert (told["x-shieldguard-failures"], told.get("x-shieldguard-level")) == ("2", None)
    with proxied(upstream, delay=3, policy={"release": "shadow"}) as proxy:
        upstream.play(Script(chat(HARMFUL if harmful else THOUGHT, ANSWER)))
        _, told = parted(proxy.ask().content)
        assert (told["x-shieldguard-ended"], "x-shieldguard-level" in told) == ("complete", False)


def test_only_so_many_reports_are_kept(upstream: Upstream) -> None:
    with proxied(upstream, reports=2) as proxy:
        upstream.play(Script(chat(THOUGHT, ANSWER)))
        ids = [proxy.ask().headers["x-shieldguard-id"] for _ in range(3)]
        found = [proxy.get(f"/shieldguard/streams/{id_}").status_code for id_ in ids]
        assert found == [404, 200, 200]
        assert len(proxy.proxy._reports._owners) == 2


def test_a_redaction_leaves_the_answer(upstream: Upstream) -> None:
    with proxied(upstream, policy={"reasoning": {"harmful": "redact"}, "notice": "[gone]"}) as proxy:
        upstream.play(Script(chat(HARMFUL, ANSWER)))
        outcome = ask("sync", "create", behind(proxy), None)
        assert outcome.content[0] == "It is fine."
        assert outcome.reasoning[0].endswith("[gone]")


def test_a_judge_that_fails_ends_it(upstream: Upstream) -> None:
    def judge(window: Any) -> float:
        raise RuntimeError("at http://10.0.0.7: Sentence")

    with proxied(upstream, marks=judge) as proxy:
        upstream.play(Script(chat(THOUGHT, ANSWER)))
        response = proxy.ask()
        assert "Sentence" not in response.text
        assert "could not be completed" in response.text
        told = summary(proxy, response)
        assert told["cause"] == "judge_failure"
        assert told["windows"][0]["error"] == "JudgeError"
        assert "10.0.0.7" not in json.dumps(told) + response.text
        assert proxy.metric("shieldguard_judge_failures_total", error="JudgeError") == 1


@pytest.mark.parametrize("termination", ["content_filter", "error"])
def test_the_ending_can_be_chosen(termination: str, upstream: Upstream) -> None:
    with proxied(upstream, termination=termination) as proxy:
        upstream.play(Script(chat(HARMFUL, ANSWER)))
        if termination == "error":
            with pytest.raises(openai.APIError):
                ask("sync", "create", behind(proxy), None)
        else:
            assert ask("sync", "create", behind(proxy), None).finish_reason == {0: "content_filter"}


def test_inline_thoughts_are_told_apart(upstream: Upstream) -> None:
    with proxied(upstream, thinking="preopened") as proxy:
        upstream.play(Script(chat([], [*HARMFUL, "</think>", *ANSWER])))
        told = summary(proxy, proxy.ask())
        assert (told["reasoning"]["seen"] > 0, told["answer"]["seen"]) == (True, 0)


def test_silence_is_filled_with_keep_alives(upstream: Upstream) -> None:
    frames = chat(THOUGHT[:3], ANSWER)
    with proxied(upstream, keep_alive=0.02) as proxy:
        upstream.play(Script(frames, delay=0.08))
        assert len(proxy.ask().content) > len(b"".join(frames))
        upstream.play(Script(frames, delay=0.05))
        assert ask("sync", "create", behind(proxy), None).content[0] == "It is fine."
    with proxied(upstream, keep_alive="none") as proxy:
        upstream.play(Script(frames, delay=0.05))
        assert parted(proxy.ask().content)[0] == b"".join(frames)


def test_an_error_of_the_upstreams_passes(upstream: Upstream, proxy: Proxied) -> None:
    error = b'{"error":{"message":"too much at once","type":"rate_limit","code":null}}'
    upstream.play(Script([error], status=429, content_type="application/json", headers={"retry-after": "7"}))
    response = proxy.ask()
    assert (response.status_code, response.content) == (429, error)
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-shieldguard-passed"] == "unguarded"
    with pytest.raises(openai.RateLimitError, match="too much at once"):
        ask("sync", "create", behind(proxy), None)


def test_an_error_that_quotes_the_model_is_guarded(upstream: Upstream, proxy: Proxied) -> None:
    for text, shown in (("fine", "fine"), ("HARM", NOTICE)):
        error = {"message": "no tool of that name", "code": "tool_use_failed", "failed_generation": text}
        body = json.dumps({"error": error}).encode()
        upstream.play(Script([body], status=400, content_type="application/json"))
        response = proxy.ask()
        assert response.status_code == 400
        assert response.json()["error"] == {**error, "failed_generation": shown}
        assert "x-shieldguard-id" in response.headers


def test_what_the_judge_would_not_see_the_beginning_of_is_refused(upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script([b"HARM"]))
    for query in ("stream=true&starting_after=7", "starting%5Fafter=7", "a=1;starting_after=7"):
        response = proxy.get(f"/v1/responses/resp_1?{query}")
        assert (response.status_code, response.json()["error"]["code"]) == (400, "unseen")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("path", "content_type", "frames"),
    [
        (
            "/api/chat",
            "application/x-ndjson",
            [
                b'{"model":"m","message":{"role":"assistant","content":"%s"},"done":false}\n',
                b'{"model":"m","message":{"role":"assistant","content":""},"done":true}\n',
            ],
        ),
        (
            "/v1beta/models/m:streamGenerateContent?alt=sse&key=k",
            "text/event-stream",
            [
                b'data: {"candidates":[{"content":{"parts":[{"text":"%s"}],"role":"model"},'
                b'"finishReason":"STOP","index":0}]}\r\n\r\n',
            ],
        ),
    ],
)
def test_other_formats_are_guarded(
    path: str, content_type: str, frames: list[bytes], upstream: Upstream, proxy: Proxied
) -> None:
    asked = {"contents": [{"role": "user", "parts": [{"text": "Well?"}]}]}
    for text in ("fine", "HARM"):
        pieces = [frame.replace(b"%s", text.encode()) for frame in frames]
        upstream.play(Script(pieces, content_type=content_type))
        response = proxy.ask(path=path, json=asked if "v1beta" in path else QUESTION)
        assert response.status_code == 200
        assert (response.content == b"".join(pieces)) is (text == "fine")
        assert "HARM" not in response.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/m"),
        ("HEAD", "/v1/models"),
        ("GET", "/api/tags"),
        ("POST", "/api/show"),
        ("GET", "/v1beta/models"),
    ],
)
def test_models_may_be_listed(method: str, path: str, upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script([b'{"data":[]}'], content_type="application/json", headers={"etag": "e"}))
    response = proxy.ask(method=method, path=path, content=b"")
    assert (response.status_code, response.headers["etag"]) == (200, "e")
    assert response.content == (b"" if method == "HEAD" else b'{"data":[]}')
    assert proxy.metric("shieldguard_requests_total", kind="passed", status="200") > 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/engines/m/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/messages/batches"),
        ("GET", "/v1/chat/completions"),
        ("PUT", "/v1/chat/completions"),
        ("OPTIONS", "/v1/chat/completions"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models/m:unheardOf"),
        ("DELETE", "/v1/models/m"),
        ("POST", "/v1/Chat/Completions"),
        ("POST", "/healthz"),
        ("GET", "/v1/realtime"),
    ],
)
def test_all_else_is_refused_and_not_sent(method: str, path: str, upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script([b"HARM"]))
    response = proxy.ask(method=method, path=path, content=b"{}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_guarded"
    assert response.headers["x-shieldguard-refused"] == "not_guarded"
    assert upstream.requests == []


def test_openais_client_is_told_of_a_refusal(proxy: Proxied) -> None:
    client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="none")
    with client, pytest.raises(openai.NotFoundError, match="neither guarded"):
        client.embeddings.create(model="m", input="")


def test_more_paths_pass_where_the_settings_name_them(upstream: Upstream) -> None:
    with proxied(upstream, pass_paths=["/v1/embeddings", "/v1/files/*"]) as proxy:
        upstream.play(Script([b"{}"], content_type="application/json"))
        for path, status in (("/v1/embeddings", 200), ("/v1/files/f1", 200), ("/v1/completions", 404)):
            assert proxy.ask(path=path).status_code == status
        upstream.play(Script(chat(HARMFUL, ANSWER)))
        assert "HARM" not in proxy.ask().text


@pytest.mark.parametrize(
    "script",
    [Script([b"HARM"], content_type="text/html"), Script([b"HARM"], headers={"content-encoding": "br"})],
)
def test_what_cannot_be_read_does_not_pass(script: Script, upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(script)
    response = proxy.ask()
    assert (response.status_code, response.json()["error"]["code"]) == (502, "unreadable")
    assert response.headers["x-should-retry"] == "false"
    assert "HARM" not in response.text


def test_curl_asks(upstream: Upstream, proxy: Proxied) -> None:
    upstream.play(Script(chat(THOUGHT, ANSWER)))
    # Over a megabyte, so that curl waits to be told to continue.
    asked = json.dumps({**QUESTION, "user": "x" * (1 << 20)})
    arguments = ["-sS", "--include", "--no-buffer", "--data", "@-", "--max-time", "10", proxy.url + CHAT]
    done = subprocess.run(["curl", *arguments], input=asked.encode(), capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.rpartition(b"\r\n\r\n")
    assert b"100 Continue" in head
    came, said = parted(body)
    assert came == b"".join(chat(THOUGHT, ANSWER))
    assert (said["x-shieldguard-ended"], said["x-shieldguard-level"]) == ("complete", "0")
    assert re.search(rb"(?i)x-shieldguard-id: \w+", head)


def test_it_counts(upstream: Upstream) -> None:
    with proxied(upstream, policy={"release": "lag", "join_after": 60}, instant=False) as proxy:
        upstream.play(Script(chat(HARMFUL, ANSWER), delay=0.002))
        proxy.ask()
        kind = "chat completion"
        assert until(lambda: proxy.metric("shieldguard_requests_total", kind=kind, status="200") == 1)
        assert proxy.metric("shieldguard_windows_total", channel="reasoning", level="0") == 3
        assert proxy.metric("shieldguard_windows_total", level="1", action="abort") == 1
        assert proxy.metric("shieldguard_judge_seconds_count") == 4
        assert proxy.metric("shieldguard_added_seconds_count", channel="reasoning") == 1
        assert proxy.metric("shieldguard_exposed_characters_total") > 0
        assert proxy.metric("shieldguard_streams_ended_total", ended="aborted", cause="risk") == 1
        assert proxy.metric("shieldguard_close_seconds_count") == 1
        assert proxy.metric("shieldguard_windows_waiting") == 0
        assert proxy.metric("shieldguard_streams") == 0


def test_windows_that_wait_are_counted(upstream: Upstream) -> None:
    with proxied(upstream, delay=0.2, policy={"join_after": 10}) as proxy:
        upstream.play(Script(chat(THOUGHT, ANSWER)))
        with proxy.client.stream("POST", proxy.url + CHAT, json=QUESTION) as response:
            assert until(lambda: proxy.metric("shieldguard_windows_waiting") > 0)
            assert proxy.metric("shieldguard_streams") == 1
            response.read()


def test_no_label_has_a_value_that_a_client_chose(upstream: Upstream) -> None:
    with proxied(upstream) as proxy:
        upstream.play(Script(chat(THOUGHT, ANSWER)))
        proxy.ask(json={**QUESTION, "model": "MARK"})
        proxy.ask(path="/MARK", method="MARK")
        proxy.ask(path="/v1/models/MARK", method="GET")
        assert "MARK" not in proxy.get("/metrics").text


def test_the_log_holds_no_text_unless_asked(upstream: Upstream) -> None:
    for log_query in (False, True):
        with proxied(upstream, log_query=log_query) as proxy:
            upstream.play(Script(chat(HARMFUL, ANSWER)))
            response = proxy.ask()
            assert until(partial(len, proxy.log))
            [line] = map(json.loads, proxy.log)
            assert line["id"] == response.headers["x-shieldguard-id"]
            assert (line["status"], line["ended"], line["aborted"]) == (200, "aborted", "risk")
            assert (line["model"], line["kind"], line["level"]) == ("m", "chat completion", 1)
            assert "Sentence" not in str(line)
            assert line.get("query") == ("What do you think?" if log_query else None)
            assert ("What do you think?" in str(proxy.log)) is log_query


def test_what_a_client_chose_is_short_in_the_log(upstream: Upstream) -> None:
    with proxied(upstream) as proxy:
        upstream.play(Script(chat(THOUGHT, ANSWER)))
        proxy.ask(json={**QUESTION, "model": "m\n" * 10_000})
        proxy.ask(path="/" + "p" * 10_000)
        assert until(lambda: len(proxy.log) == 2)
        assert max(map(len, proxy.log)) < 2000
        assert all("\n" not in line for line in proxy.log)


QUOTING = {"code": 500, "message": "could not parse: HARM", "type": "server_error"}


@pytest.mark.parametrize(
    ("path", "frame"),
    [
        (CHAT, b'data: {"error":%s}\n\n'),
        (
            CHAT,
            b'data: {"error":%s,"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}\n\n',
        ),
        ("/v1/messages", b'event: error\ndata: {"type":"error","error":%s}\n\n'),
    ],
)
def test_an_error_in_mid_stream_that_quotes_the_model_is_judged(
    path: str, frame: bytes, upstream: Upstream, proxy: Proxied
) -> None:
    begun = messages.message(messages.text(0, *ANSWER))[:3] if path != CHAT else chat(THOUGHT, ANSWER)[:-3]
    for text, passes in (("HARM", False), ("calm", True)):
        error = json.dumps({**QUOTING, "message": f"could not parse: {text}"}).encode()
        frames = [*begun, frame % error]
        upstream.play(Script(frames))
        response = proxy.ask(path=path)
        assert (parted(response.content)[0] == b"".join(frames)) is passes
        assert "HARM" not in response.text
        assert (NOTICE in response.text) is not passes


def test_an_error_that_is_redacted_stays_an_error(upstream: Upstream) -> None:
    redacting = {"answer": {"harmful": "redact"}, "notice": "[gone]"}
    with proxied(upstream, policy=redacting) as proxy:
        for path, begun, head in (
            (CHAT, chat(THOUGHT, [])[:-3], b"data: {"),
            (
                "/v1/messages",
                messages.message(messages.text(0, *ANSWER))[:3],
                b'event: error\ndata: {"type":"error",',
            ),
        ):
            upstream.play(Script([*begun, head + b'"error":%s}\n\n' % json.dumps(QUOTING).encode()]))
            came, _ = parted(proxy.ask(path=path).content)
            last = json.loads(came.rstrip(b"\n").rpartition(b"data: ")[2])
            assert last["error"]["message"] == "[gone]"
            assert b"HARM" not in came


def test_a_whole_body_that_is_an_error_is_judged(upstream: Upstream, proxy: Proxied) -> None:
    for text, passes in (("HARM", False), ("calm", True)):
        body = json.dumps({"error": {**QUOTING, "message": text}}).encode()
        upstream.play(Script([body], content_type="application/json"))
        response = proxy.ask()
        assert (response.content == body) is passes
        assert "HARM" not in response.text
