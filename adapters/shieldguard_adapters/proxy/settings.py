"""The settings of the proxy: those of a guard, and a table `serve`."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, field_validator

from shieldguard import ConfigError, Policy, Thinking
from shieldguard.config import GuardConfig, none_meant, wrong
from shieldguard_adapters.wire import Termination


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Upstream(_Settings):
    """A model server. The path of a request goes behind `url`; /v1, where both have it, is there once.
    `models` are patterns of the names it serves ("*", "gpt-*"): the first upstream that serves a model is
    asked, and the first of all where no model is named. `api_key`, or the variable that `api_key_env`
    names, goes to it in place of the client's own; without one the client's goes through. `name` is for
    the log."""

    url: str
    name: str = ""
    models: tuple[str, ...] = ("*",)
    api_key: SecretStr | None = None
    api_key_env: str = ""

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an upstream's url begins with http:// or https:// and a host")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("an upstream's url has no credentials, query or fragment; its key is api_key")
        return url.rstrip("/")

    @property
    def key(self) -> str:
        """Raises `ConfigError` where the variable is not set."""
        if self.api_key is not None:
            return self.api_key.get_secret_value().strip()
        if self.api_key_env and not os.environ.get(self.api_key_env):
            raise ConfigError(f"api_key_env={self.api_key_env!r} of {self.url!r}: no such variable is set")
        return os.environ.get(self.api_key_env, "").strip()

    def serves(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.models)


class Key(_Settings):
    """A client's key, as `shieldguard key` makes one: kept by its SHA-256. `policy`: fields of the guard's
    policy that are different for this client. `max_requests`: answered at a time, for this client."""

    name: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    requests_per_minute: int | None = Field(default=None, gt=0)
    max_requests: int | None = Field(default=None, gt=0)
    policy: dict[str, Any] = Field(default_factory=dict)


class ServeSettings(_Settings):
    """`keys`: without any, no client needs one. `pass_paths`: patterns of paths beside the lists of models
    that are passed on unguarded. `upstream_ca`: a PEM file with the authorities of the upstreams, in place
    of the system's. `reports`: how many are kept. `max_requests`: answered at a time; past it clients are
    told to come again. `metrics_sha256`: the hash of the key that the metrics want, None for none. Times
    in seconds, sizes in bytes."""

    host: str = "127.0.0.1"
    port: int = Field(default=8400, ge=0, le=65535)
    upstreams: tuple[Upstream, ...] = ()
    keys: tuple[Key, ...] = ()
    pass_paths: tuple[str, ...] = ()
    thinking: Thinking = Thinking.AUTO
    termination: Termination = Termination.REFUSAL
    max_body: int = Field(default=1 << 24, gt=0)
    max_header: int = Field(default=1 << 16, gt=0)
    max_requests: int = Field(default=1000, gt=0)
    max_connections: int = Field(default=4000, gt=0)
    request_timeout: float = Field(default=60, gt=0)  # for a request to arrive
    connect_timeout: float = Field(default=10, gt=0)
    read_timeout: float = Field(default=600, gt=0)
    write_timeout: float = Field(default=600, gt=0)  # for a client to take what is there
    keep_alive: float | None = Field(default=15, gt=0)
    outcome_at_end: bool = True
    shutdown_timeout: float = Field(default=30, ge=0)
    reports: int = Field(default=1000, ge=0)
    metrics_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    log_query: bool = False
    record: Path | None = None  # where all streams are recorded, with their text
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    upstream_ca: Path | None = None

    @field_validator("keep_alive", mode="before")
    @classmethod
    def _never(cls, keep_alive: Any) -> Any:
        return None if keep_alive == "none" else keep_alive

    @field_validator("keys")
    @classmethod
    def _distinct(cls, keys: tuple[Key, ...]) -> tuple[Key, ...]:
        for name in ("name", "sha256"):
            values = [getattr(key, name) for key in keys]
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have the same {name}")
        return keys


class ServeConfig(GuardConfig):
    """The settings of a guard, and how it is served: in a file the table `serve`, in the environment
    SHIELDGUARD_SERVE__PORT and so on."""

    serve: ServeSettings = ServeSettings()

    def with_flags(self, flags: Mapping[str, object]) -> Self:
        """The same with these settings of `serve` instead."""
        try:
            serve = ServeSettings.model_validate({**self.serve.model_dump(), **flags})
        except ValidationError as error:
            raise ConfigError(f"the flags cannot be used: {wrong(error)}") from None
        return self.model_copy(update={"serve": serve})

    def key_policy(self, key: Key) -> Policy:
        """The policy for a client of this key. Raises `ConfigError` where it cannot work."""
        try:
            return TypeAdapter(Policy).validate_python(_merged(asdict(self.policy), none_meant(key.policy)))
        except ValidationError as error:
            raise ConfigError(f"the policy of the key {key.name!r} cannot be used: {wrong(error)}") from None


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the fields of `changes` instead; in a table, with its fields."""
    merged = dict(base)
    for name, value in changes.items():
        was = base.get(name)
        both = isinstance(was, Mapping) and isinstance(value, Mapping)
        merged[name] = _merged(was, value) if both and was is not None else value
    return merged
