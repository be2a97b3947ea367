"""Frames that are alike but for one text.

Nearly all frames of a stream differ from the one before in a single JSON string. Two frames whose bytes
differ in their text alone tell where it stands: any other frame with the same bytes around a plain string
is the same object with that text, and need not be parsed.
"""

import json
import re

# The inside of a JSON string without escapes: its bytes are its text.
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]+')


class FrameTemplate:
    """The bytes before and behind the text, once two frames have shown them."""

    def __init__(self, before: bytes = b"", behind: bytes = b"") -> None:
        self._before = before
        self._behind = behind
        self._last = (b"", b"")

    def text_of(self, raw: bytes) -> str | None:
        """The text of a frame that fits; None for one that has to be parsed."""
        start, end = len(self._before), len(raw) - len(self._behind)
        if not (start and raw.startswith(self._before) and raw.endswith(self._behind)):
            return None
        if _PLAIN.fullmatch(raw, start, end) is None:
            return None
        try:
            return raw[start:end].decode()
        except UnicodeDecodeError:
            return None  # the parser will say so

    def with_text(self, text: str) -> bytes:
        """The frame with this text. Only for what `text_of` has read."""
        return self._before + json.dumps(text)[1:-1].encode() + self._behind

    def learn(self, raw: bytes, text: str) -> "FrameTemplate":
        """Compare a parsed frame with the one before. All frames given must have their one text in the
        same place of the object. Gives the template for the next frame: another one where the bytes
        around the text have changed, as held frames are still to be written with this one."""
        encoded = text.encode(
            errors="surrogatepass"
        )  # half a character, escaped, may come in each of two frames
        last_raw, last = self._last
        self._last = (raw, encoded)
        if last == encoded or _PLAIN.fullmatch(encoded) is None:
            return self
        at = last_raw.find(b'"' + last + b'"') + 1
        while at > 0:
            before, behind = last_raw[:at], last_raw[at + len(last) :]
            if raw == before + encoded + behind:
                learned = FrameTemplate(before, behind)
                learned._last = self._last
                return learned
            at = last_raw.find(b'"' + last + b'"', at) + 1
        return self
