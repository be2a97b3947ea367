"""What is not installed is named, with the extra that brings it."""

import os
import subprocess
import sys
from contextlib import suppress
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
    [
        "anthropic",
        "openai",
        "httpx",
        "httpx2",
        "torch",
        "transformers",
        "typer",
        "starlette",
        "uvicorn",
        "sklearn",
        "pyarrow",
        "trl",
    ],
)
def test_the_engine_and_the_codecs_load_none_of_them(package: str) -> None:
    done = python(
        "import sys, shieldguard.testing\n"
        "import shieldguard_adapters.clients, shieldguard_adapters.traces\n"
        "import shieldguard_adapters.transformers, shieldguard.training.finetune\n"
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


@absent("transformers")
def test_the_guard_of_a_local_model_names_the_extra_it_needs() -> None:
    from shieldguard import Guard, MissingDependency
    from shieldguard.testing import ScriptedJudge
    from shieldguard_adapters.transformers import guard_generate

    with pytest.raises(MissingDependency, match=r"'shieldguard\[local\]'"):
        guard_generate(None, None, None, Guard(judge=ScriptedJudge()))


@absent("trl")
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_training_names_the_extra_it_needs(stage: str) -> None:
    done = python(
        "from pathlib import Path\n"
        f"from shieldguard.training.finetune import {stage}\n"
        f"{stage}('x', [Path('x.csv')], Path('y'))"
    )
    assert done.returncode == 1
    assert "run: pip install 'shieldguard[finetune]'" in done.stderr.splitlines()[-1]


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


@absent("pyarrow")
def test_a_parquet_file_names_the_extra_it_needs() -> None:
    from shieldguard import MissingDependency
    from shieldguard.evaluation.rows import Columns, read

    with pytest.raises(MissingDependency, match=r"'pyarrow' is not installed.*'shieldguard\[eval\]'"):
        read(Path("a.parquet"), Columns(question="q", text="t", label="l"))


@absent("prometheus_client")
def test_the_proxy_names_the_extra_it_needs() -> None:
    done = python("import shieldguard_adapters.proxy")
    assert done.returncode == 1
    assert "run: pip install 'shieldguard[serve]'" in done.stderr.splitlines()[-1]


@absent("openai")
def test_an_object_that_is_no_client_is_refused_without_the_sdk_too() -> None:
    from shieldguard import Guard, UnguardedClient
    from shieldguard.testing import ScriptedJudge
    from shieldguard_adapters.clients import guard_client

    with pytest.raises(UnguardedClient):
        guard_client(object(), Guard(judge=ScriptedJudge()))


FRAMEWORKS = {
    "agent_framework": ("agent_framework", "agent-framework"),
    "google_adk": ("google.adk", "google-adk"),
    "langchain": ("langchain", "langchain"),
    "litellm": ("litellm", "litellm"),
    "llama_index": ("llama_index", "llama-index"),
    "openai_agents": ("agents", "openai-agents"),
    "pydantic_ai": ("pydantic_ai", "pydantic-ai"),
}


@pytest.mark.parametrize("module", FRAMEWORKS)
def test_an_adapter_of_a_framework_names_the_extra_it_needs(module: str) -> None:
    package, extra = FRAMEWORKS[module]
    with suppress(ModuleNotFoundError):
        if find_spec(package) is not None:
            pytest.skip(f"{package} is installed")
    done = python(f"import shieldguard_adapters.{module}")
    assert done.returncode == 1
    assert f"run: pip install 'shieldguard[{extra}]'" in done.stderr


@absent("opentelemetry")
def test_spans_name_the_extra_they_need() -> None:
    done = python("import shieldguard_adapters.otel")
    assert done.returncode == 1
    assert "run: pip install 'shieldguard[otel]'" in done.stderr
