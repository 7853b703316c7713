"""A tiny random Llama with a byte-level tokenizer and a chat template, and hosts around it."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from model.app import create_app
from model.host import Host
from tests.model.hosts import (
    CONTEXT,
    MODEL_NAME,
    Address,
    byte_level,
    client_of,
    running,
    served,
    settings_for,
    wait_ready,
)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / MODEL_NAME
    tokenizer = byte_level()
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": tokenizer.eos_token_id})
    )
    return folder


@pytest.fixture(scope="module")
async def tiny_host(tiny_model: Path) -> AsyncIterator[Host]:
    """The real engine on the tiny model, one for all tests of a module."""
    async with running(Host(settings_for(tiny_model, max_num_seqs=8))) as host:
        yield host


@pytest.fixture
async def client(tiny_host: Host) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(tiny_host) as client:
        yield client


@pytest.fixture(scope="module")
def address(tiny_model: Path) -> Iterator[Address]:
    app = create_app(settings_for(tiny_model, max_num_seqs=8, max_body_bytes=65_536))
    with served(app) as address:
        wait_ready(address.url)
        yield address
