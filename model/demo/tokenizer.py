"""Makes the demo model's tokenizer: small byte-level pieces, digits one by one, a chat template."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from model.demo.data import conversations

BOS, SYSTEM, USER, ASSISTANT, END, PAD = (
    "<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>",
)  # fmt: skip
SPECIAL = (PAD, BOS, END, SYSTEM, USER, ASSISTANT)
VOCABULARY = 1536

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('The role must be system, user or assistant.') }}"
    "{% endif %}"
    "{% set text = message['content'] | trim %}"
    # A shouted question reaches the model in lower case; in capitals it would be letters, not
    # words. Lowering must not make a control token's spelling out of text that was none.
    "{% if message['role'] == 'user' and text == text | upper %}"
    "{% set text = text | lower | replace('<|', '< |') %}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + text + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _corpus(seed: int, chats: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(chats):
        chat = conversations.draw(rng, 3)
        # System prompts are never answered, so they earn few pieces of their own.
        if chat.system and rng.random() < 0.1:
            yield chat.system
        for turn in chat.turns:
            yield turn.user
            yield turn.assistant


def train(seed: int, *, chats: int = 20_000) -> Tokenizer:
    """Return a tokenizer whose pieces fit the generated questions."""
    tokenizer = Tokenizer(models.BPE())
    # Digits stand alone, so that every number is read and written place by place.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(seed, chats), trainer)
    return tokenizer


def wrap(tokenizer: Tokenizer, *, longest: int) -> PreTrainedTokenizerFast:
    """Return `tokenizer` in the form that `AutoTokenizer.from_pretrained` loads."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        model_max_length=longest,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
