"""The headers and the query of a request on its way to an upstream, and the headers of its answer."""

from collections.abc import Iterable
from urllib.parse import unquote_plus

from shieldguard_adapters.proxy.keys import KEY_HEADERS

Headers = list[tuple[bytes, bytes]]

# Of one connection, not of the message (RFC 9110, 7.6.1), and what either side writes anew.
_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade content-length date server".split()
)
# Where a client is, what it has of other sites, and what would have only a part of a response sent. Some
# servers take the path or the method of a request from a header: what was asked would be another than we saw.
_NOT_SENT = _HOP | frozenset(
    b"host expect accept-encoding cookie forwarded via x-real-ip range if-range if-match if-none-match "
    b"if-modified-since if-unmodified-since x-original-url x-original-uri x-rewrite-url x-http-method "
    b"x-http-method-override x-method-override".split()
)
# What a host says of itself, and where else it sends the client, who speaks to another. (Alt-Svc would lead
# it past the guard; the last few are orders to a server that stands before us.)
_NOT_PASSED = _HOP | frozenset(
    b"set-cookie set-cookie2 alt-svc strict-transport-security nel report-to clear-site-data "
    b"accept-ranges location content-location operation-location link refresh x-sendfile x-accel-redirect "
    b"x-lighttpd-send-file x-reproxy-url".split()
)
# What is only true of the bytes as they came.
_OF_THE_BYTES = frozenset(b"content-encoding content-md5 content-digest repr-digest digest etag".split())
_OURS = (b"x-forwarded-", b"x-shieldguard-")
_KEYS = frozenset(name.encode() for name in ("authorization", *KEY_HEADERS))
# Of the account that a key is of.
_ACCOUNT = frozenset(b"openai-organization openai-project x-goog-user-project".split())


def request_headers(headers: Iterable[tuple[bytes, bytes]], key: str, path: str, *, keyless: bool) -> Headers:
    """What the upstream is sent. `key` is the upstream's, in place of any that the client gave; `keyless`:
    the client's goes no further."""
    given = [(name.lower(), value) for name, value in headers]
    left_out = _NOT_SENT | _named(given) | (_KEYS | _ACCOUNT if keyless or key else frozenset())
    sent = [
        (name, value)
        for name, value in given
        # Many servers take an underscore for a hyphen.
        if name not in left_out and b"_" not in name and not name.startswith(_OURS)
    ]
    if key:
        where = _key_header({name for name, _ in given}, path)
        sent.append((where, f"Bearer {key}".encode() if where == b"authorization" else key.encode()))
    return [*sent, (b"accept-encoding", b"identity")]


def sent_query(query: bytes, *, keyless: bool) -> bytes:
    """The query that the upstream is sent: without Gemini's `key`, where the client's goes no further."""
    if not keyless:
        return query
    parts = query.split(b"&")
    return b"&".join(
        part for part in parts if unquote_plus(part.partition(b"=")[0].decode("latin-1")) != "key"
    )


def response_headers(headers: Iterable[tuple[bytes, bytes]], *, guarded: bool) -> Headers:
    """What the client is sent of an upstream's headers. `guarded`: the body may be another."""
    sent = [(name.lower(), value) for name, value in headers]
    left_out = _NOT_PASSED | _named(sent) | (_OF_THE_BYTES if guarded else frozenset())
    return [
        (name, value)
        for name, value in sent
        if name not in left_out and not name.startswith((b"access-control-", b"x-shieldguard-"))
    ]


def _key_header(given: set[bytes], path: str) -> bytes:
    """The header of the upstream's key: that of the client's, or the one of the path's API."""
    for name in _KEYS & given:
        return name
    if "/messages" in path:
        return b"x-api-key"
    return b"x-goog-api-key" if "/v1beta" in path or ":" in path else b"authorization"


def _named(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The headers that `Connection` names."""
    values = [value for name, value in headers if name == b"connection"]
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))
