"""What an API is: its endpoints, which codec reads what is answered there, and what else may be asked."""

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message

from shieldguard import QueryFrom, Thinking, WireError
from shieldguard_adapters.wire.codec import Codec, Request, Termination
from shieldguard_adapters.wire.errors import ErrorBody

SSE = "text/event-stream"
JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENT_STREAM = "application/vnd.amazon.eventstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a codec is told beside the request. `redacts`: whether the policy ever redacts."""

    thinking: Thinking = Thinking.AUTO
    termination: Termination = Termination.REFUSAL
    redacts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One kind of request whose response is guarded. `path` is searched for in the request's path, `codecs`
    are by content type, and `error` is the codec of an error that may quote the model."""

    path: str
    noun: str  # what a response is, for errors
    read_request: Callable[[bytes, QueryFrom], Request]
    codecs: Mapping[str, Callable[[Request, Options], Codec]] = field(hash=False)
    method: str = "POST"
    without: tuple[str, ...] = ()  # parameters of the URL that would keep the judge from what came before
    error: Callable[[Options], Codec] | None = None

    def error_codec(self, status: int, content_type: str, options: Options) -> Codec | None:
        """None for an error that is the server's alone."""
        if _kind(content_type) != JSON or status not in (400, 500):
            return None
        if status == 500:
            return ErrorBody(termination=options.termination)
        return self.error(options) if self.error else None

    def codec(self, content_type: str, request: Request, options: Options) -> Codec:
        """Raises `WireError` for a content type that nothing here reads."""
        kind = _kind(content_type)
        if (charset := _charset(content_type)) not in ("utf-8", "ascii"):
            raise WireError(f"{self.noun} in {charset!r} cannot be guarded; its body was not read")
        if (make := self.codecs.get(kind)) is None:
            raise WireError(f"{self.noun} of content type {kind!r} cannot be guarded; its body was not read")
        return make(request, options)


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _charset(content_type: str) -> str:
    """What a client might decode the text with: UTF-8 where nothing is said, or nothing that is known."""
    message = Message()
    message["content-type"] = content_type
    try:
        return codecs.lookup(message.get_content_charset("utf-8")).name
    except (LookupError, ValueError):
        return "utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One provider's API. What is asked at no endpoint of it is not to be sent, unless its path has a part
    that is `harmless`, or one that is `readable` and nothing is posted to it. Where a path names
    what is to be done ("…/models/x:predict"), that has to be harmless."""

    endpoints: tuple[Endpoint, ...]
    harmless: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        path = path.rstrip("/")
        return next((e for e in self.endpoints if e.method == method and re.search(e.path, path)), None)

    def is_harmless(self, method: str, path: str) -> bool:
        if method == "POST" and (verb := re.search(r":\w+$", path)):
            return verb.group() in self.harmless
        parts = self.harmless + (self.readable if method != "POST" else ())
        return any(f"{part}/" in f"{path}/" for part in parts)
