"""Settings from a file, the environment and flags."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from shieldguard import ConfigError, Policy, Rule
from shieldguard_adapters.proxy import ServeConfig, create_app
from shieldguard_adapters.proxy.settings import Key, ServeSettings, Upstream
from tests.command import ROOT

FILE = """
judge = "embedded"

[policy]
release = "lag"

[serve]
port = 9000
keep_alive = "none"
pass_paths = ["/v1/embeddings"]

[[serve.upstreams]]
url = "http://localhost:8000/v1/"
models = ["gpt-*"]

[[serve.upstreams]]
url = "https://api.example.com"
api_key_env = "EXAMPLE_KEY"

[[serve.keys]]
name = "team"
sha256 = "%064d"
requests_per_minute = 60
policy = { answer = "none", reasoning = { harmful = "redact" } }
"""


def written(folder: Path, text: str = FILE % 0) -> Path:
    file = folder / "guard.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_file_has_all_of_it(tmp_path: Path) -> None:
    config = ServeConfig.load(written(tmp_path))
    serve = config.serve
    assert (serve.port, serve.keep_alive, serve.pass_paths) == (9000, None, ("/v1/embeddings",))
    assert [upstream.url for upstream in serve.upstreams] == [
        "http://localhost:8000/v1",
        "https://api.example.com",
    ]
    policy = config.key_policy(serve.keys[0])
    assert (policy.answer, policy.release) == (None, "lag")
    assert (policy.reasoning.harmful, policy.reasoning.potential) == ("redact", "flag")


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstreams = [{"url": "http://10.0.0.1", "models": ["a", "b"], "api_key": "sk-1"}]
    for name, value in {
        "POLICY__RELEASE": "hold",
        "SERVE__PORT": "9001",
        "SERVE__UPSTREAMS": json.dumps(upstreams),
        "SERVE__PASS_PATHS": '["/v1/files/*"]',
        "SERVE__LOG_QUERY": "true",
    }.items():
        monkeypatch.setenv(f"SHIELDGUARD_{name}", value)
    config = ServeConfig.load(written(tmp_path))
    serve = config.serve
    assert (config.policy.release, serve.port, serve.log_query) == ("hold", 9001, True)
    assert (serve.upstreams[0].models, serve.upstreams[0].key) == (("a", "b"), "sk-1")
    assert (serve.pass_paths, serve.keys[0].name) == (("/v1/files/*",), "team")
    assert create_app(config) is not None
    flagged = config.with_flags({"port": 9002, "upstreams": [{"url": "http://h"}]}).serve
    assert (flagged.port, flagged.upstreams[0].url, flagged.keys) == (9002, "http://h", serve.keys)


SECRET = "sk-secret"


@pytest.mark.parametrize(
    "serve",
    [
        {"upstreams": [{"url": f"http://me:{SECRET}@host"}]},
        {"upstreams": [{"url": f"http://host?key={SECRET}"}]},
        {"upstreams": [{"url": "host"}]},
        {"upstreams": [{"url": "http://"}]},
        {"upstreams": [{"api_key": SECRET}]},
        {"upstreams": [{"url": "http://host", "api_kee": SECRET}]},
        {"upstreams": [{"url": "http://host", "api_key": SECRET, "models": 7}]},
        {"upstreams": [f"http://me:{SECRET}@host"]},
        {"upstreams": SECRET},
        {"keys": [{"name": "one", "sha256": SECRET}]},
        {"keys": [{"name": "", "sha256": "0" * 64}]},
        {"keys": [{"name": "one", "sha256": "0" * 64}, {"name": "one", "sha256": "1" * 64}]},
        {"keys": [{"name": "one", "sha256": "0" * 64}, {"name": "two", "sha256": "0" * 64}]},
        {"port": 70_000},
        {"no_such": 1},
        {"read_timeout": 0},
    ],
)
def test_what_cannot_work_is_said_without_secrets(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIELDGUARD_SERVE", json.dumps(serve))
    with pytest.raises(ConfigError, match=r"serve\.") as error:
        ServeConfig.load()
    assert SECRET not in str(error.value)
    monkeypatch.delenv("SHIELDGUARD_SERVE")
    with pytest.raises(ConfigError, match="flags") as error:
        ServeConfig.load().with_flags(serve)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        ({}, "there is no model server to guard"),
        ({"upstreams": [{"url": "http://h", "api_key_env": "NO_SUCH"}]}, "NO_SUCH"),
        ({"upstreams": [{"url": "http://h"}], "upstream_ca": "/no/such"}, "upstream_ca"),
        (
            {
                "upstreams": [{"url": "http://h"}],
                "keys": [{"name": "one", "sha256": "0" * 64, "policy": {"releese": "hold"}}],
            },
            "'one'.*releese",
        ),
    ],
)
def test_what_cannot_be_served_is_said(serve: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        create_app(ServeConfig(serve=serve))


def test_a_variable_that_is_misspelt_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIELDGUARD_SERVE_PORT", "1")
    with pytest.raises(ConfigError, match="two underscores"):
        ServeConfig.load()


def test_secrets_are_not_shown() -> None:
    upstream = {"url": "http://h", "api_key": SECRET}
    config = ServeConfig(serve={"upstreams": [upstream]})  # type: ignore[arg-type]
    assert SECRET not in repr(config) + str(config) + str(config.model_dump()) + config.model_dump_json()


def test_the_readmes_settings_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_KEY", "sk-1")
    blocks = (ROOT / "README.md").read_text(encoding="utf-8").split("```toml\n")[1:]
    [block] = [block for block in blocks if "[serve]" in block]
    serve = ServeConfig.load(written(tmp_path, block.partition("```")[0])).serve
    assert (serve.upstreams[0].key, serve.keys[0].name) == ("sk-1", "team")


def test_the_example_has_every_setting_with_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMPLE_KEY", "sk-1")
    file = ROOT / "examples" / "guard.toml"
    text = file.read_text(encoding="utf-8")
    assert ServeConfig.load(file) == ServeConfig()
    head, table, rest = text.partition("# [[serve.upstreams]]")
    serve = ServeConfig.load(written(tmp_path, head + (table + rest).replace("\n# ", "\n")[2:])).serve
    assert (serve.upstreams[0].key, serve.keys[0].name) == ("sk-1", "team")
    told = set(re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE))
    settings = [
        *(field.name for field in fields(Policy) if field.name not in ("reasoning", "answer", "tool_call")),
        *(field.name for field in fields(Rule)),
        *(name for name in ServeConfig.model_fields if name not in ("policy", "serve")),
        *(name for name in ServeSettings.model_fields if name not in ("upstreams", "keys")),
        *(name for name in Upstream.model_fields if name != "api_key"),  # not in a file, if it can be helped
        *Key.model_fields,
    ]
    assert told == set(settings)
