"""The files of a folder with labelled traces, and our own traces about code."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from shieldguard.errors import ConfigError

_NON_COMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non-?commercial", re.IGNORECASE)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one of its files. Raises `ConfigError` where it is absent or cannot be read."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ConfigError(
            f"cannot read {str(path)!r}: {error!r}; "
            "give the folder that holds reasoning/, benign/ and answers/"
        ) from error


def code_reasoning() -> Iterator[dict[str, Any]]:
    """Reasoning about code, written for this purpose."""
    file = resources.files("shieldguard").joinpath("training", "code_reasoning.jsonl")
    return (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())


def may_ship(licence: str) -> bool:
    """Whether weights trained on a row under this licence may be given to users: not under an NC one."""
    return not _NON_COMMERCIAL.search(licence)


def question(row: dict[str, Any]) -> str:
    """What tells questions apart: the same for rows that may not stand on both sides of a split."""
    return " ".join(row["query"].lower().split()) or str(row["id"])
