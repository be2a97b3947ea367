from collections.abc import Iterator

import pytest

pytest.importorskip("httpx2")
pytest.importorskip("openai")
pytest.importorskip("prometheus_client")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.proxy.rig import Proxied, proxied
from tests.upstream import Upstream, serve


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    with serve() as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.models.clear()
    return server


@pytest.fixture(scope="module")
def proxy(server: Upstream) -> Iterator[Proxied]:
    """One with the settings that it comes with."""
    with proxied(server) as proxy:
        yield proxy
