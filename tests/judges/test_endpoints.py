"""Moderation services on loopback, with the replies, errors and rate limits of the real ones."""

import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx2")

from shieldguard import (
    ConfigError,
    Guard,
    JudgeBusy,
    JudgeError,
    JudgeRefused,
    JudgeTimeout,
    JudgeUnreachable,
    Reasoning,
    RiskLevel,
    UnparsedVerdict,
    Window,
)
from shieldguard.config import GuardConfig, load_judge
from shieldguard.judges.endpoints import OpenAIModeration, Perspective
from tests.command import shieldguard
from tests.judges.remote.rig import JSON, reply, window
from tests.upstream import Script, Upstream, serve

pytestmark = pytest.mark.anyio

KEY = "sk-proj-0123456789abcdef"
CATEGORIES = [
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors"),
    *("violence", "violence/graphic"),
]
ATTRIBUTES = ["TOXICITY", "SEVERE_TOXICITY", "IDENTITY_ATTACK", "INSULT", "PROFANITY", "THREAT"]


def moderation(*scores: float, flagged_from: float = 0.4) -> Script:
    """One result for each of the scores, as the endpoint's reference shows it."""
    results = [
        {
            "flagged": score >= flagged_from,
            "categories": {**dict.fromkeys(CATEGORIES, False), "violence": score >= flagged_from},
            "category_scores": {**dict.fromkeys(CATEGORIES, 0.0003), "violence": score},
            "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
        }
        for score in scores
    ]
    return reply({"id": "modr-0d9740456c391e43", "model": "omni-moderation-latest", "results": results})


def analysed(threat: float, **scores: float) -> Script:
    values = {**dict.fromkeys(ATTRIBUTES, 0.02), "THREAT": threat, **scores}
    return reply(
        {
            "attributeScores": {
                name: {
                    "spanScores": [{"begin": 0, "end": 9, "score": {"value": value, "type": "PROBABILITY"}}],
                    "summaryScore": {"value": value, "type": "PROBABILITY"},
                }
                for name, value in values.items()
            },
            "languages": ["en"],
            "detectedLanguages": ["en"],
        }
    )


def openai_error(code: str | None, kind: str, message: str, status: int, **script: Any) -> Script:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return reply({"error": error}, status=status, **script)


def google_error(status: int, name: str, message: str, **metadata: str) -> Script:
    details = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "RATE_LIMIT_EXCEEDED",
            "domain": "googleapis.com",
            "metadata": {"service": "commentanalyzer.googleapis.com", **metadata},
        }
    ]
    return reply(
        {"error": {"code": status, "message": message, "status": name, "details": details}}, status=status
    )


SAFE = {"openai_moderation": moderation(0.01), "perspective": analysed(0.1)}
HARMFUL = {"openai_moderation": moderation(0.9), "perspective": analysed(0.9)}
SERVICES = list(SAFE)


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with serve() as upstream:
        yield upstream


@asynccontextmanager
async def judging(name: str, server: Upstream, **options: Any) -> AsyncIterator[Any]:
    judge: Any = load_judge(name, api_key=KEY, url=server.url, **options)
    try:
        yield judge
    finally:
        await judge.aclose()


@pytest.mark.parametrize("name", SERVICES)
async def test_the_level_is_what_the_service_says(name: str, server: Upstream) -> None:
    async with judging(name, server) as judge:
        server.play(SAFE[name])
        assert (await judge.judge(window("the rain taps"))).level is RiskLevel.SAFE
        server.play(HARMFUL[name])
        assert (await judge.judge(window("nurgal"))).level is RiskLevel.HARMFUL
    async with judging(name, server, unsafe=0.5) as judge:
        assert (await judge.judge(window("nurgal"))).level is RiskLevel.POTENTIAL


@pytest.mark.parametrize("name", SERVICES)
def test_eval_qt_takes_it_by_its_name(name: str, server: Upstream, tmp_path: Path) -> None:
    pytest.importorskip("typer")
    file = tmp_path / "test_qt.csv"
    file.write_text("query,model_thinking,human_majority\nwhat?,nurgal,1\n")
    server.play(HARMFUL[name])
    options = json.dumps({"api_key": KEY, "url": server.url})
    done = shieldguard(
        "eval", "qt", file, "--judge", name, "--judge-options", options, "--out", "out", folder=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "| test_qt | 1 | 1 | 100.0 (" in done.stdout
    assert len(server.requests) == 1


async def test_moderation_is_asked_as_its_reference_says(server: Upstream) -> None:
    server.play(moderation(0.9))
    async with judging("openai_moderation", server) as judge:
        verdict = await judge.judge(window("nurgal", query="what?"))
    assert server.requests == [{"model": "omni-moderation-latest", "input": ["nurgal"]}]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert verdict.probabilities is None  # its scores are none
    assert verdict.analysis.startswith("violence: 0.9, harassment: 0.0003, ")
    assert verdict.judge == "omni-moderation-latest"


async def test_perspective_is_asked_as_its_reference_says(server: Upstream) -> None:
    server.play(analysed(0.75))
    async with judging("perspective", server) as judge:
        verdict = await judge.judge(window("nurgal", query="what?"))
    [asked] = server.requests
    assert asked == {
        "comment": {"text": "nurgal", "type": "PLAIN_TEXT"},
        "languages": ["en"],
        "requestedAttributes": {name: {} for name in ATTRIBUTES},
        "doNotStore": True,
    }
    assert server.headers[0]["x-goog-api-key"] == KEY
    assert "authorization" not in server.headers[0]
    assert verdict.probabilities == {RiskLevel.SAFE: 0.25, RiskLevel.POTENTIAL: 0, RiskLevel.HARMFUL: 0.75}
    assert verdict.analysis.startswith("THREAT: 0.75, ")


async def test_thresholds_are_the_judges_own(server: Upstream) -> None:
    for name, script, threshold, level in (
        ("openai_moderation", moderation(0.3), 0.2, 1),
        ("openai_moderation", moderation(0.6), 0.7, 0),  # though it is flagged
        ("perspective", analysed(0.3), 0.2, 1),
        ("perspective", analysed(0.6), 0.7, 0),
    ):
        server.play(script)
        async with judging(name, server, threshold=threshold) as judge:
            assert (await judge.judge(window("rain"))).level == level


async def test_a_window_goes_with_some_of_what_came_before(server: Upstream) -> None:
    server.play(moderation(0.01))
    text = f"{'early ' * 200}before. new."
    async with judging("openai_moderation", server, context=8) as judge:
        await judge.judge(Window(query="", text=text, start=len(text) - 4, deadline=time.monotonic() + 9))
    assert server.requests[0]["input"] == ["before. new."[:8] + "new."]


async def test_long_texts_are_rated_in_pieces_and_the_worst_counts(server: Upstream) -> None:
    text = "word " * 900  # 4,500 characters
    async with judging("openai_moderation", server) as judge:
        server.play(moderation(0.01, 0.9, 0.02))
        assert (await judge.judge(window(text))).level is RiskLevel.HARMFUL
        [asked] = server.requests
        assert "".join(asked["input"]) == text
        assert max(map(len, asked["input"])) <= 2000
        server.play(moderation(0.01, 0.9))  # one piece was not rated
        with pytest.raises(UnparsedVerdict, match="not as many results"):
            await judge.judge(window(text))
    async with judging("perspective", server) as judge:
        server.play(analysed(0.1))
        server.first += [analysed(0.1), analysed(0.9)]
        assert (await judge.judge(window(text))).level is RiskLevel.HARMFUL
        assert "".join(asked["comment"]["text"] for asked in server.requests) == text


@pytest.mark.parametrize("name", SERVICES)
async def test_white_space_is_not_sent(name: str, server: Upstream) -> None:
    server.play(HARMFUL[name])
    async with judging(name, server) as judge:
        assert (await judge.judge(window(" \n\t"))).level is RiskLevel.SAFE
        assert server.requests == []
        assert (await judge.judge(window("\ud83d nurgal"))).level is RiskLevel.HARMFUL


# -- replies that are none ---------------------------------------------------------------------------

NO_REPLIES: list[tuple[str, Script, str]] = [
    ("openai_moderation", reply({}), "results: Field required"),
    ("openai_moderation", reply({"results": []}), "not as many results"),
    ("openai_moderation", reply({"results": [{"flagged": False, "category_scores": {}}]}), "category_scores"),
    ("openai_moderation", reply({"results": [{"category_scores": {"hate": 0}}]}), "flagged: Field required"),
    ("openai_moderation", Script([b"<html>"], content_type="text/html"), "not what the service answers"),
    ("perspective", reply({"attributeScores": {}}), "no score for 'IDENTITY_ATTACK'"),
    ("perspective", analysed(1.5), "less than or equal to 1"),
    ("perspective", reply({"attributeScores": {"THREAT": {}}}), "summaryScore: Field required"),
    ("perspective", reply([]), "not what the service answers"),
]


@pytest.mark.parametrize(("name", "script", "says"), NO_REPLIES)
async def test_a_reply_of_another_shape_is_unparsed_and_never_safe(
    name: str, script: Script, says: str, server: Upstream
) -> None:
    server.play(script)
    async with judging(name, server) as judge:
        with pytest.raises(UnparsedVerdict, match=says):
            await judge.judge(window("rain"))


# -- errors ------------------------------------------------------------------------------------------

BAD_KEY = openai_error(
    "invalid_api_key", "invalid_request_error", f"Incorrect API key provided: {KEY}. You can find …", 401
)
NO_MONEY = openai_error(
    "insufficient_quota",
    "insufficient_quota",
    "You exceeded your current quota, please check your plan.",
    429,
)
NO_MODEL = openai_error("model_not_found", "invalid_request_error", "The model does not exist", 404)
OF_THE_DAY = google_error(
    429,
    "RESOURCE_EXHAUSTED",
    "Quota exceeded for quota metric 'Analysis requests (AnalyzeComment)'",
    quota_limit="AnalyzeRequestsPerDayPerProject",
)
BAD_GOOGLE_KEY = google_error(400, "INVALID_ARGUMENT", f"API key not valid: {KEY}")
NO_LANGUAGE = google_error(400, "INVALID_ARGUMENT", "Attribute THREAT does not support request languages: xx")

ERRORS: list[tuple[str, Script, type[JudgeError], str]] = [
    ("openai_moderation", BAD_KEY, JudgeRefused, "Incorrect API key provided: …. .*api_key"),
    ("openai_moderation", NO_MONEY, JudgeRefused, "exceeded your current quota.*waiting is no use"),
    ("openai_moderation", NO_MODEL, JudgeRefused, "does not exist"),
    ("openai_moderation", reply({}, status=500), JudgeUnreachable, "status 500"),
    ("perspective", OF_THE_DAY, JudgeRefused, "Quota exceeded.*waiting is no use"),
    ("perspective", BAD_GOOGLE_KEY, JudgeRefused, "API key not valid: …"),
    ("perspective", NO_LANGUAGE, JudgeRefused, "does not support request languages"),
    ("perspective", Script([b"{"], content_type=JSON, cut=True), JudgeUnreachable, "127.0.0.1"),
]


@pytest.mark.parametrize(("name", "script", "kind", "says"), ERRORS)
async def test_errors_have_their_types_say_what_happened_and_hide_the_key(
    name: str,
    script: Script,
    kind: type[JudgeError],
    says: str,
    server: Upstream,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.play(script)
    async with judging(name, server) as judge:
        began = time.monotonic()
        with pytest.raises(kind, match=says) as caught:
            await judge.judge(window("rain"))
        assert type(caught.value) is kind
        assert time.monotonic() - began < 5
    if kind is JudgeRefused:
        assert len(server.requests) == 1
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in f"{error!r}"
        error = error.__cause__ or error.__context__
    assert KEY not in caplog.text


TOO_FAST = {
    "openai_moderation": openai_error(
        "rate_limit_exceeded",
        "requests",
        "Rate limit reached for omni-moderation-latest: Limit 3, Used 3. Please try again in 300ms.",
        429,
        headers={"retry-after": "0.3"},
    ),
    "perspective": google_error(
        429,
        "RESOURCE_EXHAUSTED",
        "Quota exceeded for quota metric 'Analysis requests (AnalyzeComment)'",
        quota_limit="AnalyzeRequestsPerMinutePerProject",
    ),
}


@pytest.mark.parametrize(("name", "least"), [("openai_moderation", 0.25), ("perspective", 0.9)])
async def test_a_rate_limit_is_waited_for(name: str, least: float, server: Upstream) -> None:
    server.play(HARMFUL[name])
    server.first.append(TOO_FAST[name])
    async with judging(name, server) as judge:
        began = time.monotonic()
        assert (await judge.judge(window("nurgal"))).level is RiskLevel.HARMFUL
        assert time.monotonic() - began > least
    assert len(server.requests) == 2


async def test_a_rate_limit_beyond_the_deadline_is_not(server: Upstream) -> None:
    server.play(openai_error("rate_limit_exceeded", "requests", "Slow", 429, headers={"retry-after": "60"}))
    async with judging("openai_moderation", server) as judge:
        began = time.monotonic()
        with pytest.raises(JudgeBusy, match="Slow"):
            await judge.judge(window("rain", seconds=30))
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("name", SERVICES)
async def test_the_windows_deadline_holds(name: str, server: Upstream) -> None:
    server.play(Script([b" "] * 100, delay=0.1, content_type=JSON))
    async with judging(name, server) as judge:
        began = time.monotonic()
        with pytest.raises(JudgeTimeout):
            await judge.judge(window("rain", seconds=0.4))
        assert time.monotonic() - began < 5  # of the ten that the answer takes


async def test_a_service_that_fails_closes_the_stream(server: Upstream) -> None:
    server.play(NO_MONEY)

    async def source() -> AsyncIterator[str]:
        yield "<think>the rain taps</think>"

    async with judging("openai_moderation", server) as judge:
        stream = Guard(judge=judge).stream(source(), query="")
        assert not [event async for event in stream if isinstance(event, Reasoning)]
        assert stream.report.ended == "aborted"


# -- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("openai_moderation", {}, "does not take the options"),
        ("openai_moderation", {"api_key": ""}, "api_key is empty"),
        ("openai_moderation", {"api_key": f"{KEY}\n"}, "HTTP cannot carry"),
        ("openai_moderation", {"api_key": f"{KEY}é"}, "HTTP cannot carry"),
        ("perspective", {"api_key": f" {KEY}"}, "HTTP cannot carry"),
        ("openai_moderation", {"api_key": KEY, "unsafe": 0.7}, "unsafe=0.7"),
        ("openai_moderation", {"api_key": KEY, "threshold": 2}, "threshold=2"),
        ("openai_moderation", {"api_key": KEY, "context": -1}, "context=-1"),
        ("openai_moderation", {"api_key": KEY, "queue": 0}, "queue=0"),
        ("openai_moderation", {"api_key": KEY, "url": "ftp://h"}, "ftp://h"),
        ("openai_moderation", {"api_key": KEY, "wisdom": 3}, "does not take the options"),
        ("perspective", {"api_key": KEY, "attributes": []}, "attributes="),
        ("perspective", {"api_key": KEY, "attributes": "TOXICITY"}, "give a list"),
        ("perspective", {"api_key": KEY, "threshold": -1}, "threshold=-1"),
        ("perspective", {"api_key": KEY, "timeout": 0}, "timeout=0"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load_judge(name, **options)
    assert KEY not in str(caught.value)


def test_the_key_can_stay_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELDGUARD_JUDGE", "perspective")
    monkeypatch.setenv("SHIELDGUARD_JUDGE_OPTIONS__API_KEY", KEY)
    judge = GuardConfig.load().build().judge
    assert isinstance(judge, Perspective)
    judge.close()


async def test_a_closed_judge_says_so(server: Upstream) -> None:
    judge = OpenAIModeration(api_key=KEY, url=server.url)
    judge.close()
    with pytest.raises(JudgeError, match="was closed"):
        await judge.judge(window("rain"))


def test_replies_of_the_official_client_have_this_shape() -> None:
    """What the tests answer is what OpenAI's own client parses."""
    openai = pytest.importorskip("openai")
    body = json.loads(moderation(0.9).pieces[0])
    parsed = openai.types.ModerationCreateResponse.model_validate(body)
    assert parsed.results[0].flagged
    assert parsed.results[0].category_scores.violence == 0.9
