from tests.clients.conftest import server, upstream

__all__ = ["server", "upstream"]
