"""Trains the demo model: `python -m model.demo.train`."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from model.demo import DEMO_MODEL, batches
from model.demo import tokenizer as tok
from model.demo.muon import Muon

LONGEST = 1024
BATCH_TOKENS = 4096
DECAY_SHARE = 0.6
AVERAGE_OVER = 150
"""About how many of the last steps the saved weights are averaged over."""


def make_config(tokenizer: Tokenizer) -> LlamaConfig:
    """Return the model's shape: 3.8 million parameters in four layers."""
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(tok.BOS),
        eos_token_id=tokenizer.token_to_id(tok.END),
        pad_token_id=tokenizer.token_to_id(tok.PAD),
    )


def make_optimizers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices and AdamW for embeddings and norms."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    outer = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = Muon(inner, lr=rate)
    adam = torch.optim.AdamW(outer, lr=rate * 0.6, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adam]


def rate_at(done: float) -> float:
    """Return the share of the full learning rate after the share `done` of the training."""
    if done < 0.01:
        return max(done / 0.01, 0.01)
    return min(1.0, max(0.0, (1.0 - done) / DECAY_SHARE))


def save(
    config: LlamaConfig, weights: dict[str, torch.Tensor], tokenizer: Tokenizer, folder: Path
) -> None:
    """Write weights (bfloat16), config, tokenizer and generation settings to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = LlamaForCausalLM(config)
    stored.load_state_dict(weights)
    stored = stored.to(torch.bfloat16)
    stored.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        max_new_tokens=64,
    )
    stored.save_pretrained(folder)
    tok.wrap(tokenizer, longest=LONGEST).save_pretrained(folder)


@contextmanager
def _precision(dtype: str) -> Iterator[None]:
    fast = dtype == "bf16" or (dtype == "auto" and torch.cpu._is_avx512_bf16_supported())
    with torch.autocast("cpu", torch.bfloat16, enabled=fast):
        yield


def _loss(
    model: LlamaForCausalLM, body: Callable[..., torch.Tensor], batch: batches.Batch
) -> torch.Tensor:
    ids = torch.from_numpy(batch.ids)
    labels = torch.from_numpy(batch.labels)[:, 1:]
    wanted = labels != batches.IGNORED
    hidden = body(ids)[:, :-1][wanted]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden).float(), labels[wanted])


def train(args: argparse.Namespace) -> None:
    """Train from the start or from the checkpoint in `args.scratch`, and write the model."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.scratch.mkdir(parents=True, exist_ok=True)
    checkpoint = args.scratch / "checkpoint.pt"
    source = args.scratch / "tokenizer.json"
    if args.start and not checkpoint.exists():
        shutil.copy(args.start / "tokenizer.json", source)
    elif args.start:
        raise SystemExit(
            f"{checkpoint} is of an earlier run: name another --scratch, or no --start"
        )
    if not source.exists():
        print("making the tokenizer", flush=True)
        tok.train(args.seed).save(str(source))
    tokenizer = Tokenizer.from_file(str(source))
    if args.start:
        model = LlamaForCausalLM.from_pretrained(args.start, dtype=torch.float32)
    else:
        model = LlamaForCausalLM(make_config(tokenizer))
    count = sum(p.numel() for p in model.parameters())
    print(f"{count / 1e6:.1f} M parameters, {args.tokens / 1e6:.1f} million tokens", flush=True)
    optimizers = make_optimizers(model, args.rate)
    full_rates = [g["lr"] for o in optimizers for g in o.param_groups]
    seen, chunk, step = 0, 0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        seen, chunk, step = state["seen"], state["chunk"], state["step"]
        print(f"going on after {seen / 1e6:.1f} million tokens", flush=True)

    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    if checkpoint.exists() and "average" in state:
        average = state["average"]

    def forward(ids: torch.Tensor) -> torch.Tensor:
        with _precision(args.dtype):
            hidden: torch.Tensor = model.model(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    def keep() -> None:
        state = {
            "model": model.state_dict(),
            "average": average,
            "optimizers": [o.state_dict() for o in optimizers],
            "seen": seen, "chunk": chunk, "step": step, "done": done(),
        }  # fmt: skip
        torch.save(state, checkpoint.with_suffix(".tmp"))
        shutil.move(checkpoint.with_suffix(".tmp"), checkpoint)
        save(model.config, average, tokenizer, args.scratch / "weights")

    data = batches.stream(
        tokenizer, seed=args.seed, first=chunk, size=BATCH_TOKENS, longest=LONGEST
    )
    started, before, losses = time.monotonic(), seen, 0.0
    at_start = state["done"] if checkpoint.exists() else 0.0

    def done() -> float:
        """Return the share that is behind us, of the tokens or of the time: the larger."""
        waited = (time.monotonic() - started) / 60 / args.minutes
        return float(max(seen / args.tokens, at_start + (1 - at_start) * waited))

    kept_at = time.monotonic()
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    while done() < 1 and not stopped:
        batch = next(data)
        share = rate_at(done())
        groups = [g for o in optimizers for g in o.param_groups]
        for group, rate in zip(groups, full_rates, strict=True):
            group["lr"] = rate * share
        loss = _loss(model, forward, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # The learning rate falls at the end, so the average must look back less and less.
        weight = 1 / (1 + AVERAGE_OVER * share)
        for name, value in model.state_dict().items():
            average[name].lerp_(value, weight)
        seen, chunk, step = seen + batch.ids.size, batch.chunk, step + 1
        losses += loss.item()
        if step % args.report == 0:
            speed = (seen - before) / (time.monotonic() - started)
            print(
                json.dumps({
                    "step": step, "tokens": seen, "loss": round(losses / args.report, 4),
                    "rate": round(share, 3), "tokens_per_s": round(speed),
                    "minutes_left": round(
                        min((args.tokens - seen) / speed / 60,
                            args.minutes - (time.monotonic() - started) / 60), 1),
                }),
                flush=True,
            )  # fmt: skip
            losses = 0.0
        if time.monotonic() - kept_at > args.keep_every:
            kept_at = time.monotonic()
            keep()
    keep()
    if stopped:
        print("stopped; the same command goes on from here", flush=True)
        return
    if args.out:
        save(model.config, average, tokenizer, args.out)
        print(f"wrote {args.out} after {(time.monotonic() - started) / 60:.1f} minutes", flush=True)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DEMO_MODEL, help="where the model goes")
    parser.add_argument("--scratch", type=Path, default=Path(".cache/demo-model"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=float, default=20e6, help="how long to train")
    parser.add_argument("--minutes", type=float, default=57.0, help="and no longer than that")
    parser.add_argument("--start", type=Path, help="go on from this model, not from nothing")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--report", type=int, default=20, help="steps between two lines")
    parser.add_argument("--keep-every", type=float, default=120.0, help="seconds between saves")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
