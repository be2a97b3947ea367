"""Guards whose judges fail, each in its way."""

from typing import Any

import anyio

from shieldguard import Guard, Policy, Verdict, Window


class Raises:
    name = "raises"

    async def judge(self, window: Window) -> Verdict:
        raise RuntimeError("no judge today")


class Hangs:
    name = "hangs"

    async def judge(self, window: Window) -> Verdict:
        await anyio.sleep(60)
        raise AssertionError("nobody waits that long")


class Babbles:
    name = "babbles"

    async def judge(self, window: Window) -> Any:
        return "safe"


FAILING = {
    kind.name: Guard(judge=kind(), policy=Policy(judge_timeout=0.2)) for kind in (Raises, Hangs, Babbles)
}
STOPPED = "[Stopped: the safety check of this response could not be completed.]"
