"""Which paths are guarded, and which are passed on."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from shieldguard_adapters.proxy.refusing import Refused
from shieldguard_adapters.wire.apis import ANY
from shieldguard_adapters.wire.endpoints import Endpoint

# What is passed on unguarded: lists and descriptions of models.
_PASSED = (
    ("GET", "/models$"),
    ("GET", "/models/[^/:]+$"),
    ("GET", "/api/(tags|version|ps)$"),
    ("POST", "/api/show$"),
)
# Paths that nobody reads differently: no empty or dotted segments, nothing encoded but a colon.
_PLAIN = re.compile(rb"(/[A-Za-z0-9_@:~-]([A-Za-z0-9._@:~-]|%3[Aa])*)+/?")


def plain(path: bytes) -> str:
    """A path as it came, its colons decoded. Raises `Refused` for one that an upstream could read in
    another way than we do."""
    if _PLAIN.fullmatch(path) is None:
        raise Refused(404, "path", "the path is not one that this proxy passes on")
    return re.sub("%3[Aa]", ":", path.decode("ascii"))


def endpoint_of(method: str, path: str, pass_paths: Sequence[str]) -> Endpoint | None:
    """What guards the response; None where it is passed on as it is. Raises `Refused` for all else."""
    endpoint = ANY.endpoint(method, path)
    if endpoint is None and not _is_passed("GET" if method == "HEAD" else method, path, pass_paths):
        raise Refused(
            404, "not_guarded", f"{method} {path!r} is neither guarded nor in pass_paths, so it was not sent"
        )
    return endpoint


def _is_passed(method: str, path: str, pass_paths: Sequence[str]) -> bool:
    if any(fnmatchcase(path, pattern) for pattern in pass_paths):
        return True
    path = path.rstrip("/")
    return any(method == allowed and re.search(pattern, path) for allowed, pattern in _PASSED)
