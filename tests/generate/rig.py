"""Ways to read a guarded generation, and what can be seen of the model meanwhile."""

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import anyio
import torch
from transformers import StoppingCriteria

from shieldguard import Answer, Reasoning, ReleasedEvent
from shieldguard_adapters.transformers import GuardedGeneration


class Counter(StoppingCriteria):
    """Counts the tokens that the model computes, and may fail at one of them."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.tokens = 0
        self._fails_at = fails_at

    def __call__(self, input_ids: Any, scores: Any, **options: Any) -> Any:
        self.tokens += 1
        if self.tokens == self._fails_at:
            raise ZeroDivisionError("the model broke")
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)

    def rests(self) -> bool:
        """Whether no token comes for a while."""
        before = self.tokens
        time.sleep(0.1)
        return self.tokens == before


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "shieldguard-generate"]


def comes_true(condition: Callable[[], object], *, within: float = 20.0) -> bool:
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def _for(generation: GuardedGeneration) -> list[ReleasedEvent]:
    return list(generation)


def _with(generation: GuardedGeneration) -> list[ReleasedEvent]:
    with generation as stream:
        return list(stream)


async def _async_for(generation: GuardedGeneration) -> list[ReleasedEvent]:
    return [event async for event in generation]


async def _async_with(generation: GuardedGeneration) -> list[ReleasedEvent]:
    async with generation as stream:
        return [event async for event in stream]


def _run(read: Callable[..., Any], backend: str, generation: GuardedGeneration) -> list[ReleasedEvent]:
    events: list[ReleasedEvent] = anyio.run(read, generation, backend=backend)
    return events


READERS: dict[str, Callable[[GuardedGeneration], list[ReleasedEvent]]] = {
    "for": _for,
    "with": _with,
    **{f"async for, {backend}": partial(_run, _async_for, backend) for backend in ("asyncio", "trio")},
    **{f"async with, {backend}": partial(_run, _async_with, backend) for backend in ("asyncio", "trio")},
}


def reasoning_in(events: Iterable[ReleasedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Reasoning))


def answer_in(events: Iterable[ReleasedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Answer))
