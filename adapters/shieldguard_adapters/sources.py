"""What a framework's model gives, item by item, as the source of a guarded stream.

Where the model fails, what its error says is judged before anybody gets to see the error: it may quote the
response, or hold all of it.
"""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from shieldguard import End, Reasoning, ReleasedEvent, ShieldguardError, SourceError, SourceEvent

Events: TypeAlias = Callable[[Any], Sequence[SourceEvent]]
Opening: TypeAlias = Callable[[], Awaitable[AsyncIterator[Any]]]
Rest: TypeAlias = Callable[[], Sequence[SourceEvent]]
Within: TypeAlias = Callable[[], AbstractContextManager[None]]

_APART = -1  # the block of an error's text, which is no part of the thought


@dataclass(slots=True, eq=False)
class Failure:
    """The origin of the events that tell of an error."""

    error: Exception
    left: int  # characters that were not let out


def nothing() -> Sequence[SourceEvent]:
    return ()


class Reading:
    """The events of each of the items, of those that were read ahead (`first`) before all, and then the
    `rest`; or of the error that came instead. The items may be opened with the first read. Each is asked for
    `within` a context of its own. Closing it calls `close` and closes the items, where they are a generator,
    also after a read that was cancelled."""

    def __init__(
        self,
        items: AsyncIterator[Any] | Opening,
        events: Events,
        rest: Rest = nothing,
        *,
        within: Within = nullcontext,
        first: Iterable[Any] = (),
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._first = iter(first)
        self._items = items
        self._events = events
        self._rest: Rest | None = rest
        self._within = within
        self._close = close

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[SourceEvent]:
        if self._rest is None:
            raise StopAsyncIteration
        try:
            for item in self._first:
                return self._events(item)
            if not isinstance(self._items, AsyncIterator):
                self._items = await self._items()
            try:
                with self._within():
                    item = await anext(self._items)
            except StopAsyncIteration:
                rest, self._rest = self._rest, None
                return rest()
            return self._events(item)
        except Exception as error:
            self._rest = None
            return telling(error)

    async def aclose(self) -> None:
        try:
            if self._close is not None:
                await self._close()
        finally:
            if isinstance(self._items, AsyncGenerator):
                await self._items.aclose()


def read(
    items: Iterable[Any],
    events: Events,
    rest: Rest = nothing,
    *,
    within: Within = nullcontext,
    close: Callable[[], None] | None = None,
) -> Generator[Sequence[SourceEvent]]:
    """The same of a plain iterable."""
    end = object()
    try:
        asked = iter(items)
        while True:
            with within():
                item = next(asked, end)
            if item is end:
                break
            yield events(item)
        yield rest()
    except Exception as error:
        yield telling(error)
    finally:
        try:
            if close is not None:
                close()
        finally:
            if isinstance(items, Generator):
                items.close()


def telling(error: Exception) -> Sequence[SourceEvent]:
    """What an error says, as events; those of shieldguard are raised."""
    if isinstance(error, ShieldguardError):
        raise error
    said = "\n".join(_said(error, set()))
    failure = Failure(error, len(said))
    return [Reasoning(said, block=_APART, origin=failure), End(origin=failure)]


def tells(event: ReleasedEvent) -> bool:
    """Whether an event tells of an error."""
    return isinstance(getattr(event, "origin", None), Failure)


def raise_if_told(event: ReleasedEvent) -> bool:
    """Raise the error that an event tells of, once all that it says is let out. Whether it tells of one."""
    failure = getattr(event, "origin", None)
    if not isinstance(failure, Failure):
        return False
    if isinstance(event, Reasoning):
        failure.left -= len(event.text)
    elif isinstance(event, End):
        if failure.left:
            kind = type(failure.error).__name__
            raise SourceError(f"the model failed with {kind!r}, whose text was left out as harmful")
        raise failure.error
    return True


def _said(error: BaseException, seen: set[int]) -> Iterator[str]:
    """The text of an error, of what it holds, and of those behind it."""
    if id(error) in seen:
        return
    seen.add(id(error))
    shown = f"{type(error).__name__}: {error}"
    yield shown
    yield from (repr(one) for one in error.args if str(one) not in shown)
    behind = [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    for value in vars(error).values():
        yield repr(value)
        behind.append(value)
        try:
            body = getattr(value, "text", None)  # of an HTTP response, which tracers send along
        except Exception:
            continue  # it was not read, so nobody else has it
        if isinstance(body, str):
            yield body
    for other in behind:
        if isinstance(other, BaseException):
            yield from _said(other, seen)
