"""The tests in the environments that a developer's own cannot stand for.

Each has a virtual environment in `.venvs`, kept while pyproject.toml is the same. Prints a line for each
environment; exits with 1 if any of them failed. Names on the command line choose among them.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / ".venvs"
TOOLS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.100", "trio>=0.27", "blockbuster>=1.5")
TORCH = "torch==2.13.0"
LITELLM = "litellm[proxy]==1.106.2"  # later ones need certificates of 2026-10
OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
LLAMA_INDEX = "llama-index-llms-openai"
LLAMA_CPP = "llama-cpp-python==0.3.36"
VLLM = "vllm==0.33.0"
# Of what it needs, what the classes of its requests import.
VLLM_NEEDS = (
    *("aiohttp", "cachetools", "cbor2", "cloudpickle", "fastapi", "msgspec", "openai-harmony", "pillow"),
    *(
        "prometheus_client",
        "psutil",
        "py-cpuinfo",
        "pybase64",
        "pyzmq",
        "regex",
        "requests",
        "urllib3",
        "uvloop",
    ),
)
# Clients on httpx: the last versions of those that moved to httpx2, and those that have not moved.
ON_HTTPX = (
    *("openai<3", "anthropic<1", "google-genai<3", "huggingface_hub<2"),
    *("mistralai", "ollama", "cohere", "groq", "boto3"),
)
IN_THE_WHEEL = (
    "shieldguard/evaluation/moderation/report.css",
    "shieldguard/evaluation/moderation/sample_qt.csv",
    "shieldguard/judges/embedded/weights.npz",
    "shieldguard/py.typed",
    "shieldguard_adapters/py.typed",
    "shieldguard_adapters/wire/openai_chat/stream.py",
)


class Failed(Exception):
    """What a step said, where it failed."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What is installed, and what is run there: a line on how it went, or `Failed`."""

    name: str
    install: tuple[str, ...]
    run: Callable[[Path], str]


def run(
    *command: object,
    code: int = 0,
    stdin: str = "",
    timeout: float = 900,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The output of a command that ends with this exit code."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
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


def pytest(*arguments: str, environment: Mapping[str, str] | None = None) -> Callable[[Path], str]:
    """Runs the tests, the slow ones too, of which it says the closing line."""

    def tests(python: Path) -> str:
        command = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", *arguments)
        output = run(*command, environment=environment)
        return output.strip().splitlines()[-1]

    return tests


def typed(*names: str, tests: Callable[[Path], str]) -> Callable[[Path], str]:
    """Before the tests, checks the types of what is about these agent frameworks, which a developer's
    environment has not."""
    places = (
        *("adapters/shieldguard_adapters/{}.py", "adapters/shieldguard_adapters/{}/*.py"),
        *("tests/frameworks/test_{}*.py", "examples/*{}*.py"),
    )
    files = sorted(file for name in names for place in places for file in ROOT.glob(place.format(name)))

    def checked(python: Path) -> str:
        run(python, "-m", "mypy", *files)
        return tests(python)

    return checked


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


def sources(python: Path, kind: str, requirement: str, only: str) -> Path:
    """The folder in what a distribution holds, downloaded and unpacked."""
    folder = python.parents[1] / "sources"
    if not (folder / "unpacked").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        pip = (python, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps")
        run(*pip, kind, ":all:", "--dest", folder, requirement)
        [archive] = folder.iterdir()
        run(python, "-m", "zipfile" if archive.suffix == ".whl" else "tarfile", "-e", archive, folder)
        archive.unlink()
        (folder / "unpacked").touch()
    [found] = folder.glob(only)
    return found


def llama_cpp(python: Path) -> str:
    """Builds llama.cpp's server from the sources that llama-cpp-python brings, and puts that on top."""
    llama = sources(python, "--no-binary", LLAMA_CPP, "*/vendor/llama.cpp")
    built, programs = python.parents[1] / "built", python.parent
    run(
        *(programs / "cmake", "-G", "Ninja", "-S", llama, "-B", built),
        *(f"-DCMAKE_MAKE_PROGRAM={programs / 'ninja'}", "-DCMAKE_BUILD_TYPE=Release"),
        *("-DBUILD_SHARED_LIBS=ON", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"),
        *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "APP", "UI")),
    )
    build = ("nice", programs / "cmake", "--build", built, "--target", "llama-server", "--parallel", "2")
    run(*build, timeout=2400)
    without_libraries = {"CMAKE_ARGS": "-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF"}
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, LLAMA_CPP.replace("==", "[server]=="), environment=without_libraries)
    program = {"SHIELDGUARD_LLAMA_SERVER": str(built / "bin" / "llama-server")}
    tests = ("tests/judges/remote/test_llama_cpp.py", "tests/judges/remote/test_proxied.py")
    return pytest(*tests, environment=program)(python)


def vllm(python: Path) -> str:
    """Looks at the classes of vLLM's requests; the rest of it needs a GPU."""
    package = sources(python, "--only-binary", VLLM, "vllm")
    path = {"PYTHONPATH": str(package.parent), "CUDA_VISIBLE_DEVICES": ""}
    return pytest("tests/judges/remote/test_vllm_schema.py", "-W", "ignore", environment=path)(python)


ENVIRONMENTS = (
    Environment(
        "httpx",
        ("--editable", ".[demo]", *ON_HTTPX, *TOOLS),
        pytest("tests/clients", "tests/wire"),
    ),
    Environment(
        "agents",
        (
            "--editable",
            ".[demo,langchain,openai-agents,pydantic-ai]",
            "langchain-openai",
            "langchain-tests",
            "opentelemetry-sdk",
            *TOOLS,
            "mypy",
        ),
        typed(
            *("langchain", "openai_agents", "pydantic_ai"),
            # Those of LangChain's own standard tests that are async want its plugin.
            tests=pytest(
                *("tests/frameworks", "tests/test_examples.py"),
                *("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"),
            ),
        ),
    ),
    Environment(
        "minimal",
        ("--editable", ".", *TOOLS),
        pytest("tests/engine", "tests/promises", "tests/extras", "-k", "not mutants"),
    ),
    Environment(
        "litellm",
        ("--editable", ".[demo]", "anthropic", LITELLM, *TOOLS, "mypy"),
        typed(
            "litellm",
            tests=pytest(
                *("tests/frameworks", "tests/test_examples.py", "-k", "litellm"), environment=OFFLINE
            ),
        ),
    ),
    Environment(
        "agents_on_httpx",
        (
            *("--editable", ".[demo]", "openai<3", "llama-index-core", LLAMA_INDEX, "smolagents[openai]"),
            *(*TOOLS, "mypy"),
        ),
        typed(
            *("llama_index", "smolagents"),
            tests=pytest(
                *("tests/frameworks", "tests/test_examples.py", "-k", "llama_index or smolagents"),
            ),
        ),
    ),
    Environment("build", ("build",), wheel),
    Environment("finetune", ("--editable", ".[finetune]", TORCH, *TOOLS), pytest("tests/finetune")),
    Environment(
        "slow",
        ("--editable", ".[demo,anthropic,local,serve]", TORCH, "gguf>=0.17", "trustme", *TOOLS),
        pytest(
            *("tests/clients/test_breaking.py", "tests/judges/local/test_measuring.py"),
            *("tests/proxy/test_many.py", "tests/test_examples.py", "tests/fuzz/test_targets.py"),
            *("-m", "slow"),
        ),
    ),
    Environment(
        "google_adk",
        ("--editable", ".[demo,google-adk]", "google-genai<3", *TOOLS, "mypy"),
        typed("google_adk", tests=pytest("tests/frameworks/test_google_adk.py", "tests/test_examples.py")),
    ),
    Environment(
        "agent_framework",
        (
            "--editable",
            ".[demo,agent-framework]",
            "agent-framework-openai>=1.17",
            "opentelemetry-sdk",
            *TOOLS,
            "mypy",
        ),
        typed(
            "agent_framework",
            tests=pytest("tests/frameworks/test_agent_framework.py", "tests/test_examples.py"),
        ),
    ),
    Environment(
        "autogen",
        (
            *("--editable", ".[demo]", "autogen-agentchat==0.7.5", "autogen-ext[openai]==0.7.5"),
            *(*TOOLS, "mypy"),
        ),
        typed("autogen", tests=pytest("tests/frameworks/test_autogen.py", "tests/test_examples.py")),
    ),
    Environment(
        "llama_cpp",
        (
            "--editable",
            ".[anthropic,local,remote,demo,serve]",
            TORCH,
            "cmake",
            "gguf>=0.17",
            "ninja",
            "trustme",
            *TOOLS,
        ),
        llama_cpp,
    ),
    Environment(
        "vllm",
        ("--editable", ".[remote,demo]", TORCH, "transformers<5.21", *VLLM_NEEDS, *TOOLS),
        vllm,
    ),
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
        print(f"{environment.name:15} {time.monotonic() - began:5.0f} s  {line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
