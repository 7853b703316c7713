"""The charts' alerts fire, by a real Prometheus that watches both real servers; what rules and
dashboards ask for is what those servers have.
"""

from collections.abc import AsyncIterator

import pytest

from tests.monitoring import incident
from tests.monitoring.incident import Incident
from tests.monitoring.rules import CHARTS, grouped_by, metrics_of, panel_expressions, rules

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]
# What no fault from outside brings about in a minute; promtool has them.
NOT_PROVOKED = {
    "ApiServerRestarting",
    "ApiServerUsageLost",
    "ModelHostRestarting",
    "ModelHostStalled",
}


@pytest.fixture(scope="module")
async def after(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Incident]:
    async with incident.scene(tmp_path_factory.mktemp("incident")) as at:
        calm = await incident.in_health(at)
        for trouble in (
            incident.a_model_goes,
            incident.too_much,
            incident.first_tokens_are_slow,
            incident.loops_are_slow,
            incident.stores_go,
            incident.servers_go,
        ):
            await trouble(at)
        yield Incident(at.prometheus, calm)


async def test_nothing_fires_while_all_is_well(after: Incident) -> None:
    assert not after.fired_in_health


async def test_every_alert_fires_in_its_trouble(after: Incident) -> None:
    assert await after.prometheus.fired() == {rule["alert"] for rule in rules()} - NOT_PROVOKED


async def test_summaries_are_filled_in(after: Incident) -> None:
    alerts = await after.prometheus.alerts()
    assert alerts
    for alert in alerts:
        for text in alert["annotations"].values():
            assert "<no value>" not in text
            assert "<error" not in text


def expressions() -> list[tuple[str, str]]:
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    for chart in CHARTS:
        found += [(f"{chart}: {title}", text) for title, text in panel_expressions(chart, "1m")]
    return found


async def test_every_metric_and_label_that_is_named_is_there(after: Incident) -> None:
    wrong = []
    for where, expression in expressions():
        named = list(metrics_of(expression))
        assert named, where
        known: set[str] = set()
        for metric, labels in named:
            series = await after.prometheus.series(metric)
            if not series:
                wrong.append(f"{where}: there is no {metric}")
            have = set().union(*series)
            known |= have
            if series and (missing := labels - have):
                wrong.append(f"{where}: {metric} has no {sorted(missing)}")
        if missing := grouped_by(expression) - known:
            wrong.append(f"{where}: none has {sorted(missing)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("chart", CHARTS)
async def test_every_panel_shows_something(after: Incident, chart: str) -> None:
    empty = [
        f"{title}: {expression}"
        for title, expression in panel_expressions(chart, "5s")
        if not await after.prometheus.ever(expression)
    ]
    assert not empty, "\n".join(empty)
