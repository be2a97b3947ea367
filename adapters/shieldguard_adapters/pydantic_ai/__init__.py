"""A guard in Pydantic AI, inside the model, where no event handler, tracer or fallback sees unjudged text.

`Agent(…, capabilities=[GuardModels(guard)])` guards every model that serves an attempt, fallbacks included;
`GuardedModel(model, guard)` guards one. A response that the guard aborts raises `ContentFilterError`, so no
tool of it runs, it gives no output, and it does not come into the history.
"""

from shieldguard import MissingDependency

try:
    from shieldguard_adapters.pydantic_ai.model import GuardedModel, GuardModels
except ImportError as error:
    raise MissingDependency(error.name or "pydantic_ai", "pydantic-ai") from None

__all__ = ["GuardModels", "GuardedModel"]
