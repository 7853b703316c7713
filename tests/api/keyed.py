"""Short words for tests with keys."""

from typing import Any

from tests.api.conftest import Api, StartApi

ADMIN = "test-admin-key-0123456789-0123456789"
METRICS = "test-metrics-key-0123456789-0123456789"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def start_keyed(start_api: StartApi, **changed: Any) -> Api:
    """A server that asks for keys; its client shows none."""
    return await start_api(
        **({"auth": "on", "admin_key": ADMIN, "metrics_key": METRICS, "key_cache_s": 0.2} | changed)
    )


async def new_key(api: Api, tenant: str = "a", **body: Any) -> tuple[str, str]:
    """The key's text and its id."""
    answer = await api.client.post(
        "/admin/keys", json={"tenant": tenant} | body, headers=bearer(ADMIN)
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["key"], answer.json()["key_id"]
