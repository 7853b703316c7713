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
import api.spans as api_spans
import model.server as model_server
import model.spans as model_spans
from api.settings import Settings as ApiSettings
from model.config import Settings as ModelSettings

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ("model-host", "api-server")
# What the charts set themselves, what is a flag only, and what needs a volume of the user's own.
MANAGED = {
    "model-host": {
        "model",
        "model_name",
        "api_key",
        "trust_batcher",
        "host",
        "port",
        "trust_remote_code",
        "traces_url",
        "traces_ratio",
    },
    "api-server": {
        "host",
        # Of servers that listen on loopback, which no pod's does.
        "allowed_hosts",
        "port",
        "model_host_url",
        "model_host_key",
        "model_host_pods_url",
        "models_file",
        "peers_url",
        "database_url",
        "auth",
        "admin_key",
        "metrics_key",
        "open_docs",
        "limits_url",
        "traces_url",
        "traces_ratio",
    },
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
    whole_below: int | None = None
    for number, line in enumerate(lines):
        key = re.match(r"( *)([A-Za-z]+):", line)
        if not key:
            continue
        depth = len(key[1])
        if whole_below is not None and depth > whole_below:
            continue
        whole_below = None
        if "# --" in comment_above(lines, number):
            whole_below = depth
        else:
            value = line.removeprefix(key[0]).split("#")[0].strip()
            assert not value, f"{chart}: {line}"


def comment_above(lines: list[str], number: int) -> str:
    """The comment lines directly above a line."""
    start = number
    while lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return "\n".join(lines[start:number])


def documented(chart: str) -> set[str]:
    """The values that values.yaml explains, by their paths; a map explained as a whole is one."""
    lines = (ROOT / "charts" / chart / "values.yaml").read_text().splitlines()
    found = set()
    path: list[tuple[int, str]] = []
    for number, line in enumerate(lines):
        if key := re.match(r"( *)([A-Za-z]+):", line):
            path = [*(part for part in path if part[0] < len(key[1])), (len(key[1]), key[2])]
            if "# --" in comment_above(lines, number):
                found.add(".".join(name for _, name in path))
    return found


def used(chart: str) -> set[str]:
    """The values that templates name, by their paths."""
    found: set[str] = set()
    for template in (ROOT / "charts" / chart / "templates").rglob("*"):
        if template.is_file():
            found |= set(re.findall(r"\.Values\.([A-Za-z.]*[A-Za-z])", template.read_text()))
    return found


def covers(one: str, other: str) -> bool:
    return f"{other}.".startswith(f"{one}.")


@pytest.mark.parametrize("chart", CHARTS)
def test_every_value_is_used_and_every_used_value_documented(chart: str) -> None:
    have, want = documented(chart), used(chart)
    assert len(have) > 50
    assert [value for value in have if not any(covers(name, value) for name in want)] == []
    assert [
        name
        for name in want
        if not any(covers(value, name) or covers(name, value) for value in have)
    ] == []


@pytest.mark.parametrize("chart", CHARTS)
def test_schema_and_values_name_the_same_keys(chart: str) -> None:
    schema, values = load(chart, "values.schema.json"), load(chart, "values.yaml")
    assert set(schema["properties"]) - {"global"} == set(values)

    def compare(schema: dict[str, Any], values: Any, where: str) -> None:
        for name, part in schema["properties"].items():
            # What may be left empty (a strategy, CPU and memory) has keys without defaults.
            if "properties" in part and name not in {"deploymentStrategy", "resources"}:
                assert set(part["properties"]) == set(values[name]), f"{where}{name}"
                compare(part, values[name], f"{where}{name}.")

    compare(schema, values, "")


def test_helm_refuses_what_the_api_server_refuses() -> None:
    """Its numbers: a pod that ends in a loop tells it later than the one who installs it."""
    config = load("api-server", "values.schema.json")["properties"]["config"]["properties"]
    compared = 0
    for field in fields(ApiSettings):
        name = re.sub("_(.)", lambda letter: letter[1].upper(), field.name)
        if name in config and field.metadata["high"] is not None:
            compared += 1
            bounds = config[name]["minimum"], config[name]["maximum"]
            assert bounds == (field.metadata["low"], field.metadata["high"]), name
    assert compared > 25


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


def numbers_in_helpers(chart: str) -> dict[str, float]:
    """The numbers that a chart's checks repeat from the program."""
    text = (ROOT / "charts" / chart / "templates/_helpers.tpl").read_text()
    return {name: float(value) for name, value in re.findall(r"\$(\w+) :?= ([0-9.]+) ", text)}


def test_the_checks_count_with_the_programs_own_numbers() -> None:
    uvicorn_graceful_s = api_main.FAREWELL_S
    assert numbers_in_helpers("api-server") == {
        "farewell": api_main.FAREWELL_S + uvicorn_graceful_s,
        "database": ApiSettings().database_timeout_s,
        "most": ApiSettings().max_in_flight,
        "spans": api_spans.CLOSE_S,
    }
    assert numbers_in_helpers("model-host") == {
        "closing": model_server.CLOSING_S,
        "instances": ModelSettings().max_predict_instances,
        "sequences": ModelSettings().max_num_seqs,
        "spans": model_spans.CLOSE_S,
        "tokens": ModelSettings().max_num_batched_tokens,
    }


def test_pods_are_added_before_those_there_are_run_as_much_as_they_can() -> None:
    metrics = load("model-host", "values.yaml")["autoscaling"]["metrics"]
    targets = {
        one["pods"]["metric"]["name"]: int(one["pods"]["target"]["averageValue"]) for one in metrics
    }
    most = ModelSettings().max_num_seqs
    assert targets == {
        "qna_num_requests_running": most * 3 / 4,
        "qna_num_requests_waiting": most / 8,
    }


def test_every_route_is_public_but_administration_metrics_and_probes() -> None:
    public = load("api-server", "values.yaml")["publicPaths"]
    routes = json.loads((ROOT / "docs/openapi/api-server.json").read_text())["paths"]

    def published(route: str) -> bool:
        below = any(route.startswith(f"{path}/") for path in public if path != "/")
        return below or route in public

    inside = {route for route in routes if not published(route) and not route.startswith("/admin/")}
    assert inside == {"/livez", "/readyz", "/metrics", "/load"}


def test_the_gpu_pool_of_kind_is_the_one_that_the_chart_wants() -> None:
    nodes = yaml.safe_load((ROOT / "k8s/kind.yaml").read_text())["nodes"]
    assert len(nodes) >= 3
    gpu = load("model-host", "values.yaml")["gpu"]
    pool = [node for node in nodes if gpu["nodeSelector"].items() <= node.get("labels", {}).items()]
    assert len(pool) == 2  # so that one may be lost
    for node in pool:
        join = yaml.safe_load(node["kubeadmConfigPatches"][0])
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
