"""ReasoningShield and other guard models on this machine, with transformers and torch (the extra `local`)."""

from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from shieldguard.errors import ConfigError, JudgeError, MissingDependency
from shieldguard.judges.dialects import REASONING_SHIELD, Dialect
from shieldguard.judges.thresholds import Thresholds
from shieldguard.judges.waiting import result_of
from shieldguard.verdicts import Verdict
from shieldguard.windows import Window

try:
    from shieldguard.judges.local.checkpoint import Checkpoint
except ImportError as error:
    raise MissingDependency(error.name or "torch", "local") from error

from shieldguard.judges.local.layout import Layout
from shieldguard.judges.local.reading import Fast, Full, OnAnalysis, Scores, Way
from shieldguard.judges.local.steps import Stepper
from shieldguard.judges.local.store import Store
from shieldguard.judges.local.worker import Worker

__all__ = ["LocalJudge", "Mode", "OnAnalysis", "Usage"]

Mode: TypeAlias = Literal["fast", "full"]

_MEMORY = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a judge has done so far: forward passes, tokens computed in them, and tokens of all that verdicts
    were read from, most of them known from windows before; and what it keeps: texts, the bytes of their rows,
    and how many rows it had to give up for others."""

    steps: int
    tokens: int
    read: int
    texts: int
    bytes: int
    evictions: int


class LocalJudge:
    """A ReasoningShield checkpoint, loaded and run in this process, in a thread of its own.

    `checkpoint`: a folder, or a repository of the hub such as "ReasoningShield/ReasoningShield-1B"; one with
    an adapter of peft's (the extra `peft`) is merged into the model that it was made for.
    `dialect`: what the model is asked and answers, where it is another one; see `guards`.

    `mode`: "fast", the default, reads the level from the probabilities of the label strings, without an
    analysis; a thought is computed once, however many windows it is judged in. "full" has the model write its
    analysis, as it was trained to, which takes hundreds of times longer; `on_analysis` is called with the
    window and each new piece of the text, in the model's thread, which waits for it.
    How far the two agree on your data: `shieldguard eval agreement`.

    `potential`, `harmful`: from which P(level >= 0.5) a window is at level 0.5, and from which P(level = 1)
    at level 1 (fast). `max_analysis`: tokens of analysis at most (full); 1,024 by default for
    ReasoningShield.

    `device`, `dtype`: by default the GPU if there is one, and bfloat16 where the hardware computes in it.
    "int8" rounds the weights, on a CPU, for two thirds of the memory; verdicts are then those of a rounded
    model.
    `context`: the most tokens that the model is shown, 16,384 by default or what it was made for. A longer
    thought loses its beginning, in strides of half a context: the question and the newest text stay. An
    overlong question loses its middle. The verdict's `analysis` says how much was left out.
    `memory`: bytes for what is kept of the streams, 2 GiB by default and one context at least. Streams
    that were not heard of for the longest make room, and are computed again when they come back.
    `queue`: windows that may wait; one more raises `JudgeBusy`. `max_batch`, `step_tokens`: streams, and
    new tokens, in one forward pass.

    Raises `ConfigError` for a checkpoint that cannot be loaded and for settings that cannot work.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        dialect: Dialect = REASONING_SHIELD,
        mode: Mode | None = None,
        potential: float = 0.5,
        harmful: float = 0.5,
        on_analysis: OnAnalysis | None = None,
        max_analysis: int | None = None,
        device: str | None = None,
        dtype: str | None = None,
        context: int | None = None,
        memory: int | None = None,
        queue: int = 256,
        max_batch: int = 32,
        step_tokens: int | None = None,
        name: str | None = None,
    ) -> None:
        self._max_analysis = dialect.written if max_analysis is None else max_analysis
        for option, value in (
            ("queue", queue),
            ("max_batch", max_batch),
            ("max_analysis", self._max_analysis),
        ):
            if value < 1:
                raise ConfigError(f"{option}={value!r}; give 1 or more")
        if step_tokens is not None and step_tokens < 16:
            raise ConfigError(f"step_tokens={step_tokens!r}; give 16 or more")
        self._thresholds = Thresholds(potential=potential, harmful=harmful)
        self._dialect = dialect
        self._checkpoint = Checkpoint.load(
            checkpoint,
            device=device,
            dtype=dtype,
            classes=dialect.classes,
            has_prompt=dialect.system_prompt and dialect.prompt_text is None,
        )
        self._title = Path(checkpoint).name
        limit = self._limit(context)
        self._layout = Layout(
            self._checkpoint.tokenizer, self._checkpoint.prompt, limit=limit, dialect=dialect
        )
        self._set(mode or self._default_mode, on_analysis, name)
        self._store = Store(self._checkpoint.shape, budget=self._budget(memory, limit), limit=limit)
        if step_tokens is None:
            step_tokens = 512 if self._checkpoint.device.type == "cpu" else 4096
        step_tokens = min(step_tokens, self._checkpoint.positions)
        self._stepper = Stepper(self._checkpoint, self._store, max_batch=max_batch, max_tokens=step_tokens)
        try:
            self._stepper.compute_prefix(self._layout.prefix)
        except (JudgeError, RuntimeError, MemoryError) as error:
            raise ConfigError(
                f"the checkpoint {str(checkpoint)!r} cannot be run on {str(self._checkpoint.device)!r} in "
                f"{self._checkpoint.dtype}: {error}; take another device or dtype, or a smaller model"
            ) from error
        self._worker = Worker(self._stepper, self._store, queue=queue)

    def in_mode(self, mode: Mode, *, on_analysis: OnAnalysis | None = None, name: str | None = None) -> Self:
        """A judge that reads in another mode, on the same weights, caches and thread."""
        other = copy(self)
        other._set(mode, on_analysis, name)
        return other

    async def judge(self, window: Window) -> Verdict:
        return await result_of(self._worker.submit(window, self._way))

    def forget(self, stream: str) -> None:
        self._worker.forget(stream)

    @property
    def _default_mode(self) -> Mode:
        return "fast" if self._dialect.labels or self._dialect.classes else "full"

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's own, of transformers."""
        return self._checkpoint.tokenizer

    def count(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def usage(self) -> Usage:
        """An account for capacity planning, shared by the judges that `in_mode` made."""
        return Usage(
            steps=self._stepper.steps,
            tokens=self._stepper.tokens,
            read=self._stepper.read,
            texts=len(self._store),
            bytes=self._store.bytes,
            evictions=self._store.evictions,
        )

    def close(self) -> None:
        """End the thread and free the caches; for every judge that `in_mode` made as well."""
        self._worker.close()

    def _set(self, mode: Mode, on_analysis: OnAnalysis | None, name: str | None) -> None:
        self.name = name or f"{self._title} ({mode})"
        self._way: Way
        if mode not in ("fast", "full"):
            raise ConfigError(f"mode={mode!r}; choose 'fast' or 'full'")
        if self._dialect.classes:
            if mode == "full":
                raise ConfigError(f"mode={mode!r}, but {self._dialect.title} is a classifier; use 'fast'")
            self._way = Scores(
                layout=self._layout,
                dialect=self._dialect,
                thresholds=self._thresholds,
                names=self._checkpoint.classes,
                end=self._checkpoint.tokenizer.eos_token_id,
                name=self.name,
            )
        elif mode == "fast":
            if not self._dialect.labels:
                raise ConfigError(
                    f"mode={mode!r}, but {self._dialect.title} writes its label last; use 'full'"
                )
            self._way = Fast(
                layout=self._layout, dialect=self._dialect, thresholds=self._thresholds, name=self.name
            )
        else:
            self._layout.check_reserve(self._max_analysis)
            self._way = Full(
                layout=self._layout,
                dialect=self._dialect,
                decode=self._checkpoint.decode,
                ends=self._checkpoint.ends | set(self._layout.turn[:1]),
                most=self._max_analysis,
                name=self.name,
                on_analysis=on_analysis,
            )

    def _limit(self, context: int | None) -> int:
        made_for = self._checkpoint.positions
        if context is None:
            return min(made_for, 16_384)
        if context > made_for:
            raise ConfigError(f"context={context!r}; the model was made for {made_for} tokens at most")
        return context

    def _budget(self, memory: int | None, limit: int) -> int:
        least = limit * self._checkpoint.shape.row_bytes
        if memory is None:
            return max(_MEMORY, least)
        if memory < least:
            raise ConfigError(
                f"memory={memory!r} is less than the {least} bytes that one context of {limit} tokens takes; "
                "give more, or a smaller context"
            )
        return memory
