"""Makes hosts, servers and tokenizers for the tests of the model host."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from model.app import build_app
from model.config import Settings
from model.engine import EngineError
from model.host import Host
from model.predictor import Predictor

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "the capital of india is new delhi and the capital of france is paris",
    "what is the capital of japan? it is tokyo. hello world, how are you today",
]
MODEL_NAME = "tiny"
CONTEXT = 512


def byte_level(
    specials: list[str] = SPECIALS, template: str | None = CHAT_TEMPLATE
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    backend.train_from_iterator(CORPUS * 5, trainer)
    # Not flagged special, as the markers of several families are.
    backend.add_tokens([AddedToken("<think>", special=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = template
    return tokenizer


def settings_for(model: Path, **values: Any) -> Settings:
    return Settings(**{"model": str(model), "log_level": "error", "port": 0, **values})


@contextlib.asynccontextmanager
async def client_of(host: Host, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client in the same process; the engine is run by whoever made the host."""
    app = build_app(host, Predictor(host), runs_engine=False)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://host", **options) as client:
        yield client


async def until(condition: Callable[[], bool], seconds: float = 200.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(host: Host, *, wait: bool = True) -> AsyncIterator[Host]:
    life = asyncio.create_task(host.run())
    if wait:
        await until(lambda: host.is_ready or life.done())
    try:
        yield host
    finally:
        host.stop()
        with contextlib.suppress(EngineError):
            await life


@dataclass
class Address:
    """A real server on loopback, in a thread."""

    url: str
    port: int
    app: FastAPI
    server: uvicorn.Server

    @property
    def host(self) -> Host:
        host: Host = self.app.state.host
        return host


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[Address]:
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        log_level="critical",
        lifespan="on",
        timeout_graceful_shutdown=5,
        # Longer than any client keeps one: with equal times both may end it at once.
        timeout_keep_alive=75,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    port = sock.getsockname()[1]
    try:
        yield Address(f"http://127.0.0.1:{port}", port, app, server)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_ready(url: str, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        time.sleep(0.02)
    raise AssertionError("the server did not get ready")


def events_of(text: str) -> list[tuple[str, Any]]:
    """Server-sent events as (name, data); comments are left out."""
    events = []
    for block in text.split("\n\n"):
        name, data = "message", None
        for line in block.splitlines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data = value if value == "[DONE]" else json.loads(value)
        if data is not None:
            events.append((name, data))
    return events


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As Llama 2's: a leading space for every text, bytes for what is unknown, a first token."""
    control = ["<unk>", "<s>", "</s>"]
    characters = sorted({*"".join(CORPUS).replace(" ", "\u2581"), "\n"})
    pieces = [*control, *(f"<0x{byte:02X}>" for byte in range(256)), *characters]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(dict.fromkeys(pieces))},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.add_special_tokens(control)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    )
    return tokenizer


def unigram() -> PreTrainedTokenizerFast:
    """A vocabulary that is searched as a whole, control tokens included."""
    control = ["<unk>", "</s>"]
    characters = sorted({chr(code) for code in range(33, 127)} | {"\u2581", "\n", "世", "界", "🎉"})
    vocabulary = [(token, 0.0) for token in control] + [(c, -5.0) for c in characters]
    vocabulary += [("\u2581capital", -3.0), ("\u2581of", -3.0)]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.add_special_tokens(control)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}</s>{{ m.role }}: {{ m.content }}{% endfor %}</s>"
    )
    return tokenizer
