"""Plain text, as chat back ends of one's own stream it: reasoning between think tags, then the answer."""

import codecs
from collections.abc import Sequence

from shieldguard import ReleasedEvent, SourceEvent, Thinking, ThinkSplitter, WireError
from shieldguard_adapters.wire.released import said_by


class TextStream:
    """The codec of a body of text in UTF-8. An aborted one ends with the notice."""

    def __init__(self, *, thinking: Thinking | str = Thinking.AUTO) -> None:
        self._splitter = ThinkSplitter(Thinking(thinking))
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def decode(self, data: bytes) -> list[SourceEvent]:
        return list(self._splitter.feed(self._text(data)))

    def flush(self) -> list[SourceEvent]:
        return [*self._splitter.feed(self._text(b"", final=True)), *self._splitter.flush()]

    def encode(self, events: Sequence[ReleasedEvent]) -> bytes:
        return "".join(map(said_by, events)).encode(errors="surrogatepass")

    def keep_alive(self) -> bytes:
        return b""  # all that is sent is shown

    def close(self) -> bytes:
        return b""

    def aside(self, lines: Sequence[str]) -> bytes:
        return b""

    def _text(self, data: bytes, *, final: bool = False) -> str:
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            raise WireError(f"the text is not in UTF-8 ({error}); it was not passed on") from None
