"""The project's examples, word for word, through every door."""

import json
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.e2e.cluster import NAMESPACE, ROOT, helm
from tests.e2e.conftest import Record, body_of

pytestmark = pytest.mark.e2e
INDIA = {
    "chat_id": "1",
    "system_prompt": "You are a helpful assistant.",
    "user_prompt": "Capital of India?",
}
ANSWERS = {
    "India": "The capital of India is New Delhi.",
    "France": "The capital of France is Paris.",
    "Japan": "The capital of Japan is Tokyo.",
}
MODEL = "qna-demo"


def queries() -> list[dict[str, str]]:
    return [
        {
            "chat_id": str(number),
            "system_prompt": "You are helpful",
            "user_prompt": f"Capital of {land}?",
        }
        for number, land in enumerate(ANSWERS, start=1)
    ]


def expected() -> list[dict[str, str]]:
    texts = enumerate(ANSWERS.values(), start=1)
    return [{"chat_id": str(number), "response": text} for number, text in texts]


def events(http: httpx.Client, path: str, body: dict[str, Any]) -> list[str]:
    """The data of every event of a stream."""
    with http.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = list(answer.iter_lines())
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def test_the_smoke_test_passes(api: httpx.Client, record: Record, tmp_path: Path) -> None:
    key, report = tmp_path / "key", tmp_path / "report.json"
    key.write_text(api.headers["Authorization"].removeprefix("Bearer "))
    command = [ROOT / "k8s" / "smoke.sh", str(api.base_url), "--key-file", key, "--json", report]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    seconds = json.loads(report.read_text())["seconds"]
    record(seconds=seconds)
    assert seconds <= 60


@pytest.mark.parametrize("chart", ["model-host", "api-server"])
def test_helm_test_is_green(installed: float, chart: str) -> None:
    said = helm("test", chart, "--logs", "--timeout", "3m", timeout_s=200)
    assert ANSWERS["India"] in said


def test_the_page_is_in_the_image(api: httpx.Client) -> None:
    page = api.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 200
    script = page.text.split('type="module" src="')[1].split('"')[0]
    assert api.get(f"/{script}").headers["content-type"].startswith("text/javascript")


def test_chat_answers_the_example(api: httpx.Client) -> None:
    api.delete("/chats/1")
    answer = api.post("/chat", json=INDIA)
    assert body_of(answer) == {"chat_id": "1", "response": ANSWERS["India"]}


def test_chat_answers_the_example_ten_times_in_one_chat(api: httpx.Client) -> None:
    chat = f"ten-{uuid.uuid4()}"
    for _ in range(10):
        answer = api.post("/chat", json={**INDIA, "chat_id": chat})
        assert body_of(answer) == {"chat_id": chat, "response": ANSWERS["India"]}


def test_a_follow_up_uses_the_history(api: httpx.Client) -> None:
    chat = f"follow-{uuid.uuid4()}"
    body_of(api.post("/chat", json={**INDIA, "chat_id": chat}))
    answer = api.post("/chat", json={"chat_id": chat, "user_prompt": "And of Japan?"})
    assert body_of(answer)["response"] == ANSWERS["Japan"]


def test_chat_streams_the_example(api: httpx.Client) -> None:
    chat = f"stream-{uuid.uuid4()}"
    *deltas, last, end = events(api, "/chat", {**INDIA, "chat_id": chat, "stream": True})
    assert "".join(json.loads(delta)["delta"] for delta in deltas) == ANSWERS["India"]
    assert json.loads(last)["response"] == ANSWERS["India"]
    assert end == "[DONE]"


def test_the_api_server_speaks_openai(api: httpx.Client) -> None:
    question = [{"role": "user", "content": "Capital of India?"}]
    answer = api.post("/v1/chat/completions", json={"model": MODEL, "messages": question})
    assert body_of(answer)["choices"][0]["message"]["content"] == ANSWERS["India"]


def test_generate_answers_the_example(host: httpx.Client) -> None:
    answer = host.post("/generate", json=INDIA)
    assert body_of(answer) == {"chat_id": "1", "response": ANSWERS["India"]}


def test_generate_batch_answers_the_example(host: httpx.Client) -> None:
    assert body_of(host.post("/generate/batch", json={"queries": queries()})) == expected()


def test_generate_streams_through_the_agent(host: httpx.Client) -> None:
    *deltas, last, end = events(host, "/generate", {**INDIA, "stream": True})
    assert "".join(json.loads(delta)["delta"] for delta in deltas) == ANSWERS["India"]
    assert json.loads(last)["response"] == ANSWERS["India"]
    assert end == "[DONE]"


def test_predict_answers_through_the_agents_batcher(host: httpx.Client) -> None:
    answer = body_of(host.post(f"/v1/models/{MODEL}:predict", json={"instances": queries()}))
    assert answer["predictions"] == expected()
    assert answer["batchId"]  # only the agent's batcher adds it


def test_v2_infer_answers(host: httpx.Client) -> None:
    lands = list(ANSWERS)
    inputs = [
        {
            "name": "user_prompt",
            "shape": [len(lands)],
            "datatype": "BYTES",
            "data": [f"Capital of {land}?" for land in lands],
        }
    ]
    answer = body_of(host.post(f"/v2/models/{MODEL}/infer", json={"inputs": inputs}))
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["response"] == list(ANSWERS.values())


def test_openai_chat_answers_and_streams(host: httpx.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Capital of India?"}]}
    path = "/openai/v1/chat/completions"
    answer = body_of(host.post(path, json=body))
    assert answer["choices"][0]["message"]["content"] == ANSWERS["India"]
    *chunks, end = events(host, path, {**body, "stream": True})
    deltas = [json.loads(chunk)["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(deltas) == ANSWERS["India"]
    assert end == "[DONE]"


def test_an_error_keeps_its_status_and_form_through_the_agent(host: httpx.Client) -> None:
    answer = host.post("/generate", json={"user_prompt": 7})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "user_prompt"


def merged_calls(host: httpx.Client) -> tuple[float, float]:
    """Number of :predict calls that reached the model host, and of their instances."""
    lines = host.get("/metrics").text.splitlines()
    values = dict(
        line.rsplit(" ", 1) for line in lines if line.startswith("qna_predict_batch_size_")
    )
    return float(values["qna_predict_batch_size_count"]), float(
        values["qna_predict_batch_size_sum"]
    )


def test_parallel_predict_calls_are_merged(host: httpx.Client, record: Record) -> None:
    together = Barrier(8)
    calls, instances = merged_calls(host)

    def ask(number: int) -> Any:
        query = {**INDIA, "chat_id": str(number)}
        together.wait(timeout=30)
        return host.post(f"/v1/models/{MODEL}:predict", json={"instances": [query]})

    with ThreadPoolExecutor(8) as pool:
        answers = [body_of(answer)["predictions"] for answer in pool.map(ask, range(8))]
    assert answers == [[{"chat_id": str(n), "response": ANSWERS["India"]}] for n in range(8)]
    calls_after, instances_after = merged_calls(host)
    record(requests=8, calls_at_the_model_host=int(calls_after - calls), namespace=NAMESPACE)
    assert instances_after - instances == 8
    assert calls_after - calls < 8


def test_the_same_load_by_kserves_batcher_and_by_the_engine(
    host: httpx.Client, record: Record
) -> None:
    """Uneven answers, which the batcher holds back until the longest of a batch has ended. What is
    measured stands in docs/performance.md; only that all are answered is asked for here."""
    clients, calls = 16, 96
    lengths = [2, 32, 3, 16, 4]

    def by(door: str, number: int) -> float:
        query = {
            "chat_id": str(number),
            "user_prompt": f"Capital of {list(ANSWERS)[number % len(ANSWERS)]}?",
            "max_tokens": lengths[number % len(lengths)],
        }
        path, body = (
            (f"/v1/models/{MODEL}:predict", {"instances": [query]})
            if door == "predict"
            else ("/generate", query)
        )
        begun = time.perf_counter()
        answer = body_of(host.post(path, json=body))
        seconds = time.perf_counter() - begun
        [said] = answer["predictions"] if door == "predict" else [answer]
        assert said["chat_id"] == str(number)
        assert said["response"]
        return seconds

    rates: dict[str, list[float]] = {"predict": [], "generate": []}
    short: dict[str, list[float]] = {"predict": [], "generate": []}
    for turn in range(6):
        door = ("predict", "generate")[turn % 2]
        begun = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            seconds = list(pool.map(partial(by, door), range(calls)))
        rates[door].append(calls / (time.perf_counter() - begun))
        short[door].append(median(s for n, s in enumerate(seconds) if lengths[n % 5] == 2))
    record(
        requests=6 * calls,
        calls_per_s={door: round(median(found), 1) for door, found in rates.items()},
        shortest_answers_p50_ms={door: round(1e3 * median(s)) for door, s in short.items()},
    )
