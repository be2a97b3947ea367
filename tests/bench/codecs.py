"""What each codec costs a frame, beside the official SDK's own parsing of the same bytes.

One streamed response of a long thought and a short answer, in memory: no server, no network. By turns

1. the codec alone: bytes to events and back to the same bytes;
2. the official SDK, its real HTTP client on a transport that plays the bytes;
3. the same client guarded, with a judge that answers at once.

Wall-clock figures of a shared machine are noisy: the ratios are what counts.
"""

import argparse
import io
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from shieldguard import Guard, Relabel
from shieldguard_adapters.clients import guard_client
from shieldguard_adapters.hooks import library_of
from shieldguard_adapters.sdks import SDKS
from shieldguard_adapters.wire import Codec
from shieldguard_adapters.wire.anthropic_messages import MessageStream
from shieldguard_adapters.wire.bedrock_converse import ConverseStream
from shieldguard_adapters.wire.cohere_chat import MessageStream as CohereStream
from shieldguard_adapters.wire.endpoints import EVENT_STREAM, NDJSON, SSE
from shieldguard_adapters.wire.gemini import ContentStream
from shieldguard_adapters.wire.ollama import CHAT, OllamaStream
from shieldguard_adapters.wire.openai_chat import ChatStream
from shieldguard_adapters.wire.openai_responses import ResponseStream
from tests.bench.engine import InstantJudge, chunked, frames, prose, timed
from tests.wire import bedrock, cohere, contents, messages, ndjson, responses

_CHARACTERS = 8  # a frame
_ASKED: list[Any] = [{"role": "user", "content": "Why?"}]


@dataclass(frozen=True, slots=True)
class Case:
    """One API. `frames`: the bytes of a response whose thought comes in these chunks. `client`: makes an
    SDK's client. `read`: has it ask, and gives what comes."""

    name: str
    package: str
    codec: Callable[[], Codec]
    frames: Callable[[list[str]], list[bytes]]
    client: Callable[[Any], Any]
    read: Callable[[Any], Iterable[Any]]
    content_type: str = SSE


def _converse(boto3: Any) -> Any:
    keys = {"aws_access_key_id": "-", "aws_secret_access_key": "-"}
    return boto3.client("bedrock-runtime", region_name="us-east-1", **keys)


CASES = (
    Case(
        "OpenAI chat completions",
        "openai",
        ChatStream,
        frames,
        lambda sdk: sdk.OpenAI(api_key="-"),
        lambda client: client.chat.completions.create(model="m", messages=[], stream=True),
    ),
    Case(
        "OpenAI responses",
        "openai",
        ResponseStream,
        lambda chunks: responses.frames_of(responses.thinking(*chunks), responses.message("So.")),
        lambda sdk: sdk.OpenAI(api_key="-"),
        lambda client: client.responses.create(model="m", input="Why?", stream=True),
    ),
    Case(
        "Anthropic messages",
        "anthropic",
        MessageStream,
        lambda chunks: messages.message(messages.thinking(0, *chunks), messages.text(1, "So.")),
        lambda sdk: sdk.Anthropic(api_key="-"),
        lambda client: client.messages.create(model="m", max_tokens=9, messages=[], stream=True),
    ),
    Case(
        "Gemini",
        "google.genai",
        ContentStream,
        lambda chunks: contents.content(*map(contents.thought, chunks), contents.said("So.")),
        lambda sdk: sdk.Client(api_key="-"),
        lambda client: client.models.generate_content_stream(model="m", contents="Why?"),
    ),
    Case(
        "Ollama chat",
        "ollama",
        lambda: OllamaStream(CHAT),
        lambda chunks: ndjson.chat_lines(chunks, ["So."]),
        lambda sdk: sdk.Client("http://localhost"),
        lambda client: client.chat(model="m", messages=_ASKED, stream=True),
        NDJSON,
    ),
    Case(
        "Cohere chat",
        "cohere",
        CohereStream,
        lambda chunks: cohere.message(cohere.thinking(0, *chunks), cohere.text(1, "So.")),
        lambda sdk: sdk.ClientV2("-"),
        lambda client: client.chat_stream(model="m", messages=_ASKED),
    ),
    Case(
        "Bedrock Converse",
        "boto3",
        ConverseStream,
        lambda chunks: bedrock.wired(*bedrock.response(bedrock.thinking(0, *chunks), bedrock.text(1, "So."))),
        _converse,
        lambda client: client.converse_stream(
            modelId="m", messages=[{"role": "user", "content": [{"text": "Why?"}]}]
        )["stream"],
        EVENT_STREAM,
    ),
    Case(
        "Mistral chat",
        "mistralai.client",
        ChatStream,
        frames,
        lambda sdk: sdk.Mistral(api_key="-"),
        lambda client: client.chat.stream(model="m", messages=_ASKED),
    ),
    Case(
        "Groq chat",
        "groq",
        ChatStream,
        frames,
        lambda sdk: sdk.Groq(api_key="-"),
        lambda client: client.chat.completions.create(model="m", messages=_ASKED, stream=True),
    ),
)


def through_codec(case: Case, frames: Sequence[bytes]) -> None:
    codec = case.codec()
    out = []
    for data in (*frames, None):
        events = codec.flush() if data is None else codec.decode(data)
        out.append(codec.encode([event for event in events if not isinstance(event, Relabel)]))
    out.append(codec.close())
    assert b"".join(out) == b"".join(frames), "what nothing changes keeps its bytes"


def client_of(case: Case, frames: Sequence[bytes]) -> Any:
    """The official client on a transport that plays these frames."""
    client = case.client(import_module(case.package))
    headers = {"content-type": case.content_type}
    if case.package == "boto3":
        _play_to_boto(client, headers, frames)
        return client
    sdk = next(sdk for sdk in SDKS if f"{case.package}.".startswith(f"{sdk.package}."))
    http, *_ = sdk.http(client)
    library = library_of(http)
    http._transport = library.MockTransport(
        lambda request: library.Response(200, headers=headers, content=iter(frames))
    )
    http._mounts = {}
    return client


def _play_to_boto(client: Any, headers: dict[str, str], frames: Sequence[bytes]) -> None:
    class Played(io.BytesIO):
        def stream(self, **_: Any) -> Iterator[bytes]:
            return iter(frames)

    response = import_module("botocore.awsrequest").AWSResponse

    def play(request: Any, **_: Any) -> Any:
        return response(request.url, 200, headers, Played())

    client.meta.events.register("before-send.bedrock-runtime", play)


def measure(case: Case, chunks: list[str], repeat: int) -> tuple[int, list[float]]:
    """The number of frames, and median processor microseconds a frame: codec, SDK, and SDK guarded."""
    played = case.frames(chunks)
    bare, guarded = client_of(case, played), client_of(case, played)
    guard_client(guarded, Guard(judge=InstantJudge()))
    assert sum(1 for _ in case.read(bare)) == sum(1 for _ in case.read(guarded)) >= len(chunks)
    ways: list[Callable[[], object]] = [
        lambda: through_codec(case, played),
        lambda: sum(1 for _ in case.read(bare)),
        lambda: sum(1 for _ in case.read(guarded)),
    ]
    times = [[timed(way) for way in ways] for _ in range(repeat)]
    return len(played), [1e6 * statistics.median(column) / len(played) for column in zip(*times, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=15)
    arguments = parser.parse_args()
    chunks = chunked(prose(arguments.tokens), _CHARACTERS)
    print(f"In memory, {_CHARACTERS} characters a frame, an instant judge, medians of {arguments.repeat}.\n")
    print("| API | frames | codec, µs a frame | SDK bare, µs | SDK guarded, µs | codec/bare | guarded/bare |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for case in CASES:
        try:
            count, (codec, bare, guarded) = measure(case, chunks, arguments.repeat)
        except ImportError as error:
            print(f"| {case.name} | not measured: {error.name!r} is not installed | | | | | |")
            continue
        figures = " | ".join(f"{figure:.1f}" for figure in (codec, bare, guarded))
        print(f"| {case.name} | {count} | {figures} | {codec / bare:.2f} | {guarded / bare:.2f} |")


if __name__ == "__main__":
    main()
