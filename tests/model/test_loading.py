"""What is brought up beside the engine, from the files of a model."""

from dataclasses import replace
from pathlib import Path

import pytest

from model.engine import EngineInfo, FinishReason
from model.host import Host
from tests.model.fakes import INFO, FakeEngine, output
from tests.model.hosts import byte_level, client_of, running, settings_for

pytestmark = pytest.mark.anyio
ASK = {"user_prompt": "hello"}
END = byte_level().eos_token_id


class Engine(FakeEngine):
    """Of a model whose config names no end token."""

    @property
    def info(self) -> EngineInfo:
        return replace(INFO, eos_token_ids=())


async def test_the_tokenizers_end_token_ends_an_answer(tiny_model: Path) -> None:
    engine = Engine([output([5], finish_reason=FinishReason.STOP)])
    settings = settings_for(tiny_model, model_name="fake")
    async with running(Host(settings, engine)) as host, client_of(host) as client:
        assert (await client.post("/generate", json=ASK)).status_code == 200
        body = {"model": "fake", "prompt": "x", "ignore_eos": True}
        assert (await client.post("/openai/v1/completions", json=body)).status_code == 200
    assert [params.stop_token_ids for params in engine.params] == [(END,), ()]
