"""OpenAI chat completions, streaming (server-sent events) and whole (JSON), with the reasoning fields
of those who speak the same format: DeepSeek, vLLM, SGLang, Groq, OpenRouter, LiteLLM, Mistral."""

from shieldguard_adapters.wire.openai_chat.body import ChatBody, ChatError
from shieldguard_adapters.wire.openai_chat.request import read_request
from shieldguard_adapters.wire.openai_chat.stream import ChatStream

__all__ = ["ChatBody", "ChatError", "ChatStream", "read_request"]
