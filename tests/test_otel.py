"""Spans, as a real OpenTelemetry SDK exports them."""

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

import anyio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shieldguard import (
    Answer,
    Guard,
    Opaque,
    OpaqueKind,
    Policy,
    Reasoning,
    RiskCategory,
    RiskLevel,
    SizeWindower,
    UnparsedVerdict,
    Verdict,
    Window,
)
from shieldguard.testing import InstantScriptedJudge, ScriptedJudge, scripted_stream
from shieldguard_adapters.otel import Spans, within_trace

SECRET = "xyzzy"
CALM = Reasoning(f"calm {SECRET}")
HARM = Reasoning(f"HARM {SECRET}")
FINE = Answer(f"Fine {SECRET}")
MARKS = {"HARM": 1.0}


class Recorded:
    """A provider, and what it exported. No text may be in it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def one(self) -> ReadableSpan:
        [span] = [span for span in self.exporter.get_finished_spans() if span.name == "shieldguard.stream"]
        assert SECRET not in span.to_json()
        return span


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded()
    yield recorded
    recorded.provider.shutdown()


def guard(recorded: Recorded, judge: Any = None, **policy: Any) -> Guard:
    return Guard(
        judge=judge or InstantScriptedJudge(MARKS),
        policy=Policy(**policy),
        windower=SizeWindower(size=10),
        observers=[Spans(tracer_provider=recorded.provider)],
    )


def run(by: Guard, *events: Any) -> str:
    stream = by.stream_sync(list(events), query=f"What is {SECRET}?")
    assert len(list(stream)) > 0
    return stream.report.stream


def test_a_stream_is_a_span_and_its_verdicts_are_evaluations(recorded: Recorded) -> None:
    stream = run(guard(recorded), CALM, FINE)
    span = recorded.one()
    assert span.status.status_code is trace.StatusCode.UNSET
    found = dict(span.attributes or {})
    assert found.pop("shieldguard.reasoning.added") < 1  # type: ignore[operator]
    assert found.pop("shieldguard.answer.added") < 1  # type: ignore[operator]
    assert found == {
        "shieldguard.stream.id": stream,
        "shieldguard.ended": "complete",
        "shieldguard.windows": 2,
        "shieldguard.failures": 0,
        "shieldguard.unobservable": (),
        "shieldguard.level": 0.0,
        **{f"shieldguard.{channel}.{name}": 10 for channel in ("reasoning", "answer") for name in EVERY},
        **{f"shieldguard.{channel}.{name}": 0 for channel in ("reasoning", "answer") for name in NONE},
    }
    first, second = span.events
    assert first.name == second.name == "gen_ai.evaluation.result"
    found = dict(first.attributes or {})
    assert found.pop("shieldguard.latency") < 1  # type: ignore[operator]
    assert found == {
        "gen_ai.evaluation.name": "risk_level",
        "gen_ai.evaluation.score.value": 0.0,
        "gen_ai.evaluation.score.label": "safe",
        "shieldguard.judge": "scripted",
        "shieldguard.confirmed": True,
        "shieldguard.channel": "reasoning",
        "shieldguard.choice": 0,
        "shieldguard.block": 0,
        "shieldguard.window.start": 0,
        "shieldguard.window.end": 10,
        "shieldguard.window.cut_by": "text",
        "shieldguard.action": "release",
    }
    assert (second.attributes or {})["shieldguard.channel"] == "answer"


EVERY = ("seen", "judged", "released")
NONE = ("redacted", "withheld", "exposed")


def test_what_a_verdict_says_beside_its_level(recorded: Recorded) -> None:
    odds = {RiskLevel.SAFE: 0.25, RiskLevel.POTENTIAL: 0.5, RiskLevel.HARMFUL: 0.25}
    verdict = Verdict(
        level=RiskLevel.POTENTIAL,
        judge="mine",
        probabilities=odds,
        category=RiskCategory.DECEPTION,
        analysis=f"It says {SECRET}.",
        confirmed=False,
    )
    run(guard(recorded, InstantScriptedJudge(lambda window: verdict)), CALM)
    [event] = recorded.one().events
    found = event.attributes or {}
    assert found["gen_ai.evaluation.score.label"] == "potential"
    assert found["shieldguard.risk"] == 0.5
    assert found["shieldguard.category"] == "Deception & Misinformation"
    assert found["shieldguard.confirmed"] is False
    assert found["shieldguard.action"] == "flag"


def test_risk_that_was_found_is_no_error(recorded: Recorded) -> None:
    run(guard(recorded), CALM, HARM, FINE)
    span = recorded.one()
    found = span.attributes or {}
    assert (found["shieldguard.ended"], found["shieldguard.aborted"]) == ("aborted", "risk")
    assert found["shieldguard.level"] == 1.0
    assert found["shieldguard.closed_after"] < 1  # type: ignore[operator]
    assert "error.type" not in found
    assert span.status.is_unset


def test_a_judge_that_fails_is(recorded: Recorded) -> None:
    def rule(window: Window) -> Any:
        raise UnparsedVerdict(f"it said {SECRET!r}")

    run(guard(recorded, InstantScriptedJudge(rule)), CALM)
    span = recorded.one()
    [event] = span.events
    for found in (span.attributes or {}, event.attributes or {}):
        assert found["error.type"] == "UnparsedVerdict"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description is None
    assert "gen_ai.evaluation.score.value" not in (event.attributes or {})


def test_an_abort_without_an_error_says_its_cause(recorded: Recorded) -> None:
    run(guard(recorded, on_opaque="abort"), Opaque(OpaqueKind.ENCRYPTED), FINE)
    found = recorded.one().attributes or {}
    assert (found["error.type"], found["shieldguard.unobservable"]) == ("opaque", ("encrypted",))
    assert "shieldguard.level" not in found


def test_a_source_that_fails_is_an_error(recorded: Recorded) -> None:
    def source() -> Iterator[Any]:
        yield CALM
        raise RuntimeError(SECRET)

    with pytest.raises(RuntimeError):
        list(guard(recorded).stream_sync(source()))
    found = recorded.one().attributes or {}
    assert (found["error.type"], found["shieldguard.ended"]) == ("source_failed", "source_failed")


@pytest.mark.parametrize("judge", [InstantScriptedJudge(MARKS), ScriptedJudge(MARKS)])
@pytest.mark.parametrize("release", ["hold", "shadow"])
@pytest.mark.parametrize("last", [FINE, HARM])
def test_no_text_gets_into_a_span(recorded: Recorded, judge: Any, release: str, last: Any) -> None:
    run(guard(recorded, judge, release=release), CALM, last)
    deadline = time.monotonic() + 20
    while not recorded.exporter.get_finished_spans() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert SECRET not in recorded.one().to_json()


@pytest.mark.anyio
async def test_it_begins_where_the_stream_is_made_and_ends_with_it(recorded: Recorded) -> None:
    by = guard(recorded, ScriptedJudge(delay=0.02))
    tracer = recorded.provider.get_tracer("the caller")
    before = time.time_ns()
    with tracer.start_as_current_span("the caller's") as caller:
        stream = by.stream(scripted_stream([CALM, FINE]))
    made = time.time_ns()
    await anyio.sleep(0.05)
    assert [span.name for span in recorded.exporter.get_finished_spans()] == ["the caller's"]
    async with stream:
        assert len([event async for event in stream]) == 2
    after = time.time_ns()
    span = recorded.one()
    assert span.start_time is not None
    assert span.end_time is not None
    assert before <= span.start_time <= made
    told = [event.timestamp for event in span.events]
    assert made + 70_000_000 <= min(told) <= max(told) <= span.end_time <= after  # the sleep, and a verdict
    assert span.parent == caller.get_span_context()


def test_an_abandoned_stream_ends_its_span_too(recorded: Recorded) -> None:
    stream = guard(recorded).stream_sync([CALM])
    del stream
    assert (recorded.one().attributes or {})["shieldguard.ended"] == "abandoned"


def test_a_span_that_is_not_sampled_is_left_alone(recorded: Recorded) -> None:
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    recorded.provider.sampler = ALWAYS_OFF
    run(guard(recorded), CALM)
    assert recorded.exporter.get_finished_spans() == ()


TRACE, PARENT = 0x1234567890ABCDEF1234567890ABCDEF, 0x1234567890ABCDEF
HEADERS = {"traceparent": f"00-{TRACE:032x}-{PARENT:016x}-01"}


def test_a_request_may_name_the_trace(recorded: Recorded) -> None:
    by = guard(recorded)
    with within_trace(HEADERS):
        stream = by.stream_sync([CALM])
    list(stream)
    span = recorded.one()
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (TRACE, PARENT)
    assert not trace.get_current_span().get_span_context().is_valid


def test_but_a_span_of_the_server_goes_first(recorded: Recorded) -> None:
    with recorded.provider.get_tracer("a server").start_as_current_span("request") as current:
        with within_trace(HEADERS):
            run(guard(recorded), CALM)
        assert trace.get_current_span() is current
    span = recorded.one()
    assert span.parent == current.get_span_context()


@pytest.fixture(scope="module")
def everywhere() -> Iterator[Recorded]:
    """The one provider of this process."""
    recorded = Recorded()
    trace.set_tracer_provider(recorded.provider)
    yield recorded
    recorded.provider.shutdown()


def test_the_proxy_makes_spans_where_an_sdk_is_configured(everywhere: Recorded) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("prometheus_client")
    httpx2 = pytest.importorskip("httpx2")
    from shieldguard_adapters.proxy import ServeConfig, create_app
    from tests.asgi.rig import served
    from tests.clients.rig import QUESTION, reasoning
    from tests.upstream import Script, chat, serve

    everywhere.exporter.clear()
    with serve() as upstream:
        upstream.play(Script(chat(reasoning(), ["All is well."])))
        config = ServeConfig.model_validate({"serve": {"upstreams": [{"url": upstream.url}]}})
        with served(create_app(config)) as url, httpx2.Client(timeout=10) as client:
            asked = {"model": "m", "messages": QUESTION, "stream": True}
            response = client.post(f"{url}/v1/chat/completions", json=asked, headers=HEADERS)
            assert response.status_code == 200
            assert client.get(f"{url}/readyz").status_code == 200  # the proxy's own question makes no span
    span = everywhere.one()
    assert (span.attributes or {})["shieldguard.stream.id"] == response.headers["x-shieldguard-id"]
    assert span.parent is not None
    assert span.parent.trace_id == TRACE


def test_without_the_package_the_proxy_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "shieldguard_adapters.otel")
    pytest.importorskip("starlette")
    pytest.importorskip("prometheus_client")
    from shieldguard_adapters.proxy.tracing import Tracing

    tracing = Tracing()
    assert tracing.observers == ()
    with tracing.within(HEADERS):
        assert list(Guard(judge=InstantScriptedJudge()).stream_sync([CALM])) == [CALM]
