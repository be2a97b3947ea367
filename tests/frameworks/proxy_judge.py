"""The judge and a logger of a LiteLLM proxy in the tests, in a process of its own."""

import os
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

from shieldguard.testing import InstantScriptedJudge
from tests.clients.rig import MARKS


def judge() -> InstantScriptedJudge:
    return InstantScriptedJudge(MARKS)


class Heard(CustomLogger):
    """Writes down all that it is told."""

    def _heard(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._write(f"{kwargs!r} {response_obj!r}\n")

    async def _ended(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._write(f"{kwargs!r} {response_obj!r}\nEND\n")

    def _write(self, line: str) -> None:
        with open(os.environ["HEARD"], "a") as file:
            file.write(line)

    log_post_api_call: Any = _heard
    log_stream_event: Any = _heard
    log_success_event: Any = _heard
    async_log_success_event: Any = _ended
    async_log_failure_event: Any = _ended


heard = Heard()
