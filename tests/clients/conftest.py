from collections.abc import Iterator

import pytest

pytest.importorskip("openai")
pytest.importorskip("starlette")

from tests.upstream import Upstream, serve


@pytest.fixture(scope="session")
def server() -> Iterator[Upstream]:
    with serve() as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.models.clear()
    return server
