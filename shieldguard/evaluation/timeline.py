"""What happened in a played stream, in the order of time: for people, and as plain data."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shieldguard.evaluation.virtual import Played
from shieldguard.events import CHANNELS, Aborted, Answer, Reasoning, Redacted, ReleasedEvent, ToolCall
from shieldguard.observers import WindowJudged


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """`at`: seconds from the beginning of the stream. `says`: for people; `plain`: for machines."""

    at: float
    says: str
    plain: dict[str, Any]


def timeline(played: Played) -> list[Moment]:
    """Verdicts, what left, and the end."""
    # A verdict comes before what it lets out; both lists are in order of time.
    moments = sorted([*_verdicts(played), *_left(played)], key=lambda moment: moment.at)
    return [*moments, _end(played)]


def _verdicts(played: Played) -> Iterator[Moment]:
    for judged, window in zip(played.judged, played.report.windows, strict=False):
        plain = {
            "what": "judged",
            "channel": window.channel.value,
            "choice": window.choice,
            "block": window.block,
            "start": window.start,
            "end": window.end,
            "cut_by": window.cut_by.value,
            "joined": window.joined,
            "action": window.action.value,
            "seconds": round(judged.answered - judged.asked, 6),
            "level": None if window.verdict is None else window.verdict.level.value,
            "error": None if window.error is None else str(window.error),
        }
        yield Moment(at=judged.answered, says=_judged(window, judged.answered - judged.asked), plain=plain)


def _judged(window: WindowJudged, seconds: float) -> str:
    where = f"{window.channel.value} {window.start}–{window.end}"
    if window.verdict is None:
        found = f"no verdict: {window.error}"
    else:
        found = f"level {window.verdict.level}"
        if window.verdict.probabilities is not None:
            found += "  " + " ".join(
                f"P({lv})={p:.2f}" for lv, p in sorted(window.verdict.probabilities.items())
            )
    return f"{where:<22} {found}  {window.action.value}, {1000 * seconds:.1f} ms after it was asked"


def _left(played: Played) -> Iterator[Moment]:
    groups: list[tuple[float, list[ReleasedEvent]]] = []
    for at, event in played.taken:
        if not groups or groups[-1][0] != at:
            groups.append((at, []))
        groups[-1][1].append(event)
    for at, events in groups:
        counts = _characters(events)
        redacted = [event.channel.value for event in events if isinstance(event, Redacted)]
        parts = [f"{count} of {channel}" for channel, count in counts.items()]
        parts += [f"a notice in place of {channel}" for channel in redacted]
        if parts:
            plain = {"what": "left", "characters": counts, "redacted": redacted}
            yield Moment(at=at, says=f"left: {', '.join(parts)}", plain=plain)


def _characters(events: Sequence[ReleasedEvent]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for event in events:
        if isinstance(event, Reasoning | Answer | ToolCall) and event.text:
            counts[CHANNELS[type(event)].value] += len(event.text)
    return dict(counts)


def _end(played: Played) -> Moment:
    report = played.report
    times = [at for at, _ in (*played.received, *played.taken)]
    at = max([*times, *(judged.answered for judged in played.judged)], default=0.0)
    seen = sum(tally.seen for tally in (report.reasoning, report.answer, report.tool_call))
    out = sum(tally.released for tally in (report.reasoning, report.answer, report.tool_call))
    unjudged = sum(tally.exposed for tally in (report.reasoning, report.answer, report.tool_call))
    plain: dict[str, Any] = {"what": "end", "seen": seen, "released": out, "exposed": unjudged}
    counted = f"{seen} characters had come, {out} had left, {unjudged} of them unjudged"
    if played.unknown is not None:
        window = played.unknown
        plain |= {"ended": "unknown", "start": window.start, "channel": window.channel.value}
        says = (
            f"the recording ends: no verdict on its {window.channel.value} from {window.start} on; {counted}"
        )
        return Moment(at=at, says=says, plain=plain)
    aborted = report.aborted
    plain["ended"] = report.ended.value
    if aborted is None:
        return Moment(at=at, says=f"{report.ended.value.replace('_', ' ')}: {counted}", plain=plain)
    plain |= {"cause": aborted.cause.value, "channel": aborted.channel, "choice": aborted.choice}
    cause = "its risk" if aborted.verdict is not None else aborted.cause.value.replace("_", " ")
    return Moment(at=played.aborted_at or at, says=f"aborted for {cause}: {counted}", plain=plain)


def output(played: Played) -> str:
    """The text that left, its notices in their places."""
    texts = []
    for event in played.events:
        if isinstance(event, Reasoning | Answer | ToolCall):
            texts.append(event.text)
        elif isinstance(event, Redacted | Aborted):
            texts.append(event.notice)
    return "".join(texts)
