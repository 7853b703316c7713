"""What needs helm to be said of the charts: what they render is what the programs read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from api.upstream.models_file import parse
from tests.rendered import NEEDS_HELM, ROOT, pods, rendered

pytestmark = NEEDS_HELM


def test_the_api_server_reads_the_models_that_the_chart_writes(tmp_path: Path) -> None:
    values = ROOT / "charts/api-server/ci/models-values.yaml"
    made = rendered("api-server", "--values", str(values))
    text = made[("ConfigMap", "api-server-models")]["data"]["models.yaml"]
    spec = made[("Deployment", "api-server")]["spec"]["template"]["spec"]
    (keys,) = (one["projected"] for one in spec["volumes"] if one["name"] == "model-host-keys")
    (mounted,) = (
        one["mountPath"]
        for one in spec["containers"][0]["volumeMounts"]
        if one["name"] == "model-host-keys"
    )
    for source in keys["sources"]:
        (item,) = source["secret"]["items"]
        assert item["key"] == "key"
        (tmp_path / item["path"]).write_text(f"key of {source['secret']['name']}".replace(" ", "-"))
    large, small = parse(text.replace(mounted, str(tmp_path)).encode())
    assert [one.key for one in large.addresses] == ["key-of-large-key", "key-of-large-next-key"]
    assert [one.key for one in small.addresses] == ["key-of-cpu-small", "", "key-of-theirs"]
    assert [(one.url, one.weight, one.resolve, one.standby) for one in large.addresses] == [
        ("http://large-pods.qna.svc:8080", 95, True, "http://large-direct.qna.svc"),
        ("http://large-next-direct.qna.svc", 5, False, ""),
    ]
    assert (large.name, large.served_name, large.fallback) == ("large", "Qwen/Qwen3-8B", "small")
    assert large.aliases == ("gpt-4o", "default")
    assert (large.timeouts.connect_s, large.timeouts.idle_s) == (1.0, 15.5)
    assert [one.url for one in small.addresses] == [
        "http://small-direct.cpu.svc",
        "http://models.example:8080/base",
        "https://other.example",
    ]


def test_the_names_of_hosts_are_the_model_host_charts_services() -> None:
    services = {
        name: found["spec"]["ports"][0]["port"]
        for (kind, name), found in rendered("model-host").items()
        if kind == "Service"
    }
    assert services == {"model-host-direct": 80, "model-host-pods": 8080}


@pytest.mark.parametrize("chart", ["api-server", "model-host"])
def test_the_rules_of_a_release_are_those_of_the_file(chart: str) -> None:
    """But for the labels by which series are found, which are the release's own."""
    monitor = {"api-server": "serviceMonitor", "model-host": "podMonitor"}[chart]
    on = [f"metrics.{part}.enabled=true" for part in (monitor, "prometheusRule")]
    rule = rendered(chart, "--set", ",".join(on))[("PrometheusRule", chart)]
    file = yaml.safe_load((ROOT / "charts" / chart / "files/alerts.yaml").read_text())
    own = {
        "api-server": 'namespace="qna",job="api-server"',
        "model-host": 'job="qna/model-host"',
    }[chart]
    for made in (made for group in rule["spec"]["groups"] for made in group["rules"]):
        assert own in made["expr"]
        made["expr"] = made["expr"].replace(own, f'job="{chart}"')
    assert rule["spec"]["groups"] == file["groups"]


PROFILES = [
    (chart, values)
    for chart in ("api-server", "model-host")
    for values in [None, *sorted((ROOT / "charts" / chart).glob("**/*values*.yaml"))]
    if values is None or values.name != "values.yaml"
]


def trespasses(spec: dict[str, Any]) -> list[str]:
    """What Pod Security's `restricted` would refuse, and our own rules beyond it."""
    wrong = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    own = spec.get("securityContext", {})
    if own.get("runAsNonRoot") is not True or own.get("runAsUser", 0) < 10_000:
        wrong.append("runAsNonRoot, runAsUser")
    if own.get("seccompProfile") != {"type": "RuntimeDefault"}:
        wrong.append("seccompProfile")
    if spec.get("automountServiceAccountToken") is not False:
        wrong.append("automountServiceAccountToken")
    allowed = {"name", "configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected"}
    wrong += [f"volume {volume}" for volume in spec.get("volumes", []) if set(volume) - allowed]
    # A projected volume could hold the ServiceAccount's token too.
    wrong += [
        f"volume {volume}"
        for volume in spec.get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
        if set(source) != {"secret"}
    ]
    wrong += [
        f"emptyDir without a size: {volume['name']}"
        for volume in spec.get("volumes", [])
        if "emptyDir" in volume and volume["name"] != "scratch" and not volume["emptyDir"]
    ]
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        name, context = container["name"], container.get("securityContext", {})
        strict = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
        if not strict.items() <= context.items() or context["capabilities"] != {"drop": ["ALL"]}:
            wrong.append(f"{name}: securityContext")
        resources = container.get("resources", {})
        if "memory" not in resources.get("limits", {}) or "cpu" not in resources.get(
            "requests", {}
        ):
            wrong.append(f"{name}: resources")
    return wrong


@pytest.mark.parametrize(
    ("chart", "values"), PROFILES, ids=lambda part: getattr(part, "name", str(part))
)
def test_every_pod_of_every_profile_is_restricted(chart: str, values: Path | None) -> None:
    made = pods(rendered(chart, *(["--values", str(values)] if values else [])))
    assert made
    wrong = {name: trespasses(spec) for name, spec in made.items()}
    assert not any(wrong.values()), wrong
