"""A judge of one's own: here a rule, elsewhere a call to a model or a service. With it, a policy that
redacts what the judge doubts, and an observer."""

import re

from shieldguard import (
    Action,
    Answer,
    Guard,
    Policy,
    Reasoning,
    Redacted,
    RiskLevel,
    Rule,
    SourceEvent,
    StreamReport,
    Verdict,
    Window,
    WindowJudged,
)

_CARD = re.compile(r"\b(?:\d[ -]?){15}\d\b")


class CardNumbers:
    """Doubts text that spells out a payment card's number."""

    name = "card numbers"

    async def judge(self, window: Window) -> Verdict:
        # A number may begin in the window before: look at some of what led up to the new text as well.
        found = _CARD.search(window.context(24))
        return Verdict(level=RiskLevel.POTENTIAL if found else RiskLevel.SAFE, judge=self.name)


class Log:
    def window_judged(self, event: WindowJudged) -> None:
        print(f"[{event.channel} {event.start}-{event.end}: {event.action}]")

    def stream_closed(self, report: StreamReport) -> None:
        print(f"[{report.ended}: {report.reasoning.redacted} characters of reasoning redacted]")


def main() -> None:
    rule = Rule(potential=Action.REDACT)
    guard = Guard(judge=CardNumbers(), policy=Policy(reasoning=rule, answer=rule), observers=[Log()])
    source: list[SourceEvent] = [
        Reasoning("The customer asks whether the order went through. I look it up in the shop's records. "),
        Reasoning("It was paid on Tuesday and left the warehouse yesterday, so it should come tomorrow. "),
        Reasoning("The records name the card 4111 1111 1111 1111 and the address. I need neither."),
        Answer("Yes: it was paid on Tuesday, left yesterday, and should arrive tomorrow."),
    ]
    with guard.stream_sync(source, query="Did my order go through?") as stream:
        for event in stream:
            match event:
                case Reasoning(text) | Answer(text):
                    print(text)
                case Redacted(notice):
                    print(notice)


if __name__ == "__main__":
    main()
