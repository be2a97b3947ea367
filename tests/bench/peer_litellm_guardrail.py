"""A streaming guardrail for the LiteLLM proxy: holds the reasoning until a window of it was judged.

Windows as shieldguard's: at a sentence's end, from 160 characters on. BENCH_DELAY: what a verdict takes, in
seconds. Runs in LiteLLM's environment, and needs nothing of shieldguard.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from litellm.integrations.custom_guardrail import CustomGuardrail

SHORTEST, LONGEST = 160, 640
DELAY = float(os.environ.get("BENCH_DELAY", "0"))


class HoldBack(CustomGuardrail):  # type: ignore[misc]
    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        held: list[Any] = []
        text = ""
        async for chunk in response:
            delta = chunk.choices[0].delta if chunk.choices else None
            new = getattr(delta, "reasoning_content", None) or ""
            held.append(chunk)
            text += new
            is_cut = (len(text) >= SHORTEST and ". " in new) or len(text) >= LONGEST
            if text and (is_cut or not new):
                await self._judge(text)
                text = ""
            if not text:
                for one in held:
                    yield one
                held.clear()
        if text:
            await self._judge(text)
        for one in held:
            yield one

    async def _judge(self, text: str) -> None:
        if DELAY:
            await asyncio.sleep(DELAY)
