"""The `shieldguard` command, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def shieldguard(
    *arguments: object, stdin: str = "", folder: Path | None = None, timeout: float = 60, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run it in a folder, with no environment but this, and that by which coverage is measured."""
    measuring = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-m", "shieldguard_adapters.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=timeout,
        env={
            "PYTHONPATH": f"{ROOT}:{ROOT / 'adapters'}",
            "PATH": "",
            "COLUMNS": "200",
            **measuring,
            **environment,
        },
    )
