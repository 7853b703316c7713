"""Charts, Dockerfiles and cluster scripts, as far as they can be checked without helm.

What needs helm (rendering, the charts' own unit tests) is in scripts/check_charts.sh.
"""

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml

import api.__main__ as api_main
import model.server as model_server
from api.settings import Settings as ApiSettings
from model.config import Settings as ModelSettings

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ("model-host", "api-server")
# What the charts set themselves, and what is a flag only.
MANAGED = {
    "model-host": {"model", "model_name", "host", "port", "trust_remote_code"},
    "api-server": {"host", "port", "model_host_url", "database_url"},
}
SETTINGS: dict[str, Any] = {"model-host": ModelSettings, "api-server": ApiSettings}


def load(chart: str, name: str) -> Any:
    return yaml.safe_load((ROOT / "charts" / chart / name).read_text())


def merged(base: Any, over: Any) -> Any:
    """Values as Helm lays them over each other: maps are merged, null removes a key."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    both = {key: merged(base.get(key), value) for key, value in over.items()}
    return {key: value for key, value in {**base, **both}.items() if value is not None}


def profiles(chart: str) -> list[Path]:
    folder = ROOT / "charts" / chart
    return [*folder.glob("values-*.yaml"), *folder.glob("ci/*-values.yaml")]


def validate(chart: str, values: Any) -> None:
    jsonschema.Draft7Validator(load(chart, "values.schema.json")).validate(values)


def object_schemas(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from object_schemas(part)


def snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


@pytest.mark.parametrize("chart", CHARTS)
def test_versions_are_the_projects(chart: str) -> None:
    version = (ROOT / "VERSION").read_text().strip()
    facts = load(chart, "Chart.yaml")
    assert (facts["version"], facts["appVersion"]) == (version, version)


@pytest.mark.parametrize("chart", CHARTS)
def test_every_value_has_a_comment_above_it(chart: str) -> None:
    """A map of ours is explained key by key, a map that Kubernetes types as a whole."""
    lines = (ROOT / "charts" / chart / "values.yaml").read_text().splitlines()
    values = load(chart, "values.yaml")
    explained_as_a_whole = True
    for above, line in zip(["", *lines], lines, strict=False):
        key = re.match(r"(  )?([A-Za-z]+):", line)
        if not key:
            continue
        explained = above.lstrip().startswith("#")
        if not key[1]:
            explained_as_a_whole = line == f"{key[2]}:" and "# --" in comment_above(lines, line)
            ours = isinstance(values[key[2]], dict) and not explained_as_a_whole
            assert explained or ours, f"{chart}: {line}"
        else:
            assert explained or explained_as_a_whole, f"{chart}: {line}"


def comment_above(lines: list[str], line: str) -> str:
    """The comment lines directly above a line."""
    end = start = lines.index(line)
    while lines[start - 1].startswith("#"):
        start -= 1
    return "\n".join(lines[start:end])


@pytest.mark.parametrize("chart", CHARTS)
def test_schema_and_values_name_the_same_keys(chart: str) -> None:
    schema, values = load(chart, "values.schema.json"), load(chart, "values.yaml")
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, part in schema["properties"].items():
        # Objects that may be left empty (a strategy, CPU and memory) have keys without defaults.
        if "properties" in part and name not in {"deploymentStrategy", "resources"}:
            assert set(part["properties"]) == set(values[name]), name


@pytest.mark.parametrize("chart", CHARTS)
def test_schema_refuses_unknown_keys_in_every_map_of_ours(chart: str) -> None:
    schema = load(chart, "values.schema.json")
    jsonschema.Draft7Validator.check_schema(schema)
    assert [part for part in object_schemas(schema) if part["additionalProperties"]] == []


@pytest.mark.parametrize("chart", CHARTS)
def test_every_profile_fits_the_schema(chart: str) -> None:
    defaults = load(chart, "values.yaml")
    validate(chart, defaults)
    found = profiles(chart)
    assert found
    for path in found:
        validate(chart, merged(defaults, yaml.safe_load(path.read_text())))


@pytest.mark.parametrize("chart", CHARTS)
def test_schema_refuses_a_typing_error(chart: str) -> None:
    values = merged(load(chart, "values.yaml"), {"image": {"tga": "1"}})
    with pytest.raises(jsonschema.ValidationError, match="tga"):
        validate(chart, values)


@pytest.mark.parametrize("chart", CHARTS)
def test_config_offers_every_setting_that_the_chart_does_not_set_itself(chart: str) -> None:
    offered = {snake(key) for key in load(chart, "values.yaml")["config"]}
    assert offered == {item.name for item in fields(SETTINGS[chart])} - MANAGED[chart]


@pytest.mark.parametrize(
    ("chart", "profile"), [("model-host", "values.yaml"), ("api-server", "values-kind.yaml")]
)
def test_the_tests_question_is_the_projects_example(chart: str, profile: str) -> None:
    test = merged(load(chart, "values.yaml"), load(chart, profile))["test"]
    assert test["question"] == "Capital of India?"
    assert test["answer"] == "The capital of India is New Delhi."


def seconds_in_helpers(chart: str) -> dict[str, float]:
    """The numbers that a chart's checks repeat from the program."""
    text = (ROOT / "charts" / chart / "templates/_helpers.tpl").read_text()
    return {name: float(value) for name, value in re.findall(r"\$(\w+) :?= ([0-9.]+) ", text)}


def test_grace_periods_count_the_times_that_the_programs_take() -> None:
    uvicorn_graceful_s = api_main.FAREWELL_S
    assert seconds_in_helpers("api-server") == {
        "farewell": api_main.FAREWELL_S + uvicorn_graceful_s,
        "database": ApiSettings().database_timeout_s,
    }
    assert seconds_in_helpers("model-host") == {"closing": model_server.CLOSING_S}


def test_every_route_is_public_but_metrics_and_probes() -> None:
    public = load("api-server", "values.yaml")["publicPaths"]
    routes = json.loads((ROOT / "docs/openapi/api-server.json").read_text())["paths"]

    def published(route: str) -> bool:
        below = any(route.startswith(f"{path}/") for path in public if path != "/")
        return below or route in public

    inside = {route for route in routes if not published(route)}
    assert inside == {"/livez", "/readyz", "/metrics"}


def test_alerts_name_metrics_that_the_model_host_has() -> None:
    rules = (ROOT / "charts/model-host/templates/prometheusrule.yaml").read_text()
    declared = (ROOT / "model/metrics.py").read_text()
    named = set(re.findall(r"\bqna_(\w+?)(?:_bucket|_total)?\{", rules))
    assert len(named) >= 4
    assert [name for name in named if name not in declared] == []


def test_the_gpu_pool_of_kind_is_the_one_that_the_chart_wants() -> None:
    nodes = yaml.safe_load((ROOT / "k8s/kind.yaml").read_text())["nodes"]
    assert len(nodes) >= 3
    gpu = load("model-host", "values.yaml")["gpu"]
    pool = [node for node in nodes if gpu["nodeSelector"].items() <= node.get("labels", {}).items()]
    assert len(pool) == 1
    join = yaml.safe_load(pool[0]["kubeadmConfigPatches"][0])
    assert [taint["key"] for taint in join["nodeRegistration"]["taints"]] == ["nvidia.com/gpu"]


def test_versions_stand_in_one_file() -> None:
    pinned = re.findall(r"=(v[0-9][0-9.]+)$", (ROOT / "k8s/versions.env").read_text(), re.M)
    assert len(pinned) >= 3
    for path in (ROOT / "k8s").iterdir():
        if path.name != "versions.env":
            assert [version for version in pinned if version in path.read_text()] == [], path.name


def test_scripts_parse_and_say_how_they_are_used() -> None:
    scripts = [*(ROOT / "k8s").glob("*.sh"), *(ROOT / "scripts").glob("*.sh")]
    assert len(scripts) >= 5
    for path in scripts:
        subprocess.run(["bash", "-n", path], check=True)
        if path.name != "lib.sh":
            assert path.read_text().splitlines()[1].startswith("# "), path.name


@pytest.fixture(scope="module")
def dockerfiles() -> ModuleType:
    path = ROOT / "scripts/check_dockerfiles.py"
    spec = importlib.util.spec_from_file_location("check_dockerfiles", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dockerfiles_follow_our_rules(dockerfiles: ModuleType) -> None:
    assert dockerfiles.main() == 0


@pytest.mark.parametrize("name", ["Dockerfile.api", "Dockerfile.model"])
def test_the_build_context_holds_what_an_image_copies(dockerfiles: ModuleType, name: str) -> None:
    found = dockerfiles.instructions((ROOT / name).read_text())
    copied = {
        source
        for instruction, arguments in found
        if instruction == "COPY" and "--from=" not in arguments
        for source in arguments.split()[:-1]
    }
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert "scripts/strip_base_image.sh" in copied
    for source in copied:
        # A file passes by its own line; by its folder's only where the folder is not narrowed.
        folder = source.split("/")[0]
        assert f"!{source}" in allowed or (f"!{folder}" in allowed and f"{folder}/*" not in allowed)
        assert (ROOT / source).exists()


@pytest.mark.parametrize(
    ("broken", "instead", "said"),
    [
        ("USER 10001:10001\n", "", "USER must be a number"),
        ("USER 10001:10001\n", "USER 0\n", "USER must be a number"),
        ("RUN --mount=type=cache,target=/root/.cache/pip", "RUN", "cache mount"),
        ("python:3.11-slim", "python", "needs a tag"),
        ("python:3.11-slim", "python:latest", "needs a tag"),
        ("COPY --from=code /app /app\n", "", "code must be copied last"),
        ('CMD ["python", "-m", "api"]', "CMD python -m api", "exec form"),
        ("COPY VERSION /app/", "ADD VERSION /app/", "use COPY"),
    ],
)
def test_a_rule_that_is_broken_is_said(
    dockerfiles: ModuleType, broken: str, instead: str, said: str
) -> None:
    text = (ROOT / "Dockerfile.api").read_text()
    assert broken in text
    assert said in "\n".join(dockerfiles.problems_of(text.replace(broken, instead)))
