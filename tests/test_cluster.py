"""The files of examples/cluster: valid by their schemas, at one with each other, and taken by the proxy."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("compose_spec")
pytest.importorskip("kubernetes_validate")
pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")
pytest.importorskip("httpx2")

import compose_spec
import kubernetes_validate
import yaml
from starlette.routing import Route

from shieldguard.judges.remote import RemoteJudge
from shieldguard_adapters.proxy import ServeConfig, create_app

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "cluster"
MANIFESTS = sorted((FOLDER / "kubernetes").glob("*.yaml"))


def compose() -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


def objects() -> dict[tuple[str, str], Any]:
    """The Kubernetes objects, by kind and name."""
    found = [each for file in MANIFESTS for each in yaml.safe_load_all(file.read_text())]
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(by_name) == len(found)
    return by_name


def container(kind: str, name: str) -> Any:
    [found] = objects()[kind, name]["spec"]["template"]["spec"]["containers"]
    return found


# -- by their schemas ------------------------------------------------------------------------------


def test_the_compose_file_follows_the_specification() -> None:
    compose_spec.PyCompose.from_yaml((FOLDER / "compose.yaml").read_text()).validate()


def test_a_misspelt_key_of_a_compose_file_is_found() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    with pytest.raises(ValueError, match="heathcheck"):
        compose_spec.PyCompose.from_yaml(text.replace("healthcheck", "heathcheck"))


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("named", objects(), ids=" ".join)
def test_each_manifest_follows_its_schema(named: tuple[str, str], version: str) -> None:
    kubernetes_validate.validate(objects()[named], version, strict=True)


def test_a_misspelt_key_of_a_manifest_is_found() -> None:
    deployment = objects()["Deployment", "shieldguard"]
    deployment["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, "1.30", strict=True)


def test_all_that_a_cluster_needs_is_there() -> None:
    kinds = {kind for kind, name in objects() if name == "shieldguard"}
    assert kinds == {"ConfigMap", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}


# -- at one with each other ------------------------------------------------------------------------


def test_the_services_of_the_compose_file_exist() -> None:
    services = compose()["services"]
    settings = tomllib.loads((FOLDER / "guard.toml").read_text())
    hosts = [*settings["judge_options"]["urls"], *(each["url"] for each in settings["serve"]["upstreams"])]
    named = {re.sub(r"https?://([^:/]+).*", r"\1", url) for url in hosts}
    named |= {name for service in services.values() for name in service.get("depends_on", {})}
    assert named <= services.keys()
    assert f"server guard:{settings['serve']['port']} " in (FOLDER / "nginx.conf").read_text()
    assert services["guard"]["deploy"]["replicas"] > 1
    for config in compose()["configs"].values():
        assert (FOLDER / config["file"]).is_file()
    build = services["guard"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).resolve() == FOLDER / "Dockerfile"


def test_selectors_and_targets_name_what_is_there() -> None:
    there = objects()
    for (kind, name), found in there.items():
        spec = found.get("spec", {})
        if kind in ("Deployment", "StatefulSet"):
            assert spec["template"]["metadata"]["labels"] == spec["selector"]["matchLabels"] == {"app": name}
        elif kind == "PodDisruptionBudget":
            assert spec["selector"]["matchLabels"] == {"app": name}
        elif kind == "Service":
            assert spec["selector"] == {"app": name}
        elif kind == "HorizontalPodAutoscaler":
            assert (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]) in there
    pod = there["Deployment", "shieldguard"]["spec"]["template"]["spec"]
    [volume] = pod["volumes"]
    assert ("ConfigMap", volume["configMap"]["name"]) in there
    assert container("Deployment", "shieldguard")["volumeMounts"][0]["name"] == volume["name"]


def test_the_judges_of_the_settings_are_those_of_the_stateful_set() -> None:
    judges = objects()["StatefulSet", "judge"]["spec"]
    port = objects()["Service", judges["serviceName"]]["spec"]["ports"][0]["port"]
    assert in_cluster().judge_options["urls"] == [
        f"http://judge-{number}.{judges['serviceName']}:{port}/v1" for number in range(judges["replicas"])
    ]


def test_a_replica_has_time_to_end_its_streams() -> None:
    pod = objects()["Deployment", "shieldguard"]["spec"]["template"]["spec"]
    [guard] = pod["containers"]
    serve = in_cluster().serve
    stopping = guard["lifecycle"]["preStop"]["sleep"]["seconds"] + serve.shutdown_timeout
    assert pod["terminationGracePeriodSeconds"] > stopping
    assert guard["readinessProbe"]["timeoutSeconds"] > in_cluster().policy.judge_timeout
    assert float(compose()["services"]["guard"]["stop_grace_period"].rstrip("s")) > serve.shutdown_timeout


# -- taken by the proxy ----------------------------------------------------------------------------


def in_compose() -> ServeConfig:
    return ServeConfig.load(FOLDER / "guard.toml")


def in_cluster() -> ServeConfig:
    text = objects()["ConfigMap", "shieldguard"]["data"]["guard.toml"]
    return ServeConfig.model_validate(tomllib.loads(text))


@pytest.mark.parametrize("load", [in_compose, in_cluster])
def test_the_proxy_takes_the_settings(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if load is in_compose:
        given = set(compose()["services"]["guard"]["environment"])
    else:
        given = {variable["name"] for variable in container("Deployment", "shieldguard")["env"]}
    for name in given:
        monkeypatch.setenv(name, "a-key")
    config = load()
    assert isinstance(config.build().judge, RemoteJudge)
    assert config.judge_options["api_key"] == "a-key"
    assert [upstream.key for upstream in config.serve.upstreams] == ["a-key"]
    assert config.serve.host == "0.0.0.0"
    create_app(config)


def test_the_probes_ask_for_what_the_proxy_answers() -> None:
    config = ServeConfig.model_validate({"serve": {"upstreams": [{"url": "http://model"}]}})
    paths = {route.path for route in create_app(config).routes if isinstance(route, Route)}
    guard = container("Deployment", "shieldguard")
    assert guard["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert guard["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert {"/readyz", "/healthz"} <= paths
    assert {port["containerPort"] for port in guard["ports"]} == {in_cluster().serve.port}
    assert f"127.0.0.1:{in_compose().serve.port}/readyz" in str(compose()["services"]["guard"]["healthcheck"])


def test_the_two_files_of_settings_differ_in_their_addresses_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = in_compose(), in_cluster()
    assert first.model_copy(update={"judge_options": second.judge_options}) == second
    assert {**first.judge_options, "urls": []} == {**second.judge_options, "urls": []}
