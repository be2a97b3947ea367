"""A chat back end of one's own, guarded by the middleware, on a real uvicorn."""

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from shieldguard import Action, ConfigError, Ended, Guard, Rule, StreamReport, WindowJudged
from shieldguard_adapters.asgi import GuardMiddleware
from tests.asgi.rig import served
from tests.clients.rig import guard, reasoning
from tests.proxy.rig import parted
from tests.upstream import chat

THOUGHT = reasoning()
ANSWER = ["All is well. ", "It really is."]


@dataclass
class Heard:
    """An observer that keeps reports."""

    reports: list[StreamReport] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def window_judged(self, event: WindowJudged) -> None:
        pass

    def stream_closed(self, report: StreamReport) -> None:
        self.reports.append(report)
        self.closed.set()


@dataclass
class BackEnd:
    """What it answers with, and how far it came."""

    pieces: list[bytes] = field(default_factory=list)
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    fail_at: int | None = None
    sent: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    bodies: list[bytes] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        return StreamingResponse(
            self._pieces(), self.status, headers=self.headers, media_type=self.content_type
        )

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            for number, piece in enumerate(self.pieces):
                if number == self.fail_at:
                    raise RuntimeError("the back end failed")
                yield piece
                self.sent += 1
                await anyio.sleep(self.delay)
        finally:
            self.stopped.set()


def text(thought: list[str], answer: list[str]) -> list[bytes]:
    return [piece.encode() for piece in ["<think>", *thought, "</think>", *answer]]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def back_end() -> BackEnd:
    return BackEnd()


@pytest.fixture
def ask(back_end: BackEnd, heard: Heard) -> Iterator[Any]:
    """Ask the guarded back end. Options are those of the middleware, `policy` those of the guard."""
    with httpx2.Client(timeout=20) as client:

        def ask(
            *, policy: Any = None, body: bytes = b"What do you think?", path: str = "/chat", **options: Any
        ) -> Any:
            by = guard(**(policy or {}))
            by = Guard(judge=by.judge, policy=by.policy, observers=[heard])
            given = {"paths": {"/chat": "text", "/v1/chat/completions": "openai_chat"}, **options}
            app = Starlette(
                routes=[
                    Route("/{path:path}", back_end.answer, methods=["POST"]),
                ],
                middleware=[Middleware(GuardMiddleware, guard=by, **given)],
            )
            with served(app) as url:
                return client.post(url + path, content=body)

        yield ask


def test_harmless_text_passes_as_it_is(ask: Any, back_end: BackEnd, heard: Heard) -> None:
    back_end.pieces = text(THOUGHT, ANSWER)
    response = ask()
    assert response.content == b"".join(back_end.pieces)
    assert back_end.bodies == [b"What do you think?"]
    [report] = heard.reports
    assert (report.ended, report.query) == (Ended.COMPLETE, "What do you think?")
    assert response.headers["x-shieldguard-id"] == report.stream


def test_a_harmful_thought_ends_it_and_stops_the_back_end(ask: Any, back_end: BackEnd, heard: Heard) -> None:
    back_end.pieces, back_end.delay = text(reasoning(sentences=40, harm_in=4), ANSWER), 0.01
    response = ask()
    assert response.status_code == 200
    assert "HARM" not in response.text
    assert response.text.endswith("[Withheld: a safety check rated this content as harmful.]")
    assert back_end.stopped.wait(20)
    assert back_end.sent < len(back_end.pieces) / 2
    assert heard.reports[0].ended is Ended.ABORTED


def test_harm_in_the_first_window_is_told_in_a_header(ask: Any, back_end: BackEnd) -> None:
    back_end.pieces = text(reasoning(harm_in=0), ANSWER)[1:]
    response = ask(thinking="preopened")
    assert response.headers["x-shieldguard-aborted"] == "risk"
    assert response.text == "[Withheld: a safety check rated this content as harmful.]"


def test_a_redaction_leaves_the_answer(ask: Any, back_end: BackEnd) -> None:
    back_end.pieces = text(reasoning(harm_in=4), ANSWER)
    response = ask(policy={"reasoning": Rule(harmful=Action.REDACT), "notice": "[gone]"})
    assert "HARM" not in response.text
    assert response.text.endswith("[gone]</think>" + "".join(ANSWER))


def test_chat_completions_pass_and_end_in_their_own_format(ask: Any, back_end: BackEnd, heard: Heard) -> None:
    back_end.content_type = "text/event-stream"
    back_end.pieces = chat(THOUGHT, ANSWER)
    asked = b'{"model": "m", "messages": [{"role": "user", "content": "Well?"}]}'
    came, told = parted(ask(path="/v1/chat/completions", body=asked).content)
    assert came == b"".join(back_end.pieces)
    assert told["x-shieldguard-ended"] == "complete"
    assert heard.reports[0].query == "Well?"
    back_end.pieces = chat(reasoning(harm_in=2), ANSWER)
    ended, told = parted(ask(path="/v1/chat/completions", body=asked).content)
    assert b"HARM" not in ended
    assert b'"refusal"' in ended
    assert ended.endswith(b"data: [DONE]\n\n")
    assert told["x-shieldguard-aborted"] == "risk"


def test_the_query_of_a_body_of_ones_own(ask: Any, back_end: BackEnd, heard: Heard) -> None:
    back_end.pieces = text(THOUGHT, ANSWER)
    assert ask(body=b'{"q": "Well?"}', query=lambda body: body.decode()[7:12]).status_code == 200
    assert heard.reports[0].query == "Well?"


def test_a_query_that_cannot_be_had_is_a_bad_request(ask: Any, back_end: BackEnd) -> None:
    response = ask(body=b"{}", query=lambda body: json.loads(body)["message"])
    assert (response.status_code, back_end.bodies) == (400, [])
    assert "message" in response.json()["error"]["message"]


def test_a_request_over_the_limit_does_not_reach_the_back_end(ask: Any, back_end: BackEnd) -> None:
    response = ask(body=b"x" * 101, max_body=100)
    assert (response.status_code, back_end.bodies) == (413, [])
    back_end.pieces = text(THOUGHT, ANSWER)
    assert ask(body=b"x" * 100, max_body=100).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "headers", "said"),
    [("text/html", {}, "text/html"), ("text/plain", {"content-encoding": "br"}, "'br'")],
)
def test_what_cannot_be_read_does_not_pass(
    content_type: str, headers: dict[str, str], said: str, ask: Any, back_end: BackEnd
) -> None:
    back_end.pieces, back_end.content_type, back_end.headers = [b"secret"], content_type, headers
    response = ask()
    assert response.status_code == 500
    assert "secret" not in response.text
    assert said in response.json()["error"]["message"]


def test_an_error_of_the_back_ends_own_passes(ask: Any, back_end: BackEnd, heard: Heard) -> None:
    back_end.pieces, back_end.status = [b"no such ", b"chat"], 404
    response = ask()
    assert (response.status_code, response.text, heard.reports) == (404, "no such chat", [])


@pytest.mark.parametrize(
    ("method", "path", "paths", "guarded"),
    [
        ("GET", "/chat", ["/chat"], True),  # as EventSource asks
        ("PUT", "/chat", ["/chat"], True),
        ("GET", "/chat", ["POST /chat"], False),
        ("POST", "/chat", ["POST /chat"], True),
        ("POST", "/chat", ["GET /other", "POST /chat"], True),
        ("POST", "/chat/", ["/chat"], True),
        ("POST", "/chat", ["/chat/"], True),
        ("POST", "/api/chat", ["/chat"], True),  # in an application that is mounted
        ("POST", "/api/chat", ["/api/chat"], True),
        ("POST", "/api/chat", ["/other"], False),
        ("POST", "/apichat", ["/chat"], False),
    ],
)
def test_what_is_guarded_by_method_and_path(
    method: str, path: str, paths: list[str], guarded: bool, back_end: BackEnd
) -> None:
    back_end.pieces = [b"HARM"]
    methods = ["GET", "POST", "PUT"]
    named = dict.fromkeys(paths, "text")
    inner = Starlette(
        routes=[Route("/{path:path}", back_end.answer, methods=methods)],
        middleware=[Middleware(GuardMiddleware, guard=guard(), paths=named)],
    )
    with served(Starlette(routes=[Mount("/api", inner), Mount("/", inner)])) as url:
        assert ("HARM" in httpx2.request(method, url + path).text) is not guarded


def test_questions_without_an_answer_pass(back_end: BackEnd) -> None:
    app = Starlette(
        routes=[Route("/chat", back_end.answer, methods=["GET", "OPTIONS"])],
        middleware=[Middleware(GuardMiddleware, guard=guard(), paths={"/chat": "text"})],
    )
    with served(app) as url:
        for method in ("OPTIONS", "HEAD"):
            back_end.content_type = "text/html"
            assert httpx2.request(method, f"{url}/chat").status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("paths", ["/chat", "POST /chat"])
async def test_a_websocket_on_such_a_path_is_closed(paths: str) -> None:
    reached: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    middleware = GuardMiddleware(app, guard(), paths={paths: "text"})
    await middleware({"type": "websocket", "path": "/chat", "root_path": ""}, app, send)  # type: ignore[arg-type]
    assert (sent, reached) == ([{"type": "websocket.close"}], [])
    await middleware({"type": "websocket", "path": "/other", "root_path": ""}, app, send)  # type: ignore[arg-type]
    assert len(reached) == 1


def test_other_paths_pass_unread(ask: Any, back_end: BackEnd, heard: Heard) -> None:
    back_end.pieces = [b"HARM"]
    assert ask(path="/other").text == "HARM"
    assert heard.reports == []


def test_a_back_end_that_fails_in_the_middle_breaks_the_response(ask: Any, back_end: BackEnd) -> None:
    back_end.pieces, back_end.fail_at = text(THOUGHT, ANSWER), 60
    with pytest.raises(httpx2.RemoteProtocolError):
        ask()


def test_a_judge_that_fails_stops_it(ask: Any, back_end: BackEnd, heard: Heard) -> None:
    from shieldguard import JudgeError

    back_end.pieces = text(THOUGHT, ANSWER)
    response = ask(policy={"marks": {"Sentence 2": JudgeError("no")}})
    assert response.text.endswith("[Stopped: the safety check of this response could not be completed.]")
    assert "Sentence 2" not in response.text


def test_a_client_that_leaves_stops_the_back_end(back_end: BackEnd, heard: Heard) -> None:
    back_end.pieces, back_end.delay = text(reasoning(sentences=60), ANSWER), 0.01
    by = Guard(judge=guard().judge, observers=[heard])
    app = Starlette(
        routes=[Route("/chat", back_end.answer, methods=["POST"])],
        middleware=[Middleware(GuardMiddleware, guard=by, paths={"/chat": "text"})],
    )
    with served(app) as url, httpx2.Client() as client:
        with client.stream("POST", url + "/chat", content=b"hm") as response:
            next(response.iter_raw())
        assert back_end.stopped.wait(20)
        assert heard.closed.wait(20)
    assert heard.reports[0].ended is Ended.CLIENT_LEFT
    assert back_end.sent < len(back_end.pieces) / 2


def test_silence_is_filled_with_keep_alives(ask: Any, back_end: BackEnd) -> None:
    back_end.content_type = "text/event-stream"
    back_end.pieces, back_end.delay = chat(THOUGHT[:4], ANSWER), 0.1
    body = ask(path="/v1/chat/completions", body=b"{}", keep_alive=0.05).content
    whole = b"".join(back_end.pieces)
    assert len(body) > len(whole)
    assert body.count(b'"delta":{}') > 1
    began = time.monotonic()
    assert (
        ask(path="/v1/chat/completions", body=b"{}", keep_alive=None, outcome_at_end=False).content == whole
    )
    assert time.monotonic() - began < 20


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="'grpc'"):
        GuardMiddleware(JSONResponse({}), guard(), paths={"/": "grpc"})


@pytest.mark.parametrize("path", ["chat", "POST chat", "POST  /chat", "post /chat", ""])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"'POST /chat'"):
        GuardMiddleware(JSONResponse({}), guard(), paths={path: "text"})
