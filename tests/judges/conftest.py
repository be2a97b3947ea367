from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ReasoningShield, made once for all tests of judges."""
    import torch

    from tests.judges.local.tiny import make_checkpoint

    torch.set_num_threads(1)  # tiny matrices do not get faster by more
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "Tiny-Shield")
