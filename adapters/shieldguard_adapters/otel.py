"""Guarded streams as OpenTelemetry spans: `Guard(observers=[Spans()])`.

The span of a stream, "shieldguard.stream", lasts as long as the stream. It is a child of what is current
where the stream is made: for a guarded client, the caller's span. Each judged window is an event of it,
`gen_ai.evaluation.result`, as the semantic conventions for generative AI have it; what they have no name for
is called `shieldguard.*`. No text of prompt, reasoning, answer or analysis goes into a span, and no message
of an error, which may quote it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from shieldguard import AbortCause, Ended, MissingDependency, StreamReport, Tally, WindowJudged

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.util.types import AttributeValue
except ImportError as error:
    raise MissingDependency(error.name or "opentelemetry", "otel") from None


class Spans:
    """An observer that makes a span of each stream. It costs next to nothing where no SDK is configured.

    `tracer_provider`: in place of the global one. (An SDK keeps the last 128 events of a span, unless
    OTEL_SPAN_EVENT_COUNT_LIMIT says otherwise.)
    """

    def __init__(self, *, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("shieldguard", tracer_provider=tracer_provider)
        self._spans: dict[str, trace.Span] = {}

    def stream_began(self, stream: str) -> None:
        span = self._tracer.start_span("shieldguard.stream", attributes={"shieldguard.stream.id": stream})
        if span.is_recording():
            self._spans[stream] = span

    def window_judged(self, event: WindowJudged) -> None:
        if (span := self._spans.get(event.stream)) is not None:
            span.add_event("gen_ai.evaluation.result", _evaluation(event))

    def stream_closed(self, report: StreamReport) -> None:
        if (span := self._spans.pop(report.stream, None)) is None:
            return
        span.set_attributes(_account(report))
        if failure := _failure(report):
            span.set_attribute("error.type", failure)
            span.set_status(trace.StatusCode.ERROR)
        span.end()


@contextmanager
def within_trace(headers: Mapping[str, str]) -> Iterator[None]:
    """What begins in it belongs to the trace that a request's headers name, unless a span is current
    already."""
    if trace.get_current_span().get_span_context().is_valid:
        yield
        return
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def _evaluation(event: WindowJudged) -> dict[str, AttributeValue]:
    facts: dict[str, AttributeValue] = {
        "gen_ai.evaluation.name": "risk_level",
        "shieldguard.channel": event.channel.value,
        "shieldguard.choice": event.choice,
        "shieldguard.block": event.block,
        "shieldguard.window.start": event.start,
        "shieldguard.window.end": event.end,
        "shieldguard.window.cut_by": event.cut_by.value,
        "shieldguard.action": event.action.value,
        "shieldguard.latency": event.latency,
    }
    if event.error is not None:
        return facts | {"error.type": type(event.error).__name__}
    assert event.verdict is not None
    verdict = event.verdict
    facts |= {
        "gen_ai.evaluation.score.value": verdict.level.value,
        "gen_ai.evaluation.score.label": verdict.level.name.lower(),
        "shieldguard.judge": verdict.judge,
        "shieldguard.confirmed": verdict.confirmed,
    }
    if verdict.risk is not None:
        facts["shieldguard.risk"] = verdict.risk
    if verdict.category is not None:
        facts["shieldguard.category"] = verdict.category.value
    return facts


def _account(report: StreamReport) -> dict[str, AttributeValue]:
    facts: dict[str, AttributeValue] = {
        "shieldguard.ended": report.ended.value,
        "shieldguard.windows": len(report.windows),
        "shieldguard.failures": report.failures,
        "shieldguard.unobservable": sorted(kind.value for kind in report.unobservable),
    }
    if report.level is not None:
        facts["shieldguard.level"] = report.level.value
    if report.aborted is not None:
        facts["shieldguard.aborted"] = report.aborted.cause.value
    if report.closed_after is not None:
        facts["shieldguard.closed_after"] = report.closed_after
    tallies = {"reasoning": report.reasoning, "answer": report.answer, "tool_call": report.tool_call}
    for channel, tally in tallies.items():
        if tally.seen:
            facts |= {f"shieldguard.{channel}.{name}": number for name, number in _numbers(tally).items()}
    return facts


def _numbers(tally: Tally) -> dict[str, AttributeValue]:
    names = ("seen", "judged", "released", "redacted", "withheld", "exposed")
    numbers: dict[str, AttributeValue] = {name: getattr(tally, name) for name in names}
    return numbers if tally.added is None else {**numbers, "added": tally.added}


def _failure(report: StreamReport) -> str:
    """What went wrong, in a word; "" where nothing did. Risk that was found is no failure."""
    if report.aborted is not None and report.aborted.cause is not AbortCause.RISK:
        error = report.aborted.error
        return type(error).__name__ if error is not None else report.aborted.cause.value
    return Ended.SOURCE_FAILED.value if report.ended is Ended.SOURCE_FAILED else ""
