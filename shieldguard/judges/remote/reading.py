"""Two ways to get a verdict from a server: from its log-probabilities, or from what the model writes."""

import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from shieldguard.errors import JudgeRefused, JudgeUnreachable, UnparsedVerdict
from shieldguard.judges.contract import DATE, JUDGMENT
from shieldguard.judges.remote.asking import Asking
from shieldguard.judges.remote.calls import Clients
from shieldguard.judges.remote.odds import LONGEST, Odds
from shieldguard.judges.remote.replicas import Replica
from shieldguard.judges.remote.replies import guesses_of, piece_of
from shieldguard.judges.thresholds import Thresholds
from shieldguard.verdicts import RiskLevel, Verdict
from shieldguard.windows import Window

logger = logging.getLogger("shieldguard")

OnAnalysis: TypeAlias = Callable[[Window, str], None]

_REPLY_BYTES = 1 << 20
# A server spends some hundred bytes on each token that it streams.
_TOKEN_BYTES = 4 << 10


class Way(Protocol):
    """`Fast` or `Full`."""

    async def __call__(self, window: Window, clients: Clients, replica: Replica) -> Verdict: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fast:
    """Reads the level from the odds of the label strings behind a forced `"Judgment": `.

    The conversation is rendered here, as chat completions cannot put the judgment's beginning into the
    model's mouth on every server.
    """

    asking: Asking
    body: Mapping[str, Any]
    thresholds: Thresholds
    top_logprobs: int
    name: str

    async def __call__(self, window: Window, clients: Clients, replica: Replica) -> Verdict:
        question = self.asking.question(window)
        asked = self.asking.text(question) + JUDGMENT
        odds = Odds()
        while (begun := odds.missing()) is not None:
            body = {
                "prompt": asked + begun,
                "max_tokens": len(LONGEST) - len(begun),
                "temperature": 0,
                "logprobs": self.top_logprobs,
                **self.body,
            }
            reply = await clients.reply(replica, "/completions", body, most=_REPLY_BYTES)
            guesses = guesses_of(reply)
            if guesses == []:
                raise JudgeRefused(
                    f"it gave no log-probabilities where the model ended, behind {JUDGMENT + begun!r}; "
                    "forbid the end, as in body={'logit_bias': {'128009': -100}} for Llama-3's end of turn"
                )
            if guesses is None:
                raise JudgeRefused(
                    f"it gave no log-probabilities behind {JUDGMENT + begun!r}, from which fast mode reads "
                    "the level; use mode='full', or a server that gives them: vLLM, SGLang, llama.cpp"
                )
            odds.take(begun, guesses)
        probabilities = odds.probabilities()
        harmful = probabilities[RiskLevel.HARMFUL]
        return Verdict(
            level=self.thresholds.level(probabilities[RiskLevel.POTENTIAL] + harmful, harmful),
            judge=self.name,
            probabilities=probabilities,
            analysis=question.note,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """Has the model write its reply, greedily, up to its judgment, which is parsed."""

    asking: Asking
    body: Mapping[str, Any]
    most: int
    name: str
    on_analysis: OnAnalysis | None = None

    async def __call__(self, window: Window, clients: Clients, replica: Replica) -> Verdict:
        question = self.asking.question(window)
        dialect = self.asking.dialect
        body: dict[str, Any] = {"max_tokens": self.most, "temperature": 0, "stream": True}
        if dialect.prompt_text is None:
            path = "/chat/completions"
            body |= {
                "messages": self.asking.messages(question),
                "chat_template_kwargs": {"date_string": DATE},
            }
        else:
            path = "/completions"
            body |= {"prompt": self.asking.text(question)}
        reply, ended = "", None
        most = _REPLY_BYTES + self.most * _TOKEN_BYTES
        async with aclosing(clients.events(replica, path, {**body, **self.body}, most=most)) as events:
            async for data in events:
                if data == b"[DONE]":
                    break
                piece, ended = piece_of(data)
                if piece:
                    reply += piece
                    self._tell(window, piece)
                if ended is not None or dialect.ends(reply):
                    break
            else:
                raise JudgeUnreachable(f"its reply broke off behind {reply[-100:]!r}")
        if ended not in (None, "stop") and not dialect.ends(reply):
            raise UnparsedVerdict(
                f"the reply ended by {ended!r} before its judgment, behind {reply[-200:]!r}; "
                "where that is 'length', raise max_analysis"
            )
        level = dialect.level(reply)
        category, analysis = dialect.told(reply, level)
        return Verdict(
            level=level,
            judge=self.name,
            category=category,
            analysis=f"{question.note}\n{analysis}" if question.note else analysis,
        )

    def _tell(self, window: Window, piece: str) -> None:
        if self.on_analysis is not None:
            try:
                self.on_analysis(window, piece)
            except Exception:
                logger.exception("shieldguard: %r raised and was ignored", self.on_analysis)
