"""Agents of Google's ADK, guarded: what leaks at the obvious point, and does not with ours."""

import logging
from collections.abc import AsyncGenerator
from traceback import format_exception
from typing import Any

import anyio
import pytest

pytest.importorskip("google.adk")

from google import genai
from google.adk.agents import Agent
from google.adk.agents.run_config import RunConfig
from google.adk.models import BaseLlm, FallbackModel, Gemini
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import InMemoryRunner
from google.genai import errors, types
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shieldguard import Action, Guard, Rule, UnguardedClient, history
from shieldguard_adapters.clients import guard_client
from shieldguard_adapters.google_adk import GuardedLlm
from tests.clients.rig import guard, reasoning
from tests.frameworks.failing_judges import FAILING, STOPPED
from tests.frameworks.quoting_errors import ERRORS, Quoting, everything_of
from tests.upstream import Script, Upstream
from tests.wire.contents import body, call, candidate, content, said, thought

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
HARM = reasoning(harm_in=3)
CALM = reasoning(sentences=4)
ANSWER = ["All is well. ", "It really is."]
NOTICE = "[Withheld: a safety check rated this content as harmful.]"
RAN: list[str] = []
MODES = ["streamed", "whole"]
each_mode = pytest.mark.parametrize("mode", MODES)


def send(to: str) -> str:
    """Sends a parcel."""
    RAN.append(to)
    return "sent"


def gemini(upstream: Upstream) -> Gemini:
    """ADK's own model, which asks the server of the tests."""
    options = types.HttpOptions(base_url=upstream.url.removesuffix("/v1"))
    return Gemini(model="gemini-3.5-flash", client=genai.Client(api_key="none", http_options=options))


def script(mode: str, *parts: dict[str, Any]) -> Script:
    if mode == "streamed":
        return Script(content(*parts))
    merged: list[dict[str, Any]] = []
    for part in parts:
        if merged and "text" in part and part.get("thought") == merged[-1].get("thought"):
            merged[-1] = {**part, "text": merged[-1]["text"] + part["text"]}
        else:
            merged.append(part)
    return Script([body(candidate(*merged, finishReason="STOP"))], content_type="application/json")


def play(upstream: Upstream, mode: str, thinks: list[str], to: str | None = None) -> None:
    """The model thinks, and then calls, and then answers; or answers at once."""
    thoughts = [thought(piece) for piece in thinks]
    upstream.play(script(mode, *thoughts, *map(said, ANSWER)))
    if to is not None:
        upstream.first.append(script(mode, *thoughts, call(to)))


def run(
    mode: str,
    model: BaseLlm,
    questions: tuple[str, ...] = ("Well?",),
    plugins: Any = None,
    **options: Any,
) -> list[Any]:
    """The events of a run of an agent with a tool, and what its session keeps."""

    async def main() -> list[Any]:
        agent = Agent(name="agent", model=model, **{"tools": [send], **options})
        runner = InMemoryRunner(agent, app_name="app", plugins=plugins)
        session = await runner.session_service.create_session(app_name="app", user_id="u")
        config = RunConfig.model_validate({"streaming_mode": "sse" if mode == "streamed" else None})
        events = []
        for question in questions:
            new = types.UserContent(question)
            async for event in runner.run_async(
                user_id="u", session_id=session.id, new_message=new, run_config=config
            ):
                events.append(event)
        await runner.close()
        asked: Any = getattr(model, "inner", model)
        await asked.client.aio.aclose()
        return events

    return anyio.run(main)


def shown(events: list[Any]) -> list[Any]:
    """What of the events is the model's."""
    return [
        (
            event.partial,
            event.finish_reason,
            event.error_code,
            event.usage_metadata,
            [
                (part.text, part.thought, part.function_call and part.function_call.args)
                for part in (event.content.parts if event.content else [])
            ],
        )
        for event in events
    ]


def final_text(events: list[Any]) -> str:
    parts = events[-1].content.parts
    return "".join(part.text or "" for part in parts if not part.thought)


@each_mode
@pytest.mark.parametrize("to", [None, "a friend"])
def test_a_harmless_run_is_as_without_a_guard(mode: str, to: str | None, upstream: Upstream) -> None:
    play(upstream, mode, CALM, to)
    expected = run(mode, gemini(upstream))
    RAN.clear()
    play(upstream, mode, CALM, to)
    events = run(mode, GuardedLlm(gemini(upstream), guard()))
    got, wanted = shown(events), shown(expected)
    assert [one for one in got if not one[0]] == [one for one in wanted if not one[0]]
    # A partial response is cut where a window of the judge was.
    assert "".join(part[0] or "" for one in got if one[0] for part in one[4]) == "".join(
        part[0] or "" for one in wanted if one[0] for part in one[4]
    )
    assert final_text(events) == "".join(ANSWER)
    assert ([to] if to else []) == RAN


@each_mode
@pytest.mark.parametrize("to", [None, "a friend"])
def test_a_harmful_thought_is_an_error_and_runs_no_tool(
    mode: str, to: str | None, upstream: Upstream
) -> None:
    RAN.clear()
    play(upstream, mode, HARM, to)
    events = run(mode, GuardedLlm(gemini(upstream), guard()))
    assert "HARM" not in repr(events)
    assert "All is well" not in repr(events)
    assert (events[-1].error_code, events[-1].error_message) == ("SAFETY", NOTICE)
    assert events[-1].is_final_response()
    assert RAN == []


def test_an_abort_closes_the_response_early(upstream: Upstream) -> None:
    upstream.play(Script(content(*map(thought, HARM), *map(said, ["word "] * 400)), delay=0.005))
    run("streamed", GuardedLlm(gemini(upstream), guard()))
    assert upstream.finished.wait(20)
    assert upstream.sent < len(HARM) + 400


@each_mode
def test_harm_in_the_arguments_stops_the_tool(mode: str, upstream: Upstream) -> None:
    RAN.clear()
    play(upstream, mode, CALM, to="HARM")
    events = run(mode, GuardedLlm(gemini(upstream), guard()))
    assert events[-1].error_code == "SAFETY"
    assert "HARM" not in repr(events)
    assert RAN == []


@each_mode
def test_the_next_turn_knows_nothing_of_a_blocked_one(mode: str, upstream: Upstream) -> None:
    play(upstream, mode, HARM)
    upstream.script = script(mode, *map(said, ANSWER))
    upstream.first.append(script(mode, *map(thought, HARM), call("a friend")))
    events = run(mode, GuardedLlm(gemini(upstream), guard()), ("Well?", "And now?"))
    assert final_text(events) == "".join(ANSWER)
    assert "HARM" not in repr(upstream.requests[-1])
    assert "send" not in repr(upstream.requests[-1]["contents"])


def test_a_callback_behind_the_model_would_leak_and_not_stop_it(upstream: Upstream) -> None:
    blocked: list[Any] = []

    def obvious(callback_context: Any, llm_response: LlmResponse) -> LlmResponse | None:
        if blocked or "HARM" in repr(llm_response.content):
            blocked.append(llm_response)
            return LlmResponse(error_code="SAFETY", error_message="blocked", partial=llm_response.partial)
        return None

    pieces = [*HARM, *reasoning(sentences=8)]
    play(upstream, "streamed", pieces)
    events = run("streamed", gemini(upstream), after_model_callback=obvious)
    # What led up to the word had left before the callback saw it, and the model went on to its end.
    said_before = "".join(part[0] or "" for one in shown(events) for part in one[4])
    assert "Sentence 3 of the tho" in said_before
    assert len(blocked) > len(reasoning(sentences=8))
    assert upstream.sent == len(pieces) + len(ANSWER) + 1

    play(upstream, "streamed", pieces)
    events = run("streamed", GuardedLlm(gemini(upstream), guard()))
    assert "Sentence 3" not in "".join(part[0] or "" for one in shown(events) for part in one[4])


@pytest.fixture(scope="module")
def tracing() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


class Listens(BasePlugin):
    """Hears what a plugin is told of."""

    def __init__(self) -> None:
        super().__init__("listens")
        self.text = ""

    async def after_model_callback(self, *, callback_context: Any, llm_response: LlmResponse) -> None:
        self.text += repr(llm_response)

    async def on_model_error_callback(self, *, error: Exception, **_: Any) -> None:
        self.text += everything_of(error)

    async def on_event_callback(self, *, invocation_context: Any, event: Any) -> None:
        self.text += repr(event)


@each_mode
def test_traces_and_plugins_would_tell_it_and_do_not(
    mode: str, tracing: InMemorySpanExporter, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_and_event")
    for by in (None, guard()):
        tracing.clear()
        plugin = Listens()
        play(upstream, mode, HARM, to="a friend")
        model = gemini(upstream)
        run(mode, GuardedLlm(model, by) if by else model, plugins=[plugin])
        told = "".join(repr(span.attributes) for span in tracing.get_finished_spans())
        assert "Well?" in told
        assert ("HARM" in plugin.text, "a friend" in plugin.text) == (by is None, by is None)
        assert ("HARM" in told, "a friend" in told) == (by is None, by is None)


def test_the_log_of_gemini_is_spared_by_a_guarded_client(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "google_adk")
    play(upstream, "whole", HARM)
    run("whole", GuardedLlm(gemini(upstream), guard()))
    assert "HARM" in caplog.text
    caplog.clear()
    model = gemini(upstream)
    model.client = guard_client(model.client, guard())
    run("whole", model)
    assert "SAFETY" in caplog.text
    assert "HARM" not in caplog.text


@each_mode
@pytest.mark.parametrize("by", FAILING.values(), ids=FAILING)
def test_without_a_verdict_no_text_comes_and_no_tool_runs(mode: str, by: Guard, upstream: Upstream) -> None:
    RAN.clear()
    play(upstream, mode, CALM, to="a friend")
    events = run(mode, GuardedLlm(gemini(upstream), by))
    assert (events[-1].error_code, events[-1].error_message) == ("SAFETY", STOPPED)
    assert "Sentence" not in repr(events)
    assert RAN == []


@each_mode
@pytest.mark.parametrize("instant", [True, False])
def test_a_redaction_leaves_the_answer_and_refuses_the_tool(
    mode: str, instant: bool, upstream: Upstream
) -> None:
    RAN.clear()
    rule = Rule(harmful=Action.REDACT)
    by = guard(instant=instant, delay=0 if instant else 0.01, reasoning=rule, notice="[gone]")
    play(upstream, mode, HARM)
    events = run(mode, GuardedLlm(gemini(upstream), by))
    assert final_text(events) == "".join(ANSWER)
    assert "HARM" not in repr(events)
    whole = [(part.text, part.thought) for part in events[-1].content.parts]
    assert whole[0][0].endswith("[gone]")
    assert whole[0][0].startswith("Sentence 0")
    assert whole[1:] == [("".join(ANSWER), None)]

    play(upstream, mode, HARM, to="a friend")
    events = run(mode, GuardedLlm(gemini(upstream), by))
    assert RAN == []
    assert final_text(events) == "[gone]"


@each_mode
def test_structured_output_is_not_redacted(mode: str, upstream: Upstream) -> None:
    by = guard(reasoning=Rule(harmful=Action.REDACT))
    upstream.play(script(mode, *map(thought, HARM), said('{"a": "b"}')))
    config = types.GenerateContentConfig(response_mime_type="application/json")
    events = run(mode, GuardedLlm(gemini(upstream), by), generate_content_config=config, tools=[])
    assert events[-1].error_code == "SAFETY"


class Heard:
    def __init__(self) -> None:
        self.reports: list[Any] = []

    def window_judged(self, event: Any) -> None: ...

    def stream_closed(self, report: Any) -> None:
        self.reports.append(report)


def test_text_is_judged_once_and_the_query_can_be_the_conversation(upstream: Upstream) -> None:
    heard = Heard()
    by = Guard(judge=guard().judge, observers=[heard])
    play(upstream, "streamed", CALM, to="a friend")
    run("streamed", GuardedLlm(gemini(upstream), by, query_from=history()), instruction="Be kind.")
    first, second = heard.reports
    assert first.reasoning.judged == len("".join(CALM))
    assert second.answer.judged == len("".join(ANSWER))
    assert "Be kind." in first.query
    assert first.query.endswith("user: Well?")
    assert "reasoning: Sentence 0" in second.query
    assert second.query.splitlines()[-1].startswith("tool: ")


class Says(BaseLlm):
    """A model that gives these responses."""

    responses: list[LlmResponse]
    given: int = 0
    closed: bool = False

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        try:
            for response in self.responses:
                self.given += 1
                yield response
        finally:
            self.closed = True


class Fails(BaseLlm):
    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        raise errors.ServerError(503, {"error": {"message": "no"}})
        yield


def says(by: Guard, *responses: LlmResponse) -> list[LlmResponse]:
    async def main() -> list[LlmResponse]:
        model = GuardedLlm(Says(model="says", responses=list(responses)), by)
        request = LlmRequest(contents=[types.UserContent("Well?")])
        return [response async for response in model.generate_content_async(request, stream=True)]

    return anyio.run(main)


def response(*parts: types.Part, partial: bool | None = None, **more: Any) -> LlmResponse:
    return LlmResponse(content=types.ModelContent(parts=list(parts)), partial=partial, **more)


def test_a_whole_response_that_says_more_than_its_parts_is_judged() -> None:
    piece = response(types.Part(text="All is well."), partial=True)
    for harmful in (
        response(types.Part(text="All is well. But HARM.")),
        response(types.Part(text="HARM", thought=True), types.Part(text="All is well.")),
        response(types.Part(text="All is well."), error_message="HARM"),
        response(types.Part(text="All is well."), custom_metadata={"note": "HARM"}),
    ):
        got = says(guard(), piece, harmful)
        assert "HARM" not in repr(got)
        assert got[-1].error_code == "SAFETY"


def test_whole_responses_may_be_several() -> None:
    text = [response(types.Part(text=one), partial=True) for one in ANSWER]
    whole = response(types.Part(text="".join(ANSWER)))
    tool = response(types.Part.from_function_call(name="send", args={"to": "a friend"}))
    assert says(guard(), *text, whole, tool)[-2:] == [whole, tool]


def test_what_cannot_be_judged_is_not_passed_on() -> None:
    image = types.Part(inline_data=types.Blob(data=b"\x00", mime_type="image/png"))
    [got] = says(guard(), response(image))
    assert (got.content, got.error_code) == (None, "SAFETY")


def test_signatures_stay_with_what_they_sign_and_go_with_what_is_left_out() -> None:
    signed = types.Part(text="".join(HARM), thought=True, thought_signature=b"\xff\x00")
    piece, whole = response(signed, partial=True), response(signed, types.Part(text="Well."))
    assert says(guard({}), piece, whole)[-1] is whole
    last = says(guard(reasoning=Rule(harmful=Action.REDACT)), piece, whole)[-1]
    assert last.content is not None
    assert last.content.parts is not None
    assert [part.thought_signature for part in last.content.parts] == [None, None]


def test_the_client_of_gemini_can_be_guarded_instead(upstream: Upstream) -> None:
    RAN.clear()
    play(upstream, "streamed", HARM, to="a friend")
    model = gemini(upstream)
    model.client = guard_client(model.client, guard())
    events = run("streamed", model)
    assert "HARM" not in repr(events)
    assert events[-1].error_code == "SAFETY"
    assert RAN == []


def test_the_model_that_another_falls_back_to_is_guarded() -> None:
    harmful = response(types.Part(text="HARM", thought=True), types.Part(text="All is well."))
    model = FallbackModel(models=[Fails(model="fails"), Says(model="says", responses=[harmful])])

    async def main() -> list[LlmResponse]:
        request = LlmRequest(contents=[types.UserContent("Well?")])
        return [one async for one in GuardedLlm(model, guard()).generate_content_async(request)]

    [got] = anyio.run(main)
    assert (got.error_code, got.content) == ("SAFETY", None)


class Breaks(BaseLlm):
    """A model that fails: at once, or behind these responses."""

    error: Any
    responses: list[LlmResponse]
    client: Any

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        for response in self.responses:
            yield response
        raise self.error


def breaks(error: Exception, texts: list[str]) -> Breaks:
    responses = [response(types.Part(text=text), partial=True) for text in texts]
    fields: dict[str, Any] = {"error": error, "responses": responses, "client": genai.Client(api_key="none")}
    return Breaks(model="breaks", **fields)


each_break = pytest.mark.parametrize("texts", [[], ANSWER], ids=["at once", "in the midst"])


@each_break
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_what_an_error_quotes_is_judged(
    error: Exception, texts: list[str], tracing: InMemorySpanExporter
) -> None:
    def told() -> str:
        return "".join(
            repr(dict(one.attributes or {})) for span in tracing.get_finished_spans() for one in span.events
        )

    tracing.clear()
    plugin = Listens()
    with pytest.raises(type(error)):
        run("streamed", breaks(error, texts), plugins=[plugin])
    assert "HARM" in plugin.text
    assert ("HARM" in told()) == ("HARM" in "".join(format_exception(error)))
    tracing.clear()
    plugin = Listens()
    events = run("streamed", GuardedLlm(breaks(error, texts), guard()), plugins=[plugin])
    assert (events[-1].error_code, events[-1].error_message) == ("SAFETY", NOTICE)
    assert "HARM" not in repr(events) + plugin.text + told()
    redacting = guard(reasoning=Rule(harmful=Action.REDACT))
    with pytest.raises(Exception, match="left out as harmful") as raised:
        run("streamed", GuardedLlm(breaks(error, texts), redacting), plugins=[plugin])
    assert "HARM" not in everything_of(raised.value) + plugin.text + told()


@each_break
def test_a_harmless_error_is_raised_as_it_is(texts: list[str]) -> None:
    error = Quoting(completion={"choices": ["well"]})
    plugin = Listens()
    with pytest.raises(Quoting) as raised:
        run("streamed", GuardedLlm(breaks(error, texts), guard()), plugins=[plugin])
    assert raised.value is error
    assert all(text in plugin.text for text in texts)


@pytest.mark.parametrize("leaves", [True, False])
def test_the_models_response_is_closed_when_the_agent_leaves_and_on_abort(leaves: bool) -> None:
    pieces = CALM * 9 if leaves else HARM * 9
    parts = [response(types.Part(text=one, thought=True), partial=True) for one in pieces]
    inner = Says(model="says", responses=parts)

    async def main() -> None:
        responses = GuardedLlm(inner, guard()).generate_content_async(LlmRequest(), stream=True)
        async for one in responses:
            if leaves or one.error_code:
                break
        await responses.aclose()
        assert inner.closed

    anyio.run(main)
    assert inner.given < len(pieces)


def test_live_connections_are_refused(upstream: Upstream) -> None:
    with pytest.raises(UnguardedClient, match="run_async"):
        GuardedLlm(gemini(upstream), guard()).connect(LlmRequest())


def test_a_models_name_is_enough() -> None:
    model = GuardedLlm("gemini-3.5-flash", guard())
    assert isinstance(model.inner, Gemini)
    assert model.capabilities == model.inner.capabilities
