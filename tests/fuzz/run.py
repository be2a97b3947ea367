"""Fuzz the framer and the codecs, each for a while. Run: python tests/fuzz/run.py [--seconds 60] [NAME…]"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "adapters")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # in this process
    parser.add_argument("names", nargs="*", help="targets (default: all)")
    options = parser.parse_args()
    if options.one:
        fuzz(options.names[0], options.seconds)
    from tests.fuzz.targets import TARGETS

    broken = []
    for name in options.names or ["framing", *(target.name for target in TARGETS)]:
        print(f"== {name}", flush=True)
        # libFuzzer ends the process that it ran in.
        command = [sys.executable, __file__, "--one", "--seconds", str(options.seconds), name]
        if subprocess.run(command, check=False).returncode:
            broken.append(name)
    print(f"broken: {', '.join(broken)}" if broken else "all held")
    return 1 if broken else 0


def fuzz(name: str, seconds: int) -> None:
    atheris: Any = import_module("atheris")
    with atheris.instrument_imports(include=["shieldguard_adapters"]):
        checks, targets = import_module("tests.fuzz.checks"), import_module("tests.fuzz.targets")
    found = {target.name: target for target in targets.TARGETS}
    if name == "framing":
        run: Callable[[bytes], None] = checks.check_framing
        seeds = [seed for target in targets.TARGETS for seed in targets.seeds_of(target)]
    else:
        target = found[name]
        seeds = targets.seeds_of(target)

        def run(data: bytes) -> None:
            checks.check(target, data)

    corpus = Path(tempfile.mkdtemp(prefix="shieldguard-fuzz-"))
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    # What broke it is left beside the corpus, and printed in base64.
    flags = [
        f"-max_total_time={seconds}",
        "-max_len=8192",
        "-timeout=20",
        f"-artifact_prefix={corpus}/broke-",
    ]
    atheris.Setup([sys.argv[0], *flags, "-verbosity=0", "-print_final_stats=1", str(corpus)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
