"""A guard in a boto3 client of Bedrock's: `converse` and `converse_stream`, by the client's own events.

boto3 reads the binary event stream itself, so what is guarded are the dicts that it gives.
"""

import sys
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import is_not
from typing import Any, NoReturn

from shieldguard import (
    Aborted,
    Guard,
    QueryFrom,
    ReleasedEvent,
    SourceEvent,
    SyncGuardedStream,
    UnguardedClient,
    WireError,
)
from shieldguard_adapters.hooks import EXTENSION, MARK
from shieldguard_adapters.wire import Request, Termination
from shieldguard_adapters.wire.bedrock_converse import BlockWriter, ending, rewritten
from shieldguard_adapters.wire.bedrock_parts import (
    BODY,
    BlockReader,
    body_events,
    known_metadata,
    read_request,
)
from shieldguard_adapters.wire.endpoints import Options

_SERVICE = "bedrock-runtime"
_GUARDED = ("Converse", "ConverseStream")
_HARMLESS = frozenset(
    {"ApplyGuardrail", "CountTokens", "GetAsyncInvoke", "InvokeGuardrailChecks", "ListAsyncInvokes"}
)


def is_boto_client(client: object) -> bool:
    """Whether this is a client of botocore's: boto3 has no others."""
    packages = {base.__module__.partition(".")[0] for base in type(client).__mro__}
    return "botocore" in packages and "aiobotocore" not in packages


@dataclass(frozen=True, slots=True, kw_only=True)
class BotoHooks:
    """What is done to each request and response of one client."""

    guard: Guard
    query_from: QueryFrom
    options: Options

    def attach(self, client: Any) -> None:
        """Raises `UnguardedClient` for a client of another service than Bedrock's runtime."""
        service = client.meta.service_model.service_name
        if service != _SERVICE:
            raise UnguardedClient(
                f"{client!r} is of service {service!r}; of AWS, guard_client() takes {_SERVICE!r} alone"
            )
        # Last on the way out and first on the way back, so that others see guarded text alone.
        client.meta.events.register_last(f"before-call.{_SERVICE}", self._before_call)
        client.meta.events.register_first(f"after-call.{_SERVICE}", self._after_call)
        setattr(client, MARK, self)

    def _before_call(self, *, model: Any, params: Mapping[str, Any], context: Any, **_: Any) -> None:
        if model.name in _GUARDED:
            context[EXTENSION] = read_request(params["body"], self.query_from)
        elif model.name not in _HARMLESS:
            raise UnguardedClient(
                f"{model.name} is not guarded by shieldguard and was not sent; what is guarded here: "
                f"{', '.join(_GUARDED)}. Use one of these, or a client without a guard"
            )

    def _after_call(
        self, *, model: Any, http_response: Any, parsed: dict[str, Any], context: Any, **_: Any
    ) -> None:
        if model.name not in _GUARDED or http_response.status_code >= 300:
            return
        if (asked := context.get(EXTENSION)) is None:
            if "stream" in parsed:
                parsed["stream"].close()
            raise UnguardedClient(
                f"a response of {model.name} came without its request being seen, so it cannot be guarded"
            )
        if model.name == "Converse":
            stream = self._judge(parsed, asked)
        else:
            events = parsed["stream"]
            stream = self.guard.stream_sync(_Read(events), query=asked.query, redactable=asked.redactable)
            parsed["stream"] = GuardedEvents(stream, self.options, asked)
        parsed["ResponseMetadata"] = _Metadata(parsed.get("ResponseMetadata") or {}, stream)

    def _judge(self, parsed: dict[str, Any], asked: Request) -> SyncGuardedStream:
        """Put what may leave of a response in one piece in its place."""
        unchanged: list[SourceEvent] = []

        def source() -> Iterator[list[SourceEvent]]:
            unchanged.extend(body_events(parsed))
            yield unchanged

        released: list[ReleasedEvent] = []
        stream = self.guard.stream_sync(source(), query=asked.query, redactable=asked.redactable)
        with stream:
            while batch := stream.next_batch():
                released += batch
        body = known_metadata(parsed, BODY)
        if released and isinstance(aborted := released[-1], Aborted):
            if self.options.termination is Termination.ERROR:
                _fail("ClientError", aborted.notice, "Converse")
            kept = {key: value for key, value in body.items() if key not in ("output", "stopReason")}
            body = ending(kept, aborted, self.options.termination, strict_output=not asked.redactable)
        elif len(released) != len(unchanged) or any(map(is_not, released, unchanged)):
            body = rewritten(body, released)
        parsed.clear()
        parsed.update(body)
        return stream


class GuardedEvents:
    """The events of a guarded response, as boto3's own `EventStream` gives them. Close it to leave early."""

    def __init__(self, stream: SyncGuardedStream, options: Options, asked: Request) -> None:
        self._stream = stream
        self._writer: BlockWriter[dict[str, Any]] = BlockWriter(
            lambda type_, body: {type_: body},
            termination=options.termination,
            whole_thoughts=options.redacts and asked.redactable,
            strict_output=not asked.redactable,
        )
        self._events: deque[dict[str, Any]] = deque()
        self._ended = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        while not self._events and not self._ended:
            if batch := self._stream.next_batch():
                self._events += (written for event in batch for written in self._writer.write(event))
            else:
                self._ended = True
                self._events += self._writer.kept()
        if not self._events:
            raise StopIteration
        event = self._events.popleft()
        if (failure := event.get("modelStreamErrorException")) is not None:
            _fail("EventStreamError", failure["message"], "ConverseStream")
        return event

    def close(self) -> None:
        self._ended = True
        self._events.clear()
        self._stream.close()


class _Read:
    """What the events of a response say."""

    def __init__(self, events: Any) -> None:
        self._inner = events
        self._events = iter(events)
        self._reader = BlockReader()

    def __iter__(self) -> Iterator[list[SourceEvent]]:
        return self

    def __next__(self) -> list[SourceEvent]:
        event = next(self._events)
        if not isinstance(event, dict) or len(event) != 1:
            raise WireError(f"an event should be a dict of one member, not {event!r:.80}")
        [(type_, body)] = event.items()
        return [self._reader.read(type_, body, event)]

    def close(self) -> None:
        self._inner.close()


class _Metadata(dict[str, Any]):
    """A response's metadata, which knows its stream."""

    def __init__(self, metadata: Mapping[str, Any], stream: SyncGuardedStream) -> None:
        super().__init__(metadata)
        self.stream = stream

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)  # copies are plain: a stream cannot be copied


def stream_of(response: object) -> SyncGuardedStream | None:
    """The guarded stream of a response of boto3's; None where it has none."""
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    return metadata.stream if isinstance(metadata, _Metadata) else None


def _fail(kind: str, notice: str, operation: str) -> NoReturn:
    error: type[Exception] = getattr(sys.modules["botocore.exceptions"], kind)
    raise error({"Error": {"Code": "modelStreamErrorException", "Message": notice}}, operation)
