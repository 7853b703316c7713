"""Metrics: the names that dashboards use, bounded labels, no prompt anywhere."""

import re

import httpx
import pytest

from tests.model.hosts import MODEL_NAME

pytestmark = pytest.mark.anyio
NAMES = [
    "qna_num_requests_running",
    "qna_num_requests_waiting",
    "qna_num_waiting_tokens",
    "qna_num_running_tokens",
    "qna_kv_cache_usage_ratio",
    "qna_time_to_first_token_seconds",
    "qna_inter_token_latency_seconds",
    "qna_e2e_request_latency_seconds",
    "qna_request_queue_time_seconds",
    "qna_request_prefill_time_seconds",
    "qna_request_decode_time_seconds",
    "qna_prompt_tokens_total",
    "qna_generation_tokens_total",
    "qna_requests_total",
    "qna_requests_cancelled_total",
    "qna_requests_rejected_total",
    "qna_num_preemptions_total",
    "qna_prefix_cache_queries_total",
    "qna_prefix_cache_hits_total",
    "qna_predict_batch_size",
    "qna_step_batch_tokens",
    "qna_event_loop_lag_seconds",
]


async def test_every_promised_metric_is_there(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics")).text
    families = set(re.findall(r"^# TYPE (\S+)", text, flags=re.MULTILINE))
    assert set(NAMES) <= families


async def test_counters_follow_requests(client: httpx.AsyncClient) -> None:
    async def value(name: str) -> float:
        text = (await client.get("/metrics")).text
        found = re.search(rf"^{re.escape(name)} (\S+)", text, flags=re.MULTILINE)
        return float(found[1]) if found else 0.0

    name = 'qna_requests_total{outcome="ok",route="/generate"}'
    tokens = "qna_generation_tokens_total"
    before = await value(name), await value(tokens)
    await client.post("/generate", json={"user_prompt": "hello", "max_tokens": 3})
    assert (await value(name), await value(tokens)) == (before[0] + 1, before[1] + 3)


async def test_made_up_paths_make_no_labels(client: httpx.AsyncClient) -> None:
    for number in range(20):
        await client.post(f"/canary{number}")
        await client.post(f"/v1/models/canary{number}:predict", json={})
    text = (await client.get("/metrics")).text
    assert "canary" not in text
    assert f"/v1/models/{MODEL_NAME}" not in text
