"""Moderation services as judges: OpenAI's endpoint, and Perspective (the extra `remote`).

They rate a text by itself. So they are sent the window with a little of what came before it, and never the
query, which would have an answer to a harmful question rated by its question. Both know two answers only.
"""

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from pydantic import BaseModel, Field, ValidationError

from shieldguard.errors import ConfigError, MissingDependency, UnparsedVerdict
from shieldguard.judges.dialects import level_of_unsafe, of_levels
from shieldguard.verdicts import RiskLevel, Verdict
from shieldguard.windows import Window

try:
    from shieldguard.judges.remote.service import Service
except ImportError as error:
    raise MissingDependency(error.name or "httpx2", "remote") from error

Reply = TypeVar("Reply", bound=BaseModel)

__all__ = ["OpenAIModeration", "Perspective"]

PIECE = 2_000
"""Characters that are rated at a time: in a longer text, what is harmful drowns."""

_INPUTS = 32


class _OfService:
    _service: Service

    def close(self) -> None:
        self._service.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await anyio.to_thread.run_sync(self.close)


class OpenAIModeration(_OfService):
    """OpenAI's moderation endpoint.

    A window that it flags is at level `unsafe`, 1 or 0.5. With a `threshold` the highest of its category
    scores decides instead. These are no probabilities, so a verdict has none; its `analysis` names them.

    `context`: how many characters of what came before a window are sent with it. `url`: where the service
    is, for one that speaks the same. `timeout`, `connect_timeout`: seconds. `queue`: windows asked about at a
    time; one more raises `JudgeBusy`. A rate limit is waited for within the window's deadline; a quota that
    is used up is a `JudgeRefused` at once.
    """

    def __init__(
        self,
        *,
        api_key: str,
        model: str = "omni-moderation-latest",
        unsafe: float = RiskLevel.HARMFUL,
        threshold: float | None = None,
        context: int = 500,
        url: str = "https://api.openai.com/v1",
        verify: bool | str | Path | ssl.SSLContext = True,
        timeout: float = 10.0,
        connect_timeout: float = 3.0,
        queue: int = 64,
        name: str | None = None,
    ) -> None:
        self.name = name or model
        self._model = model
        self._unsafe = level_of_unsafe(unsafe)
        self._threshold = None if threshold is None else _share("threshold", threshold)
        self._context = _characters(context)
        self._service = Service(
            url,
            key=("Authorization", f"Bearer {api_key}" if api_key else ""),
            verify=verify,
            timeout=timeout,
            connect_timeout=connect_timeout,
            queue=queue,
        )

    async def judge(self, window: Window) -> Verdict:
        texts = _pieces(window, self._context)
        if not texts:
            return _nothing(self.name)
        groups = [texts[at : at + _INPUTS] for at in range(0, len(texts), _INPUTS)]
        bodies: list[Mapping[str, Any]] = [{"model": self._model, "input": group} for group in groups]
        replies = await self._service.replies(
            "/moderations", bodies, deadline=window.deadline, read=lambda body: _read(_Moderation, body)
        )
        if [len(reply.results) for reply in replies] != [len(group) for group in groups]:
            raise UnparsedVerdict("the reply has not as many results as texts were sent")
        results = [result for reply in replies for result in reply.results]
        highest = {
            name: max(result.category_scores[name] for result in results if name in result.category_scores)
            for name in sorted({name for result in results for name in result.category_scores})
        }
        if self._threshold is None:
            unsafe = any(result.flagged for result in results)
        else:
            unsafe = max(highest.values(), default=0.0) >= self._threshold
        return Verdict(
            level=self._unsafe if unsafe else RiskLevel.SAFE, judge=self.name, analysis=_told(highest)
        )


class Perspective(_OfService):
    """Google's Perspective API, which its makers end on 31 December 2026.

    The highest of the summary scores of the `attributes` is taken as the probability that a window is
    harmful; from `threshold` on it is at level `unsafe`, 1 or 0.5. `languages`: of the text; the service
    refuses those that it does not know for an attribute. Nothing is stored there (`doNotStore`).

    The other options are those of `OpenAIModeration`. A project may send one request a second, unless it was
    given more, and a long window takes one for each 2,000 characters: raise the policy's `judge_timeout`.
    """

    def __init__(
        self,
        *,
        api_key: str,
        attributes: Sequence[str] = (
            *("TOXICITY", "SEVERE_TOXICITY", "IDENTITY_ATTACK", "INSULT", "PROFANITY", "THREAT"),
        ),
        languages: Sequence[str] = ("en",),
        unsafe: float = RiskLevel.HARMFUL,
        threshold: float = 0.5,
        context: int = 500,
        url: str = "https://commentanalyzer.googleapis.com/v1alpha1",
        verify: bool | str | Path | ssl.SSLContext = True,
        timeout: float = 10.0,
        connect_timeout: float = 3.0,
        queue: int = 64,
        name: str = "Perspective",
    ) -> None:
        if isinstance(attributes, str) or not attributes:
            raise ConfigError(f"attributes={attributes!r}; give a list of one or more, such as ['TOXICITY']")
        self.name = name
        self._attributes = list(attributes)
        self._languages = [languages] if isinstance(languages, str) else list(languages)
        self._unsafe = level_of_unsafe(unsafe)
        self._threshold = _share("threshold", threshold)
        self._context = _characters(context)
        self._service = Service(
            url,
            key=("X-Goog-Api-Key", api_key),  # not in the URL, which ends up in logs
            verify=verify,
            timeout=timeout,
            connect_timeout=connect_timeout,
            queue=queue,
        )

    async def judge(self, window: Window) -> Verdict:
        texts = _pieces(window, self._context)
        if not texts:
            return _nothing(self.name)
        replies = await self._service.replies(
            "/comments:analyze",
            [self._body(text) for text in texts],
            deadline=window.deadline,
            read=lambda body: _read(_Analysis, body),
        )
        if missing := {
            name for reply in replies for name in self._attributes if name not in reply.attributes
        }:
            raise UnparsedVerdict(f"the reply has no score for {sorted(missing)[0]!r}")
        highest = {
            name: max(reply.attributes[name].summary.value for reply in replies) for name in self._attributes
        }
        harmful = max(highest.values())
        return Verdict(
            level=self._unsafe if harmful >= self._threshold else RiskLevel.SAFE,
            judge=self.name,
            probabilities=of_levels({RiskLevel.SAFE: 1 - harmful, self._unsafe: harmful}),
            analysis=_told(highest),
        )

    def _body(self, text: str) -> dict[str, Any]:
        return {
            "comment": {"text": text, "type": "PLAIN_TEXT"},
            "languages": self._languages,
            "requestedAttributes": {name: {} for name in self._attributes},
            "doNotStore": True,
        }


class _Result(BaseModel):
    flagged: bool
    category_scores: dict[str, float] = Field(min_length=1)


class _Moderation(BaseModel):
    results: list[_Result]


class _Score(BaseModel):
    value: float = Field(ge=0, le=1)


class _Attribute(BaseModel):
    summary: _Score = Field(alias="summaryScore")


class _Analysis(BaseModel):
    attributes: dict[str, _Attribute] = Field(alias="attributeScores")


def _read(kind: type[Reply], body: bytes) -> Reply:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UnparsedVerdict(f"the reply is not what the service answers: {where}: {first['msg']}") from None


def _pieces(window: Window, context: int) -> list[str]:
    """The window's new text with some before it, in pieces that are cut at white space where there is any."""
    text = window.context(context).encode("utf-8", "replace").decode()
    pieces = []
    while text.strip():
        cut = len(text)
        if cut > PIECE:
            cut = max(text.rfind(" ", PIECE // 2, PIECE), text.rfind("\n", PIECE // 2, PIECE)) + 1 or PIECE
        pieces.append(text[:cut])
        text = text[cut:]
    return [piece for piece in pieces if piece.strip()]


def _nothing(name: str) -> Verdict:
    return Verdict(level=RiskLevel.SAFE, judge=name, analysis="(There is nothing but white space.)")


def _told(scores: Mapping[str, float]) -> str:
    """The highest scores."""
    best = sorted(scores, key=lambda name: -scores[name])[:3]
    return ", ".join(f"{name}: {scores[name]:.2g}" for name in best)


def _share(option: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"{option}={value!r}; give a number in [0, 1]")
    return value


def _characters(context: int) -> int:
    if context < 0:
        raise ConfigError(f"context={context!r}; give a number of characters, 0 or more")
    return context
