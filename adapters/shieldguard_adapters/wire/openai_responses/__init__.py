"""OpenAI responses, streaming (server-sent events) and whole (JSON)."""

from shieldguard_adapters.wire.openai_responses.body import ResponseBody
from shieldguard_adapters.wire.openai_responses.request import read_request, read_stored_request
from shieldguard_adapters.wire.openai_responses.stream import ResponseStream

__all__ = ["ResponseBody", "ResponseStream", "read_request", "read_stored_request"]
