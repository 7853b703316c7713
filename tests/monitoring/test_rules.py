"""What can be said of the rules and dashboards as files, and what promtool says of them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import api.errors
import model.errors
from tests.monitoring.cases import CASES, EVERY, promtools
from tests.monitoring.prometheus import program
from tests.monitoring.rules import CHARTS, ROOT, dashboard, rules, rules_file

RUNBOOK = ROOT / "docs/runbook.md"
# What is answered while a server goes down as planned, and asked again elsewhere; and while a model
# that was let sleep wakes up. One that does not is ApiServerNoModelHost's.
PLANNED = {"draining", "model_starting"}


def promtool(*arguments: Any) -> str:
    done = subprocess.run(
        [program("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("chart", CHARTS)
def test_prometheus_takes_the_rules(chart: str) -> None:
    assert f"SUCCESS: {len(rules(chart))} rules found" in promtool(
        "check", "rules", rules_file(chart)
    )


@pytest.mark.parametrize("chart", CHARTS)
def test_every_rule_fires_when_it_should_and_then_only(chart: str, tmp_path: Path) -> None:
    by_name = {rule["alert"]: rule for rule in rules(chart)}
    file = tmp_path / "test.yaml"
    content = {
        "rule_files": [str(rules_file(chart))],
        "evaluation_interval": EVERY,
        "tests": [promtools(case, by_name[case.alert]) for case in CASES[chart]],
    }
    file.write_text(yaml.safe_dump(content))
    promtool("test", "rules", file)


@pytest.mark.parametrize("chart", CHARTS)
def test_each_rule_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(chart: str) -> None:
    names = {rule["alert"] for rule in rules(chart)}
    assert {case.alert for case in CASES[chart] if case.summary} == names
    assert {case.alert for case in CASES[chart] if not case.summary} == names


def test_every_alert_has_a_section_in_the_runbook_and_every_section_an_alert() -> None:
    sections = set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(), flags=re.MULTILINE))
    assert sections == {rule["alert"] for rule in rules()}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_says_what_it_is(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert 'job="' in rule["expr"]


def failures(errors: Any, base: type) -> set[str]:
    """Codes of a server's own failures, as its errors have them."""
    every = [value for value in vars(errors).values() if isinstance(value, type)]
    ours = [one for one in every if issubclass(one, base) and getattr(one, "status", 0) >= 500]
    return {one.code for one in ours} - PLANNED  # type: ignore[attr-defined]


def outcomes(expression: str) -> set[str]:
    return set(re.findall(r'outcome=~"([^"]+)"', expression)[0].split("|"))


def test_the_error_alerts_count_all_of_a_servers_own_failures_and_nothing_else() -> None:
    by_name = {rule["alert"]: rule["expr"] for rule in rules()}
    own = failures(api.errors, api.errors.ApiError) | {"no_answer"}
    assert outcomes(by_name["ApiServerErrors"]) == own
    assert outcomes(by_name["ModelHostErrors"]) == failures(model.errors, model.errors.HostError)
    panels = [target["expr"] for panel in dashboard("api-server")["panels"]
              for target in panel.get("targets", []) if "outcome=~" in target["expr"]]  # fmt: skip
    assert panels
    assert [outcomes(panel) for panel in panels] == [own] * len(panels)


@pytest.mark.parametrize("chart", CHARTS)
def test_the_charts_thresholds_are_the_rules_own_numbers(chart: str) -> None:
    values = yaml.safe_load((ROOT / "charts" / chart / "values.yaml").read_text())
    ends = {
        rule["alert"]: float(number[0])
        for rule in rules(chart)
        if (number := re.findall(r" > ([0-9.]+)$", rule["expr"])) and float(number[0]) > 0
    }
    assert values["metrics"]["prometheusRule"]["thresholds"] == ends


def test_the_dashboards_are_what_their_panels_say() -> None:
    subprocess.run([sys.executable, "-m", "scripts.dashboards", "--check"], cwd=ROOT, check=True)


@pytest.mark.parametrize("chart", CHARTS)
def test_panels_do_not_lie_on_each_other(chart: str) -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard(chart)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        squares = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not squares & taken, panel["title"]
        taken |= squares
