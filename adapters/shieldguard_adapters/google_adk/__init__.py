"""A guard in Google's Agent Development Kit, inside the model, where no event, callback, plugin, trace or
session sees unjudged text.

`Agent(model=GuardedLlm("gemini-…", guard), …)`. A response that the guard aborts has no content and no call;
its `error_code` is "SAFETY", its `error_message` the notice. The agent stops there, and the history keeps
nothing of the turn. Live connections are refused.

At level DEBUG the logger of ADK's own models writes down what comes to them, unjudged. Who needs that
guards the client below: `Gemini(client=guard_client(genai.Client(), guard))`.
"""

from shieldguard import MissingDependency

try:
    from shieldguard_adapters.google_adk.model import GuardedLlm
except ModuleNotFoundError as error:
    raise MissingDependency(error.name or "google.adk", "google-adk") from None

__all__ = ["GuardedLlm"]
