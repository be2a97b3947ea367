"""The tests in the environments that a developer's own cannot stand for.

Each has a virtual environment in `.venvs`, kept while pyproject.toml is the same. Prints a line for each
environment; exits with 1 if any of them failed. Names on the command line choose among them.
"""

import hashlib
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / ".venvs"
TOOLS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.100", "trio>=0.27", "blockbuster>=1.5")
IN_THE_WHEEL = (
    "shieldguard/judges/embedded/weights.npz",
    "shieldguard/py.typed",
    "shieldguard_adapters/py.typed",
    "shieldguard_adapters/wire/openai_chat.py",
)


class Failed(Exception):
    """What a step said, where it failed."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed, and what is run there: a line on how it went, or `Failed`."""

    name: str
    install: tuple[str, ...]
    run: Callable[[Path], str]


def run(*command: object, code: int = 0, stdin: str = "") -> str:
    """The output of a command that ends with this exit code."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    if done.returncode != code:
        shown = " ".join(str(part) for part in command)
        raise Failed(f"{shown}\nexited with {done.returncode}, not {code}:\n{done.stdout[-6000:]}")
    return done.stdout


def ready(environment: Environment) -> Path:
    """The environment's Python."""
    folder = VENVS / environment.name
    python, stamp = folder / "bin" / "python", folder / "installed"
    key = hashlib.sha256(
        (ROOT / "pyproject.toml").read_bytes() + repr(environment.install).encode()
    ).hexdigest()
    if not (stamp.exists() and stamp.read_text() == key):
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *environment.install)
        stamp.write_text(key)
    return python


def pytest(*arguments: str) -> Callable[[Path], str]:
    """Runs the tests, of which it says the closing line."""

    def tests(python: Path) -> str:
        output = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
        return output.strip().splitlines()[-1]

    return tests


def wheel(builder: Path) -> str:
    """Builds the sdist and of it the wheel, and tries that in an environment without the sources."""
    dist = VENVS / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run(builder, "-m", "build", "--outdir", dist)
    [built] = dist.glob("*.whl")
    names = set(zipfile.ZipFile(built).namelist())
    if missing := [name for name in IN_THE_WHEEL if name not in names]:
        raise Failed(f"{built.name} lacks {missing!r}")
    folders = {name.partition("/")[0] for name in names}
    ours = {"shieldguard", "shieldguard_adapters"}
    if strangers := {folder for folder in folders - ours if not folder.endswith(".dist-info")}:
        raise Failed(f"{built.name} holds {sorted(strangers)!r}, too")
    python = ready(Environment("wheel", (f"{built}[demo]",), wheel))
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", built)
    command = python.parent / "shieldguard"
    run(command, "--help")
    run(
        command, "check", stdin="<think>The chain is worn.</think>Change the chain and the cassette together."
    )
    run(command, "check", "nowhere.txt", code=2)
    return f"{built.name}: {len(names)} files; its command runs"


ENVIRONMENTS = (
    Environment(
        "openai2",
        ("--editable", ".[demo]", "openai<3", *TOOLS),
        pytest("tests/clients", "tests/wire"),
    ),
    Environment(
        "minimal",
        ("--editable", ".", *TOOLS),
        pytest("tests/engine", "tests/promises", "tests/extras", "-k", "not mutants"),
    ),
    Environment("build", ("build",), wheel),
)


def main(names: Sequence[str]) -> int:
    failed = 0
    for environment in ENVIRONMENTS:
        if names and environment.name not in names:
            continue
        began = time.monotonic()
        try:
            line = environment.run(ready(environment))
        except Failed as error:
            failed += 1
            line = f"FAILED\n{error}"
        print(f"{environment.name:8} {time.monotonic() - began:5.0f} s  {line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
