"""The measured model: SmolLM2-135M's shape with random weights, made once, as a folder.

Its tokenizer decodes every id to plain ASCII, but for a few bytes, so that servers which hold back
half a character send one piece for each token. Speed does not depend on what the weights are.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bench.workloads import SPECIAL_IDS, VOCABULARY

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "bench"
NAME = "smollm2-135m-random"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYERS = 30
HIDDEN = 576
HEADS, KV_HEADS, HEAD_SIZE = 9, 3, 64
INTERMEDIATE = 1536
CONTEXT = 8192

SHAPES = (
    # (in, out, how often in a step); the linears that share their input are one product.
    (HIDDEN, (HEADS + 2 * KV_HEADS) * HEAD_SIZE, LAYERS),
    (HEADS * HEAD_SIZE, HIDDEN, LAYERS),
    (HIDDEN, 2 * INTERMEDIATE, LAYERS),
    (INTERMEDIATE, HIDDEN, LAYERS),
)
HEAD = (HIDDEN, VOCABULARY)


def product_flops(computed_tokens: int, output_tokens: int) -> float:
    """Of the matrix products alone: two for each weight and row; logits for new tokens only."""
    layers = sum(2.0 * rows * columns * count for rows, columns, count in SHAPES)
    return layers * computed_tokens + 2.0 * HEAD[0] * HEAD[1] * output_tokens


def weight_bytes(bytes_per_weight: float) -> float:
    """What one token alone has to read: every layer and, as the head, the embedding."""
    layers = sum(rows * columns * count for rows, columns, count in SHAPES)
    return bytes_per_weight * (layers + HEAD[0] * HEAD[1])


def model_folder(cache: Path = CACHE) -> Path:
    folder = cache / NAME
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: an interrupted run must not leave half a model behind.
        making = Path(tempfile.mkdtemp(dir=cache))
        try:
            _write_weights(making)
            _tokenizer().save_pretrained(making)
            making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return folder


def _write_weights(folder: Path) -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_SIZE,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))


def _tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    control += [f"<|reserved_{index}|>" for index in range(SPECIAL_IDS - len(control))]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "\u0120a"]
    words += _words(VOCABULARY - len(control) - len(words))
    vocabulary = {text: index for index, text in enumerate([*control, *words])}
    # One merge, because llama.cpp refuses a vocabulary without any.
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("\u0120", "a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in control])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=control[1], eos_token=control[2]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _words(count: int) -> list[str]:
    """ " aaaa", " aaab", … : each a word of its own with its space before it."""
    words = []
    for index in range(count):
        letters = []
        for _ in range(4):
            index, letter = divmod(index, len(LETTERS))
            letters.append(LETTERS[letter])
        words.append("\u0120" + "".join(reversed(letters)))
    return words
