"""How a chat completion says that the guard ended it."""

from shieldguard import Aborted
from shieldguard_adapters.wire.codec import Termination


def notice(aborted: Aborted, termination: Termination) -> dict[str, str]:
    """What a delta or message holds for it."""
    if termination is Termination.REFUSAL:
        return {"refusal": aborted.notice, "content": aborted.notice}
    return {"content": aborted.notice}


def finish_reason(termination: Termination) -> str:
    return "stop" if termination is Termination.REFUSAL else "content_filter"


def error(aborted: Aborted) -> dict[str, dict[str, str]]:
    """What is sent instead, for a client to raise."""
    return {"error": {"message": aborted.notice, "type": "shieldguard", "code": aborted.cause.value}}
