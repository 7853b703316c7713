"""The Job by which the chart deletes old chats, as it is rendered, on a real PostgreSQL."""

import asyncio
import os
import sys

import pytest

from api.history import SqlStore
from api.metrics import Metrics
from tests.api.test_retention import filled, kept
from tests.rendered import NEEDS_HELM, ROOT, pods, rendered

pytestmark = [pytest.mark.anyio, NEEDS_HELM]


async def test_the_charts_purge_deletes_what_is_old_and_nothing_else(postgres_url: str) -> None:
    values = ("database.existingSecret=db", "purge.enabled=true", "purge.retentionDays=30.5")
    container = pods(rendered("api-server", "--set", ",".join(values)))["CronJob api-server-purge"][
        "containers"
    ][0]
    store = SqlStore(postgres_url, Metrics(), lease_s=15.0, timeout_s=20.0)
    await store.open()
    try:
        await filled(store)
        environment = {one["name"]: one.get("value", postgres_url) for one in container["env"]}
        job = await asyncio.create_subprocess_exec(
            sys.executable, *container["command"][1:], cwd=ROOT,
            env=environment | {"PATH": os.environ["PATH"]}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, _ = await job.communicate()
        assert job.returncode == 0
        # Five chats of each of two owners are 31 days old, one is 29.
        assert said.startswith(b"purged: 10 chats with 10 turns")
        assert await kept(store) == {"c5", "c6"}
    finally:
        await store.close()
