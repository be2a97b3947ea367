"""Which codec reads what: the paths of each API, and what is asked there."""

from collections.abc import Callable
from dataclasses import dataclass

from shieldguard import QueryFrom, Thinking, WireError
from shieldguard_adapters.wire import anthropic_messages, anthropic_parts, openai_chat
from shieldguard_adapters.wire.codec import Codec, Request, Termination


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a codec is told beside the request. `redacts`: whether the policy ever redacts."""

    thinking: Thinking = Thinking.AUTO
    termination: Termination = Termination.REFUSAL
    redacts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One provider's API. Paths are told by their last parts (`guarded`) or by any (`harmless`); what is in
    neither list is not to be sent."""

    sdk: str  # the package of its official client
    sdk_error: str  # what that package calls the root of its errors
    guarded: tuple[str, ...]
    harmless: tuple[str, ...]
    noun: str
    read_request: Callable[[bytes, QueryFrom], Request]
    stream: Callable[[Request, Options], Codec]
    body: Callable[[Request, Options], Codec]

    def is_guarded(self, method: str, path: str) -> bool:
        return method == "POST" and path.rstrip("/").endswith(self.guarded)

    def is_harmless(self, path: str) -> bool:
        return any(f"{part}/" in f"{path}/" for part in self.harmless)

    def codec(self, content_type: str, request: Request, options: Options) -> Codec:
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return self.stream(request, options)
        if kind == "application/json":
            return self.body(request, options)
        raise WireError(f"{self.noun} of content type {kind!r} cannot be guarded; its body was not read")


def _message_stream(request: Request, options: Options) -> Codec:
    return anthropic_messages.MessageStream(
        termination=options.termination,
        whole_thoughts=options.redacts and request.redactable,
        strict_output=not request.redactable,
    )


OPENAI = Api(
    sdk="openai",
    sdk_error="OpenAIError",
    guarded=("/chat/completions",),
    harmless=(
        "/models",
        "/embeddings",
        "/moderations",
        "/files",
        "/uploads",
        "/fine_tuning",
        "/vector_stores",
    ),
    noun="a chat completion",
    read_request=openai_chat.read_request,
    stream=lambda _, options: openai_chat.ChatStream(
        thinking=options.thinking, termination=options.termination
    ),
    body=lambda _, options: openai_chat.ChatBody(thinking=options.thinking, termination=options.termination),
)

ANTHROPIC = Api(
    sdk="anthropic",
    sdk_error="AnthropicError",
    guarded=("/messages",),
    harmless=("/models", "/messages/count_tokens", "/files"),
    noun="a message",
    read_request=anthropic_parts.read_request,
    stream=_message_stream,
    body=lambda request, options: anthropic_messages.MessageBody(
        termination=options.termination, strict_output=not request.redactable
    ),
)
