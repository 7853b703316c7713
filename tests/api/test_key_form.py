"""The form of keys: what is made is read back, and nothing else is."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.keys.records import Limits
from api.keys.secret import ALPHABET, digest_of, new_key, new_key_id, parse


def test_a_new_key_is_read_back() -> None:
    key_id = new_key_id()
    key = new_key(key_id)
    found = parse(key)
    assert found is not None
    assert (found.key_id, found.digest) == (key_id, hashlib.sha256(key.encode()).digest())
    assert key.startswith("qna_")
    assert key not in repr(found)


def test_keys_are_not_made_twice() -> None:
    assert len({new_key("A" * 12) for _ in range(1000)}) == 1000


@given(st.integers(0, 65), st.sampled_from(ALPHABET))
def test_one_mistyped_character_is_noticed(position: int, character: str) -> None:
    key = new_key("0" * 12)
    wrong = key[:position] + character + key[position + 1 :]
    assert (parse(wrong) is None) == (wrong != key)


@given(st.text(max_size=100))
def test_any_text_is_refused_without_an_error(text: str) -> None:
    assert parse(text) is None


@given(st.text(alphabet=ALPHABET, min_size=49, max_size=49))
def test_a_guess_of_the_right_form_fails_its_check(rest: str) -> None:
    # One in 2 ** 32 would pass, and then meet the digest.
    assert parse(f"qna_{'a' * 12}_{rest}") is None


@pytest.mark.parametrize(
    "change", [str.lower, str.upper, lambda key: key + "\n", lambda key: " " + key]
)
def test_a_changed_key_is_none(change: object) -> None:
    assert callable(change)
    assert parse(change(new_key("Ab1" * 4))) is None


def test_a_digest_says_nothing_of_its_key() -> None:
    assert digest_of("a") != digest_of("b")
    assert len(digest_of("a")) == 32


def test_a_limit_that_is_not_set_is_the_default() -> None:
    default = Limits(1, 2, 3, 4)
    assert Limits(None, 0, 9, None).or_else(default) == Limits(1, 0, 9, 4)
