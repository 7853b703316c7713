"""Of each token the bytes are told, whatever part of a character they are."""

import pytest

from model.token_bytes import token_bytes
from model.tokenizer import Tokenizer
from tests.model.hosts import byte_level, sentencepiece_like

TEXT = "Grüße, 世界! 🎉 café\u0301 \t\n¡¬®ÿ"


@pytest.mark.parametrize("make", [byte_level, sentencepiece_like])
def test_the_bytes_of_a_text_s_tokens_are_its_own(make: object) -> None:
    tokenizer = Tokenizer(make())  # type: ignore[operator]
    ids = tokenizer.encode_text(TEXT, begin=False)
    texts = [tokenizer.token_text(token_id) for token_id in ids]
    assert any("\ufffd" in text for text in texts), "no token is part of a character"
    raw = b"".join(
        token_bytes(tokenizer.original, token_id, text)
        for token_id, text in zip(ids, texts, strict=True)
    )
    assert raw.decode().strip() == TEXT.strip()
