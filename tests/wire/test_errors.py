"""Errors that may quote the model, and what a response is called that cannot be guarded."""

import json

import pytest

from shieldguard import Action, Rule, WireError
from shieldguard_adapters.wire.apis import ANTHROPIC, CHAT, GEMINI, OLLAMA, OLLAMA_CHAT, OPENAI
from shieldguard_adapters.wire.codec import Request
from shieldguard_adapters.wire.endpoints import JSON, Endpoint, Options
from shieldguard_adapters.wire.errors import ErrorBody
from tests.wire.rig import guard, guarded

ENDPOINTS = [one for api in (OPENAI, ANTHROPIC, OLLAMA, GEMINI) for one in api.endpoints]
NOTICE = guard().policy.notice


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"error": "raw=\'HARM\'"}', NOTICE),
        (b'{"error": {"message": "HARM", "code": 500}}', {"message": NOTICE, "type": "shieldguard"}),
        (b'{"detail": ["HARM"]}', {"message": NOTICE, "type": "shieldguard"}),
        (b"HARM", {"message": NOTICE, "type": "shieldguard"}),
    ],
)
@pytest.mark.parametrize("action", [Action.ABORT, Action.REDACT])
def test_an_error_that_quotes_the_model_is_judged(data: bytes, error: object, action: Action) -> None:
    out, _ = guarded([data], guard(answer=Rule(harmful=action)), ErrorBody())
    assert json.loads(out) == {"error": error}


@pytest.mark.parametrize("data", [b'{"error": "busy"}', b"{}", b"", b'{"error": {"message": "x"}}'])
def test_an_error_that_is_harmless_leaves_as_it_came(data: bytes) -> None:
    assert guarded([data], codec=ErrorBody())[0] == data


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: one.path)
def test_an_error_of_the_server_is_judged_wherever_it_is_json(endpoint: Endpoint) -> None:
    assert isinstance(endpoint.error_codec(500, f"{JSON}; charset=utf-8", Options()), ErrorBody)
    assert endpoint.error_codec(500, "text/html", Options()) is None
    assert endpoint.error_codec(429, JSON, Options()) is None


def test_a_text_that_a_client_would_decode_otherwise_is_refused() -> None:
    for charset in ("utf-8", "UTF8", '"utf-8"', "us-ascii", "unheard-of"):
        CHAT.codec(f"{JSON}; charset={charset}", Request(), Options())
    CHAT.codec(f"{JSON}; charset*=utf-8''a%00b", Request(), Options())
    for charset in ("utf-7", "utf-16", "cp037"):
        with pytest.raises(WireError, match="cannot be guarded"):
            OLLAMA_CHAT.codec(f"{JSON}; charset={charset}", Request(), Options())


def test_an_error_that_is_too_large_is_not_read() -> None:
    out, report = guarded([b"HARM " * 300_000], codec=ErrorBody())
    assert report.aborted is not None
    assert report.aborted.cause == "source"
    assert b"HARM" not in out
