"""The bytes of tokens that are part of a character only, which no text can hold."""

import re
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _byte_level() -> dict[str, int]:
    """The character that GPT-2's byte-level form writes for each byte: printable ones stand for
    themselves, the others for what follows after Latin-1.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    found = {chr(byte): byte for byte in printable}
    return found | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_level()


def token_bytes(tokenizer: Any, token_id: int, text: str) -> bytes:
    """`text` is how the token reads; where that holds what could not be decoded, the vocabulary's
    own spelling is looked at, of byte-level vocabularies and of those with tokens for bytes.
    """
    if "\ufffd" not in text:
        return text.encode()
    spelling = tokenizer.convert_ids_to_tokens(token_id)
    if isinstance(spelling, str):
        if byte := _BYTE.fullmatch(spelling):
            return bytes([int(byte[1], 16)])
        if all(character in _BYTES for character in spelling):
            return bytes(_BYTES[character] for character in spelling)
    return text.encode()
