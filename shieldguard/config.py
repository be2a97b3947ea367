"""A guard from a file and the environment."""

import json
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from shieldguard.errors import ConfigError, MissingDependency
from shieldguard.guard import Guard
from shieldguard.judges.protocol import Judge
from shieldguard.observers import Observer
from shieldguard.policy import Policy
from shieldguard.windows import SentenceWindower, SizeWindower, Windower

T = TypeVar("T")

_OURS = {
    "cascade": "shieldguard.judges.cascade:Cascade",
    "embedded": "shieldguard.judges.embedded:EmbeddedJudge",
    "local": "shieldguard.judges.local:LocalJudge",
    "remote": "shieldguard.judges.remote:RemoteJudge",
}

_SECRET = {"api_key", "headers"}


class GuardConfig(BaseSettings):
    """The settings of a guard.

    `judge`: "embedded", "local" (with at least `judge_options.checkpoint`), "remote" (`.urls`, `.model`),
    "cascade" (`.screen`, `.confirm`), or "package.module:factory" for one of your own, called with
    `judge_options`. An option that is a table with a `judge` in it is a judge: that one, with the table's
    other options.
    `windower`: "sentence" or "size", with `windower_options`. `policy`: the fields of `Policy`.
    Environment variables go before the file: SHIELDGUARD_JUDGE, SHIELDGUARD_POLICY__RELEASE=lag, …
    "none" stands for what a file cannot say: `answer = "none"` (not judged), `max_wait = "none"`.
    """

    model_config = SettingsConfigDict(
        env_prefix="SHIELDGUARD_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    judge: str = "embedded"
    judge_options: dict[str, Any] = Field(default_factory=dict)
    windower: Literal["sentence", "size"] = "sentence"
    windower_options: dict[str, int] = Field(default_factory=dict)
    policy: Policy = Policy()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return _Environment(settings_cls), init_settings

    @classmethod
    def load(cls, file: str | Path | None = None) -> Self:
        """Read a TOML file, if one is given, and the environment.

        Raises `ConfigError` that names each setting that cannot be used.
        """
        settings: dict[str, Any] = {}
        if file is not None:
            try:
                settings = tomllib.loads(Path(file).read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise ConfigError(f"cannot read the configuration {str(file)!r}: {error}") from None
        _check_names(cls.model_fields)
        try:
            return cls(**settings)
        except SettingsError as error:
            raise ConfigError(f"the environment cannot be read: {error}") from None
        except ValidationError as error:
            found = "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg']} (got {item['input']!r})"
                for item in error.errors()
            )
            raise ConfigError(f"the configuration cannot be used: {found}") from None

    @field_validator("policy", mode="before")
    @classmethod
    def _none(cls, policy: Any) -> Any:
        if not isinstance(policy, dict):
            return policy
        return {name: None if _means_none(name, value) else value for name, value in policy.items()}

    def build(self, *, observers: Sequence[Observer] = ()) -> Guard:
        """The guard of these settings."""
        return Guard(
            judge=load_judge(self.judge, **self.judge_options),
            policy=self.policy,
            windower=self._windower(),
            observers=observers,
        )

    def _windower(self) -> Windower:
        kind: Callable[..., Windower] = SentenceWindower if self.windower == "sentence" else SizeWindower
        return _made(kind, self.windower_options, f"windower {self.windower!r}")


class _Environment(EnvSettingsSource):
    """Variables are text; an option of a judge that is a number or a truth value in JSON is meant as one.
    (What is in a table, pydantic-settings reads as JSON by itself.)"""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        options = found.get("judge_options")
        if isinstance(options, dict):
            found["judge_options"] = {name: _meant(name, value) for name, value in options.items()}
        return found


def _meant(name: str, value: Any) -> Any:
    if name in _SECRET or not isinstance(value, str):
        return value
    try:
        meant = json.loads(value)
    except ValueError:
        return value
    return meant if isinstance(meant, int | float) else value


def _means_none(name: str, value: object) -> bool:
    return name in ("answer", "tool_call", "max_wait") and value == "none"


def _check_names(settings: Iterable[str]) -> None:
    """A misspelt variable would be a setting that is silently not there."""
    known = [f"SHIELDGUARD_{name}".upper() for name in settings]
    for variable in map(str.upper, os.environ):
        begun = [name for name in known if variable.startswith(f"{name}_")]
        if begun and variable not in known and not any(variable.startswith(f"{name}__") for name in begun):
            raise ConfigError(
                f"the environment variable {variable!r} is no setting; parts are joined by two underscores, "
                f"as in '{begun[0]}__…'"
            )


def load_judge(name: str, /, **options: Any) -> Judge:
    """The judge of a name: "cascade", "embedded", "local", "remote", or "package.module:factory".

    Options that are tables with a `judge` are loaded in the same way.

    Raises `ConfigError` where there is none of that name, or it does not take the options, and
    `MissingDependency` where it needs an extra that is not installed.
    """
    module, colon, factory = _OURS.get(name, name).partition(":")
    if not colon or not module or module.startswith("."):
        ours = ", ".join(map(repr, _OURS))
        raise ConfigError(f"judge={name!r}; choose {ours} or 'package.module:factory'")
    try:
        made = getattr(import_module(module), factory)
    except MissingDependency:
        raise
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"judge={name!r} cannot be loaded: {error}") from error
    judge: object = _made(made, {key: _nested(value) for key, value in options.items()}, f"judge {name!r}")
    if not isinstance(judge, Judge):
        raise ConfigError(f"judge={name!r} made {judge!r}, which has no `name` and `async judge(window)`")
    return judge


def _nested(option: Any) -> Any:
    match option:
        case {"judge": str(name), **options}:
            return load_judge(name, **{str(key): value for key, value in options.items()})
    return option


def _made(kind: Callable[..., T], options: Mapping[str, Any], what: str) -> T:
    try:
        return kind(**options)
    except TypeError as error:
        shown = {option: "…" if option in _SECRET else value for option, value in options.items()}
        raise ConfigError(f"the {what} does not take the options {shown!r}: {error}") from error
