"""What tells one judge from another, so that verdicts of two are never counted as one's."""

import hashlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shieldguard.config import judge_source, without_secrets

_LARGE = 16 << 20  # bytes of a file from which its ends stand for it
_END = 1 << 20


def identity(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The judge's name and options, and hashes of its code and of the files that the options name.

    Of a large file its size and both ends are hashed. Secrets are left out.
    """
    return {
        "judge": name,
        "options": without_secrets(options),
        "code": {one: _digest(_code(one)) for one in sorted({name, *_within(options)})},
        "files": {text: _digest(Path(text)) for text in sorted(_paths(options))},
    }


def _within(options: Mapping[str, Any]) -> Iterator[str]:
    """The names of the judges that are options."""
    for value in options.values():
        if isinstance(value, Mapping):
            if isinstance(value.get("judge"), str):
                yield value["judge"]
            yield from _within(value)


def _paths(options: Mapping[str, Any]) -> Iterator[str]:
    for value in without_secrets(options).values():
        if isinstance(value, Mapping):
            yield from _paths(value)
        elif isinstance(value, str | Path) and len(str(value)) < 1024 and Path(value).exists():
            yield str(value)


def _code(name: str) -> Path:
    """The file or folder that the judge of this name comes from; it has been imported already."""
    spec = find_spec(judge_source(name)[0])
    origin = Path(spec.origin) if spec and spec.origin else Path()
    return origin.parent if origin.name == "__init__.py" else origin


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.suffix != ".pyc":
            found.update(str(file.relative_to(path)).encode())
            found.update(_content(file))
    return found.hexdigest()


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        size = file.stat().st_size
        if size < _LARGE:
            return hashlib.file_digest(opened, "sha256").digest()
        first = opened.read(_END)
        opened.seek(-_END, 2)
        return hashlib.sha256(size.to_bytes(8, "big") + first + opened.read()).digest()
