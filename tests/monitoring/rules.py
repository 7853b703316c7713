"""The charts' alert rules and dashboards, as tests read them."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ("api-server", "model-host")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")


def rules_file(chart: str) -> Path:
    return ROOT / "charts" / chart / "files/alerts.yaml"


def groups(chart: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(rules_file(chart).read_text())["groups"]
    return found


def rules(*charts: str) -> list[dict[str, Any]]:
    return [
        rule for chart in charts or CHARTS for group in groups(chart) for rule in group["rules"]
    ]


def hurried(
    chart: str, factor: float, thresholds: Mapping[str, float] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """The same rules in a world that is `factor` times as fast: every `for` and every range of an
    expression divided by it, and evaluated as often as that world's Prometheus does. Beside that,
    what the chart's value `thresholds` changes.
    """

    def quicker(found: re.Match[str]) -> str:
        milliseconds = int(found[1]) * _SECONDS[found[2]] * 1000 / factor
        return f"{max(1, round(milliseconds))}ms"

    made = copy.deepcopy(groups(chart))
    for group in made:
        group.pop("interval", None)
    for rule in (rule for group in made for rule in group["rules"]):
        rule["expr"] = re.sub(
            r"\[[^\]]+\]", lambda span: _DURATION.sub(quicker, span[0]), rule["expr"]
        )
        if rule["alert"] in thresholds:
            rule["expr"] = re.sub(r"[0-9.]+$", str(thresholds[rule["alert"]]), rule["expr"])
        for time in {"for", "keep_firing_for"} & set(rule):
            rule[time] = _DURATION.sub(quicker, rule[time])
    return made


def dashboard(chart: str) -> dict[str, Any]:
    path = ROOT / "charts" / chart / "dashboards" / f"{chart}.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def panel_expressions(chart: str, within: str) -> Iterator[tuple[str, str]]:
    """Title and expression of every panel, with all choices made: everything, over `within`."""
    for panel in dashboard(chart)["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", within)
            yield panel["title"], expression.replace("$job", ".+").replace("$instance", ".+")


def metrics_of(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric that an expression names, with the labels of which it is asked. Every selector in
    the rules and dashboards has braces.
    """
    for name, inside in re.findall(r"([a-zA-Z_:][\w:]*)\{([^{}]*)\}", expression):
        yield name, set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', inside))


def grouped_by(expression: str) -> set[str]:
    lists = re.findall(r"by \(([^)]*)\)", expression)
    return {label.strip() for found in lists for label in found.split(",")}
