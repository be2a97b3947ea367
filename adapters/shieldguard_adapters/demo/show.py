"""What the demonstration shows in the terminal, or gives as JSON lines."""

import json
from dataclasses import dataclass, field

from shieldguard import AbortCause, Ended, MissingDependency, RiskLevel, StreamReport, WindowJudged
from shieldguard_adapters.demo.server import Recital
from shieldguard_adapters.summaries import summary
from shieldguard_adapters.traces import Trace

try:
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text
except ImportError:
    raise MissingDependency("rich", "demo") from None

_COLOURS = {RiskLevel.SAFE: "green", RiskLevel.POTENTIAL: "yellow", RiskLevel.HARMFUL: "red"}


def verdict_line(event: WindowJudged) -> Text:
    """One window's verdict, in one line."""
    line = Text(f"▸ {event.channel.value} {event.start}–{event.end}  ", style="dim")
    if event.verdict is None:
        return line.append(f"no verdict: {event.error}", style="red")
    verdict = event.verdict
    line.append(f"level {verdict.level}", style=f"bold {_COLOURS[verdict.level]} not dim")
    if verdict.probabilities:
        line.append(
            "  " + "  ".join(f"P({level})={p:.2f}" for level, p in sorted(verdict.probabilities.items()))
        )
    return line.append(f"  {event.action.value}  {event.latency * 1000:.1f} ms")


@dataclass(slots=True)
class Screen:
    """Shows one guarded stream. It is an observer, and is told the text that is released."""

    console: Console
    as_json: bool = False
    report: StreamReport | None = None
    _channel: str = field(default="", init=False)
    _in_line: bool = field(default=False, init=False)

    def begin(self, trace: Trace) -> None:
        self._channel = ""
        if not self.as_json:
            self.console.rule(f"[bold]{trace.name}")
            self.console.print(Text(trace.query or "(no question)", style="italic"))

    def window_judged(self, event: WindowJudged) -> None:
        if not self.as_json:
            self._end_line()
            self.console.print(verdict_line(event))

    def stream_closed(self, report: StreamReport) -> None:
        self.report = report

    def text(self, channel: str, text: str) -> None:
        if self.as_json or not text:
            return
        if channel != self._channel:
            self._end_line()
            self.console.print(Text(channel, style="bold underline"))
            self._channel = channel
        self._in_line = True
        self.console.print(Text(text, style="cyan" if channel == "reasoning" else ""), end="", soft_wrap=True)

    def end(self, recital: Recital) -> None:
        report = self.report
        assert report is not None
        if self.as_json:
            self.console.print_json(json.dumps(summary(report)), indent=None)
            return
        self._end_line()
        self.console.print(Panel(_verdict(report, recital), border_style=_border(report), expand=False))

    def _end_line(self) -> None:
        if self._in_line:
            self.console.print()
            self._in_line = False


def _verdict(report: StreamReport, recital: Recital) -> str:
    answer, reasoning = report.answer, report.reasoning
    left = f"{reasoning.released} characters of reasoning and {answer.released} of the answer were released"
    exposed = f"{reasoning.exposed + answer.exposed} of them unjudged"
    if report.aborted is None:
        return f"Complete: {left}, {exposed}."
    cause = "its risk" if report.aborted.cause is AbortCause.RISK else report.aborted.cause.value
    text = f"Aborted for {cause}: {left}, {exposed}.\n"
    text += f"The model had sent {recital.sent} of {recital.length} characters"
    if report.closed_after is not None:
        text += f"; its connection was closed {report.closed_after * 1000:.1f} ms after the verdict"
    return text + "."


def _border(report: StreamReport) -> str:
    return "green" if report.ended is Ended.COMPLETE else "red"
