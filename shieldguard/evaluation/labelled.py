"""Labelled traces to be played as streams: from a data folder, from files, from sentence-labelled sets."""

import gzip
import json
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any

from shieldguard.data_folder import code_reasoning
from shieldguard.errors import ConfigError, MissingDependency
from shieldguard.events import Reasoning
from shieldguard.thinking import Thinking, ThinkSplitter

HARMFUL = "harmful"
ORDINARY, SENSITIVE, REFUSED, CODE = "ordinary", "sensitive", "refused", "code"

_TEXT = ("reasoning", "thought", "model_thinking", "thinking")
_LABEL = ("level", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledStream:
    """A trace and its labels. From character `harm_at` on the reasoning so far rates 1; the sentence that
    brings it there ends at `harm_until`, where that is known. `sentences`: where each ends, in characters;
    `tokens`: where each token ends, where a tokenizer was given. `stratum`: the group it is counted in;
    "harmful" for level 0.5 and 1."""

    id: str
    query: str = field(repr=False)
    reasoning: str = field(repr=False)
    answer: str = field(default="", repr=False)
    level: float
    stratum: str
    source: str = ""
    harm_at: int | None = None
    harm_until: int | None = None
    sentences: Sequence[int] = field(default=(), repr=False)
    tokens: Sequence[int] = field(default=(), repr=False)

    def sentence_of(self, end: int) -> int:
        """The index of the sentence that the text up to `end` reaches."""
        return bisect_left(self.sentences, end)


def load_folder(data: Path, split: str, tokenizer: Path | None = None) -> list[LabelledStream]:
    """The streams of a split ("train", "val" or "test"): labelled reasoning, ordinary and sensitive harmless
    traces, and our own about code. `tokenizer`: a tokenizer.json to count tokens by. Raises `ConfigError` for
    a file that cannot be read."""
    located = None if tokenizer is None else _Located(tokenizer)
    if split not in ("train", "val", "test"):
        raise ConfigError(f"split={split!r}; choose 'train', 'val' or 'test'")
    found = [_labelled(row, REFUSED) for row in _lines(data / "reasoning" / f"{split}.jsonl.gz")]
    for name in (ORDINARY, SENSITIVE):
        rows = _lines(data / "benign" / f"{name}.jsonl.gz")
        found += [_labelled({**row, "level": 0}, name) for row in rows if row["split"] == split]
    own = (row for row in code_reasoning() if row["split"] == split)
    found += [_labelled({**row, "level": 0}, CODE) for row in own]
    return found if located is None else [located.within(stream) for stream in found]


def halves(streams: Iterable[LabelledStream]) -> tuple[list[LabelledStream], list[LabelledStream]]:
    """Two halves, always the same, without a question (or, where there is none, a text) in both."""
    found: tuple[list[LabelledStream], list[LabelledStream]] = [], []
    for stream in streams:
        question = " ".join((stream.query or stream.reasoning).lower().split())
        found[sha256(question.encode("utf-8", "surrogatepass")).digest()[0] % 2].append(stream)
    return found


def fingerprint(streams: Iterable[LabelledStream]) -> str:
    """SHA-256 of their texts and labels, in order."""
    found = sha256()
    for one in streams:
        shown = (one.query, one.reasoning, one.answer, one.level, one.stratum, one.harm_at)
        found.update(json.dumps(shown).encode())
    return found.hexdigest()


def load_files(
    files: Iterable[Path], tokenizer: Path | None = None, *, split: str | None = None
) -> list[LabelledStream]:
    """The streams of JSON lines, gzipped or not.

    A row has `reasoning` (or `thought`), `level` (0, 0.5 or 1) and, where known, `query`, `answer`,
    `stratum`, `onset_one_char` and `sentences` (spans of characters that tile the reasoning); `tokenizer` is
    a tokenizer.json to count its tokens by. Or it is one of a sentence-labelled set: `message`, `label` and
    the token indices `unsafe_start_index` and `unsafe_end_index` into its `input_ids`, for which `tokenizer`
    has to be that of its model. `split`: only rows with that `split`.

    Raises `ConfigError` that names the row which cannot be used.
    """
    located = None if tokenizer is None else _Located(tokenizer)
    found: list[LabelledStream] = []
    for file in files:
        for number, row in enumerate(_lines(file), start=1):
            if split is not None and row.get("split") != split:
                continue
            try:
                if "message" in row:
                    found.append(_sentence_labelled(row, number, located))
                else:
                    stratum = str(row.get("stratum") or "level 0")
                    labelled = _labelled(row, stratum, f"{file.name}:{number}")
                    found.append(labelled if located is None else located.within(labelled))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise ConfigError(f"row {number} of {str(file)!r} cannot be used: {error!r}") from None
    if not found:
        raise ConfigError(f"no streams in {[str(file) for file in files]!r}")
    seen = Counter(stream.id for stream in found)
    return [
        replace(stream, id=f"{stream.id}#{number}") if seen[stream.id] > 1 else stream
        for number, stream in enumerate(found)
    ]


def _labelled(row: Mapping[str, Any], stratum: str, name: str = "") -> LabelledStream:
    reasoning = next((row[key] for key in _TEXT if row.get(key)), None)
    if not isinstance(reasoning, str):
        raise ValueError("it has no reasoning")
    found = next((row[key] for key in _LABEL if row.get(key) is not None), None)
    if found is None:
        raise ValueError("it has no level")
    level = float(found)
    if level not in (0, 0.5, 1):
        raise ValueError(f"its level is {level!r}, and neither 0 nor 0.5 nor 1")
    ends = tuple(end for _, end in row.get("sentences") or ())
    harm_at = row.get("onset_one_char") if level == 1 else None
    if harm_at is not None and not 0 <= harm_at < len(reasoning):
        raise ValueError(f"its onset_one_char is {harm_at!r}, outside its {len(reasoning)} characters")
    harm_until = None
    if harm_at is not None and ends:
        harm_until = next((end for end in ends if end > harm_at), len(reasoning))
    return LabelledStream(
        id=str(row.get("id") or name),
        query=row.get("query") or "",
        reasoning=reasoning,
        answer=row.get("answer") or "",
        level=level,
        stratum=HARMFUL if level > 0 else stratum,
        source=str(row.get("source") or ""),
        harm_at=harm_at,
        harm_until=harm_until,
        sentences=ends,
    )


class _Located:
    """Finds where tokens are in a text."""

    def __init__(self, file: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingDependency(error.name or "tokenizers", "local") from error
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library's own are of no common kind
            raise ConfigError(f"cannot read the tokenizer {str(file)!r}: {error}") from None

    def within(self, stream: LabelledStream) -> LabelledStream:
        """The stream, with the ends of the tokens that its reasoning has."""
        found = self._tokenizer.encode(stream.reasoning, add_special_tokens=False)
        return replace(stream, tokens=[end for _, end in found.offsets])

    def ends(self, ids: Sequence[int]) -> tuple[str, list[int]]:
        """The text of the tokens, and where each of them ends in it."""
        whole = self._tokenizer.decode(ids, skip_special_tokens=False)
        pieces = [self._tokenizer.decode([one], skip_special_tokens=False) for one in ids]
        if "".join(pieces) == whole:
            return whole, list(accumulate(map(len, pieces)))
        # A character can be parted among tokens: decode from the beginning up to each.
        heads = (self._tokenizer.decode(ids[: n + 1], skip_special_tokens=False) for n in range(len(ids)))
        return whole, [min(len(head.rstrip("�")), len(whole)) for head in heads]


def _sentence_labelled(row: Mapping[str, Any], number: int, located: _Located | None) -> LabelledStream:
    if located is None:
        raise ValueError(
            "its onset is counted in tokens; give the tokenizer.json of its model with --tokenizer"
        )
    *_, asked, said = row["message"]
    content = said["content"]
    splitter = ThinkSplitter(Thinking.AUTO)
    events = splitter.feed(content) + splitter.flush()
    reasoning = "".join(event.text for event in events if isinstance(event, Reasoning)) or content
    whole, ends = located.ends(row["input_ids"])
    begin = whole.rfind(reasoning)
    if begin < 0:
        raise ValueError("its tokens, decoded, do not hold its reasoning: another tokenizer?")
    first, last = row["unsafe_start_index"], row["unsafe_end_index"]
    start = (ends[first - 1] if first else 0) - begin
    until = ends[min(last, len(ends) - 1)] - begin
    if str(row["label"]).lower() == "safe":
        start, until = -1, -1
    elif not 0 <= start < len(reasoning):
        raise ValueError(f"its unsafe_start_index {first!r} is outside of its reasoning")
    harmful = start >= 0
    return LabelledStream(
        id=str(row.get("unique_id") or number),
        query=asked["content"],
        reasoning=reasoning,
        level=1.0 if harmful else 0.0,
        stratum=HARMFUL if harmful else "level 0",
        source=str(row.get("source") or ""),
        harm_at=start if harmful else None,
        harm_until=min(until, len(reasoning)) if harmful else None,
        tokens=[end - begin for end in ends if 0 < end - begin <= len(reasoning)],
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError(f"line {number} is no JSON object")
                    yield row
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ConfigError(f"cannot read the streams in {str(path)!r}: {error}") from None
