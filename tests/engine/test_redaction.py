"""What a redaction leaves out, and what it says of it."""

from shieldguard import Action, End, Guard, Policy, Reasoning, Redacted, Rule, SourceEvent
from shieldguard.testing import InstantScriptedJudge


def test_an_empty_text_in_an_earlier_block_is_no_redaction() -> None:
    source: list[SourceEvent] = [Reasoning("Fine."), Reasoning(""), Reasoning("A HARM.", block=1), End()]
    by = Guard(
        judge=InstantScriptedJudge({"HARM": 1.0}), policy=Policy(reasoning=Rule(harmful=Action.REDACT))
    )
    with by.stream_sync([source]) as stream:
        redacted = [event for event in stream if isinstance(event, Redacted)]
    assert [event.block for event in redacted] == [1]
