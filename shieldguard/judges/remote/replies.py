"""What servers reply, checked at the border."""

import json
import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from shieldguard.errors import JudgeUnreachable, UnparsedVerdict
from shieldguard.judges.remote.odds import Guess


def _logarithm(value: float | None) -> float:
    if value is None:
        return -math.inf
    if math.isnan(value) or value > 1e-3:
        raise ValueError(f"{value!r} is no logarithm of a probability")
    return min(value, 0.0)


Logarithm = Annotated[float | None, AfterValidator(_logarithm)]


class _Listed(BaseModel):
    token: str
    logprob: Logarithm


class _Written(_Listed):
    top_logprobs: list[_Listed] = []


class _ByToken(BaseModel):
    """As llama.cpp has it, and chat completions."""

    content: list[_Written]

    def guesses(self) -> list[Guess]:
        return [
            _guess(one.token, one.logprob, [(other.token, other.logprob) for other in one.top_logprobs])
            for one in self.content
        ]


class _ByColumn(BaseModel):
    """As completions have it: vLLM, SGLang, llama-cpp-python."""

    tokens: list[str]
    token_logprobs: list[Logarithm]
    top_logprobs: list[dict[str, Logarithm] | None] | None = None

    def guesses(self) -> list[Guess]:
        listed = self.top_logprobs or [None] * len(self.tokens)
        return [
            _guess(token, logprob, list((others or {}).items()))
            for token, logprob, others in zip(self.tokens, self.token_logprobs, listed, strict=True)
        ]


def _guess(wrote: str, logprob: Any, others: list[tuple[str, Any]]) -> Guess:
    # Tokens of other bytes may be shown as the same text: the likelier one is the plain one.
    listed = {wrote: logprob}
    for token, other in others:
        listed[token] = max(other, listed.get(token, -math.inf))
    return Guess(wrote, listed)


class _Choice(BaseModel):
    logprobs: _ByToken | _ByColumn | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class _Delta(BaseModel):
    content: str | None = None


class _Streamed(BaseModel):
    delta: _Delta = _Delta()
    text: str | None = None  # of completions
    finish_reason: str | None = None


class _Chunk(BaseModel):
    choices: list[_Streamed] = []
    error: Any = None


def guesses_of(body: bytes) -> list[Guess] | None:
    """The guesses at each token of a completion; None where the server gave none."""
    try:
        completion = _Completion.model_validate_json(body)
        logprobs = completion.choices[0].logprobs
        return logprobs.guesses() if logprobs is not None else None
    except ValueError as error:
        raise UnparsedVerdict(
            f"a reply that is no completion: {_brief(error)}; it begins {body[:200]!r}"
        ) from None


def piece_of(data: bytes) -> tuple[str, str | None]:
    """The text of a streamed chunk, and why the model ended, where it did."""
    try:
        chunk = _Chunk.model_validate_json(data)
    except ValueError as error:
        raise UnparsedVerdict(
            f"an event that is no chunk: {_brief(error)}; it begins {data[:200]!r}"
        ) from None
    if chunk.error is not None:
        raise JudgeUnreachable(f"it broke off: {str(chunk.error)[:300]}")
    if not chunk.choices:
        return "", None
    [choice, *_] = chunk.choices
    return choice.delta.content or choice.text or "", choice.finish_reason


def said(body: bytes) -> str:
    """What a server says of an error, in brief."""
    try:
        found: Any = json.loads(body)
    except ValueError:
        return body[:300].decode("utf-8", "replace").strip()
    for key in ("error", "detail", "message"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return str(found)[:300]


class _Detail(BaseModel):
    metadata: dict[str, str] = {}


class _Refusal(BaseModel):
    code: str | int | None = None
    type: str | None = None
    details: list[_Detail] = []


class _Refused(BaseModel):
    error: _Refusal


# As OpenAI has it for accounts that have to be topped up.
_SPENT = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}


def is_spent(body: bytes) -> bool:
    """Whether a server says by status 429 that there is nothing left, rather than that it went too fast: an
    account without money, or a quota of Google's for a day."""
    try:
        error = _Refused.model_validate_json(body).error
    except ValueError:
        return False
    limits = [detail.metadata.get("quota_limit", "") for detail in error.details]
    return bool({error.code, error.type} & _SPENT) or any("PerDay" in limit for limit in limits)


def _brief(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
