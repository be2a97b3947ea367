from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from shieldguard.judges.local import LocalJudge
from tests.generate.tiny import Local, make_local
from tests.judges.local.reference import Reference


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny matrices do not get faster by more


@pytest.fixture(scope="session")
def reference(checkpoint: Path) -> Reference:
    return Reference(checkpoint)


@pytest.fixture(scope="session")
def fast(checkpoint: Path) -> Iterator[LocalJudge]:
    judge = LocalJudge(checkpoint, dtype="float32", device="cpu")
    yield judge
    judge.close()


@pytest.fixture(scope="session")
def local() -> Local:
    """A model to be judged."""
    return make_local()
