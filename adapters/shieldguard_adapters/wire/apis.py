"""The APIs that are known, and which codec reads what."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from shieldguard import Message, QueryFrom
from shieldguard_adapters.wire import (
    anthropic_messages,
    anthropic_parts,
    bedrock_converse,
    bedrock_parts,
    cohere_chat,
    gemini,
    ollama,
    openai_chat,
    openai_responses,
    plain_text,
)
from shieldguard_adapters.wire.codec import Codec, Request
from shieldguard_adapters.wire.endpoints import EVENT_STREAM, JSON, NDJSON, SSE, Api, Endpoint, Options

Make: TypeAlias = Callable[[Request, Options], Codec]


def _thinking(codec: Callable[..., Codec]) -> Make:
    """For an API whose reasoning may come inline, between tags."""
    return lambda _, options: codec(thinking=options.thinking, termination=options.termination)


def _strict(codec: Callable[..., Codec]) -> Make:
    """For an answer that may have to be parsed, so that nothing can be put into it."""
    return lambda request, options: codec(
        termination=options.termination, strict_output=not request.redactable
    )


def _signed(codec: Callable[..., Codec]) -> Make:
    """The same where thoughts are signed: one that may be redacted goes whole or not at all."""
    return lambda request, options: codec(
        termination=options.termination,
        whole_thoughts=options.redacts and request.redactable,
        strict_output=not request.redactable,
    )


CHAT = Endpoint(
    path="/chat/completions$",
    noun="a chat completion",
    read_request=openai_chat.read_request,
    codecs={
        SSE: _thinking(openai_chat.ChatStream),
        JSON: _thinking(openai_chat.ChatBody),
    },
    error=lambda options: openai_chat.ChatError(termination=options.termination),
)

# Of Mistral's, whose responses are chat completions.
AGENT = replace(CHAT, path="/agents/completions$", noun="an agent's completion")
FILL_IN = replace(CHAT, path="/fim/completions$", noun="a completion that fills in the middle")

MESSAGES = Endpoint(
    path="/messages$",
    noun="a message",
    read_request=anthropic_parts.read_request,
    codecs={
        SSE: _signed(anthropic_messages.MessageStream),
        JSON: _strict(anthropic_messages.MessageBody),
    },
)


def _ollama(
    path: str,
    noun: str,
    shape: ollama.Shape,
    read_request: Callable[[bytes, QueryFrom], Request],
) -> Endpoint:
    return Endpoint(
        path=path,
        noun=noun,
        read_request=read_request,
        codecs={
            NDJSON: _thinking(partial(ollama.OllamaStream, shape)),
            JSON: _thinking(partial(ollama.OllamaBody, shape)),
        },
    )


OLLAMA_CHAT = _ollama("/api/chat$", "a chat", ollama.CHAT, ollama.read_chat_request)
OLLAMA_GENERATE = _ollama(
    "/api/generate$", "a text generated of a prompt", ollama.GENERATE, ollama.read_generate_request
)

_RESPONSE: Mapping[str, Make] = {
    SSE: _signed(openai_responses.ResponseStream),
    JSON: _strict(openai_responses.ResponseBody),
}

# A response is made, and can be had again, cancelled or deleted. The items that went into it are refused, as
# they hold earlier responses, which nobody may have judged; so is a compaction, which is encrypted.
RESPONSES = (
    Endpoint(
        path="/responses$",
        noun="a response",
        read_request=openai_responses.read_request,
        codecs=_RESPONSE,
    ),
    *(
        Endpoint(
            path=path,
            noun=noun,
            read_request=openai_responses.read_stored_request,
            codecs=_RESPONSE,
            method=method,
            without=("starting_after",),
        )
        for method, path, noun in (
            ("GET", r"/responses/[^/]+$", "a stored response"),
            ("POST", r"/responses/[^/]+/cancel$", "a cancelled response"),
            ("DELETE", r"/responses/[^/]+$", "a deleted response"),
        )
    ),
)

CONTENT = Endpoint(
    path=":generateContent$",
    noun="generated content",
    read_request=gemini.read_request,
    codecs={
        JSON: _strict(gemini.ContentBody),
    },
)

# Not asked for as server-sent events (`alt=sse`), it comes as one JSON array, which nothing here reads.
CONTENT_STREAM = Endpoint(
    path=":streamGenerateContent$",
    noun="a stream of generated content",
    read_request=gemini.read_request,
    codecs={
        SSE: _strict(gemini.ContentStream),
    },
)

COHERE_CHAT = Endpoint(
    path="/v2/chat$",
    noun="a chat (version 2)",
    read_request=openai_chat.read_request,
    codecs={
        SSE: _strict(cohere_chat.MessageStream),
        JSON: _strict(cohere_chat.MessageBody),
    },
)

CONVERSE = Endpoint(
    path="/model/.+/converse$",
    noun="a response of Converse",
    read_request=bedrock_parts.read_request,
    codecs={JSON: _strict(bedrock_converse.ConverseBody)},
)

CONVERSE_STREAM = Endpoint(
    path="/model/.+/converse-stream$",
    noun="a response of ConverseStream",
    read_request=bedrock_parts.read_request,
    codecs={EVENT_STREAM: _signed(bedrock_converse.ConverseStream)},
)

OPENAI = Api(
    endpoints=(CHAT, *RESPONSES),
    harmless=(
        "/responses/input_tokens",
        "/embeddings",
        "/moderations",
        "/files",
        "/uploads",
        "/fine_tuning",
        "/vector_stores",
    ),
    readable=("/models",),
)

ANTHROPIC = Api(endpoints=(MESSAGES,), harmless=("/messages/count_tokens", "/files"), readable=("/models",))

OLLAMA = Api(
    endpoints=(OLLAMA_CHAT, OLLAMA_GENERATE),
    harmless=(
        "/api/tags",
        "/api/show",
        "/api/ps",
        "/api/version",
        "/api/embed",
        "/api/embeddings",
        "/api/pull",
        "/api/push",
        "/api/create",
        "/api/copy",
        "/api/delete",
        "/api/blobs",
        "/api/web_search",  # what it finds is no text of a model's
        "/api/web_fetch",
    ),
)

GROQ = Api(endpoints=(CHAT,), harmless=("/embeddings", "/files"), readable=("/models",))

MISTRAL = Api(
    endpoints=(CHAT, AGENT, FILL_IN),
    harmless=("/embeddings", "/moderations", "/classifications", "/files", "/fine_tuning"),
    readable=("/models",),
)

# A model's own path is where it is asked for all but chat, so a vector is harmless and a text is not.
HUGGINGFACE = Api(
    endpoints=(CHAT,), harmless=("/pipeline/feature-extraction", "/pipeline/sentence-similarity")
)

GEMINI = Api(
    endpoints=(CONTENT, CONTENT_STREAM),
    readable=("/models",),
    harmless=(
        ":countTokens",
        ":computeTokens",
        ":embedContent",
        ":batchEmbedContents",
        "/files",
        "/files:register",
        "/fileSearchStores",
        ":uploadToFileSearchStore",
        ":importFile",
        "/cachedContents",
    ),
)

COHERE = Api(
    endpoints=(COHERE_CHAT,),
    harmless=(
        "/embed",
        "/embed-jobs",
        "/rerank",
        "/classify",
        "/tokenize",
        "/detokenize",
        "/datasets",
        "/connectors",
        "/finetuning",
        "/check-api-key",
    ),
    readable=("/models",),
)

BEDROCK = Api(
    endpoints=(CONVERSE, CONVERSE_STREAM),
    harmless=("/count-tokens", "/guardrail", "/guardrail-checks"),
    readable=("/async-invoke",),
)

_ALL = (OPENAI, ANTHROPIC, GEMINI, OLLAMA, COHERE, BEDROCK, GROQ, MISTRAL, HUGGINGFACE)

# Of a client that may speak to anybody.
ANY = Api(
    endpoints=tuple(dict.fromkeys(endpoint for api in _ALL for endpoint in api.endpoints)),
    harmless=tuple(dict.fromkeys(part for api in _ALL for part in api.harmless)),
    readable=tuple(dict.fromkeys(part for api in _ALL for part in api.readable)),
)

TEXT = Endpoint(
    path="$",
    noun="a text",
    read_request=lambda body, query_from: Request(query=query_from([Message("user", body.decode())])),
    codecs={"text/plain": lambda _, options: plain_text.TextStream(thinking=options.thinking)},
)

# By name, for those who answer in one of them.
FORMATS = {
    "openai_chat": CHAT,
    "openai_responses": RESPONSES[0],
    "anthropic_messages": MESSAGES,
    "ollama_chat": OLLAMA_CHAT,
    "ollama_generate": OLLAMA_GENERATE,
    "cohere_chat": COHERE_CHAT,
    "gemini": CONTENT_STREAM,
    "text": TEXT,
}
