"""What is brought up beside the engine, from the files of a model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.engine import EngineInfo, FinishReason, ModelLoadError
from model.host import Host
from model.sampling import SamplingDefaults, load_defaults
from tests.model.fakes import INFO, FakeEngine, output
from tests.model.hosts import byte_level, client_of, running, settings_for

ASK = {"user_prompt": "hello"}
END = byte_level().eos_token_id


class Engine(FakeEngine):
    """Of a model whose config names no end token."""

    @property
    def info(self) -> EngineInfo:
        return replace(INFO, eos_token_ids=())


@pytest.mark.anyio
async def test_the_tokenizers_end_token_ends_an_answer(tiny_model: Path) -> None:
    engine = Engine([output([5], finish_reason=FinishReason.STOP)])
    settings = settings_for(tiny_model, model_name="fake")
    async with running(Host(settings, engine)) as host, client_of(host) as client:
        assert (await client.post("/generate", json=ASK)).status_code == 200
        body = {"model": "fake", "prompt": "x", "ignore_eos": True}
        assert (await client.post("/openai/v1/completions", json=body)).status_code == 200
    assert [params.stop_token_ids for params in engine.params] == [(END,), ()]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"do_sample": True, "temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ({"repetition_penalty": [1.1]}, "repetition_penalty must be a number, not [1.1]"),
        ({"do_sample": True, "top_p": True}, "top_p must be a number, not True"),
        ({"do_sample": True, "min_p": float("nan")}, "min_p must be a number, not nan"),
        ({"do_sample": True, "top_k": 2.5}, "top_k must be a whole number, not 2.5"),
        ({"do_sample": "yes"}, "do_sample must be true or false, not 'yes'"),
    ],
)
def test_a_default_that_is_none_is_refused_by_name(tmp_path: Path, values: Any, said: str) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    with pytest.raises(ModelLoadError) as caught:
        load_defaults(str(tmp_path))
    assert caught.value.message == f"generation_config.json: {said}"


def test_defaults_are_read_and_kept_within_their_ranges(tmp_path: Path) -> None:
    assert load_defaults(str(tmp_path)) == SamplingDefaults()
    values = {"do_sample": True, "temperature": 9, "top_p": None, "top_k": 20.0, "min_p": 0.1}
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    assert load_defaults(str(tmp_path)) == SamplingDefaults(temperature=2.0, top_k=20, min_p=0.1)
