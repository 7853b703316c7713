"""A dashboard as rows of panels, and as the JSON that Grafana 10 and newer import."""

import json
from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 39
WIDTH = 24
HEIGHT = {"stat": 4, "timeseries": 8}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """`shows`: an expression by its legend. `says`: what an operator reads from it. `warns`: where
    the alert's threshold is, as a line.
    """

    title: str
    shows: dict[str, str]
    says: str
    unit: str = "short"
    kind: str = "timeseries"
    warns: float | None = None
    most: float | None = None


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """`metric`: one that every process of the kind has, by which the reader's choices are found."""

    uid: str
    title: str
    about: str
    metric: str
    rows: dict[str, list[Panel]]


def written(dashboard: Dashboard) -> str:
    return json.dumps(_dashboard(dashboard), indent=1, ensure_ascii=False) + "\n"


def _dashboard(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["qna"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "timezone": "browser",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                _source_choice(),
                _choice("job", f"label_values({dashboard.metric}, job)", "Job"),
                _choice(
                    "instance",
                    f'label_values({dashboard.metric}{{job=~"$job"}}, instance)',
                    "Instance",
                ),
            ]
        },
        "panels": list(_placed(dashboard.rows)),
    }


def _source_choice() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
    }


def _choice(name: str, query: str, label: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _placed(rows: dict[str, list[Panel]]) -> list[dict[str, Any]]:
    """Panels from left to right, a row's panels as wide as its number allows."""
    placed: list[dict[str, Any]] = []
    top = 0
    for title, panels in rows.items():
        where = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        placed.append(
            {
                "id": len(placed) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": where,
                "panels": [],
            }
        )
        top += 1
        height = HEIGHT[panels[0].kind]
        columns = len(panels) if panels[0].kind == "stat" else min(3, len(panels))
        width = WIDTH // columns
        for index, panel in enumerate(panels):
            where = {
                "h": height,
                "w": width,
                "x": index % columns * width,
                "y": top + index // columns * height,
            }
            placed.append(_panel(panel, len(placed) + 1, where))
        top += -(-len(panels) // columns) * height
    return placed


def _panel(panel: Panel, number: int, where: dict[str, int]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        defaults["max"] = panel.most
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.warns is not None:
        steps.append({"color": "red", "value": panel.warns})
    defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.kind == "timeseries":
        line = "off" if panel.warns is None else "dashed"
        defaults["custom"] = {"fillOpacity": 10, "thresholdsStyle": {"mode": line}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": where,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "range": True,
            }
            for index, (legend, expression) in enumerate(panel.shows.items())
        ],
    }


def _options(kind: str) -> dict[str, Any]:
    if kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
        }
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
