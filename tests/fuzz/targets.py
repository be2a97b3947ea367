"""What is fuzzed: a target is a codec, the streams that it is seeded with, and where a client finds model
text in what leaves. To add a codec, add a line to `TARGETS`.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from shieldguard_adapters.wire.anthropic_messages import MessageBody, MessageStream
from shieldguard_adapters.wire.bedrock_converse import ConverseBody, ConverseStream
from shieldguard_adapters.wire.bedrock_parts import BODY
from shieldguard_adapters.wire.bedrock_parts import METADATA as METADATA_OF_CONVERSE
from shieldguard_adapters.wire.cohere_chat import MessageBody as CohereBody
from shieldguard_adapters.wire.cohere_chat import MessageStream as CohereStream
from shieldguard_adapters.wire.eventstream import EventStreamFramer, parse_message
from shieldguard_adapters.wire.gemini import ContentBody, ContentStream
from shieldguard_adapters.wire.ollama import CHAT, GENERATE, OllamaBody, OllamaStream
from shieldguard_adapters.wire.openai_chat import ChatBody, ChatStream
from shieldguard_adapters.wire.openai_responses import ResponseBody, ResponseStream
from shieldguard_adapters.wire.openai_responses.texts import META
from shieldguard_adapters.wire.plain_text import TextStream
from tests.fuzz.checks import CUTS, METADATA, Target, sse_bodies
from tests.upstream import chat, chunk, completion
from tests.wire import bedrock, cohere, contents, ndjson, responses
from tests.wire.messages import body, delta, message, start, stop, text, thinking, tool

_TAGS = (b"<", b"[", "◁".encode())  # how think tags begin

# -- chat completions --------------------------------------------------------------------------------


def _of_choices(key: str) -> Callable[[dict[str, Any]], Any]:
    def texts(parsed: dict[str, Any]) -> Any:
        choices = parsed.get("choices")
        return (
            [one.get(key) for one in choices if isinstance(one, dict)] if isinstance(choices, list) else None
        )

    return texts


def _chat_keeps(data: bytes) -> bool:
    """What a choice repeats beside its delta is taken out; what may become a tag may be overtaken."""
    return not any(mark in data for mark in (b'"message"', b'"text"', b"\\u", *_TAGS))


def _chats() -> list[bytes]:
    call = {
        "index": 0,
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a": "HARM"}'},
    }
    details = {
        "reasoning": "x HARM",
        "reasoning_details": [{"type": "reasoning.text", "text": "x HARM", "index": 0}],
    }
    listed = {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "HARM"}]},
            {"type": "text", "text": "y"},
        ]
    }
    seeds = [
        chat(["I see. ", "It is calm. "], ["Fine."]),
        chat(["I see. ", "HARM. "], ["Fine."], field="reasoning"),
        chat(["<think>", "I see", "</think>"], ["Fine."], field="content"),
        chat([], ["It is ", "HARM."]),
        [chunk(details), chunk(listed), chunk({"refusal": "no HARM"})],
        [chunk({"tool_calls": [call]}), chunk({}, finish_reason="tool_calls")],
        [chunk({"content": "a"}, index=1), chunk({"content": "HARM"}, message={"content": "HARM"})],
        [b": comment\r\n\r\n", b'data: {"error":{"message":"busy"}}\r\n\r\n', b"data: [DONE]"],
    ]
    return [b"".join(frames) for frames in seeds]


def _completions() -> list[bytes]:
    return [
        completion({"reasoning_content": "I see.", "content": "Fine."}),
        completion({"reasoning_content": "HARM", "content": "Fine."}, {"content": "<think>a</think>b HARM"}),
        completion(
            {"content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "HARM"}}]}
        ),
    ]


# -- messages ----------------------------------------------------------------------------------------


def _messages() -> list[bytes]:
    summary = [
        start(0, {"type": "compaction", "content": None}),
        delta(0, "compaction_delta", content="HARM"),
        stop(0),
    ]
    hidden = [start(0, {"type": "redacted_thinking", "data": "AA"}), stop(0)]
    cited = [
        start(0, {"type": "text", "text": "a"}),
        delta(0, "citations_delta", citation={"cited_text": "q"}),
        stop(0),
    ]
    seeds = [
        message([start(0, {"type": "text", "text": "It is calm. " * 40 + "HARM."}), stop(0)]),
        message(thinking(0, "I see. ", "It is calm. "), text(1, "Fine.")),
        message(thinking(0, "I see. ", "HARM. "), text(1, "Fine.")),
        message(thinking(0, "I see."), text(1, "a", "HARM"), tool(2, '{"to": ', '"HARM"}')),
        message(summary),
        message(hidden, thinking(1), text(2, "HARM")),
        message(cited, stop_reason="max_tokens"),
    ]
    return [b"".join(frames) for frames in seeds]


def _whole_messages() -> list[bytes]:
    return [
        body(
            {"type": "thinking", "thinking": "I see.", "signature": "c2ln"}, {"type": "text", "text": "Fine."}
        ),
        body(
            {"type": "thinking", "thinking": "HARM", "signature": "c2ln"}, {"type": "text", "text": "Fine."}
        ),
        body(
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"to": "HARM"}},
        ),
    ]


def _messages_keep(data: bytes) -> bool:
    """Blocks are numbered anew where a number is missing."""
    bodies = [json.loads(one) for one in sse_bodies(data) if one.strip()]
    numbers = [body.get("index") for body in bodies if body.get("type") == "content_block_start"]
    return numbers == list(range(len(numbers)))


def _of_message(parsed: dict[str, Any]) -> Any:
    whole = parsed.get("message")
    return [parsed.get("delta"), parsed.get("content_block"), parsed.get("content"), whole]


# -- responses ---------------------------------------------------------------------------------------

_NO_ITEM_TEXT = METADATA - {"name", "data", "citations"} | {
    "call_id",
    "code",
    "created_by",
    "file_id",
    "filename",
    "item_id",
    "logprobs",
    "obfuscation",
    "param",
    "title",
}


def _responses() -> list[bytes]:
    encrypted = responses.thinking("I see.", encrypted_content="AA")
    seeds = [
        responses.frames_of(responses.thinking("I see. ", "It is calm."), responses.message("Fine.")),
        responses.frames_of(responses.thinking("I see. ", "HARM. "), responses.message("Fine.")),
        responses.frames_of(responses.summary(["I ", "see."], ["HARM."]), responses.message("a", "b")),
        responses.frames_of(encrypted, responses.call('{"to": ', '"HARM"}')),
        responses.frames_of(responses.message("no HARM", refusal=True), status="incomplete"),
        [responses.event("error", code="busy", message="busy", param=None), b": \n\n"],
    ]
    return [b"".join(frames) for frames in seeds]


def _whole_responses() -> list[bytes]:
    return [
        responses.body(responses.thinking("I see."), responses.message("Fine.")),
        responses.body(responses.summary(["HARM"]), responses.message("Fine.")),
        responses.body(responses.message("a"), responses.call('{"to": "HARM"}')),
    ]


def _of_response(parsed: dict[str, Any]) -> Any:
    whole = parsed.get("response")
    own = {key: value for key, value in parsed.items() if key != "response"}
    return [own, *([_of_whole_response(whole)] if isinstance(whole, dict) else [whole])]


def _of_whole_response(parsed: dict[str, Any]) -> Any:
    return {key: value for key, value in parsed.items() if key not in META - {"error"}}


def _sse_json(data: bytes) -> list[Any]:
    stripped = map(str.strip, sse_bodies(data))
    return [json.loads(one) for one in stripped if one not in ("", "[DONE]")]


def _responses_keep(data: bytes) -> bool:
    """Items are numbered anew where a number is missing, and listed in the order in which they began."""
    bodies = _sse_json(data)
    numbers = list(dict.fromkeys(one["output_index"] for one in bodies if "output_index" in one))
    begun = [_named(one["item"]) for one in bodies if one.get("type") == "response.output_item.added"]
    outputs = [one["response"].get("output") for one in bodies if "response" in one]
    listed = [[_named(item) for item in output] for output in outputs if output]
    return numbers == list(range(len(begun))) and all(one == begun for one in listed)


def _named(item: dict[str, Any]) -> tuple[Any, Any]:
    return item.get("type"), item.get("id")


# -- generated content -------------------------------------------------------------------------------

_NO_CONTENT_TEXT = frozenset(
    {
        "citationMetadata",
        "continuationToken",
        "domain",
        "finishReason",
        "groundingMetadata",
        "id",
        "logprobsResult",
        "placeId",
        "renderedContent",
        "role",
        "safetyRatings",
        "sdkBlob",
        "sourceId",
        "thoughtSignature",
        "uri",
        "urlContextMetadata",
        "mediaResolution",
        "videoMetadata",
        "jsonPath",
    }
)


def _contents() -> list[bytes]:
    part = contents.thought("I see. ", thoughtSignature="AA")
    code = {"executableCode": {"language": "PYTHON", "code": "HARM"}}
    pair = [contents.candidate(contents.said("a")), contents.candidate(contents.said("HARM"), index=1)]
    partial = {"partialArgs": [{"jsonPath": "$.to", "stringValue": "HARM"}], "willContinue": True}
    seeds = [
        contents.content(part, contents.said("Fine.")),
        contents.content(contents.thought("I see. HARM. "), contents.said("Fine.")),
        contents.content(contents.said("a"), contents.call("HARM", thoughtSignature="AA")),
        contents.content(code, contents.said("b"), reason="MAX_TOKENS"),
        [contents.frame(contents.candidate(contents.said("a"), groundingMetadata={"queries": ["HARM"]}))],
        [contents.frame(*pair), contents.frame(*pair[:1], finishMessage="no HARM")],
        contents.content({"functionCall": {"name": "send", **partial}}, {"functionCall": {}}),
        [contents.frame(promptFeedback={"blockReason": "SAFETY"}), b'{"error": {"code": 500}}'],
        [contents.frame(contents.candidate(contents.said("a"))), b'{"error": {"message": "raw HARM"}}'],
    ]
    return [b"".join(frames) for frames in seeds]


def _whole_contents() -> list[bytes]:
    thought, said = contents.thought("I see."), contents.said("Fine.", thoughtSignature="AA")
    return [
        contents.body(contents.candidate(thought, said, finishReason="STOP")),
        contents.body(contents.candidate(contents.thought("HARM"), said)),
        contents.body(contents.candidate(said, contents.call("HARM")), contents.candidate(said, index=1)),
    ]


def _of_candidates(parsed: dict[str, Any]) -> Any:
    return [parsed.get("candidates"), parsed.get("error")]


# -- Ollama ------------------------------------------------------------------------------------------

_NO_LINE_TEXT = frozenset(
    {
        "_debug_info",
        "context",
        "created_at",
        "done_reason",
        "id",
        "logprobs",
        "model",
        "remote_host",
        "remote_model",
        "role",
        "tool_call_id",
        "tool_name",
    }
)


def _ollama(lines: Callable[..., list[bytes]], one: Callable[..., bytes], holder: str, answer: str) -> Any:
    def seeds() -> list[bytes]:
        made = [
            lines(["I see. ", "It is calm. "], ["Fine."]),
            lines(["I see. ", "HARM. "], ["Fine."]),
            lines([], ["<think>", "I see", "</think>", "HARM"]),
            lines(["a"], ["b"], ndjson.call("HARM")),
            [one("a"), ndjson.line(error="busy")],
        ]
        return [b"".join(frames) for frames in made]

    def whole() -> list[bytes]:
        made = [lines(["I see."], ["Fine."]), lines(["HARM"], ["b"]), lines([], ["b"], ndjson.call("HARM"))]
        return [ndjson.whole(frames, holder, answer) for frames in made]

    return seeds, whole


_chat_lines, _whole_chat = _ollama(ndjson.chat_lines, ndjson.chat_line, "message", "content")
_texts, _whole_text = _ollama(ndjson.generate_lines, ndjson.generate_line, "", "response")


def _lines_keep(data: bytes) -> bool:
    """What may become a tag may be overtaken; log-probabilities of something else are taken out."""
    return not any(mark in data for mark in (b"logprobs", b"\\u", *_TAGS))


# -- Cohere ------------------------------------------------------------------------------------------

_NO_COHERE_TEXT = frozenset({"finish_reason", "error", "id", "meta", "role", "sources", "type", "usage"})


def _cohere() -> list[bytes]:
    seeds = [
        cohere.message(cohere.thinking(0, "I see. ", "It is calm. "), cohere.text(1, "Fine.")),
        cohere.message(cohere.thinking(0, "I see. ", "HARM. "), cohere.text(1, "Fine.")),
        cohere.message(cohere.plan(0, "I will. "), cohere.tool(0, '{"to": ', '"HARM"}')),
        cohere.message(cohere.text(0, "Salt. ", "HARM"), cohere.cited(0, "Salt")),
        cohere.message(cohere.text(0, "Salt."), cohere.cited(0, "no HARM"), finish_reason="ERROR"),
    ]
    return [b"".join(frames) for frames in seeds]


def _whole_cohere() -> list[bytes]:
    thought, said = {"type": "thinking", "thinking": "I see."}, {"type": "text", "text": "Fine."}
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": "HARM"}}
    return [
        cohere.body(thought, said),
        cohere.body({"type": "thinking", "thinking": "HARM"}, said),
        cohere.body(said, tool_plan="I will.", tool_calls=[call]),
        cohere.body(said, citations=[{"start": 0, "end": 4, "text": "Fine", "sources": cohere.SOURCES}]),
    ]


def _of_cohere(parsed: dict[str, Any]) -> Any:
    return {key: value for key, value in parsed.items() if key not in ("finish_reason", "usage", "meta")}


def _cohere_keeps(data: bytes) -> bool:
    """Log-probabilities of something else are taken out, blocks get the number that they have here, and a
    call that never began does not end."""
    blocks: list[int] = []
    calls: set[int] = set()
    for one in _sse_json(data):
        if one.get("type") == "content-start":
            blocks.append(one["index"])
        elif one.get("type") in ("tool-call-start", "tool-call-delta"):
            calls.add(one["index"])
        elif one.get("type") == "tool-call-end" and one["index"] not in calls:
            return False
    return b"logprobs" not in data and blocks == sorted(blocks)


# -- Bedrock -----------------------------------------------------------------------------------------

_NO_BLOCK_TEXT = frozenset(
    {
        "location",
        "metrics",
        "p",
        "performanceConfig",
        "redactedContent",
        "role",
        "serviceTier",
        "signature",
        "source",
        "sourceContent",
        "status",
        "stopReason",
        "stop_sequence",
        "title",
        "toolUseId",
        "trace",
        "type",
        "usage",
    }
)


_ADDED_FIELDS = {"additionalModelResponseFields": {"stop_sequence": "."}}
_TRACE: dict[str, Any] = {"trace": {"promptRouter": {"invokedModelId": "m"}}}


def _converse() -> list[bytes]:
    """A line for each message: the headers of its type, and its payload."""
    seeds = [
        bedrock.response(bedrock.thinking(0, "I see. ", "It is calm. "), bedrock.text(1, "Fine.")),
        bedrock.response(bedrock.thinking(0, "I see. ", "HARM. "), bedrock.text(1, "Fine.")),
        bedrock.response(bedrock.text(0, "a", "HARM"), bedrock.tool(1, '{"to": ', '"HARM"}')),
        [{"messageStart": {"role": "assistant"}}, {"modelStreamErrorException": {"message": "busy"}}],
        [{"messageStop": {"stopReason": "end_turn", **_ADDED_FIELDS}}, {"metadata": _TRACE}],
    ]
    lines = []
    for events in seeds:
        for event in events:
            [(type_, payload)] = event.items()
            kind = "exception" if type_.endswith("Exception") else "event"
            lines.append(f"{kind} {type_} {json.dumps({**payload, 'p': 'abc'})}\n")
        lines.append("--")
    return [one.encode() for one in "".join(lines).split("--") if one]


def _framed(data: bytes) -> bytes:
    """The messages that lines stand for, with checksums that are right."""
    out = b""
    for line in data.splitlines():
        kind, _, rest = line.decode(errors="replace").partition(" ")
        type_, _, payload = rest.partition(" ")
        named = "exception" if kind == "exception" else "event"
        headers = {f":{named}-type": type_[:99], ":message-type": kind[:99]}
        out += bedrock.framed(headers, payload.encode())
    return out


def _payloads(out: bytes) -> Iterator[bytes]:
    """Of all that botocore takes for an event."""
    for sent in map(parse_message, EventStreamFramer().feed(out)):
        if sent.headers.get(":message-type") not in ("error", "exception"):
            yield sent.payload


def _whole_converse() -> list[bytes]:
    thought = {"reasoningContent": {"reasoningText": {"text": "I see.", "signature": "c2ln"}}}
    harm = {"reasoningContent": {"reasoningText": {"text": "HARM", "signature": "c2ln"}}}
    call = {"toolUse": {"toolUseId": "t", "name": "send", "input": {"to": "HARM"}}}
    return [
        bedrock.body(thought, {"text": "Fine."}),
        bedrock.body(harm, {"text": "Fine."}),
        bedrock.body({"text": "a"}, call, stop_reason="tool_use", **_ADDED_FIELDS, **_TRACE),
    ]


def _converse_keeps(data: bytes) -> bool:
    """What is not known of metadata is left out."""
    sent = [parse_message(raw) for raw in EventStreamFramer().feed(data)]
    metadata = [one for one in sent if one.headers.get(":event-type") == "metadata"]
    return all(json.loads(one.payload).keys() <= METADATA_OF_CONVERSE for one in metadata)


def _converse_body_keeps(data: bytes) -> bool:
    """What is not known is left out."""
    return set(json.loads(data)) <= BODY


# -- text --------------------------------------------------------------------------------------------


def _plain() -> list[bytes]:
    return [one.encode() for one in ("<think>I see. HARM.</think>Fine.", "It is ◁calm. HARM", "<thi")]


def _shown(out: bytes) -> Iterator[str]:
    yield json.dumps({"text": out.decode(errors="replace")})


TARGETS = [
    Target("chat", ChatStream, _chats, _of_choices("delta"), sse_bodies, _chat_keeps),
    Target("chat body", ChatBody, _completions, _of_choices("message"), keeps=_chat_keeps),
    Target(
        "messages",
        lambda: MessageStream(whole_thoughts=False),
        _messages,
        _of_message,
        sse_bodies,
        _messages_keep,
    ),
    # A ping overtakes a thought that is kept until it is whole.
    Target("whole thoughts", MessageStream, _messages, _of_message, sse_bodies, lambda data: False),
    Target("message body", MessageBody, _whole_messages, _of_message),
    Target(
        "responses",
        lambda: ResponseStream(whole_thoughts=False),
        _responses,
        _of_response,
        sse_bodies,
        _responses_keep,
        _NO_ITEM_TEXT,
    ),
    Target(
        "responses, whole thoughts",
        ResponseStream,
        _responses,
        _of_response,
        sse_bodies,
        lambda data: False,
        _NO_ITEM_TEXT,
    ),
    Target("response body", ResponseBody, _whole_responses, _of_whole_response, metadata=_NO_ITEM_TEXT),
    Target("contents", ContentStream, _contents, _of_candidates, sse_bodies, metadata=_NO_CONTENT_TEXT),
    Target("content body", ContentBody, _whole_contents, _of_candidates, metadata=_NO_CONTENT_TEXT),
    *(
        Target(
            f"ollama {name}",
            partial(OllamaStream, shape),
            seeds,
            lambda parsed: parsed,
            lambda out: iter(out.splitlines()),
            _lines_keep,
            _NO_LINE_TEXT,
        )
        for name, shape, seeds in (("chat", CHAT, _chat_lines), ("generate", GENERATE, _texts))
    ),
    *(
        Target(
            f"ollama {name} body",
            partial(OllamaBody, shape),
            seeds,
            lambda parsed: parsed,
            keeps=_lines_keep,
            metadata=_NO_LINE_TEXT,
        )
        for name, shape, seeds in (("chat", CHAT, _whole_chat), ("generate", GENERATE, _whole_text))
    ),
    Target("cohere", CohereStream, _cohere, _of_cohere, sse_bodies, _cohere_keeps, _NO_COHERE_TEXT),
    Target("cohere body", CohereBody, _whole_cohere, _of_cohere, metadata=_NO_COHERE_TEXT),
    Target(
        "converse",
        lambda: ConverseStream(whole_thoughts=False),
        _converse,
        lambda parsed: parsed,
        _payloads,
        _converse_keeps,
        _NO_BLOCK_TEXT,
        _framed,
    ),
    Target(
        "converse, whole thoughts",
        ConverseStream,
        _converse,
        lambda parsed: parsed,
        _payloads,
        lambda data: False,
        _NO_BLOCK_TEXT,
        _framed,
    ),
    Target(
        "converse body",
        ConverseBody,
        _whole_converse,
        lambda parsed: parsed,
        keeps=_converse_body_keeps,
        metadata=_NO_BLOCK_TEXT,
    ),
    Target("text", TextStream, _plain, lambda parsed: parsed, _shown, by_frame=False),
]


def seeds_of(target: Target) -> list[bytes]:
    """The inputs that fuzzing begins with: each seed uncut and cut."""
    return [cuts + seed for seed in target.seeds() for cuts in (bytes(CUTS), b"\x20\x60\xa0\xe0")]
