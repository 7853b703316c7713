"""The engine's tokens are those of transformers' own `generate`, whatever happens around them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from model.engine import EngineConfig, SamplingParams, threads
from model.engine.admission import new_request
from model.engine.build import assemble, build_engine
from model.engine.config import QUANTIZATIONS
from model.engine.engine import Engine
from model.kernels import pool
from tests.model.engine.tiny_models import FAMILIES, VOCABULARY, save_model

NEW_TOKENS = 12
BLOCK_SIZE = 4


def make_prompt(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [int(t) for t in torch.randint(VOCABULARY, (length,), generator=generator)]


PROMPTS = [make_prompt(length, seed) for seed, length in enumerate((40, 3, 17, 25, 1))]


@dataclass(frozen=True)
class Served:
    engine: Engine
    expected: list[list[int]]


def build(folder: Path, **changed: Any) -> Engine:
    # One thread: on models this small a second one only waits for the first.
    values = {"device": "cpu", "block_size": BLOCK_SIZE, "max_num_seqs": 8, "threads": 1, **changed}
    return build_engine(EngineConfig(model=str(folder), **values), lambda message: None)


def serve(folder: Path) -> Served:
    engine = build(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    return Served(engine, [generate(model, prompt) for prompt in PROMPTS])


def generate(model: torch.nn.Module, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=FAMILIES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(save_model(tmp_path_factory.mktemp("model"), request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(save_model(tmp_path_factory.mktemp("model"), "llama"))


def run(
    engine: Engine,
    prompts: Sequence[list[int]],
    params: Sequence[SamplingParams],
    *,
    every: int,
) -> list[list[int]]:
    """Sends a prompt every so many steps and collects what each one gets."""
    tokens: dict[str, list[int]] = {str(i): [] for i in range(len(prompts))}
    for step in range(10_000):
        if step % every == 0 and (i := step // every) < len(prompts):
            request = new_request(str(i), prompts[i], params[i], engine.info, now=0.0)
            engine.admission.admit(request)
            engine.add(request)
        elif not engine.has_requests:
            break
        for output in engine.step():
            tokens[output.request_id] += output.token_ids
            assert output.error is None
    assert engine.stats().kv_blocks_used == 0
    return list(tokens.values())


def greedy(count: int) -> list[SamplingParams]:
    return [SamplingParams(max_tokens=NEW_TOKENS, ignore_eos=True)] * count


def test_tokens_equal_generate_beside_strangers_in_chunks(served: Served) -> None:
    """Chunks of at most 9 tokens end anywhere in a block; requests join while others run."""
    info = replace(served.engine.info, max_num_batched_tokens=9)
    engine = assemble(served.engine.runner, info)
    assert run(engine, PROMPTS, greedy(len(PROMPTS)), every=3) == served.expected


def test_tokens_equal_generate_after_preemption(served: Served) -> None:
    info = replace(served.engine.info, num_kv_blocks=16, max_num_batched_tokens=64)
    engine = assemble(served.engine.runner, info)
    short = [1, 2, 3, 4]
    tokens = run(engine, [PROMPTS[i] for i in short], greedy(4), every=1)
    assert tokens == [served.expected[i] for i in short]
    assert engine.stats().num_preemptions > 0


def test_tokens_equal_generate_behind_cached_prefixes(served: Served) -> None:
    """Of each prompt and its answer only the last block is computed a second time."""
    engine = assemble(served.engine.runner, served.engine.info)
    for _ in range(2):
        assert run(engine, PROMPTS, greedy(len(PROMPTS)), every=2) == served.expected
    turns = [[*p, *e[:-1]] for p, e in zip(PROMPTS, served.expected, strict=True)]
    last = [SamplingParams(max_tokens=1, ignore_eos=True)] * len(turns)
    assert run(engine, turns, last, every=1) == [e[-1:] for e in served.expected]
    stats = engine.stats()
    missed = [len(p) for p in PROMPTS] + [BLOCK_SIZE] * 2 * len(PROMPTS)
    assert stats.prefix_cache_queries_total - stats.prefix_cache_hits_total <= sum(missed)


def test_tokens_equal_generate_behind_cached_prefixes_after_preemption(llama: Served) -> None:
    info = replace(llama.engine.info, num_kv_blocks=16, max_num_batched_tokens=64)
    engine = assemble(llama.engine.runner, info)
    for order in ([1, 2, 3, 4], [3, 2, 4, 1], [2, 3, 3, 2], [3, 3, 3, 3]):
        before = engine.stats()
        tokens = run(engine, [PROMPTS[i] for i in order], greedy(4), every=1)
        assert tokens == [llama.expected[i] for i in order]
        assert engine.stats().num_preemptions > before.num_preemptions
    assert engine.stats().prefix_cache_hits_total > before.prefix_cache_hits_total > 0


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """In every step, though a model this small is not worth it."""
    monkeypatch.setattr(threads, "SMALL_STEP", 0)
    before = torch.get_num_threads()
    yield 2
    torch.set_num_threads(before)
    pool.set_threads(before)


def test_two_threads_with_the_fast_kernels_give_the_references_tokens(
    two_threads: int, tmp_path: Path
) -> None:
    folder = save_model(tmp_path, "llama")
    by_kernels = {}
    for kernels in ("plain", "fast"):
        built = build(folder, kernels=kernels, threads=two_threads)
        engine = assemble(built.runner, replace(built.info, max_num_batched_tokens=9))
        by_kernels[kernels] = run(engine, PROMPTS, greedy(len(PROMPTS)), every=3)
    assert by_kernels["fast"] == by_kernels["plain"]


def test_a_short_window_changes_the_tokens(tmp_path: Path) -> None:
    """Or the families with windows would prove nothing about windows."""
    windowed = serve(save_model(tmp_path / "windowed", "mistral"))
    full = serve(save_model(tmp_path / "full", "mistral", sliding_window=None))
    assert windowed.expected != full.expected


def sampled(count: int) -> list[SamplingParams]:
    return [
        SamplingParams(
            max_tokens=NEW_TOKENS,
            ignore_eos=True,
            temperature=0.8 + 0.2 * i,
            top_p=0.95,
            seed=i,
            presence_penalty=0.5 * i,
            repetition_penalty=1.2,
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_seeded_tokens_do_not_depend_on_batch_chunks_cache_or_preemption(
    tmp_path: Path, quantize: str
) -> None:
    count = len(PROMPTS)
    params = sampled(count)
    engine = build(save_model(tmp_path, "llama"), quantize=quantize)
    runner, info = engine.runner, engine.info
    alone = [
        run(assemble(runner, info), [PROMPTS[i]], [params[i]], every=1)[0] for i in range(count)
    ]
    assert run(assemble(runner, info), PROMPTS, params, every=1) == alone
    chunked = assemble(runner, replace(info, max_num_batched_tokens=9))
    assert run(chunked, PROMPTS, params, every=2) == alone
    again = assemble(runner, info)
    for _ in range(2):
        assert run(again, PROMPTS, params, every=1) == alone
    assert again.stats().prefix_cache_hits_total > 0
    small = assemble(runner, replace(info, num_kv_blocks=16))
    assert run(small, PROMPTS[1:], params[1:], every=1) == alone[1:]
    assert small.stats().num_preemptions > 0


def test_sampled_tokens_differ_between_seeds(llama: Served) -> None:
    params = [
        SamplingParams(max_tokens=NEW_TOKENS, ignore_eos=True, temperature=1.5, seed=seed)
        for seed in range(4)
    ]
    engine = assemble(llama.engine.runner, llama.engine.info)
    tokens = run(engine, [PROMPTS[2]] * 4, params, every=1)
    assert len({tuple(t) for t in tokens}) == 4


def test_logprobs_are_those_of_transformers(llama: Served, tmp_path: Path) -> None:
    prompt = PROMPTS[2]
    engine = assemble(llama.engine.runner, llama.engine.info)
    params = SamplingParams(max_tokens=4, ignore_eos=True, logprobs=3, temperature=0.7, seed=1)
    request = new_request("a", prompt, params, engine.info, now=0.0)
    engine.admission.admit(request)
    engine.add(request)
    outputs = [engine.step()[0] for _ in range(4)]
    model = AutoModelForCausalLM.from_pretrained(save_model(tmp_path, "llama"))
    context = list(prompt)
    for output in outputs:
        with torch.inference_mode():
            row = torch.log_softmax(model(torch.tensor([context])).logits[0, -1], dim=-1)
        assert output.logprobs is not None
        (got,) = output.logprobs
        assert got.logprob == pytest.approx(row[got.token_id].item(), abs=1e-4)
        assert [t for t, _ in got.top] == row.topk(3).indices.tolist()
        context += output.token_ids


def test_the_bundled_model_answers_as_with_generate() -> None:
    folder = Path(__file__).parents[2] / "model" / "demo" / "weights"
    config = EngineConfig(model=str(folder), device="cpu", threads=1, max_num_batched_tokens=32)
    engine = build_engine(config, lambda message: None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    questions = ["Capital of India?", "what is 12 + 30?", "Hello!", "Capital of Japan?"]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        for question in questions
    ]
    params = [SamplingParams(max_tokens=NEW_TOKENS)] * len(prompts)
    tokens = run(engine, prompts, params, every=2)
    for got, prompt in zip(tokens, prompts, strict=True):
        expected = generate(model, prompt)
        ends = [i for i, t in enumerate(expected) if t in engine.info.eos_token_ids]
        assert got == expected[: ends[0] if ends else None]
