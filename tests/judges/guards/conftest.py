from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from shieldguard.config import load_judge
from tests.judges.guards import tiny
from tests.judges.guards.reference import Reference


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny matrices do not get faster by more


@dataclass(frozen=True)
class Guard:
    """A guard model of the tests: its judge's name in a configuration, what makes it, and its prompt."""

    judge: str
    make: Callable[[Path], Path]
    prompt: str | None = None
    parts: bool = False


GUARDS = {
    "LlamaGuard-3": Guard("llama_guard", tiny.llama_guard),
    "LlamaGuard-4": Guard("llama_guard", tiny.llama_guard_4, parts=True),
    "Aegis": Guard("aegis", tiny.aegis, tiny.MD_JUDGE),
    "MD-Judge": Guard("md_judge", tiny.mistral, tiny.MD_JUDGE),
    "WildGuard": Guard("wildguard", tiny.mistral, tiny.WILDGUARD),
    "Qwen3Guard": Guard("qwen3guard", tiny.qwen3guard),
    "Beaver-Dam": Guard("beaver_dam", tiny.beaver_dam, tiny.BEAVER_DAM),
}

# What a guard says of thoughts at the three levels of ReasoningShield: most of them tell two.
TOLD = dict.fromkeys(GUARDS, ("0", "0", "1")) | {
    "Aegis": ("0", "1", "1"),  # this one is "defensive"
    "Qwen3Guard": ("0", "0.5", "1"),
}


class Models:
    """The checkpoints, each taught when it is first asked for, and the judges on them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._judges: dict[str, Any] = {}

    def checkpoint(self, name: str) -> Path:
        make = GUARDS[name].make
        folder = self._folder / make.__name__ / f"Tiny-{make.__name__}"
        if not folder.exists():
            if make is tiny.aegis:
                pytest.importorskip("peft")
            folder.parent.mkdir()
            make(folder)
        return folder

    def options(self, name: str) -> dict[str, Any]:
        """What a configuration says of it."""
        options: dict[str, Any] = {
            "checkpoint": str(self.checkpoint(name)),
            "dtype": "float32",
            "device": "cpu",
        }
        prompt = GUARDS[name].prompt
        if prompt is not None:
            options["prompt_file"] = str(self.prompt_file(prompt))
        return options

    def prompt_file(self, prompt: str) -> Path:
        file = self._folder / f"{abs(hash(prompt))}.txt"
        file.write_text(prompt, encoding="utf-8")
        return file

    def judge(self, name: str) -> Any:
        if name not in self._judges:
            self._judges[name] = load_judge(GUARDS[name].judge, **self.options(name))
        return self._judges[name]

    def close(self) -> None:
        for judge in self._judges.values():
            judge.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    made = Models(tmp_path_factory.mktemp("guards"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def references(models: Models) -> Callable[[str], Reference]:
    known: dict[str, Reference] = {}

    def reference(name: str) -> Reference:
        if name not in known:
            guard = GUARDS[name]
            known[name] = Reference(models.checkpoint(name), guard.prompt, parts=guard.parts)
        return known[name]

    return reference
