"""One request, and what is noted of it."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request

from shieldguard import GuardedStream
from shieldguard_adapters.proxy.settings import Key, Upstream
from shieldguard_adapters.wire.endpoints import Endpoint

_SHOWN = 200  # characters of what a client chose


@dataclass(slots=True)
class Exchange:
    """One request, and what its log line says. `kind`: what was asked, one of a few words."""

    request: Request
    began: float = field(default_factory=time.monotonic)
    kind: str = "refused"
    model: str = ""
    key: Key | None = None
    upstream: Upstream | None = None
    status: int = 0  # 0 where the client went before there was one
    failed: str = ""
    stream: GuardedStream | None = None

    @property
    def raw_path(self) -> bytes:
        """The path as it came; a server that does not say so has decoded it."""
        raw: bytes = self.request.scope.get("raw_path") or self.request.scope["path"].encode()
        return raw

    @property
    def owner(self) -> str:
        return self.key.name if self.key else ""

    def at(self, endpoint: Endpoint | None) -> None:
        """Say what was asked."""
        self.kind = endpoint.noun.removeprefix("an ").removeprefix("a ") if endpoint else "passed"

    def record(self, *, with_query: bool) -> dict[str, Any]:
        """Nothing in it is text of the conversation, but the query where it is asked for."""
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": self.request.method[:_SHOWN],
            "path": self.request.scope["path"][:_SHOWN],
            "kind": self.kind,
            "model": self.model[:_SHOWN],
            "key": self.key.name if self.key else None,
            "upstream": (self.upstream.name or self.upstream.url) if self.upstream else None,
            "status": self.status or None,
            "failed": self.failed or None,
            "seconds": round(time.monotonic() - self.began, 4),
        }
        if self.stream is not None:
            report = self.stream.report
            line |= {"id": report.stream, "ended": report.ended.value, "level": report.level}
            line["aborted"] = report.aborted.cause.value if report.aborted else None
            if with_query:
                line["query"] = report.query
        return line
