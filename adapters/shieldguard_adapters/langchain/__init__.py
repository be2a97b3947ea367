"""A guard in LangChain and LangGraph, inside the chat model, where no callback, tracer or stream mode sees
unjudged text.

`GuardedChatModel(inner=model, guard=guard)` is a chat model; `create_agent(…,
middleware=[GuardMiddleware(guard), …])` puts one around whatever model an agent asks. A response that the
guard aborts ends with its notice, `finish_reason` "content_filter" and no tool call, so an agent stops there.

The guard sees what the inner model's class gives. `ChatOpenAI` leaves out the reasoning of servers that speak
chat completions (vLLM, DeepSeek, …), and of responses all but the summaries: guard its client instead, with
`guard_client` on an `httpx2` client that goes in as `http_async_client` and `http_client`.
"""

from shieldguard import MissingDependency

try:
    from shieldguard_adapters.langchain.middleware import GuardMiddleware
    from shieldguard_adapters.langchain.model import GuardedChatModel
except ImportError as error:
    raise MissingDependency(error.name or "langchain_core", "langchain") from None

__all__ = ["GuardMiddleware", "GuardedChatModel"]
