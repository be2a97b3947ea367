"""One forward pass for the windows of several streams.

A step computes at most so many new tokens in all. What needs more of them (a stream that had been evicted)
goes on in a later step, behind those that wait.
"""

from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from shieldguard.errors import JudgeError
from shieldguard.judges.local.attention import Batch
from shieldguard.judges.local.checkpoint import Checkpoint
from shieldguard.judges.local.reading import Reading, Way, check_numbers
from shieldguard.judges.local.rows import Rows
from shieldguard.judges.local.store import Lane, Store, lane_of
from shieldguard.verdicts import Verdict
from shieldguard.windows import Window


@dataclass(slots=True, eq=False)
class Job:
    """A window that waits for its verdict. Those that came later have higher numbers."""

    window: Window
    way: Way
    future: "Future[Verdict]"
    reading: Reading | None = None
    number: int = field(default_factory=count().__next__)

    @property
    def lane(self) -> Lane:
        return lane_of(self.window)

    @property
    def done(self) -> bool:
        return self.future.done()


@dataclass(frozen=True, slots=True)
class _Share:
    """What a step computes for one job."""

    job: Job
    reading: Reading
    rows: Rows
    tokens: Sequence[int]

    @property
    def completes(self) -> bool:
        return len(self.rows) + len(self.tokens) == len(self.reading.tokens)


class Stepper:
    """The model, and what it has computed. Used by one thread at a time."""

    def __init__(self, checkpoint: Checkpoint, store: Store, *, max_batch: int, max_tokens: int) -> None:
        self._checkpoint = checkpoint
        self._store = store
        self._max_batch = max_batch
        self._max_tokens = max_tokens
        self.steps = 0
        self.tokens = 0
        self.read = 0

    def compute_prefix(self, tokens: list[int]) -> None:
        """Compute the beginning that all lanes share."""
        prefix = self._store.prefix
        prefix.grow(len(tokens))
        for begin in range(0, len(tokens), self._max_tokens):
            part = tokens[begin : begin + self._max_tokens]
            check_numbers(self._forward([(prefix, part)], [len(part) - 1]))

    def step(self, jobs: Sequence[Job]) -> list[Job]:
        """Bring jobs forward, the first ones first. Answers with those that had their turn; a verdict, or
        an error, goes to the job's future."""
        shares = self._shares(jobs)
        try:
            self._compute(shares)
        except Exception as error:
            # Which of them it was is not known, so each is tried by itself; where memory was short, with
            # all of it.
            freed = 0
            if isinstance(error, torch.OutOfMemoryError):
                freed = self._store.clear(busy=[share.job.lane for share in shares])
            if len(shares) > 1 or freed:
                for share in shares:
                    self.step([share.job])
            else:
                fail(shares[0].job, error)
        return [share.job for share in shares] + [job for job in jobs if job.done]

    def _shares(self, jobs: Sequence[Job]) -> list[_Share]:
        """What to compute next. A job that needs several steps keeps its rows from those that came later,
        which would else take them from each other for ever; so the oldest always comes to its end."""
        shares: list[_Share] = []
        busy: set[Lane] = set()
        free = self._max_tokens
        begun = [job for job in jobs if job.reading is not None]
        for job in jobs:
            if len(shares) == self._max_batch or free == 0:
                break
            taken = busy | {other.lane for other in begun if other.number < job.number}
            if job.lane in taken:
                continue
            try:
                if job.reading is None:
                    job.reading = job.way(job.window, self._store.text(job.lane))
                reading = job.reading
                rows = self._store.claim(job.lane, reading.tokens, reading.wanted, taken)
            except Exception as error:
                fail(job, error)
                continue
            if rows is None:
                continue  # when those that are busy have had their turn
            busy.add(job.lane)
            share = _Share(job, reading, rows, reading.tokens[len(rows) :][:free])
            free -= len(share.tokens)
            shares.append(share)
        return shares

    def _compute(self, shares: Sequence[_Share]) -> None:
        if not shares:
            return
        asked: list[int] = []
        taking: list[tuple[_Share, slice]] = []
        end = 0
        for share in shares:
            end += len(share.tokens)
            if share.completes:
                taking.append((share, slice(len(asked), len(asked) + share.reading.wanted)))
                asked += range(end - share.reading.wanted, end)
        logits = self._forward([(share.rows, share.tokens) for share in shares], asked or [end - 1])
        for share, part in taking:
            try:
                verdict = share.reading.take(logits[part])
            except Exception as error:
                fail(share.job, error)
            else:
                if verdict is not None:
                    self.read += len(share.reading.tokens)
                    with suppress(InvalidStateError):  # taken back meanwhile
                        share.job.future.set_result(verdict)

    @torch.inference_mode()
    def _forward(self, members: Sequence[tuple[Rows, Sequence[int]]], asked: Sequence[int]) -> Tensor:
        """Compute new tokens behind each one's rows. Answers with the logits at the places asked for,
        counted in the long row of all of them."""
        device = self._checkpoint.device
        batch = Batch([(rows, len(new)) for rows, new in members], self._checkpoint.heads_per_group)
        tokens = [token for _, new in members for token in new]
        positions = [len(rows) + at for rows, new in members for at in range(len(new))]
        logits = self._checkpoint.compute(
            torch.tensor([tokens], device=device),
            torch.tensor([positions], device=device),
            batch,
            torch.tensor(asked, device=device),
        )
        for rows, new in members:
            rows.count(new)
        self.steps += 1
        self.tokens += len(tokens)
        return logits.float()


def fail(job: Job, error: Exception) -> None:
    """Tell who waits for the job why there is no verdict."""
    if not isinstance(error, JudgeError):
        cause = error
        error = JudgeError(f"the model could not judge the window: {cause!r}")
        error.__cause__ = cause
    with suppress(InvalidStateError):  # taken back meanwhile
        job.future.set_exception(error)
