"""A judge that is asked once for each window text, however many policies it is to be seen under."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio

from shieldguard.errors import ConfigError, JudgeError, JudgeTimeout
from shieldguard.evaluation.borders import Borders
from shieldguard.evaluation.virtual import Answered
from shieldguard.judges.cascade import Cascade
from shieldguard.judges.protocol import InstantJudge, Judge
from shieldguard.judging import JudgeLoop
from shieldguard.recording.coding import outcome_of, plain_outcome
from shieldguard.verdicts import Verdict, checked
from shieldguard.windows import Window

_PATIENCE = 600.0  # seconds that a judge has for a window here, where no client waits


def _nothing() -> None:
    pass


class StoredVerdicts:
    """What a judge said of windows, by their question, text and place, and how many seconds it took.

    `file`: where they are kept from run to run (hashes and verdicts, no text), for one judge. `identity`:
    what tells that judge from others of its name. Raises `ConfigError` where the file is another judge's,
    and where it cannot be read or written.
    """

    def __init__(
        self, judge: Judge, file: Path | None = None, *, identity: Mapping[str, Any] | None = None
    ) -> None:
        self.judge = judge
        self._identity = json.loads(json.dumps(identity, default=str))
        self._known: dict[str, Answered] = {}
        self._loop = JudgeLoop(judge)
        self._file = file
        if file is not None:
            self._open(file)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def seconds(self) -> list[float]:
        """What each verdict took."""
        return [seconds for _, seconds in self._known.values()]

    def ask(self, window: Window) -> Answered:
        key, judge = _key(window), self.judge
        if (known := self._known.get(key)) is not None:
            return known
        if isinstance(judge, InstantJudge):
            return self._keep(key, _timed(lambda: judge.judge_now(window)))
        return self._keep(key, self._loop.run(self._asked(window)).result())

    def prepare(
        self, windows: Sequence[Window], *, at_once: int = 1, told: Callable[[], None] = _nothing
    ) -> list[Window]:
        """Ask for all that are not known yet, so many at a time; `told` after each. Answers with those."""
        missing = {key: window for window in windows if (key := _key(window)) not in self._known}
        if isinstance(self.judge, InstantJudge):
            for window in missing.values():
                self.ask(window)
                told()
            return list(missing.values())
        left = iter(missing.items())

        async def work() -> None:
            for key, window in left:
                self._keep(key, await self._asked(window))
                told()

        async def run() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(at_once):
                    tasks.start_soon(work)

        self._loop.run(run()).result()
        return list(missing.values())

    def forget(self, stream: str) -> None:
        """The judge, where it cares, need keep nothing of a stream any more."""
        self._loop.forget(stream)

    async def _asked(self, window: Window) -> Answered:
        begun = time.perf_counter()
        outcome: Verdict | JudgeError
        try:
            with anyio.fail_after(_PATIENCE):
                outcome = checked(
                    await self.judge.judge(replace(window, deadline=time.monotonic() + _PATIENCE))
                )
        except TimeoutError:
            outcome = JudgeTimeout(f"no verdict within {_PATIENCE:g} seconds")
        except JudgeError as error:
            outcome = error
        return outcome, time.perf_counter() - begun

    def _keep(self, key: str, answered: Answered) -> Answered:
        self._known[key] = answered
        if self._file is not None:
            outcome, seconds = answered
            self._put(self._file, {"key": key, "seconds": seconds, **plain_outcome(outcome)})
        return answered

    def _put(self, file: Path, line: dict[str, Any]) -> None:
        with file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(line) + "\n")

    def _open(self, file: Path) -> None:
        try:
            if file.exists() and file.stat().st_size:
                self._load(file)
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            self._put(file, {"judge": self.judge.name, "identity": self._identity})
        except OSError as error:
            raise ConfigError(f"cannot keep verdicts in {str(file)!r}: {error}") from None

    def _load(self, file: Path) -> None:
        try:
            text = file.read_bytes()
            whole = text.rfind(b"\n") + 1
            lines = text[: whole or None].decode().splitlines()
            head = json.loads(lines[0])
            if head["judge"] != self.judge.name:
                raise ConfigError(
                    f"{str(file)!r} holds verdicts of the judge {head['judge']!r}, not of "
                    f"{self.judge.name!r}; give another file"
                )
            if head["identity"] != self._identity:
                raise ConfigError(
                    f"{str(file)!r} holds verdicts of the judge {self.judge.name!r} with other options, "
                    "weights or code; give another file"
                )
            for line in lines[1:]:
                plain = json.loads(line)
                self._known[plain["key"]] = outcome_of(plain), plain["seconds"]
            if 0 < whole < len(text):  # the last line of a run that was killed
                with file.open("r+b") as opened:
                    opened.truncate(whole)
        except ConfigError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"cannot read the verdicts in {str(file)!r}: {error!r}") from None


class Asked:
    """Stored verdicts as they are asked for in a playing: at other thresholds, after a given time (the
    measured one, for `latency=None`), and confirmed by a second judge where they are in doubt."""

    def __init__(
        self,
        verdicts: StoredVerdicts,
        *,
        latency: float | None = None,
        borders: Borders | None = None,
    ) -> None:
        self.verdicts = verdicts
        self.latency = latency
        self.borders = borders

    def with_borders(self, borders: Borders | None) -> "Asked":
        return Asked(self.verdicts, latency=self.latency, borders=borders)

    def __call__(self, window: Window) -> Answered:
        outcome, seconds = self.verdicts.ask(window)
        if self.borders is not None:
            outcome = self.borders.judged_again(outcome, window.channel)
        return outcome, seconds if self.latency is None else self.latency


class AskedInTurn:
    """The real `Cascade` over stored verdicts; it takes the time of the judges that it asked."""

    def __init__(self, screen: Asked, confirm: Asked, *, threshold: float) -> None:
        self._spent = 0.0
        self._cascade = Cascade(
            _Stage(screen, self._spend), _Stage(confirm, self._spend), threshold=threshold
        )
        self._loop = JudgeLoop(self._cascade)

    def __call__(self, window: Window) -> Answered:
        self._spent = 0.0
        try:
            verdict = self._loop.run(self._cascade.judge(replace(window, deadline=math.inf))).result()
        except JudgeError as error:
            return error, self._spent
        return verdict, self._spent

    def _spend(self, seconds: float) -> None:
        self._spent += seconds


class _Stage:
    """One judge of the cascade."""

    def __init__(self, asked: Asked, spend: Callable[[float], None]) -> None:
        self.name = asked.verdicts.judge.name
        self._asked = asked
        self._spend = spend

    async def judge(self, window: Window) -> Verdict:
        outcome, seconds = self._asked(window)
        self._spend(seconds)
        if isinstance(outcome, JudgeError):
            raise outcome
        return outcome


def _timed(ask: Callable[[], object]) -> Answered:
    begun = time.perf_counter()
    outcome: Verdict | JudgeError
    try:
        outcome = checked(ask())
    except JudgeError as error:
        outcome = error
    return outcome, time.perf_counter() - begun


def _key(window: Window) -> str:
    found = hashlib.sha256(f"{window.channel.value}\n{window.start}\n{len(window.query)}\n".encode())
    found.update(window.query.encode("utf-8", "surrogatepass"))
    found.update(window.text.encode("utf-8", "surrogatepass"))
    return found.hexdigest()
