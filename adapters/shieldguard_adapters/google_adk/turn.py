"""One turn of a model, as events and back."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from google.adk.models.llm_response import LlmResponse
from google.genai import types

from shieldguard import Aborted, End, Redacted, ReleasedEvent, SourceEvent
from shieldguard_adapters.google_adk.parts import (
    add,
    alias,
    beyond,
    dumped,
    merged,
    others,
    parts_of,
    text_of,
)
from shieldguard_adapters.sources import raise_if_told, tells
from shieldguard_adapters.wire.framing import parse_sse
from shieldguard_adapters.wire.gemini import ContentStream
from shieldguard_adapters.wire.jsons import parse_json, sse


class Turn:
    """One turn of a model: its responses, through the codec of Gemini's wire format and back.

    In a streamed turn a response that is not partial says again what the partial ones said. Of that one only
    what is new is judged. It is given unchanged, or where text was left out, made of what was given before.
    """

    def __init__(self) -> None:
        self._codec = ContentStream()
        self._came: list[tuple[LlmResponse, bytes]] = []
        self._partial: list[dict[str, Any]] = []  # parts that came since the last whole response
        self._known: dict[int, set[bool]] = {}  # of whole responses: whether thoughts, and answers, are known
        self._sent: list[dict[str, Any]] = []  # parts that were given since the last whole response
        self._waiting: dict[int, dict[str, Any]] = {}  # whole responses, as far as they have been let out
        self._redacted = self._aborted = False

    def events(self, response: LlmResponse) -> list[SourceEvent]:
        frame = sse(self._body(response))
        self._came.append((response, frame))
        return self._codec.decode(frame)

    def end(self) -> list[SourceEvent]:
        reason = self._came[-1][0].finish_reason if self._came else None
        return [End(str(reason.value) if reason else None)]

    def given(self, batch: Sequence[ReleasedEvent]) -> Iterator[LlmResponse]:
        """The responses that these events make. Raises the error of a model that failed, after those."""
        self._redacted = self._redacted or any(isinstance(event, Redacted) for event in batch)
        said = [event for event in batch if not (isinstance(event, Aborted) or tells(event))]
        for data in self._codec.encode(said).split(b"\n\n"):
            if not data:
                continue
            body = parse_json(parse_sse(data).data or "")
            number = int(body["responseId"])
            yield from self._whole(before=number)
            response, frame = self._came[number]
            if not response.partial:
                add(self._waiting.setdefault(number, {}), body)
                continue
            self._sent += parts_of(body)
            yield response if data + b"\n\n" == frame else _made(response, body, parts_of(body))
        for event in batch:
            if isinstance(event, Aborted):
                self._aborted = True
                yield self._refused(event)
            raise_if_told(event)

    def finished(self) -> Iterator[LlmResponse]:
        if not self._aborted:
            yield from self._whole(before=len(self._came))

    def _body(self, response: LlmResponse) -> dict[str, Any]:
        """The response as a frame of the wire; its number is the id."""
        number = len(self._came)
        parts = dumped(response.content).get("parts") or [] if response.content else []
        if response.partial:
            self._partial += parts
        else:
            known = {kind for kind in (True, False) if text_of(self._partial, kind) == text_of(parts, kind)}
            new = [part for part in parts if "text" in part or part not in self._partial]
            parts = [beyond(part, known) for part in new]
            self._known[number] = known
            self._partial = []
        candidate = {"index": 0, "content": {"role": "model", "parts": [part for part in parts if part]}}
        if response.error_message:
            candidate["finishMessage"] = response.error_message
        for name, value in others(response):
            candidate[alias(name)] = dumped(value)
        body = {"candidates": [candidate], "responseId": str(number)}
        return body | ({"usageMetadata": dumped(response.usage_metadata)} if response.usage_metadata else {})

    def _whole(self, *, before: int) -> Iterator[LlmResponse]:
        for number in [number for number in self._waiting if number < before]:
            body = self._waiting.pop(number)
            response, _ = self._came[number]
            # Calls among them are left out, since what redacts refuses them.
            texts = [part for part in self._sent if part.get("text")]
            sent = [part for part in texts if bool(part.get("thought")) in self._known[number]]
            self._sent = []
            yield _made(response, body, merged(sent + parts_of(body))) if self._redacted else response

    def _refused(self, aborted: Aborted) -> LlmResponse:
        usage = [response.usage_metadata for response, _ in self._came if response.usage_metadata]
        return LlmResponse(
            error_code=types.FinishReason.SAFETY.value,
            error_message=aborted.notice,
            finish_reason=types.FinishReason.SAFETY,
            usage_metadata=usage[-1] if usage else None,
            model_version=self._came[-1][0].model_version if self._came else None,
        )


def _made(response: LlmResponse, body: dict[str, Any], parts: list[dict[str, Any]]) -> LlmResponse:
    """A response with these parts, and of what else it held, what is in this body."""
    candidate = body["candidates"][0]
    content = types.Content.model_validate_json(json.dumps({"role": "model", "parts": parts}))
    left_out = {name: None for name, _ in others(response) if alias(name) not in candidate}
    usage = response.usage_metadata if "usageMetadata" in body else None
    message = candidate.get("finishMessage")
    made = {"content": content, "usage_metadata": usage, "error_message": message, **left_out}
    return response.model_copy(update=made)
