"""Streams whose JSON differs in one place: something else stands there, or nothing, or more."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from tests.fuzz.checks import SECRET

_NOTHING = object()
_SHAPES = (_NOTHING, None, 7, "x", ["x"], {"x": "x"})


def reshaped(seeds: Sequence[bytes]) -> Iterator[bytes]:
    """All that differ from these streams in one place of one object, each place of objects alike once. More
    stands in an object under any name that another one has."""
    # An event's name would have to agree with its type. Where something is withheld, more is written.
    streams = [re.sub(rb"event: .*\n", b"", seed) for seed in seeds]
    streams.sort(key=lambda stream: SECRET.encode() not in stream)
    names = sorted({name.decode() for stream in streams for name in re.findall(rb'"(\w+)":', stream)})
    seen: set[tuple[Any, ...]] = set()
    for stream in streams:
        for found in re.finditer(rb"\{.*\}", stream):
            before, behind = stream[: found.start()], stream[found.end() :]
            value = json.loads(found.group())
            type_ = before.rpartition(b"\n")[2], str(value.get("type"))
            for made in _edited(value, names, type_, seen):
                if made is not _NOTHING:
                    yield before + json.dumps(made).encode() + behind


def _edited(
    value: Any, names: Sequence[str], place: tuple[Any, ...], seen: set[tuple[Any, ...]]
) -> Iterator[Any]:
    if place not in seen:
        seen.add(place)
        yield from _SHAPES
        if isinstance(value, dict):
            yield from ({**value, name: [7]} for name in names if name not in value)
    if isinstance(value, dict):
        for key, inner in value.items():
            for made in _edited(inner, names, (*place, *value, key), seen):
                yield {k: v for k, v in {**value, key: made}.items() if v is not _NOTHING}
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            for made in _edited(inner, names, (*place, at), seen):
                yield [v for v in (*value[:at], made, *value[at + 1 :]) if v is not _NOTHING]
