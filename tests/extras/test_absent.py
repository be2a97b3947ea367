"""What is not installed is named, with the extra that brings it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python(code: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "adapters"))
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )


def absent(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(package) is not None, reason=f"{package} is installed")


@absent("typer")
def test_the_command_names_the_extra_it_needs() -> None:
    done = python("from shieldguard_adapters.cli import main; main()")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "'typer' is not installed; run: pip install 'shieldguard[cli]'\n"


@absent("openai")
@absent("starlette")
@absent("rich")
@pytest.mark.parametrize("module", ["server", "play", "show"])
def test_the_demonstration_names_the_extra_it_needs(module: str) -> None:
    done = python(f"import shieldguard_adapters.demo.{module}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("shieldguard.errors.MissingDependency: ")
    assert "run: pip install 'shieldguard[demo]'" in done.stderr


@pytest.mark.parametrize(
    "package",
    ["anthropic", "openai", "httpx", "httpx2", "torch", "transformers", "typer", "starlette", "sklearn"],
)
def test_the_engine_and_the_codecs_load_none_of_them(package: str) -> None:
    done = python(
        "import sys, shieldguard.testing\n"
        "import shieldguard_adapters.clients, shieldguard_adapters.traces\n"
        f"sys.exit({package!r} in sys.modules)"
    )
    assert done.returncode == 0, done.stderr


@absent("torch")
@pytest.mark.parametrize("code", ["import shieldguard.judges.local", "load_judge('local', checkpoint='x')"])
def test_the_local_judge_names_the_extra_it_needs(code: str) -> None:
    done = python(f"from shieldguard.config import load_judge\n{code}")
    assert done.returncode == 1
    error = "shieldguard.errors.MissingDependency"
    assert done.stderr.splitlines()[-1] == (
        f"{error}: 'torch' is not installed; run: pip install 'shieldguard[local]'"
    )


@absent("httpx2")
@pytest.mark.parametrize(
    "code", ["import shieldguard.judges.remote", "load_judge('remote', urls='http://x', model='x')"]
)
def test_the_remote_judge_names_the_extra_it_needs(code: str) -> None:
    done = python(f"from shieldguard.config import load_judge\n{code}")
    assert done.returncode == 1
    error = "shieldguard.errors.MissingDependency"
    assert done.stderr.splitlines()[-1] == (
        f"{error}: 'httpx2' is not installed; run: pip install 'shieldguard[remote]'"
    )


@absent("openai")
def test_an_object_that_is_no_client_is_refused_without_the_sdk_too() -> None:
    from shieldguard import Guard, UnguardedClient
    from shieldguard.testing import ScriptedJudge
    from shieldguard_adapters.clients import guard_client

    with pytest.raises(UnguardedClient):
        guard_client(object(), Guard(judge=ScriptedJudge()))
