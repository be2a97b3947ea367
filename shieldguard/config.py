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
    "llama_guard": "shieldguard.judges.guards:llama_guard",
    "aegis": "shieldguard.judges.guards:aegis",
    "wildguard": "shieldguard.judges.guards:wildguard",
    "md_judge": "shieldguard.judges.guards:md_judge",
    "qwen3guard": "shieldguard.judges.guards:qwen3guard",
    "beaver_dam": "shieldguard.judges.guards:beaver_dam",
    "openai_moderation": "shieldguard.judges.endpoints:OpenAIModeration",
    "perspective": "shieldguard.judges.endpoints:Perspective",
}

# Tables of a file that are for others than a guard: one file serves all.
_OF_OTHERS = frozenset({"serve"})

# Where secrets stand, or would by a slip. An upstream has its key in it, and a client's key beside its hash.
SECRETS = {"api_key", "headers", "upstreams", "keys"}


class GuardConfig(BaseSettings):
    """The settings of a guard.

    `judge`: "embedded", "local" (with at least `judge_options.checkpoint`), "remote" (`.urls`, `.model`),
    "cascade" (`.screen`, `.confirm`), another guard model's name ("llama_guard", …; see `judges.guards`),
    "openai_moderation", "perspective" (`.api_key`), or "package.module:factory" for one of your own, called
    with `judge_options`. An option that is a table with a `judge` in it is a judge: that one, with the other
    options of the table.
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
        """Read a TOML file, if one is given, and the environment. What the file has for the proxy is left
        to it.

        Raises `ConfigError` that names each setting that cannot be used.
        """
        settings: dict[str, Any] = {}
        if file is not None:
            try:
                settings = tomllib.loads(Path(file).read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise ConfigError(f"cannot read the configuration {str(file)!r}: {error}") from None
        for table in _OF_OTHERS - set(cls.model_fields):
            settings.pop(table, None)
        _check_names(cls.model_fields)
        try:
            return cls(**settings)
        except SettingsError as error:
            raise ConfigError(f"the environment cannot be read: {error}") from None
        except ValidationError as error:
            raise ConfigError(f"the configuration cannot be used: {wrong(error)}") from None

    @field_validator("policy", mode="before")
    @classmethod
    def _none(cls, policy: Any) -> Any:
        return none_meant(policy) if isinstance(policy, dict) else policy

    def build(self, *, observers: Sequence[Observer] = ()) -> Guard:
        """The guard of these settings."""
        return Guard(
            judge=load_judge(self.judge, **self.judge_options),
            policy=self.policy,
            windower=self.build_windower(),
            observers=observers,
        )

    def build_windower(self) -> Windower:
        """The windower of these settings."""
        kind: Callable[..., Windower] = SentenceWindower if self.windower == "sentence" else SizeWindower
        return _made(kind, self.windower_options, f"windower {self.windower!r}")


class _Environment(EnvSettingsSource):
    """Variables are text; an option of a judge that is a number, a truth value or a list in JSON is meant as
    one. (What is in a table, pydantic-settings reads as JSON by itself.)"""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        options = found.get("judge_options")
        if isinstance(options, dict):
            found["judge_options"] = {name: _meant(name, value) for name, value in options.items()}
        return found


def _meant(name: str, value: Any) -> Any:
    if name in SECRETS or not isinstance(value, str):
        return value
    try:
        meant = json.loads(value)
    except ValueError:
        return value
    return meant if isinstance(meant, int | float | list) else value


def none_meant(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a policy, with None where a file says "none"."""
    may_be_none = ("answer", "tool_call", "max_wait")
    return {
        name: None if name in may_be_none and value == "none" else value for name, value in policy.items()
    }


def wrong(error: ValidationError) -> str:
    """What of the settings cannot be used, without what may be a secret."""
    found = []
    for item in error.errors():
        line = f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
        given = item["input"]
        if not (SECRETS & set(item["loc"]) or isinstance(given, dict | list | tuple)):
            line += f" (got {given!r})"
        found.append(line)
    return "; ".join(found)


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
    """The judge of a name: "cascade", "embedded", "local", "remote", those of other guard models and services
    ("llama_guard", "openai_moderation", …), or "package.module:factory".

    Options that are tables with a `judge` are loaded in the same way.

    Raises `ConfigError` where there is none of that name, or it does not take the options, and
    `MissingDependency` where it needs an extra that is not installed.
    """
    module, factory = judge_source(name)
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


def judge_source(name: str) -> tuple[str, str]:
    """The module of a judge's name, and what in it makes the judge. Raises `ConfigError` for no such name."""
    module, colon, factory = _OURS.get(name, name).partition(":")
    if not colon or not module or module.startswith("."):
        ours = ", ".join(map(repr, _OURS))
        raise ConfigError(f"judge={name!r}; choose {ours} or 'package.module:factory'")
    return module, factory


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as they may be shown and kept, those of judges within them too."""
    return {
        name: "…" if name in SECRETS else without_secrets(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
    }


def _nested(option: Any) -> Any:
    match option:
        case {"judge": str(name), **options}:
            return load_judge(name, **{str(key): value for key, value in options.items()})
    return option


def _made(kind: Callable[..., T], options: Mapping[str, Any], what: str) -> T:
    try:
        return kind(**options)
    except TypeError as error:
        raise ConfigError(
            f"the {what} does not take the options {without_secrets(options)!r}: {error}"
        ) from error
