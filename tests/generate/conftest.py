import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from tests.generate.tiny import Local, make_local


@pytest.fixture(scope="session")
def local() -> Local:
    torch.set_num_threads(1)  # tiny matrices do not get faster by more
    return make_local()
