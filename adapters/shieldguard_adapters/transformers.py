"""Guard `generate()` of a transformers model in this process (the extra `local`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from types import TracebackType
from typing import Any

from shieldguard import (
    Aborted,
    Answer,
    Channel,
    ConfigError,
    Guard,
    GuardedStream,
    Marker,
    MissingDependency,
    Reasoning,
    Redacted,
    ReleasedEvent,
    SourceError,
    SourceEvent,
    StreamReport,
    SyncGuardedStream,
    Thinking,
    ThinkSplitter,
)
from shieldguard_adapters.producing import Outlet, Produced

_ROOM = 32  # tokens generated ahead of the guard
_TAIL = 32  # tokens at the end of a prompt, among which a marker would be
_PARTS = 8  # tokens that may make one character


def guard_generate(
    model: Any,
    tokenizer: Any,
    inputs: Any,
    guard: Guard,
    *,
    query: str = "",
    thinking: Thinking | str = Thinking.AUTO,
    markers: Sequence[Marker] | None = None,
    redactable: bool = True,
    **options: Any,
) -> "GuardedGeneration":
    """`model.generate(**inputs, **options)`, guarded: it runs in a thread of its own, from the first read on,
    and what is read was judged.

    `inputs`: what the tokenizer made of one prompt (its mapping, or the token ids alone), on the model's
    device. `query`: what the model was asked. `thinking`: how the text begins; a prompt whose end opens the
    thought, as many chat templates have it, is seen by itself. Special tokens are left out of the text, but
    for those that are part of one of `markers`, by default those of `ThinkSplitter`. `tokenizer` may be a
    processor.

    After an abort, or once the reader leaves, the model computes one more token at most (with an assistant,
    those of one more round). It waits where the guard holds as much as its policy allows (`max_held`), and
    for a reader who is slow.

    Raises `ConfigError` for what cannot be streamed: several prompts, beams, a streamer of one's own.
    """
    try:
        from transformers import ProcessorMixin
    except ImportError as error:
        raise MissingDependency(error.name or "transformers", "local") from error
    if isinstance(tokenizer, ProcessorMixin):
        tokenizer = tokenizer.tokenizer
    arguments = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
    _check(model, arguments, options)
    if options.get("stop_strings"):
        options.setdefault("tokenizer", tokenizer)
    if markers is None:
        markers = ThinkSplitter().markers
    splitter = ThinkSplitter(thinking, markers=markers)
    if splitter.mode is Thinking.AUTO and _opens_a_thought(tokenizer, arguments, markers):
        splitter = ThinkSplitter(Thinking.PREOPENED, markers=markers)
    text = TokenText(tokenizer, markers)
    # No function of its own: a traceback would keep it, and the tensors with it.
    produce = partial(_generate, model, {**arguments, **options}, text, splitter)
    source = Produced(produce, room=_ROOM, name="shieldguard-generate")
    return GuardedGeneration(guard, source, query=query, redactable=redactable)


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """What a guarded generation let out. Notices stand where text was left out."""

    reasoning: str
    answer: str


class GuardedGeneration:
    """A generation to be read once: with `for` (the events of a `SyncGuardedStream`) or `async for` (those of
    a `GuardedStream`), best inside `with` or `async with`, which stop the model when the block is left; or
    all at once, with `read()` or `await aread()`."""

    def __init__(
        self, guard: Guard, source: Produced[Sequence[SourceEvent]], *, query: str, redactable: bool
    ) -> None:
        self._guard = guard
        self._source: Produced[Sequence[SourceEvent]] | None = source
        self._query = query
        self._redactable = redactable
        self._stream: GuardedStream | SyncGuardedStream | None = None

    @property
    def report(self) -> StreamReport:
        """The account of the stream, so far or for good. Raises `RuntimeError` before anything was read."""
        if self._stream is None:
            raise RuntimeError("nothing of this generation was read, so there is no report")
        return self._stream.report

    def raise_for_risk(self) -> None:
        """Raise if the stream was aborted; see `StreamReport.raise_for_risk`."""
        self.report.raise_for_risk()

    def __iter__(self) -> SyncGuardedStream:
        return self._plain()

    def __enter__(self) -> SyncGuardedStream:
        return self._plain()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> GuardedStream:
        return self._async()

    async def __aenter__(self) -> GuardedStream:
        return await self._async().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._async().__aexit__(kind, error, trace)

    def close(self) -> None:
        """Leave: stop the model, and judge what came."""
        self._plain().close()

    async def aclose(self) -> None:
        """The same for a generation that is read with `async for`."""
        await self._async().aclose()

    def read(self) -> GeneratedText:
        """All of it."""
        with self as stream:
            return _text_of(list(stream))

    async def aread(self) -> GeneratedText:
        """All of it."""
        async with self as stream:
            return _text_of([event async for event in stream])

    def _plain(self) -> SyncGuardedStream:
        if self._source is not None:
            source, self._source = self._source, None
            self._stream = self._guard.stream_sync(source, query=self._query, redactable=self._redactable)
        if not isinstance(self._stream, SyncGuardedStream):
            raise TypeError("this generation is read with `async for`; close it with `aclose`")
        return self._stream

    def _async(self) -> GuardedStream:
        if self._source is not None:
            source, self._source = self._source, None
            self._stream = self._guard.stream(source, query=self._query, redactable=self._redactable)
        if not isinstance(self._stream, GuardedStream):
            raise TypeError("this generation is read with `for`; close it with `close`")
        return self._stream


class TokenText:
    """The text of tokens that come one by one. What may be half a character waits for the rest. Special
    tokens are left out where they are no part of a marker."""

    def __init__(self, tokenizer: Any, markers: Iterable[Marker]) -> None:
        self._tokenizer = tokenizer
        self._hidden = _special_tokens(tokenizer, [marker.text for marker in markers])
        self._tokens: list[int] = []
        self._told = 0  # of these tokens, whose text was given out: the next ones may depend on them
        self._text = ""  # theirs

    def add(self, token: int) -> str:
        """The text that this token completes."""
        if token in self._hidden:
            return ""
        self._tokens.append(token)
        text = _decoded(self._tokenizer, self._tokens)
        if text.endswith("\ufffd") and len(self._tokens) - self._told < _PARTS:
            return ""
        new = text[len(self._text) :]
        del self._tokens[: self._told]
        self._told = len(self._tokens)
        self._text = _decoded(self._tokenizer, self._tokens)
        return new

    def rest(self) -> str:
        """What waits, at the end."""
        new = _decoded(self._tokenizer, self._tokens)[len(self._text) :]
        self._tokens, self._told, self._text = [], 0, ""
        return new


class _Streamer:
    """What generate() hands its tokens to, the prompt first."""

    def __init__(
        self, text: TokenText, splitter: ThinkSplitter, outlet: Outlet[Sequence[SourceEvent]]
    ) -> None:
        self._text = text
        self._splitter = splitter
        self._outlet = outlet
        self.begun = False

    def put(self, value: Any) -> None:
        if value.shape[0] != 1:
            raise SourceError(f"generate() gave {value.shape[0]} texts at once; a guard reads one")
        if not self.begun:
            self.begun = True
            return
        text = "".join(map(self._text.add, value.flatten().tolist()))
        if events := self._splitter.feed(text):
            self._outlet.put(events)

    def end(self) -> None:
        """generate() calls it at the end, but not where it raises."""

    def flush(self) -> None:
        if events := self._splitter.feed(self._text.rest()) + self._splitter.flush():
            self._outlet.put(events)


def _generate(
    model: Any,
    arguments: dict[str, Any],
    text: TokenText,
    splitter: ThinkSplitter,
    outlet: Outlet[Sequence[SourceEvent]],
) -> None:
    import torch
    from transformers import StoppingCriteriaList

    streamer = _Streamer(text, splitter, outlet)
    own = arguments.pop("stopping_criteria", None) or []
    criteria = StoppingCriteriaList([*own, _stopped()(outlet)])
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # a new thread begins with the first one
    try:
        # What it returns was not judged, so nobody gets it.
        model.generate(**arguments, streamer=streamer, stopping_criteria=criteria)
    finally:
        streamer.flush()
    if not streamer.begun:
        raise SourceError(f"generate() of {type(model).__name__!r} does not stream with these options")


@cache
def _stopped() -> type[Any]:
    import torch
    from transformers import StoppingCriteria

    class Stopped(StoppingCriteria):
        """Asked after each token, and before the next one is computed."""

        def __init__(self, outlet: Outlet[Any]) -> None:
            self._outlet = outlet

        def __call__(self, input_ids: Any, scores: Any, **options: Any) -> Any:
            return torch.full(
                (input_ids.shape[0],), self._outlet.stopped, dtype=torch.bool, device=input_ids.device
            )

    return Stopped


def _check(model: Any, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    if "streamer" in options:
        raise ConfigError("a streamer of one's own would get what was not judged; read the guarded stream")
    for name in ("input_ids", "inputs", "inputs_embeds"):
        if (value := arguments.get(name)) is None:
            continue
        if not hasattr(value, "shape"):
            raise ConfigError(f"{name}={value!r:.80} is no tensor; have the tokenizer return_tensors='pt'")
        if value.shape[0] != 1:
            raise ConfigError(
                f"{name!r} holds {value.shape[0]} prompts; call guard_generate() for each of them"
            )
    config = options.get("generation_config") or getattr(model, "generation_config", None)
    for name in ("num_beams", "num_return_sequences"):
        value = options.get(name, getattr(config, name, None))
        if value not in (None, 1):
            raise ConfigError(f"{name}={value!r}: only one text can be streamed; take {name}=1")


def _opens_a_thought(tokenizer: Any, arguments: dict[str, Any], markers: Iterable[Marker]) -> bool:
    tokens = arguments.get("input_ids", arguments.get("inputs"))
    if tokens is None or tokens.dtype.is_floating_point:
        return False
    end = _decoded(tokenizer, tokens.flatten()[-_TAIL:].tolist()).rstrip()
    return any(marker.to is Channel.REASONING and end.endswith(marker.text) for marker in markers)


def _special_tokens(tokenizer: Any, markers: Sequence[str]) -> frozenset[int]:
    """Those that are no part of a marker."""
    special = set(tokenizer.all_special_ids)
    try:
        added = tokenizer.added_tokens_decoder
    except NotImplementedError:  # Mistral's own
        added = {}
    special |= {token for token, known in added.items() if known.special}
    texts = {token: _decoded(tokenizer, [token]).strip() for token in special}
    return frozenset(
        token for token, text in texts.items() if not text or not any(text in marker for marker in markers)
    )


def _decoded(tokenizer: Any, tokens: Sequence[int]) -> str:
    text: str = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _text_of(events: Iterable[ReleasedEvent]) -> GeneratedText:
    reasoning: list[str] = []
    answer: list[str] = []
    for event in events:
        match event:
            case Reasoning(text):
                reasoning.append(text)
            case Answer(text) | Aborted(notice=text):
                answer.append(text)
            case Redacted(notice, channel):
                (reasoning if channel is Channel.REASONING else answer).append(notice)
    return GeneratedText("".join(reasoning), "".join(answer))
