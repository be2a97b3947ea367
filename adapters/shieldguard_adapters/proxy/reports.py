"""The newest reports, to be fetched by their id."""

import json
from collections import OrderedDict

from shieldguard import StreamReport, WindowJudged
from shieldguard_adapters.summaries import summary

_MOST = 1 << 26  # bytes of all together


class Reports:
    """An observer that keeps the newest reports, each for the client whose it is, without any text."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._owners: dict[str, str] = {}

    def owned(self, stream: str, owner: str) -> None:
        """Say whose a stream is, before it ends."""
        self._owners[stream] = owner

    def find(self, stream: str, owner: str) -> bytes | None:
        """A report as JSON; None for one that is not kept, or another's."""
        return self._kept.get(stream) if self._owners.get(stream) == owner else None

    def window_judged(self, event: WindowJudged) -> None:
        pass

    def stream_closed(self, report: StreamReport) -> None:
        told = summary(report)
        for shown, window in zip(told["windows"], report.windows, strict=True):
            # A judge's errors may quote the text, or name the servers on which it runs.
            shown["error"] = type(window.error).__name__ if window.error else None
        data = json.dumps(told).encode()
        self._kept[report.stream] = data
        self._size += len(data)
        while self._kept and (len(self._kept) > self._limit or self._size > _MOST):
            stream, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)
            self._owners.pop(stream, None)
