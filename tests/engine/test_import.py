"""What `import shieldguard` costs, and what it gives."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import shieldguard

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name in shieldguard.__all__ if name != "__version__"]
DEFINED = [
    name for name in NAMES if inspect.isroutine(kind := getattr(shieldguard, name)) or inspect.isclass(kind)
]

IMPORT = """
import sys, time, json
begun = time.process_time()  # as other programs run on this machine too
import shieldguard
took = time.process_time() - begun
print(json.dumps({"took": took, "modules": sorted(sys.modules)}))
"""


def imported() -> dict[str, Any]:
    """The seconds that the import took in a new interpreter, and the modules that it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_import_loads_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "httpx", "httpx2", "numpy", "openai", "pydantic", "pydantic_settings"}
    assert heavy.isdisjoint(imported()["modules"])


def test_the_import_takes_less_than_a_fifth_of_a_second() -> None:
    assert any(imported()["took"] < 0.2 for _ in range(5))


def test_the_public_names_are_sorted_and_each_is_there_once() -> None:
    assert shieldguard.__all__ == sorted(set(shieldguard.__all__))


def test_the_public_names_are_all_that_the_package_shows() -> None:
    shown = {name for name, value in vars(shieldguard).items() if not isinstance(value, ModuleType)}
    assert {name for name in shown if not name.startswith("_")} == set(NAMES)


def test_a_star_import_gives_them() -> None:
    given: dict[str, Any] = {}
    exec("from shieldguard import *", given)
    assert set(shieldguard.__all__) <= given.keys()


@pytest.mark.parametrize("name", DEFINED)
def test_each_class_and_function_says_what_it_is(name: str) -> None:
    says = getattr(shieldguard, name).__doc__
    assert says, "no docstring"
    assert not says.startswith(f"{name}("), "nothing but the signature that dataclasses put there"


@pytest.mark.parametrize("name", DEFINED)
def test_each_class_and_function_is_the_engines_own(name: str) -> None:
    assert getattr(shieldguard, name).__module__.partition(".")[0] == "shieldguard"


def test_the_version_is_that_of_the_distribution() -> None:
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{shieldguard.__version__}"\n' in declared
