"""Changes that lose nothing: counted on the client's side, a stream only with its terminator."""

import json
import secrets
import time
from typing import Any

import httpx
import pytest

from tests.e2e.cluster import (
    API_PODS,
    MODEL_PODS,
    NAMESPACE,
    ROOT,
    deploy,
    eventually,
    helm,
    key_of,
    kubectl,
    names_of,
    pods,
    port_forward,
    secret_text,
    wait_until_replaced,
)
from tests.e2e.conftest import Record, body_of
from tests.e2e.load import assert_nothing_lost, figures, light_load

pytestmark = pytest.mark.e2e
PARTS = {"model-host": MODEL_PODS, "api-server": API_PODS}
GRACE_S = 45


def state() -> dict[str, Any]:
    """Everything whose change would mean that something was done, but for the migration's Job."""
    listed = kubectl(
        *["-n", NAMESPACE, "get", "deployments,replicasets,inferenceservices,services,pods"],
        *["-l", "app.kubernetes.io/component!=migration", "-o", "json"],
    )
    return {
        f"{item['kind']}/{item['metadata']['name']}": (
            item["metadata"]["uid"],
            item["metadata"].get("generation"),
        )
        for item in json.loads(listed)["items"]
    }


def restart(part: str) -> None:
    """The way that KServe's controller keeps: through the release, not behind its back."""
    old = names_of(pods(PARTS[part]))
    helm(
        "upgrade", part, str(ROOT / "charts" / part), "--reuse-values",
        "--set-string", f"podAnnotations.qna-restarted=at-{time.time_ns()}",
    )  # fmt: skip
    wait_until_replaced(PARTS[part], old)


def test_a_second_upgrade_changes_nothing(installed: float) -> None:
    before = state()
    deploy()
    assert state() == before


def test_a_key_is_rotated_while_it_is_used(installed: float, record: Record) -> None:
    """The new text is taken at once, by every pod; the old one for as long as it was given."""
    with (
        port_forward("api-server") as address,
        httpx.Client(base_url=address, timeout=60, headers=key_of()) as admin,
    ):
        made = admin.post("/admin/keys", json={"tenant": "e2e", "name": "rotation"})
        assert made.status_code == 201, made.text
        one = made.json()
        key = f"/admin/keys/{one['key_id']}"
        with light_load("key-rotation", key=f"Bearer {one['key']}") as load:
            # The two waits below end before it does, however slow the machine is.
            until = time.monotonic() + GRACE_S
            rotated = body_of(admin.post(f"{key}/rotate", json={"grace_s": GRACE_S}))
            load.use_key(f"Bearer {rotated['key']}")
            load.wait_for_good(80, timeout_s=25)
            load.use_key(f"Bearer {one['key']}")
            load.wait_for_good(20, timeout_s=10)
            load.use_key(f"Bearer {rotated['key']}")
            eventually(lambda: time.monotonic() > until, 60, "the old text has ended")
            load.wait_for_good(50, timeout_s=30)
            load.stop()
            records = load.records
        record(**figures(records))
        assert_nothing_lost(records)
        old = {"Authorization": f"Bearer {one['key']}"}

        def refused() -> bool:
            return httpx.get(f"{address}/chats", headers=old, timeout=30).status_code == 401

        # A server remembers for some seconds what it has looked up.
        eventually(refused, 10, "the old text is taken no more")
        admin.delete(key)


HOST_KEY = "model-host-key"


def set_host_keys(*keys: str) -> None:
    patch = {"stringData": {"key": ",".join(keys)}}
    kubectl("-n", NAMESPACE, "patch", "secret", HOST_KEY, "-p", json.dumps(patch))


@pytest.mark.timeout(700)
def test_rolling_updates_fail_no_request(installed: float, record: Record) -> None:
    """Of each part by itself, by a changed value and a changed Secret: the three steps of
    docs/keys-and-limits.md, which replace the key between the servers.
    """
    old, new = secret_text(HOST_KEY, "key"), secrets.token_hex(24)
    assert "," not in old
    with light_load("rolling-updates", chats=3, streams=2) as load:
        for keys, part in (
            ((old, new), "model-host"),
            ((new, old), "api-server"),
            ((new,), "model-host"),
        ):
            set_host_keys(*keys)
            restart(part)
            load.wait_for_good(20, timeout_s=60)
        load.wait_for(calls=2000, streams=50, timeout_s=200)  # a slow machine has had few by now
        load.stop()
        records = load.records
    record(**figures(records))
    assert_nothing_lost(records)
    with port_forward("model-host-direct") as address:
        asked = f"{address}/v1/models/qna-demo"
        answers = [
            httpx.get(asked, headers={"Authorization": f"Bearer {key}"}, timeout=30)
            for key in (old, new)
        ]
    assert [answer.status_code for answer in answers] == [401, 200]
