"""Reports for machines."""

from typing import Any

from shieldguard import StreamReport


def summary(report: StreamReport) -> dict[str, Any]:
    """A report as JSON takes it."""
    return {
        "stream": report.stream,
        "ended": report.ended.value,
        "cause": report.aborted.cause.value if report.aborted else None,
        "level": report.level.value if report.level is not None else None,
        "windows": [
            {
                "channel": window.channel.value,
                "start": window.start,
                "end": window.end,
                "action": window.action.value,
                "level": window.verdict.level.value if window.verdict else None,
                "probabilities": {
                    str(level): round(p, 4) for level, p in window.verdict.probabilities.items()
                }
                if window.verdict and window.verdict.probabilities
                else None,
                "error": str(window.error) if window.error else None,
                "latency_ms": round(window.latency * 1000, 3),
            }
            for window in report.windows
        ],
        **{
            name: {
                key: getattr(tally, key)
                for key in ("seen", "judged", "released", "redacted", "withheld", "exposed")
            }
            for name, tally in (("reasoning", report.reasoning), ("answer", report.answer))
        },
        "unobservable": sorted(kind.value for kind in report.unobservable),
        "closed_after_ms": None if report.closed_after is None else round(report.closed_after * 1000, 3),
    }
