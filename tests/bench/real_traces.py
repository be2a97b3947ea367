"""The labelled traces through the demonstration's path: a server that recites them, the OpenAI client, the
guard. Prints what was aborted and flagged, by set and label, and what got out unjudged.

The labels of the reasoning traces were given by a language model, not by people. The traces hold harmful
text and lie beside the repository, or in $SHIELDGUARD_DATA; none of it is printed.
"""

import argparse
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from shieldguard import Ended, Guard, RiskLevel, StreamReport
from shieldguard.config import load_judge
from shieldguard_adapters.demo.play import play
from shieldguard_adapters.demo.show import Screen
from shieldguard_adapters.traces import Trace

_ANSWER = "This stands for the answer, which most of these traces do not have."


@dataclass(slots=True)
class Counts:
    traces: int = 0
    aborted: int = 0
    flagged: int = 0
    exposed: int = 0
    answers: int = 0  # aborted, and some of the answer had left
    failures: int = 0

    def add(self, report: StreamReport) -> None:
        self.traces += 1
        self.aborted += report.ended is Ended.ABORTED
        self.flagged += report.level is not None and report.level >= RiskLevel.POTENTIAL
        self.exposed += report.reasoning.exposed + report.answer.exposed
        self.answers += report.ended is Ended.ABORTED and report.answer.released > 0
        self.failures += report.failures


def rows(data: Path) -> Iterator[tuple[str, Trace]]:
    """Each trace with the name of its group."""
    for name in ("reasoning/test", "benign/ordinary", "benign/sensitive"):
        with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                group = f"level {row['level']:g}" if "level" in row else f"{row['split']} split"
                yield f"{name}, {group}", Trace(row["query"], row["thought"], _ANSWER, row["id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SHIELDGUARD_DATA", beside)))
    parser.add_argument("--judge", default="embedded")
    parser.add_argument("--every", type=int, default=1, help="take each N-th trace")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.exit(2, f"no data at {str(arguments.data)!r}: give --data or SHIELDGUARD_DATA\n")
    guard = Guard(judge=load_judge(arguments.judge))
    counts: dict[str, Counts] = defaultdict(Counts)
    chosen = list(rows(arguments.data))[:: arguments.every]
    screen = Screen(Console(quiet=True))
    reports = play([trace for _, trace in chosen], guard, screen, pace=0)
    for (group, _), report in zip(chosen, reports, strict=True):
        counts[group].add(report)
    print("| traces | number | aborted | aborted or flagged | no verdict | characters out unjudged |")
    print("|---|--:|--:|--:|--:|--:|")
    for group, count in sorted(counts.items()):
        cells = (group, count.traces, count.aborted, count.flagged, count.failures, count.exposed)
        print(f"| {' | '.join(map(str, cells))} |")
    late = sum(count.answers for count in counts.values())
    print(f"\nAborted after some of the answer had left: {late}.")


if __name__ == "__main__":
    main()
