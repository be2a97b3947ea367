"""A guard in LiteLLM: a guardrail of its proxy, and the calls of its SDK.

In the proxy's config.yaml, `guardrail: shieldguard_adapters.litellm.ShieldguardGuardrail` with
`mode: post_call` and `default_on: true` guards chat completions, Anthropic's messages and responses,
streamed and whole; what else comes to it with a model's text is refused. `acompletion(guard, …)` and
`completion(guard, …)` are LiteLLM's own, guarded. A response that the guard aborts ends as a refusal.

LiteLLM tells its callbacks and loggers what came before it is judged, so here they are told no text, neither
the model's nor the user's (`turn_off_message_logging`). That switch of LiteLLM's misses one place: in a
whole response, what a provider says in fields of its own (`provider_specific_fields`, such as Anthropic's
thinking). Loggers that keep these need streamed responses, or a guarded client below LiteLLM, which also
lets them have what is judged: `litellm.acompletion(client=guard_client(openai.AsyncOpenAI(), guard), …)`.

What a model's error says is judged before the caller gets it: a harmless one is raised as it is, for retries
and fallbacks, and of one that quotes harm only that it was withheld. LiteLLM's loggers are told of errors
before that, and its own retries and fallbacks see them; they too are spared by a guarded client below.
"""

from shieldguard import MissingDependency

try:
    from shieldguard_adapters.litellm.calls import acompletion, completion
    from shieldguard_adapters.litellm.guardrail import ShieldguardGuardrail
except ModuleNotFoundError as error:
    raise MissingDependency(error.name or "litellm", "litellm") from None

__all__ = ["ShieldguardGuardrail", "acompletion", "completion"]
