"""The form of a key: `qna_<id>_<secret><check>`.

The prefix lets secret scanners find one that leaked, the check tells a mistyped key from a wrong
one without asking the database, the id finds the stored row. The secret has 256 random bits, so
one SHA-256 is enough to store it: a slow hash protects what people think up, which can be guessed;
2^256 cannot be tried however fast the hash is, and a slow one would cost every request
milliseconds.
"""

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass

PREFIX = "qna"
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 12
SECRET_LENGTH = 43
"""62 ** 43 is more than 2 ** 256."""
CHECK_LENGTH = 6
_FORM = re.compile(
    rf"{PREFIX}_([0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{SECRET_LENGTH + CHECK_LENGTH}}}"
)


@dataclass(frozen=True, slots=True)
class Presented:
    """A key as a caller shows it, without the key itself."""

    key_id: str
    digest: bytes


def random_text(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def new_key_id() -> str:
    return random_text(ID_LENGTH)


def new_key(key_id: str) -> str:
    body = f"{PREFIX}_{key_id}_{random_text(SECRET_LENGTH)}"
    return body + _check(body)


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def parse(text: str) -> Presented | None:
    """None for what cannot be a key of this server."""
    found = _FORM.fullmatch(text)
    if found is None or _check(text[:-CHECK_LENGTH]) != text[-CHECK_LENGTH:]:
        return None
    return Presented(found[1], digest_of(text))


def _check(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECK_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
