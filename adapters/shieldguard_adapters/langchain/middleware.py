"""An agent whose model is guarded, whichever that is."""

from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, hook_config
from langchain_core.language_models import BaseChatModel

from shieldguard import Guard, QueryFrom, last_user_turn
from shieldguard_adapters.langchain.chunks import BLOCKED
from shieldguard_adapters.langchain.model import GuardedChatModel


class GuardMiddleware(AgentMiddleware):
    """Puts a guarded model around the one that an agent asks, whichever that is. As the first middleware it
    also guards the models that those behind it put in, fallbacks among them."""

    def __init__(self, guard: Guard, *, query_from: QueryFrom = last_user_turn) -> None:
        super().__init__()
        self.guard = guard
        self.query_from = query_from

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], Any]) -> Any:
        return handler(_guarded(request, self._model))

    async def awrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[Any]]
    ) -> Any:
        return await handler(_guarded(request, self._model))

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """A blocked turn is the last, also where an agent waits for structured output; none of its thought
        stays in the history."""
        last = state["messages"][-1]
        if BLOCKED not in last.response_metadata:
            return None
        said = last.model_copy(update={"content": str(last.text), "additional_kwargs": {}})
        return {"messages": [said], "jump_to": "end"}

    def _model(self, model: BaseChatModel) -> BaseChatModel:
        if isinstance(model, GuardedChatModel) and model.guard is self.guard:
            return model
        return GuardedChatModel(inner=model, guard=self.guard, query_from=self.query_from)


class _GuardedRequest(ModelRequest):
    """A request whose model is guarded, also one that is put in later."""

    _put: Callable[[BaseChatModel], BaseChatModel]

    def override(self, **changes: Any) -> ModelRequest:
        return _guarded(super().override(**changes), self._put)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self._put(value) if name == "model" else value)


def _guarded(request: ModelRequest, put: Callable[[BaseChatModel], BaseChatModel]) -> ModelRequest:
    guarded = _GuardedRequest(**{one.name: getattr(request, one.name) for one in fields(request)})
    object.__setattr__(guarded, "_put", put)
    object.__setattr__(guarded, "model", put(request.model))
    return guarded
