"""A model of ADK's, guarded."""

import json
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any

from google.adk.models import BaseLlm, LLMRegistry
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse

from shieldguard import Guard, QueryFrom, UnguardedClient, last_user_turn
from shieldguard_adapters.google_adk.parts import dumped
from shieldguard_adapters.google_adk.turn import Turn
from shieldguard_adapters.sources import Reading
from shieldguard_adapters.wire.codec import Request
from shieldguard_adapters.wire.gemini import read_request


class GuardedLlm(BaseLlm):
    """A model whose responses are guarded, streamed and whole; also those of a `FallbackModel`, each of which
    is guarded. Streaming (`StreamingMode.SSE`) lets an abort end the response early."""

    inner: BaseLlm
    guard: Any  # a Guard; pydantic would look into it
    query_from: Any

    def __init__(self, inner: BaseLlm | str, guard: Guard, *, query_from: QueryFrom = last_user_turn) -> None:
        inner = LLMRegistry.new_llm(inner) if isinstance(inner, str) else inner
        fields: dict[str, Any] = {"inner": inner, "guard": guard, "query_from": query_from}
        super().__init__(model=inner.model, **fields)

    @property
    def capabilities(self) -> Any:
        return self.inner.capabilities

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        request = _read(llm_request, self.query_from)
        turn = Turn()
        source = Reading(self.inner.generate_content_async(llm_request, stream), turn.events, turn.end)
        guarded = self.guard.stream(source, query=request.query, redactable=request.redactable)
        try:
            while batch := await guarded.next_batch():
                for response in turn.given(batch):
                    yield response
            for response in turn.finished():
                yield response
        finally:
            await guarded.aclose()

    def connect(self, llm_request: LlmRequest) -> AbstractAsyncContextManager[Any]:
        raise UnguardedClient("live connections are not guarded; run the agent with run_async()")


def _read(request: LlmRequest, query_from: QueryFrom) -> Request:
    config = request.config
    system = config.system_instruction
    body = {
        "contents": [dumped(content) for content in request.contents],
        "systemInstruction": {"parts": [{"text": system}]} if isinstance(system, str) else dumped(system),
        "cachedContent": config.cached_content or request.previous_interaction_id,
        "generationConfig": {
            "responseMimeType": config.response_mime_type,
            "responseSchema": (config.response_schema or config.response_json_schema) and True,
        },
    }
    return read_request(json.dumps(body, default=str).encode(), query_from)
