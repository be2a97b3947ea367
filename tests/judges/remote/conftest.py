import pytest

pytest.importorskip("httpx2")
pytest.importorskip("starlette")
