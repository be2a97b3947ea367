"""What holds for the client of every chat: each of its ways to ask, in each kind of program and each way a
response can go. A module of tests says how its client is asked."""

import json
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import pytest

from shieldguard import Action, Ended, Guard, JudgeError, Policy, Rule, StreamReport, WindowJudged
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge
from shieldguard_adapters.clients import guard_client
from shieldguard_adapters.wire import Codec
from shieldguard_adapters.wire.openai_chat import ChatStream
from tests.clients.rig import MARKS, reasoning
from tests.upstream import DONE, USAGE, Script, Upstream, chunk, completion
from tests.wire.rig import guard as plain_guard

T = TypeVar("T")

THOUGHT = reasoning()
ANSWER = ["All is well. ", "It really is."]
QUESTION: list[Any] = [{"role": "user", "content": "What do you think?"}]
REDACT = Rule(harmful=Action.REDACT)


class Reports:
    """Hears how the streams of a guard ended."""

    def __init__(self) -> None:
        self.all: list[StreamReport] = []

    def window_judged(self, event: WindowJudged) -> None:
        pass

    def stream_closed(self, report: StreamReport) -> None:
        self.all.append(report)


@dataclass
class Heard:
    """What a caller has who adds up what came."""

    thought: str = ""
    text: str = ""
    calls: int = 0
    finish: str | None = None
    usage: int | None = None

    def choice(self, message: Any, finish: Any) -> None:
        """A message, or a part of one."""
        self.text += getattr(message, "content", None) or ""
        self.thought += getattr(message, "reasoning", None) or ""
        self.calls += len(getattr(message, "tool_calls", None) or ())
        self.finish = finish or self.finish

    def chunk(self, chunk: Any) -> None:
        for choice in chunk.choices:
            self.choice(choice.delta, choice.finish_reason)
        if chunk.usage:
            self.usage = chunk.usage.total_tokens

    def completion(self, completion: Any) -> None:
        for choice in completion.choices:
            self.choice(choice.message, choice.finish_reason)
        self.usage = completion.usage.total_tokens


def tool_call(to: str) -> dict[str, Any]:
    arguments = json.dumps({"to": to})
    return {
        "index": 0,
        "id": "abcdefghi",
        "type": "function",
        "function": {"name": "send", "arguments": arguments},
    }


def _run(main: Callable[[], Awaitable[T]], program: str) -> T:
    with warnings.catch_warnings():
        # The SDKs leave their generators, and httpx's, at the end; trio says so.
        warnings.filterwarnings("ignore", "Async generator", ResourceWarning)
        return anyio.run(main, backend=program)


class Table:
    """The tests. `ways` to ask; the one that is "whole" asks for no stream."""

    ways: Sequence[str] = ("create", "whole")
    programs: Sequence[str] = ("sync", "asyncio", "trio")
    ended: str = "stop"  # how a response ends
    refused: str = "stop"  # how one that was aborted does
    field: str = "reasoning"
    calls: int = 1  # the client gives, of one that was made

    # What the client's own module says.

    def client(self, upstream: Upstream) -> Any:
        raise NotImplementedError

    def async_client(self, upstream: Upstream) -> Any:
        raise NotImplementedError

    def hear(self, client: Any, way: str) -> Heard:
        raise NotImplementedError

    async def hear_async(self, client: Any, way: str) -> Heard:
        raise NotImplementedError

    def stream(self, client: Any) -> Any:
        """A stream, asked for and not read."""
        raise NotImplementedError

    async def stream_async(self, client: Any) -> Any:
        raise NotImplementedError

    def codec(self, **options: Any) -> Codec:
        return ChatStream(**options)

    def guarded(self, client: Any, by: Guard, **options: Any) -> Any:
        return guard_client(client, by, **options)

    def frames(self, thought: list[str], answer: list[str], *calls: str) -> list[bytes]:
        return [
            chunk({"role": "assistant", "content": ""}),
            *(self.thought_frame(text) for text in thought),
            *(chunk({"content": text}) for text in answer),
            *(chunk({"tool_calls": [tool_call(call)]}) for call in calls),
            chunk({}, finish_reason="stop"),
            USAGE,
            DONE,
        ]

    def thought_frame(self, text: str) -> bytes:
        return chunk({self.field: text})

    def body(self, thought: list[str], answer: list[str], *calls: str) -> bytes:
        message: dict[str, Any] = {self.field: "".join(thought), "content": "".join(answer)}
        if calls:
            message["tool_calls"] = [tool_call(call) for call in calls]
        return completion(message)

    content_type = "text/event-stream"

    # How they are asked.

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        for name, values in (("way", self.ways), ("program", self.programs)):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values)

    def play(self, upstream: Upstream, way: str, thought: list[str], answer: list[str], *calls: str) -> None:
        if way == "whole":
            upstream.play(Script([self.body(thought, answer, *calls)], content_type="application/json"))
        else:
            upstream.play(Script(self.frames(thought, answer, *calls), content_type=self.content_type))

    def ask(self, program: str, way: str, upstream: Upstream, by: Guard | None, **options: Any) -> Heard:
        if program == "sync":
            with self.client(upstream) as client:
                return self.hear(self.guarded(client, by, **options) if by else client, way)

        async def main() -> Heard:
            async with self.async_client(upstream) as client:
                return await self.hear_async(self.guarded(client, by, **options) if by else client, way)

        return _run(main, program)

    def hear_guarded(
        self, program: str, way: str, upstream: Upstream, judge: Any = MARKS, **policy: Any
    ) -> tuple[Heard, StreamReport]:
        reports = Reports()
        by = Guard(judge=InstantScriptedJudge(judge), policy=Policy(**policy), observers=[reports])
        heard = self.ask(program, way, upstream, by)
        (report,) = reports.all
        assert len(upstream.requests) == 1
        return heard, report

    # What holds.

    def test_a_harmless_response_passes(self, program: str, way: str, upstream: Upstream) -> None:
        self.play(upstream, way, THOUGHT, ANSWER, "a friend")
        heard, report = self.hear_guarded(program, way, upstream)
        assert heard == Heard("".join(THOUGHT), "".join(ANSWER), self.calls, self.ended, 14)
        assert (report.ended, report.query) == (Ended.COMPLETE, "What do you think?")
        assert report.reasoning.judged == len("".join(THOUGHT))

    @pytest.mark.parametrize("harm_in", [0, 4], ids=["before any text", "in mid-reasoning"])
    def test_a_harmful_thought_ends_it(
        self, program: str, way: str, harm_in: int, upstream: Upstream
    ) -> None:
        self.play(upstream, way, reasoning(harm_in=harm_in), ANSWER, "a friend")
        heard, report = self.hear_guarded(program, way, upstream)
        assert report.aborted is not None
        assert (heard.text, heard.calls, heard.finish) == (report.aborted.notice, 0, self.refused)
        assert "HARM" not in heard.thought
        assert bool(heard.thought) is (harm_in > 0 and not way.startswith("whole"))

    def test_a_harmful_answer_ends_it(self, program: str, way: str, upstream: Upstream) -> None:
        self.play(upstream, way, THOUGHT, reasoning(harm_in=3))
        heard, report = self.hear_guarded(program, way, upstream)
        assert report.aborted is not None
        assert heard.finish == self.refused
        assert "HARM" not in heard.text
        assert heard.text.endswith(report.aborted.notice)

    def test_a_harmful_call_is_not_made(self, program: str, way: str, upstream: Upstream) -> None:
        self.play(upstream, way, THOUGHT, ANSWER, "HARM")
        heard, report = self.hear_guarded(program, way, upstream)
        assert report.aborted is not None
        assert (heard.calls, heard.finish) == (0, self.refused)

    def test_a_redacted_thought_is_left_out(self, program: str, way: str, upstream: Upstream) -> None:
        self.play(upstream, way, reasoning(harm_in=4), ANSWER, "a friend")
        heard, report = self.hear_guarded(program, way, upstream, reasoning=REDACT)
        assert (report.ended, heard.calls, heard.finish) == (Ended.COMPLETE, 0, self.ended)
        assert "HARM" not in heard.thought
        assert "[Withheld" in heard.thought
        assert heard.text.startswith("".join(ANSWER))
        assert heard.usage == 14

    def test_a_judge_that_fails_ends_it(self, program: str, way: str, upstream: Upstream) -> None:
        def fail(window: object) -> JudgeError:
            return JudgeError("no verdict today")

        self.play(upstream, way, THOUGHT, ANSWER)
        heard, report = self.hear_guarded(program, way, upstream, fail)
        assert report.aborted is not None
        assert (report.aborted.cause, heard.thought, heard.finish) == ("judge_failure", "", self.refused)

    def test_an_abort_may_raise(self, program: str, way: str, upstream: Upstream) -> None:
        self.play(upstream, way, reasoning(harm_in=4), ANSWER)
        by = Guard(judge=InstantScriptedJudge(MARKS))
        # What comes whole is an error in the place of what was asked for: some clients see no more than that
        # it has no choices.
        with pytest.raises(
            Exception, match=r"(?i)withheld|validation" + "|NoneType" * way.startswith("whole")
        ):
            self.ask(program, way, upstream, by, termination="error")
        assert len(upstream.requests) == 1

    @pytest.mark.parametrize("harm_in", [None, 4])
    def test_a_keep_alive_is_not_heard(self, program: str, harm_in: int | None, upstream: Upstream) -> None:
        frames = self.frames(reasoning(harm_in=harm_in), ANSWER, "a friend")
        heard = []
        for kept_alive in (False, True):
            pieces = self._batches(frames, kept_alive)
            upstream.play(Script(pieces, content_type=self.content_type))
            heard.append(self.ask(program, self.ways[0], upstream, None))
        assert heard[0] == heard[1]

    def _batches(self, frames: list[bytes], kept_alive: bool) -> list[bytes]:
        codec = self.codec()
        source = iter([*(codec.decode(frame) for frame in frames), codec.flush()])
        pieces = []
        with plain_guard().stream_sync(source) as stream:
            while batch := stream.next_batch():
                pieces += [codec.keep_alive()] if kept_alive else []
                pieces.append(codec.encode(batch))
        return [*pieces, codec.close()]

    def test_a_client_that_leaves_closes_the_upstream(self, program: str, upstream: Upstream) -> None:
        frames = self.frames(reasoning(sentences=200), ANSWER)
        upstream.play(Script(frames, content_type=self.content_type, delay=0.002))
        reports = Reports()
        by = Guard(judge=ScriptedJudge(MARKS), observers=[reports])
        if program == "sync":
            with self.client(upstream) as client:
                stream = self.stream(self.guarded(client, by))
                pieces = iter(stream)
                for _ in range(20):
                    next(pieces)
                stream.close()
        else:

            async def main() -> None:
                async with self.async_client(upstream) as client:
                    stream = await self.stream_async(self.guarded(client, by))
                    for _ in range(20):
                        await anext(stream)
                    await (stream.close if hasattr(stream, "close") else stream.aclose)()

            _run(main, program)
        assert upstream.finished.wait(20)
        assert upstream.sent < len(frames) / 2
        assert [report.ended for report in reports.all] == [Ended.CLIENT_LEFT]
        assert reports.all[0].reasoning.judged == reports.all[0].reasoning.seen > 0
