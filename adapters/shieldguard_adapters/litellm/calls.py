"""The calls of LiteLLM's SDK."""

from functools import partial
from typing import Any

import litellm

from shieldguard import Guard, QueryFrom, last_user_turn
from shieldguard_adapters.litellm.responses import (
    UNTOLD,
    Asked,
    chunks_of,
    chunks_of_sync,
    judged,
    judged_sync,
    whole,
    whole_sync,
)
from shieldguard_adapters.wire import Termination


async def acompletion(
    guard: Guard,
    *,
    query_from: QueryFrom = last_user_turn,
    termination: Termination | str = Termination.REFUSAL,
    **request: Any,
) -> Any:
    """`litellm.acompletion(**request)`, guarded: a `ModelResponse`, or with `stream=True` an async generator
    of its chunks, to be closed where it is left early. LiteLLM's callbacks get no text, but with
    `turn_off_message_logging=False`: then they do, before it is judged."""
    asked = Asked(guard, request, query_from, Termination(termination))
    response = await judged(asked, litellm.acompletion(**{**UNTOLD, **request}))
    return chunks_of(asked, response) if request.get("stream") else await whole(asked, response)


def completion(
    guard: Guard,
    *,
    query_from: QueryFrom = last_user_turn,
    termination: Termination | str = Termination.REFUSAL,
    **request: Any,
) -> Any:
    """The same of `litellm.completion`, with a plain generator."""
    asked = Asked(guard, request, query_from, Termination(termination))
    response = judged_sync(asked, partial(litellm.completion, **{**UNTOLD, **request}))
    return chunks_of_sync(asked, response) if request.get("stream") else whole_sync(asked, response)
