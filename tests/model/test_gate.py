"""Who may ask a model host with keys: through which paths, with what, and what nobody learns."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.app import build_app
from model.config import Settings, SettingsError, load_settings
from model.engine import FinishReason
from model.gate import OPEN
from model.host import Host
from model.predictor import Predictor
from tests.model.fakes import FakeEngine, load_scripted, output
from tests.model.hosts import byte_level, running, settings_for

pytestmark = pytest.mark.anyio
KEY, OTHER = "k" * 32, "o" * 40
BODY = {"chat_id": "1", "user_prompt": "hello"}
PREDICT = "/v1/models/fake:predict"
WORD = output(byte_level().encode("hello"), FinishReason.STOP)


def host_with(**values: Any) -> Host:
    settings = settings_for(Path("fake"), model_name="fake", api_key=(KEY, OTHER), **values)
    return Host(settings, FakeEngine([WORD]), load_scripted)


def asking(host: Host, address: str = "10.0.0.9") -> httpx.AsyncClient:
    app = build_app(host, Predictor(host), runs_engine=False)
    wire = httpx.ASGITransport(app, client=(address, 4711))
    return httpx.AsyncClient(transport=wire, base_url="http://host")


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    made = host_with()
    async with running(made):
        yield made


async def test_every_path_but_the_open_ones_asks_for_the_key(host: Host) -> None:
    app = build_app(host, Predictor(host), runs_engine=False)
    async with asking(host) as client:
        for path, methods in app.openapi()["paths"].items():
            concrete = path.replace("{model_name}", "fake").replace("{model_id}", "fake")
            for method in methods:
                answer = await client.request(method.upper(), concrete, json=BODY)
                assert (answer.status_code == 401) is (path not in OPEN), (method, path)
        for path in ("/openapi.json", "/docs", "/docs/assets/swagger-ui.css", "/nowhere"):
            assert (await client.get(path)).status_code == 401, path


async def test_either_key_is_taken_and_nothing_else(host: Host) -> None:
    async with asking(host) as client:
        for key in (KEY, OTHER):
            sent = {"Authorization": f"bearer  {key} "}
            assert (await client.post("/generate", json=BODY, headers=sent)).status_code == 200
        for text in (
            f"Bearer {KEY[:-1]}",
            f"Bearer {KEY}{KEY}",
            f"Bearer {KEY},{OTHER}",
            "Bearer \u00fc".encode(),
        ):
            answer = await client.post("/generate", json=BODY, headers={"Authorization": text})
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        for headers in ({}, {"Authorization": f"Basic {KEY}"}, {"Authorization": "Bearer "}):
            answer = await client.post("/generate", json=BODY, headers=headers)
            assert answer.json()["error"]["code"] == "missing_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert KEY not in answer.text


async def test_kserves_batcher_passes_without_a_key_for_predict_only() -> None:
    """Its calls come from the pod's own loopback and have lost every header."""
    host = host_with(trust_batcher=True)
    body = {"instances": [BODY]}
    async with running(host):
        async with asking(host, "127.0.0.1") as agent:
            assert (await agent.post(PREDICT, json=body)).status_code == 200
            for path in ("/generate", "/v1/models/fake", f"{PREDICT}/x", "/v1/models/a/b:predict"):
                assert (await agent.post(path, json=BODY)).status_code == 401, path
        async with asking(host) as stranger:
            assert (await stranger.post(PREDICT, json=body)).status_code == 401


async def test_without_a_batcher_loopback_is_a_caller_as_any_other(host: Host) -> None:
    async with asking(host, "127.0.0.1") as client:
        assert (await client.post(PREDICT, json={"instances": [BODY]})).status_code == 401


async def test_without_keys_nobody_is_asked() -> None:
    host = Host(settings_for(Path("fake"), model_name="fake"), FakeEngine([WORD]), load_scripted)
    async with running(host), asking(host) as client:
        assert (await client.post("/generate", json=BODY)).status_code == 200


def test_keys_come_from_the_environment_or_a_file_and_are_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY},\n{OTHER}\n")
    for environ in (
        {"MODEL_HOST_API_KEY": f"{KEY}, {OTHER}"},
        {"MODEL_HOST_API_KEY_FILE": str(file)},
    ):
        settings = load_settings([], environ)
        assert settings.api_key == (KEY, OTHER)
        assert KEY not in repr(settings)
    with pytest.raises(SettingsError, match="--api-key"):
        load_settings(["--api-key", KEY], {})


@pytest.mark.parametrize("text", ["short", f"{KEY} ü", "k" * 257, ","])
def test_a_wrong_key_is_named_and_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings([], {"MODEL_HOST_API_KEY": text})
    assert str(caught.value).startswith("MODEL_HOST_API_KEY: must be a key of 32 to 256")
    assert KEY not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"MODEL_HOST_API_KEY_FILE: .* cannot be read"):
        load_settings([], {"MODEL_HOST_API_KEY_FILE": str(tmp_path)})


def test_the_document_says_which_paths_want_a_key() -> None:
    def described(settings: Settings) -> Any:
        host = Host(settings, FakeEngine(), load_scripted)
        return build_app(host, Predictor(host), runs_engine=False).openapi()

    keyed = described(settings_for(Path("fake"), api_key=(KEY,)))
    assert keyed["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in keyed["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) is (path not in OPEN)
            assert ("401" in operation["responses"]) or path in OPEN
    assert "securitySchemes" not in described(settings_for(Path("fake")))["components"]
