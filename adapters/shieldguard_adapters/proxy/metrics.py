"""Numbers for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from shieldguard import StreamReport, WindowJudged

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """An observer that counts. No label has a value that a client could choose."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "shieldguard_requests", "Requests, by what was asked.", ["kind", "status"], registry=registry
        )
        self.in_flight = Gauge("shieldguard_streams", "Guarded responses under way.", registry=registry)
        self._windows = Counter(
            "shieldguard_windows", "Windows judged.", ["channel", "level", "action"], registry=registry
        )
        self._failures = Counter(
            "shieldguard_judge_failures", "Windows without a verdict.", ["error"], registry=registry
        )
        self._judging = Histogram(
            "shieldguard_judge_seconds", "From a window to its verdict.", buckets=_SECONDS, registry=registry
        )
        self._added = Histogram(
            "shieldguard_added_seconds",
            "From the first character of a channel to its release.",
            ["channel"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._exposed = Counter(
            "shieldguard_exposed_characters", "Characters that left unjudged.", registry=registry
        )
        self._ended = Counter(
            "shieldguard_streams_ended", "Streams, by how they ended.", ["ended", "cause"], registry=registry
        )
        self._closing = Histogram(
            "shieldguard_close_seconds",
            "From the verdict that aborts to the upstream closed.",
            buckets=_SECONDS,
            registry=registry,
        )
        waits = Gauge("shieldguard_windows_waiting", "Windows without a verdict yet.", registry=registry)
        waits.set_function(waiting)

    def answered(self, kind: str, status: int) -> None:
        """A request was answered; with 0 where the client went before."""
        self._requests.labels(kind, status or "none").inc()

    def window_judged(self, event: WindowJudged) -> None:
        if event.error is not None:
            self._failures.labels(type(event.error).__name__).inc()
            return
        assert event.verdict is not None
        level = format(event.verdict.level.value, "g")
        self._windows.labels(event.channel.value, level, event.action.value).inc()
        self._judging.observe(event.latency)

    def stream_closed(self, report: StreamReport) -> None:
        tallies = {"reasoning": report.reasoning, "answer": report.answer, "tool_call": report.tool_call}
        for channel, tally in tallies.items():
            self._exposed.inc(tally.exposed)
            if tally.added is not None:
                self._added.labels(channel).observe(tally.added)
        cause = report.aborted.cause.value if report.aborted else ""
        self._ended.labels(report.ended.value, cause).inc()
        if report.closed_after is not None:
            self._closing.observe(report.closed_after)

    def text(self) -> bytes:
        return generate_latest(self._registry)
