"""A guard in Microsoft's agent-framework, inside the chat client, where no caller, middleware, tool loop,
history or trace sees unjudged text.

`Agent(guard_chat_client(client, guard), …)`. A response that the guard aborts ends with its notice,
`finish_reason` "content_filter" and no tool call, so an agent stops there. The providers' own objects
(`raw_representation`) are left out: they hold what this guard has not seen.

The guard sees what the client reads. `OpenAIChatCompletionClient` drops the `reasoning_content` of vLLM,
DeepSeek and others: guard its `async_client` instead, with `guard_client`.
"""

from shieldguard import MissingDependency

try:
    from shieldguard_adapters.agent_framework.client import guard_chat_client
except ModuleNotFoundError as error:
    raise MissingDependency(error.name or "agent_framework", "agent-framework") from None

__all__ = ["guard_chat_client"]
