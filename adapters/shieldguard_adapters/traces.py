"""One recorded trace: a question, the reasoning, the answer."""

import gzip
import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shieldguard import Answer, ConfigError, Reasoning, Thinking, ThinkSplitter

_REASONING = ("reasoning", "thought", "model_thinking", "reasoning_content", "thinking")
_ANSWER = ("answer", "response", "model_response", "content")
_QUERY = ("query", "question", "prompt")


@dataclass(frozen=True, slots=True)
class Trace:
    query: str
    reasoning: str
    answer: str
    name: str = "trace"


def load_trace(source: str) -> Trace:
    """A trace from a file, or from standard input for "-".

    Either a JSON object with `reasoning` and, if there are, `query` and `answer` (or the column names of
    the common data sets), or plain text: with think tags both parts, without any the reasoning alone.
    Raises `ConfigError` for a file that is not there, not text, or has nothing to judge.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read a trace from {source!r}: {error}") from None
    name = "standard input" if source == "-" else Path(source).name
    trace = _from_json(text, name) if text.lstrip().startswith("{") else _from_text(text, name)
    if not (trace.reasoning.strip() or trace.answer.strip()):
        raise ConfigError(f"{name!r} has no reasoning and no answer to judge")
    return trace


def load_traces(file: Path) -> list[Trace]:
    """The traces of a file of JSON lines, gzipped or not, each as `load_trace` takes it.

    Raises `ConfigError` for a file that cannot be read, and a line that has no reasoning.
    """
    try:
        open_ = gzip.open if file.suffix == ".gz" else open
        with open_(file, "rt", encoding="utf-8") as lines:
            rows = [line for line in lines if line.strip()]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ConfigError(f"cannot read traces from {str(file)!r}: {error}") from None
    traces = [_from_json(row, f"{file.name}, line {number}") for number, row in enumerate(rows, start=1)]
    for trace in traces:
        if not trace.reasoning.strip():
            raise ConfigError(f"{trace.name!r} has no reasoning to judge")
    return traces


def _from_json(text: str, name: str) -> Trace:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name!r} begins like JSON but is not: {error}") from None
    if not isinstance(row, dict):
        raise ConfigError(f"{name!r} is no JSON object but {type(row).__name__!r}")
    if not any(key in row for key in (*_REASONING, *_ANSWER)):
        raise ConfigError(f"{name!r} has the keys {sorted(row)!r}; give at least 'reasoning' or 'answer'")
    return Trace(_first(row, _QUERY), _first(row, _REASONING), _first(row, _ANSWER), name)


def _from_text(text: str, name: str) -> Trace:
    splitter = ThinkSplitter(Thinking.AUTO)
    events = splitter.feed(text) + splitter.flush()
    reasoning = "".join(event.text for event in events if isinstance(event, Reasoning))
    answer = "".join(event.text for event in events if isinstance(event, Answer) and not event.tentative)
    before = "".join(event.text for event in events if isinstance(event, Answer) and event.tentative)
    return Trace("", before + reasoning, answer, name)


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> str:
    return next((str(row[key]) for key in keys if row.get(key)), "")
