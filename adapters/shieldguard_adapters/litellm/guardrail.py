"""The guardrail of LiteLLM's proxy."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, ClassVar

import litellm
from fastapi import HTTPException
from litellm.exceptions import GuardrailRaisedException
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.types.guardrails import GuardrailEventHooks

from shieldguard import Guard, QueryFrom, ShieldguardError, last_user_turn
from shieldguard.config import GuardConfig
from shieldguard_adapters.litellm.responses import Asked, chunks_of, forget, raise_judged, whole
from shieldguard_adapters.wire import Termination

_HOOK = "async_post_call_streaming_iterator_hook"


class ShieldguardGuardrail(CustomGuardrail):
    """The guardrail. `settings_file` is a TOML file of `GuardConfig`, whose settings may come from the
    environment, too; a subclass may have a `guard` of its own instead, and another `query_from`.
    `log_unjudged` lets the proxy's loggers have the texts, which they get before they are judged."""

    guard: ClassVar[Guard | None] = None
    query_from: ClassVar[QueryFrom] = staticmethod(last_user_turn)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # LiteLLM calls the hook of a class that has it itself, and no inherited one.
        setattr(cls, _HOOK, getattr(cls, _HOOK))

    def __init__(
        self,
        *,
        settings_file: str | None = None,
        termination: str = Termination.REFUSAL,
        log_unjudged: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(supported_event_hooks=[GuardrailEventHooks.post_call], **options)
        self._guard = type(self).guard or GuardConfig.load(settings_file).build()
        self._termination = Termination(termination)
        self._log_unjudged = log_unjudged
        if not log_unjudged:
            litellm.turn_off_message_logging = True
            litellm.input_callback.insert(0, self)  # before all who would be told

    def log_post_api_call(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        if not self._log_unjudged:
            forget(kwargs)

    async def async_post_call_success_hook(self, data: Any, user_api_key_dict: Any, response: Any) -> Any:
        try:
            return await whole(self._asked(data), response)
        except ShieldguardError as error:
            raise self._refusal(error) from error

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncGenerator[Any]:
        chunks = chunks_of(self._asked(request_data), response)
        try:
            async for chunk in chunks:
                yield chunk
        except ShieldguardError as error:
            raise self._refusal(error) from error
        finally:
            await chunks.aclose()

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> HTTPException | None:
        """The refusal that stands for a model's error, where that quotes harm."""
        runs = self.should_run_guardrail(request_data, GuardrailEventHooks.post_call)
        if not (runs and hasattr(original_exception, "llm_provider")):
            return None
        try:
            await raise_judged(self._asked(request_data), original_exception)
        except Exception as error:
            if error is not original_exception:
                return HTTPException(400, str(error))
        return None

    def _asked(self, data: Mapping[str, Any]) -> Asked:
        return Asked(self._guard, data, type(self).query_from, self._termination)

    def _refusal(self, error: Exception) -> Exception:
        """With a status for which no client asks again."""
        return GuardrailRaisedException(self.guardrail_name, str(error), False, status_code=400)
