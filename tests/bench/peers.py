"""Run the peer benchmarks, each in its own virtual environment, and print one table.

    python tests/bench/peers.py [--venvs DIR] [--tokens N] [--repeat N] [--json]

An environment that is absent or differs from its pins is installed with pip. One that can't be made is
reported and skipped. The exit status is 1 if nothing at all was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIZES = (1, 8, 64)
COLUMNS = (
    ("name", "guard"),
    ("version", "version"),
    ("chars_per_chunk", "chars a chunk"),
    ("chunks", "chunks"),
    ("seconds_bare", "bare, s"),
    ("seconds_guarded", "guarded, s"),
    ("us_per_chunk_added", "added, µs a chunk"),
    ("ratio_to_bare", "ratio"),
    ("checks", "checks"),
    ("judged_chars", "characters judged"),
    ("chunks_out_before_first_check", "chunks out before the first check"),
)
PROBE = (
    "import sys; from importlib.metadata import version as v; print(*(f'{n}=={v(n)}' for n in sys.argv[1:]))"
)


@dataclass(frozen=True, slots=True)
class Peer:
    """One environment, the program to run in it, and the ways to run it."""

    name: str
    program: str
    variants: tuple[tuple[str, ...], ...] = ((),)

    @property
    def requirements(self) -> Path:
        return HERE / f"requirements-{self.name}.txt"


PEERS = (
    Peer("nemo", "peer_nemo.py", ((), ("--stream-first",))),
    Peer("openai-guardrails", "peer_openai_guardrails.py"),
)


class UnavailableError(Exception):
    """An environment could not be made, or a program did not finish in it."""


def run(command: Sequence[str]) -> str:
    """Return the command's standard output; raise `UnavailableError` with the end of its errors."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise UnavailableError(f"{Path(command[0]).name} exited with {done.returncode}: {last}")
    return done.stdout


def environment(peer: Peer, venvs: Path) -> str:
    """Return the Python of the peer's environment, made or brought to its pins if needed."""
    folder = venvs / peer.name
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    pins = peer.requirements.read_text(encoding="utf-8").split()
    versions = [re.sub(r"\[.*\]", "", pin) for pin in pins]  # less the extras
    try:
        if run([python, "-c", PROBE, *(pin.partition("==")[0] for pin in versions)]).split() == versions:
            return python
    except (OSError, UnavailableError):
        pass
    print(f"installing {', '.join(pins)}", file=sys.stderr)
    try:
        venv.create(folder, with_pip=True)
        run([python, "-m", "pip", "install", "--quiet", "-r", str(peer.requirements)])
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(str(error)) from error
    return python


def measure(peer: Peer, venvs: Path, options: Sequence[str], results: list[dict[str, object]]) -> None:
    """Append one result per variant and chunk size."""
    python = environment(peer, venvs)
    for variant in peer.variants:
        for size in SIZES:
            arguments = ["--chars-per-chunk", str(size), *variant, *options]
            print(peer.program, *arguments, file=sys.stderr)
            results.append(json.loads(run([python, str(HERE / peer.program), *arguments])))


def table(results: Sequence[dict[str, object]]) -> str:
    lines = ["| " + " | ".join(title for _, title in COLUMNS) + " |"]
    lines.append("|---|---" + "|--:" * (len(COLUMNS) - 2) + "|")
    lines += ["| " + " | ".join(str(result[key]) for key, _ in COLUMNS) + " |" for result in results]
    notes = dict.fromkeys(f"{str(result['name']).partition(',')[0]}: {result['note']}." for result in results)
    return "\n".join([*lines, "", *notes])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venvs", type=Path, default=HERE.parents[1] / ".venvs", help="default: .venvs/")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args(argv)
    options = ["--tokens", str(args.tokens), "--repeat", str(args.repeat)]
    results: list[dict[str, object]] = []
    missing: dict[str, str] = {}
    for peer in PEERS:
        try:
            measure(peer, args.venvs, options, results)
        except UnavailableError as error:
            missing[peer.name] = str(error)
            print(f"{peer.name}: not measured in full: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps({"results": results, "missing": missing}, indent=2))
    else:
        print(table(results))
        for name, reason in missing.items():
            print(f"\n{name}: not measured in full: {reason}")
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
