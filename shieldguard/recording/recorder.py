"""Writing streams down."""

import atexit
import json
import logging
import os
import threading
import weakref
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, NamedTuple

from shieldguard.errors import ConfigError
from shieldguard.observers import Step, StepKind, StreamOpened, StreamReport, WindowJudged
from shieldguard.recording.coding import (
    FORMAT,
    Digest,
    Plain,
    plain_event,
    plain_outcome,
    plain_policy,
    plain_window,
    plain_windower,
)

logger = logging.getLogger("shieldguard")


class Recorder:
    """An observer that writes each stream to a file of JSON lines, for `shieldguard replay`.

    It records text: the question, every chunk with the time of its arrival, and beside them the windows,
    the verdicts with their analyses, the policy and the outcome. That is all that making one asks for; a
    guard without one records nothing. What belongs to a wire codec (frames, headers, keys) is not recorded.

    `path`: a file for all streams, appended to, each line with its stream's id; with `per_stream`, a folder
    that gets a file for each. Files are made readable to their owner alone. They are written by a thread of
    its own; `close` waits for it. A stream that still runs then has no end in its recording.

    Raises `ConfigError` where there cannot be such a file.
    """

    def __init__(self, path: str | Path, *, per_stream: bool = False) -> None:
        self._digests: dict[str, Digest] = {}
        self._lines: SimpleQueue[_Line | None] = SimpleQueue()
        files = _Files(Path(path), per_stream)
        thread = threading.Thread(target=files.write, args=(self._lines,), name="recorder", daemon=True)
        thread.start()
        self._stop = partial(_stop, self._lines, thread)
        atexit.register(self._stop)
        # Not the same: what is collected is so anywhere, on a loop perhaps, which must not wait.
        weakref.finalize(self, self._lines.put, None).atexit = False

    def stream_opened(self, opened: StreamOpened) -> None:
        self._digests[opened.stream] = Digest()
        self._write(
            opened.stream,
            "opened",
            opened.at,
            format=FORMAT,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            query=opened.query,
            policy=plain_policy(opened.policy),
            windower=plain_windower(opened.windower),
            redactable=opened.redactable,
        )

    def stream_step(self, step: Step) -> None:
        of: Any = step.of
        more: Plain = {}
        match step.kind:
            case StepKind.RECEIVED:
                more = plain_event(of)
            case StepKind.WEIGHED:
                more["size"] = of
            case StepKind.ASKED:
                more["windows"] = [plain_window(window) for window in of]
            case StepKind.JUDGED:
                more = {"window": plain_window(of[0]), **plain_outcome(of[1])}
            case StepKind.TAKEN:
                events, more["limit"] = of
                more["events"] = len(events)
                self._digests[step.stream].add(events)
            case StepKind.FAILED | StepKind.FINISHED if of is not None:
                more["error"] = str(of)
        self._write(step.stream, step.kind.value, step.at, **more)

    def window_judged(self, event: WindowJudged) -> None:
        """Nothing: a step before has said it."""

    def stream_closed(self, report: StreamReport) -> None:
        self._write(
            report.stream,
            "closed",
            None,
            ended=report.ended.value,
            cause=report.aborted.cause.value if report.aborted else None,
            output=self._digests.pop(report.stream).value,
            closed_after=report.closed_after,
        )

    def close(self) -> None:
        """Write what is left. Nothing is recorded any more; a second call does nothing."""
        self._stop()

    def _write(self, stream: str, step: str, at: float | None, **more: Any) -> None:
        line = json.dumps({"stream": stream, "step": step, "at": at, **more})
        self._lines.put(_Line(stream, f"{line}\n", step == "closed"))


class _Line(NamedTuple):
    stream: str
    text: str
    last: bool


class _Files:
    """The files that are open. Lives in the recorder's thread but for its beginning."""

    def __init__(self, path: Path, per_stream: bool) -> None:
        self._path = path
        self._open: dict[str, IO[str]] = {}
        self._one: IO[str] | None = None
        try:
            if per_stream:
                path.mkdir(parents=True, exist_ok=True)
            else:
                self._one = _opened(path)
        except OSError as error:
            raise ConfigError(f"cannot record to {str(path)!r}: {error}") from None

    def write(self, lines: "SimpleQueue[_Line | None]") -> None:
        while line := lines.get():
            try:
                self._write(line)
                if lines.empty() and self._one is not None:
                    self._one.flush()
            except OSError:
                logger.exception("shieldguard: cannot record the stream %r", line.stream)
        for file in (*self._open.values(), *([self._one] if self._one else [])):
            file.close()

    def _write(self, line: _Line) -> None:
        if self._one is not None:
            self._one.write(line.text)
            return
        if line.stream not in self._open:
            self._open[line.stream] = _opened(self._path / f"{line.stream}.jsonl")
        self._open[line.stream].write(line.text)
        if line.last:
            self._open.pop(line.stream).close()


def _opened(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="ascii")


def _stop(lines: "SimpleQueue[_Line | None]", thread: threading.Thread) -> None:
    lines.put(None)
    thread.join()
