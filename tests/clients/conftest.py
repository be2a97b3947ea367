from collections.abc import Iterator

import pytest

pytest.importorskip("openai")
pytest.importorskip("starlette")

from tests.clients.sdks import SDKS, Sdk
from tests.upstream import Upstream, serve


@pytest.fixture(scope="session")
def server() -> Iterator[Upstream]:
    with serve() as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.models.clear()
    return server


@pytest.fixture(params=SDKS, ids=lambda sdk: sdk.name)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    """Each SDK that is installed."""
    made: Sdk = request.param
    assert made.package
    return made
