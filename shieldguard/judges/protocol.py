"""What a judge is."""

from typing import Protocol, runtime_checkable

from shieldguard.verdicts import Verdict
from shieldguard.windows import Window


@runtime_checkable
class Judge(Protocol):
    """Rates windows. `judge` runs on the guard's own event loop; it raises `JudgeError` where it has
    no verdict, and is cancelled at the window's deadline.

    A judge may also have `forget(stream: str) -> None`, called once when a stream has ended.
    """

    @property
    def name(self) -> str: ...

    async def judge(self, window: Window) -> Verdict: ...


@runtime_checkable
class InstantJudge(Judge, Protocol):
    """A judge whose verdict takes about a millisecond of computing and no waiting.

    `judge_now` is called where the stream is read, which spares a hand-over between threads that
    would cost more than the judgement.
    """

    def judge_now(self, window: Window) -> Verdict: ...


class TokenUsage(Protocol):
    """Tokens that a judge has computed so far, and tokens of all that its verdicts were read from."""

    @property
    def tokens(self) -> int: ...

    @property
    def read(self) -> int: ...


@runtime_checkable
class Metered(Judge, Protocol):
    """A judge that keeps account of its tokens, for `shieldguard eval stream`."""

    @property
    def usage(self) -> TokenUsage: ...

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        ...
