"""OpenTelemetry in the proxy, where its API is installed."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from shieldguard import MissingDependency, Observer


class Tracing:
    """`observers` make spans, `within` puts what begins in it into the trace of a client's request."""

    def __init__(self) -> None:
        self.observers: Sequence[Observer] = ()
        self.within = _in_no_trace
        try:
            from shieldguard_adapters.otel import Spans, within_trace
        except MissingDependency:
            return
        self.observers = (Spans(),)
        self.within = within_trace


def _in_no_trace(headers: Mapping[str, str]) -> AbstractContextManager[None]:
    return nullcontext()
