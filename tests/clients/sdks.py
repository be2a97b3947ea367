"""The SDKs as one: what a test does with each of them alike."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import pytest

from shieldguard import Guard
from shieldguard_adapters.clients import guard_client
from tests.clients.rig import QUESTION, run_async
from tests.upstream import Upstream, chat
from tests.wire.messages import message, text, thinking

T = TypeVar("T")


@dataclass(frozen=True)
class Sdk:
    """`parts`: of an event, its reasoning and its answer."""

    name: str
    frames: Callable[[Sequence[str], Sequence[str]], list[bytes]]
    clients: tuple[str, str]
    parts: Callable[[Any], tuple[str, str]]
    strip: str = ""

    @property
    def package(self) -> ModuleType:
        return pytest.importorskip(self.name)  # type: ignore[no-any-return]

    @contextmanager
    def client(self, upstream: Upstream, by: Guard | None, **options: Any) -> Iterator[Any]:
        with getattr(self.package, self.clients[0])(**self._options(upstream, options)) as client:
            yield guard_client(client, by) if by else client

    def run(
        self,
        program: str,
        upstream: Upstream,
        body: Callable[[Any], Awaitable[T]],
        by: Guard | None,
        **options: Any,
    ) -> T:
        """Run `body` with an async client of its own."""

        async def main() -> T:
            make = getattr(self.package, self.clients[1])
            async with make(**self._options(upstream, options)) as client:
                return await body(guard_client(client, by) if by else client)

        return run_async(program, main)

    def ask(self, client: Any, model: str = "m") -> Any:
        """A stream, or what awaits one."""
        if self.name == "anthropic":
            return client.messages.create(model=model, max_tokens=9, messages=QUESTION, stream=True)
        return client.chat.completions.create(model=model, messages=QUESTION, stream=True)

    def said(self, event: Any) -> str:
        return "".join(self.parts(event))

    def _options(self, upstream: Upstream, options: dict[str, Any]) -> dict[str, Any]:
        base = upstream.url.removesuffix(self.strip)
        return {"base_url": base, "api_key": "none", "max_retries": 0, **options}


def _chat_parts(event: Any) -> tuple[str, str]:
    if not event.choices:
        return "", ""
    delta = event.choices[0].delta
    return getattr(delta, "reasoning_content", None) or "", delta.content or ""


def _message_parts(event: Any) -> tuple[str, str]:
    delta = getattr(event, "delta", None)
    return getattr(delta, "thinking", ""), getattr(delta, "text", "")


OPENAI = Sdk("openai", chat, ("OpenAI", "AsyncOpenAI"), _chat_parts)
ANTHROPIC = Sdk(
    "anthropic",
    lambda thought, answer: message(thinking(0, *thought), text(1, *answer)),
    ("Anthropic", "AsyncAnthropic"),
    _message_parts,
    strip="/v1",
)
SDKS = [OPENAI, ANTHROPIC]


def connections(client: Any) -> list[Any]:
    """The connections of a client that are still at work."""
    pool = client._client._transport._pool
    return [one for one in pool.connections if not one.is_idle() and not one.is_closed()]
