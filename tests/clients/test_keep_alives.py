"""Keep-alives between any two batches of a guarded stream: the official client makes nothing of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from shieldguard import Action, Rule, SizeWindower
from shieldguard_adapters.wire import Codec
from shieldguard_adapters.wire.anthropic_messages import MessageStream
from shieldguard_adapters.wire.openai_chat import ChatStream
from tests.clients.rig import QUESTION, Outcome
from tests.upstream import DONE, Script, Upstream, chat, chunk
from tests.wire.messages import message, text, thinking, tool
from tests.wire.rig import guard

REDACT = Rule(harmful=Action.REDACT)
CALM = [f"Piece {number} of it. " for number in range(8)]
HARM = [*CALM, "HARM. "]
PARTS = ['{"total"', ": 7}"]


@dataclass
class Case:
    frames: list[bytes]
    redact: bool = False
    strict: bool = False


def call(arguments: str, **head: Any) -> bytes:
    return chunk({"tool_calls": [{"index": 0, **head, "function": {"arguments": arguments}}]})


CALLS = [
    chunk({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f"}}]}),
    call('{"a"'),
    call(": 1}"),
    chunk({}, finish_reason="tool_calls"),
    DONE,
]
ROLE = chunk({"role": "assistant", "content": ""})

CHATS = {
    "harmless": Case(chat(CALM, CALM)),
    "think tags": Case(chat(["<think>", *CALM, "</think>"], CALM, field="content")),
    "harm before any text": Case(chat(["HARM. "], CALM)),
    "harm in a thought": Case(chat(HARM, CALM)),
    "harm in the answer": Case(chat(CALM, HARM)),
    "harm redacted": Case(chat(HARM, CALM), redact=True),
    "a call": Case([*chat(CALM, [])[:-3], *CALLS]),
    "a call behind harm": Case([*chat(HARM, [])[:-3], *CALLS]),
    "no end": Case(chat(CALM, CALM)[:-3]),
    "nonsense": Case([*chat(CALM, [])[:-3], b"data: {\n\n"]),
    "nonsense at once": Case([b"data: {\n\n"]),
    "two choices": Case(
        [
            *(chunk({"role": "assistant"}, index=index) for index in (0, 1)),
            *(chunk({"reasoning": piece}, index=index) for piece in CALM for index in (0, 1)),
            chunk({}, finish_reason="stop"),
            *(chunk({"content": piece}, index=1) for piece in HARM),
            chunk({}, index=1, finish_reason="stop"),
            DONE,
        ]
    ),
    "json": Case(
        [ROLE, *(chunk({"content": part}) for part in PARTS), chunk({}, finish_reason="stop"), DONE]
    ),
}
MESSAGES = {
    "harmless": Case(message(thinking(0, *CALM), text(1, *CALM))),
    "harm before any text": Case(message(thinking(0, "HARM. "), text(1, *CALM))),
    "harm in a thought": Case(message(thinking(0, *HARM), text(1, *CALM))),
    "harm in the answer": Case(message(thinking(0, *CALM), text(1, *HARM))),
    "harm redacted": Case(message(thinking(0, *HARM), text(1, *CALM)), redact=True),
    "harm in an answer to be parsed": Case(message(text(0, *HARM)), strict=True),
    "a call": Case(message(thinking(0, *CALM), tool(1, '{"a"', ": 1}"), stop_reason="tool_use")),
    "a call behind harm": Case(message(thinking(0, *HARM), tool(1, "{}"), stop_reason="tool_use")),
    "no end": Case(message(thinking(0, *CALM), text(1, *CALM))[:-2]),
    "nonsense": Case([*message(thinking(0, *CALM))[:-2], b"data: {\n\n"]),
    "nonsense at once": Case([b"data: {\n\n"]),
}


def played(codec: Codec, case: Case, *, alive: bool) -> Iterator[bytes]:
    """What leaves of the frames, a batch at a time; `alive`: with a keep-alive before each."""
    by = guard(windower=SizeWindower(size=24), reasoning=REDACT if case.redact else Rule())
    with by.stream_sync(_decoded(codec, case.frames), redactable=not case.strict) as stream:
        while batch := stream.next_batch():
            if alive:
                yield codec.keep_alive()
            yield codec.encode(batch)
    yield codec.close()


def _decoded(codec: Codec, frames: list[bytes]) -> Iterator[Any]:
    for frame in frames:
        yield codec.decode(frame)
    yield codec.flush()


def alike(upstream: Upstream, make: Callable[[], Codec], case: Case, read: Callable[[], Any]) -> None:
    """A client reads the same with keep-alives and without."""
    results = []
    for alive in (False, True):
        pieces = [piece for piece in played(make(), case, alive=alive) if piece]
        upstream.play(Script(pieces))
        results.append(read())
    assert results[0] == results[1]


@pytest.mark.parametrize("way", ["create", "helper"])
@pytest.mark.parametrize("case", CHATS.values(), ids=CHATS.keys())
def test_the_openai_client_reads_a_chat_as_it_was(case: Case, way: str, upstream: Upstream) -> None:
    with openai.OpenAI(base_url=upstream.url, api_key="none", max_retries=0) as client:
        completions = client.chat.completions

        def create() -> Outcome:
            outcome = Outcome()
            for chunk in completions.create(model="m", messages=QUESTION, stream=True):
                outcome.chunk(chunk)
            return outcome

        def helper() -> Any:
            with completions.stream(model="m", messages=QUESTION) as stream:
                return stream.get_final_completion().model_dump()

        alike(upstream, ChatStream, case, create if way == "create" else helper)


@pytest.mark.parametrize("way", ["create", "helper", "beta create", "beta helper"])
@pytest.mark.parametrize("case", MESSAGES.values(), ids=MESSAGES.keys())
def test_the_anthropic_client_reads_a_message_as_it_was(case: Case, way: str, upstream: Upstream) -> None:
    anthropic = pytest.importorskip("anthropic")
    request: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": QUESTION}
    with anthropic.Anthropic(base_url=upstream.url.removesuffix("/v1"), api_key="none") as client:
        messages = client.beta.messages if way.startswith("beta") else client.messages

        def create() -> Any:
            return [event.model_dump() for event in messages.create(**request, stream=True)]

        def helper() -> Any:
            with messages.stream(**request) as stream:
                return stream.get_final_message().model_dump()

        def make() -> Codec:
            return MessageStream(whole_thoughts=case.redact, strict_output=case.strict)

        alike(upstream, make, case, create if way.endswith("create") else helper)
