"""A model's methods, below the callbacks and the instrumentation around them."""

import dis
import inspect
from types import CodeType
from typing import Any

from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import NullEventHandler
from llama_index_instrumentation.span_handlers import NullSpanHandler

from shieldguard import UnguardedClient

# The functions that LlamaIndex puts around the methods of a model, as `f`.
_DECORATING = ("wrapped_llm_chat", "wrapped_async_llm_chat", "dummy_wrapper", "async_dummy_wrapper")
_TELLING = {
    *("chat", "achat", "stream_chat", "astream_chat"),
    *("complete", "acomplete", "stream_complete", "astream_complete"),
}


def ask(model: Any, way: str, *arguments: Any, **options: Any) -> Any:
    """What the model's method gives, untold. Raises `UnguardedClient` for one that calls another which would
    tell of it, where somebody listens."""
    method = _bare(getattr(type(model), way))
    if _is_heard(model) and _calls_another(method.__code__, method.__code__.co_varnames[0]):
        raise UnguardedClient(
            f"{type(model).__name__}.{way}() calls another method, which tells LlamaIndex's instrumentation "
            "what is not judged; take its handlers off, or guard the HTTP client below with guard_client()"
        )
    return method(model, *arguments, **options)


def _bare(method: Any) -> Any:
    """A method without its decorations."""
    while True:
        inner = getattr(method, "__wrapped__", None)
        if not callable(inner):
            held = inspect.getclosurevars(method).nonlocals
            inner = held.get("f") if method.__code__.co_name in _DECORATING else None
        if inner is None:
            return method
        method = inner


def _calls_another(code: CodeType, itself: str) -> bool:
    """Whether there is a call of a method that tells, on the object of this name or on what a call gave,
    `super()` for one."""
    steps = list(dis.get_instructions(code))
    for before, step in zip([None, *steps], steps, strict=False):
        if step.opname.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER")) and step.argval in _TELLING:
            if before is None or "SUPER" in step.opname or "CALL" in before.opname:
                return True
            if before.argval == itself or (isinstance(before.argval, tuple) and before.argval[-1] == itself):
                return True
    return any(_calls_another(one, itself) for one in code.co_consts if isinstance(one, CodeType))


def _is_heard(model: Any) -> bool:
    manager = get_dispatcher(__name__).manager
    assert manager is not None
    dispatchers = manager.dispatchers.values()
    handlers = [one for each in dispatchers for one in (*each.event_handlers, *each.span_handlers)]
    heard = [one for one in handlers if type(one) not in (NullEventHandler, NullSpanHandler)]
    return bool(heard or model.callback_manager.handlers)
