"""ReasoningShield and other guard models on other machines, behind any server of the OpenAI kind (the extra
`remote`)."""

import ssl
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import anyio.to_thread

from shieldguard.errors import ConfigError, JudgeBusy, JudgeError, MissingDependency
from shieldguard.judges.dialects import REASONING_SHIELD, Dialect
from shieldguard.judges.thresholds import Thresholds
from shieldguard.judges.waiting import result_of
from shieldguard.verdicts import Verdict
from shieldguard.windows import Window

try:
    from shieldguard.judges.remote.calls import (
        Clients,
        Transport,
        check_seconds,
        checked_headers,
        checked_url,
        checked_verify,
    )
except ImportError as error:
    raise MissingDependency(error.name or "httpx2", "remote") from error

from shieldguard.judges.remote.asking import LLAMA, Asking, read_prompt
from shieldguard.judges.remote.attempts import judged
from shieldguard.judges.remote.loop import Loop
from shieldguard.judges.remote.reading import Fast, Full, OnAnalysis, Way
from shieldguard.judges.remote.replicas import Replica, Replicas

__all__ = ["Mode", "OnAnalysis", "RemoteJudge"]

Mode: TypeAlias = Literal["fast", "full"]


class RemoteJudge:
    """A ReasoningShield model on a server of the OpenAI kind: vLLM, SGLang, llama.cpp, transformers serve.

    `urls`: one, or a list of replicas that serve the same model, such as "http://10.0.0.7:8000/v1". A stream
    stays with one replica, whose prefix cache then computes each token of the thought once; new streams go
    to the least loaded. One that fails is left alone for `retry_after` seconds, and its streams go elsewhere.
    `model`: its name on the servers.
    `prompt`: the model's system prompt, or the path of the checkpoint's folder or of the
    reasoningshield_prompt.txt in it; by default one of our own wording.
    `dialect`: what the model is asked and answers, where it is another one; see `guards`.

    `mode`: "fast", the default for ReasoningShield and for it alone, reads the level from the
    log-probabilities of the label strings, which the server must give (`top_logprobs` of them). "full" has
    the model write its analysis, as it was trained to, which takes many times longer; `on_analysis` is called
    with the window and each new piece of the text, in the judge's thread, and anew from the start where
    another replica has to take over.
    `potential`, `harmful`: from which P(level >= 0.5) a window is at level 0.5, and from which P(level = 1)
    at level 1 (fast). `max_analysis`: tokens of analysis at most (full).

    `context`: characters of query and thought that are sent at most. A longer thought loses its beginning,
    in strides of half a context: the question and the newest text stay. An overlong question loses its
    middle. The verdict's `analysis` says how much was left out.
    `template`: how the model's chat template writes a conversation (fast renders it here; full leaves that
    to the server), without a begin-of-text token. `special`: what the model's special tokens begin with; in
    query and thought they are broken with a space.
    `body`: fields to add to each request, or to put in another's place.

    `api_key`, `headers`; `verify`: whether to check certificates, or a file of them, or an SSL context.
    `timeout`: seconds without a byte after which a replica counts as failed; `connect_timeout` likewise.
    `max_connections`: to each replica. `queue`: windows asked at a time; one more raises `JudgeBusy`.

    Connections live in a thread of the judge's own, so it can be used from any event loop. Raises
    `ConfigError` for settings that cannot work; servers are first asked with the first window.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        model: str,
        dialect: Dialect = REASONING_SHIELD,
        mode: Mode | None = None,
        prompt: str | Path | None = None,
        potential: float = 0.5,
        harmful: float = 0.5,
        top_logprobs: int = 20,
        on_analysis: OnAnalysis | None = None,
        max_analysis: int | None = None,
        context: int = 40_000,
        template: str = LLAMA,
        special: Sequence[str] = ("<|",),
        body: Mapping[str, Any] | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        verify: bool | str | Path | ssl.SSLContext = True,
        timeout: float = 10.0,
        connect_timeout: float = 3.0,
        retry_after: float = 10.0,
        max_connections: int = 64,
        queue: int = 1024,
        name: str | None = None,
    ) -> None:
        self._max_analysis = dialect.written if max_analysis is None else max_analysis
        for option, value in (
            ("top_logprobs", top_logprobs),
            ("max_analysis", self._max_analysis),
            ("max_connections", max_connections),
            ("queue", queue),
        ):
            if value < 1:
                raise ConfigError(f"{option}={value!r}; give 1 or more")
        check_seconds(timeout=timeout, connect_timeout=connect_timeout, retry_after=retry_after)
        if not model:
            raise ConfigError(f"model={model!r}; give the model's name on the server")
        bases = [checked_url(url) for url in ([urls] if isinstance(urls, str) else urls)]
        if not bases or len(set(bases)) < len(bases):
            raise ConfigError(f"urls={urls!r}; give one URL or more, each once")
        self._model = model
        self._thresholds = Thresholds(potential=potential, harmful=harmful)
        self._top_logprobs = top_logprobs
        self._asking = Asking(
            read_prompt(prompt), dialect=dialect, template=template, special=special, context=context
        )
        self._body = {"model": model, **(body or {})}
        self._queue = queue
        self._asked: set[object] = set()
        self._set(mode or ("fast" if self._has_odds else "full"), on_analysis, name)
        self._replicas = Replicas(bases, retry_after=retry_after)
        transport = Transport(
            headers=checked_headers(api_key, headers or {}),
            verify=checked_verify(verify),
            silence=timeout,
            connect=connect_timeout,
            connections=max_connections,
        )
        self._loop = Loop(partial(Clients, transport, bases))

    def in_mode(self, mode: Mode, *, on_analysis: OnAnalysis | None = None, name: str | None = None) -> Self:
        """A judge that reads in another mode, with the same replicas and connections."""
        other = copy(self)
        other._set(mode, on_analysis, name)
        return other

    async def judge(self, window: Window) -> Verdict:
        if len(self._asked) >= self._queue:
            raise JudgeBusy(
                f"{len(self._asked)} windows are being judged already; guard fewer streams at once, add "
                f"replicas, or raise the judge's queue={self._queue!r}"
            )
        turn = object()
        self._asked.add(turn)
        try:
            return await result_of(self._loop.run(partial(self._judge, window)))
        except CancelledError:
            raise JudgeError("the judge was closed before it had the verdict") from None
        finally:
            self._asked.discard(turn)

    def forget(self, stream: str) -> None:
        self._replicas.forget(stream)

    def close(self) -> None:
        """End what is judged and close the connections; for every judge that `in_mode` made as well."""
        self._loop.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await anyio.to_thread.run_sync(self.close)

    @property
    def _has_odds(self) -> bool:
        dialect = self._asking.dialect
        return (dialect.lead, dialect.labels) == (REASONING_SHIELD.lead, REASONING_SHIELD.labels)

    def _judge(self, window: Window, clients: Clients) -> Coroutine[Any, Any, Verdict]:
        async def ask(replica: Replica) -> Verdict:
            return await self._way(window, clients, replica)

        return judged(self._replicas, window.stream, window.deadline, ask)

    def _set(self, mode: Mode, on_analysis: OnAnalysis | None, name: str | None) -> None:
        self.name = name or f"{Path(self._model).name} ({mode})"
        self._way: Way
        if mode == "fast":
            if not self._has_odds:
                raise ConfigError(
                    f"mode={mode!r}, but only ReasoningShield's labels are read from log-probabilities of a "
                    "server; use 'full'"
                )
            self._way = Fast(
                asking=self._asking,
                body=self._body,
                thresholds=self._thresholds,
                top_logprobs=self._top_logprobs,
                name=self.name,
            )
        elif mode == "full":
            self._way = Full(
                asking=self._asking,
                body=self._body,
                most=self._max_analysis,
                name=self.name,
                on_analysis=on_analysis,
            )
        else:
            raise ConfigError(f"mode={mode!r}; choose 'fast' or 'full'")
