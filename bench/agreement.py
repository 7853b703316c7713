"""Do rounded numbers choose the same tokens? `python -m bench agreement`, teacher-forced.

Transformers answers the demo model's held-out questions in float32. Then each form of the engine
reads question and answer, and after every token of the answer its likeliest next one is compared
with transformers'. Random weights would say nothing.
"""

import argparse
from pathlib import Path
from typing import Any

from model.demo import DEMO_MODEL, cases

LONGEST_ANSWER = 48
NEAR = 0.1
"""A difference of logits below which two tokens are a near-tie."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, default=DEMO_MODEL)
    parser.add_argument("--questions", type=int, default=400)
    parser.set_defaults(do=_main)


def _main(arguments: argparse.Namespace) -> int:
    for form, (same, near, total) in measure(arguments.model, arguments.questions).items():
        print(
            f"{form}: the same token after {same} of {total} ({same / total:.2%});"
            f" {near} of the others are near-ties"
        )
    return 0


def measure(folder: Path, questions: int) -> dict[str, tuple[int, int, int]]:
    """Of each form: tokens that are the same, others that are near-ties, all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from model.demo.evaluate import FORMS

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    reference: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    counts = {form: [0, 0, 0] for form in FORMS}
    with torch.inference_mode():
        logits_of = {form: _reader(folder, form) for form in FORMS}
        for case in cases.make(7, questions):
            prompt = tokenizer.apply_chat_template(
                list(case.messages), add_generation_prompt=True, return_tensors="pt"
            )["input_ids"]
            whole = reference.generate(prompt, max_new_tokens=LONGEST_ANSWER, do_sample=False)
            first = prompt.shape[1] - 1
            right = reference(whole).logits[0, first:-1]
            best = right.argmax(dim=-1)
            for form, read in logits_of.items():
                other = read(whole[0], first).argmax(dim=-1)
                apart = right.gather(1, best[:, None]) - right.gather(1, other[:, None])
                counts[form][0] += int((other == best).sum())
                counts[form][1] += int(((other != best) & (apart[:, 0] < NEAR)).sum())
                counts[form][2] += len(best)
    return {form: (same, near, total) for form, (same, near, total) in counts.items()}


def _reader(folder: Path, form: str) -> Any:
    """From tokens and the first position that counts to the logits behind each but the last."""
    import torch
    from transformers import AutoModelForCausalLM

    from model.engine.attention import IMPLEMENTATION, Span, StepBatch
    from model.engine.backends import form_of
    from model.engine.kv_cache import KVCache
    from model.engine.self_test import probe

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=IMPLEMENTATION
    ).eval()
    shapes = probe(model)
    name, dtype = ("int8", torch.float32) if form == "int8" else ("fast", getattr(torch, form))
    backend = form_of(name, dtype, 16).make(model)
    blocks = -(-model.config.max_position_embeddings // 16)
    attention = backend.attention(KVCache(shapes, blocks, 16, torch.device("cpu")))

    def read(tokens: torch.Tensor, first: int) -> torch.Tensor:
        places = torch.arange(len(tokens))
        ids = torch.arange(-(-len(tokens) // 16))
        step = StepBatch(attention, places, (Span(0, len(tokens), len(tokens), ids),))
        return backend.compute(tokens, places, list(range(first, len(tokens) - 1)), step)

    return read
