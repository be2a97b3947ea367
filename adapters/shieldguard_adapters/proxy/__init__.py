"""A reverse proxy that guards what it passes on; `create_app` makes the ASGI application."""

from shieldguard import MissingDependency

try:
    import httpx2  # noqa: F401
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise MissingDependency(error.name or "starlette", "serve") from None

from shieldguard_adapters.proxy.app import create_app
from shieldguard_adapters.proxy.settings import Key, ServeConfig, ServeSettings, Upstream

__all__ = ["Key", "ServeConfig", "ServeSettings", "Upstream", "create_app"]
