"""Pieces joined are the whole, whatever the tokens are cut into."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.detokenizer import Detokenizer, StopMatcher
from model.tokenizer import Tokenizer
from tests.model.hosts import byte_level, sentencepiece_like

TEXTS = [
    "Grüße, 世界! 🎉 café naïve",
    "  two  spaces\n\ttabs ",
    "e\u0301 \u200b\u202e \uffff",
    "a" * 50,
]


class Bytes:
    """Each token is one byte: the worst case for whole characters."""

    def decode(self, token_ids: Sequence[int]) -> str:
        return bytes(token_ids).decode("utf-8", errors="replace")


def pieces(decoder: object, token_ids: Sequence[int], sizes: Sequence[int]) -> list[str]:
    detokenizer = Detokenizer(decoder)  # type: ignore[arg-type]
    found, at = [], 0
    for size in [*sizes, len(token_ids)]:
        found.append(detokenizer.add(token_ids[at : at + size]))
        at += size
    return [*found, detokenizer.finish()]


@given(st.text(), st.lists(st.integers(1, 5), max_size=40))
def test_any_text_in_any_cut_is_whole(text: str, sizes: list[int]) -> None:
    assert "".join(pieces(Bytes(), list(text.encode()), sizes)) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), min_size=1))
def test_no_piece_of_a_valid_text_has_a_broken_character(text: str) -> None:
    token_ids = list(text.encode())
    assert not any("\ufffd" in piece for piece in pieces(Bytes(), token_ids, [1] * len(token_ids)))


def test_bytes_that_never_become_a_character_are_shown_at_the_end() -> None:
    assert "".join(pieces(Bytes(), [*b"ok ", 0xE4, 0xBD], [1, 1, 1, 1])) == "ok \ufffd"


def test_broken_bytes_do_not_hold_a_text_back_for_ever() -> None:
    detokenizer = Detokenizer(Bytes())
    assert any(detokenizer.add([0xFF]) for _ in range(100))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("make", [byte_level, sentencepiece_like])
def test_real_tokenizers_one_token_at_a_time(make: object, text: str) -> None:
    tokenizer = Tokenizer(make())  # type: ignore[operator]
    token_ids = tokenizer.encode_text(text, begin=False)
    found = pieces(tokenizer, token_ids, [1] * len(token_ids))
    assert "".join(found) == tokenizer.decode(token_ids)
    assert not any("\ufffd" in piece for piece in found)


def chunks_of(text: str) -> list[str]:
    return [text[at : at + 3] for at in range(0, len(text), 3)]


def matched(stops: Sequence[str], chunks: Sequence[str]) -> tuple[list[str], bool]:
    matcher = StopMatcher(stops)
    found = [matcher.add(chunk) for chunk in chunks]
    return [*found, matcher.finish()], matcher.matched


@given(st.text("abc"), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_text_is_cut_before_its_first_stop_string(text: str, stops: list[str]) -> None:
    found, stopped = matched(stops, chunks_of(text))
    # The earliest end decides: a stream cannot wait for a longer one that began before.
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert ("".join(found), stopped) == (text, False)
        return
    seen = text[: min(ends)]
    assert stopped
    assert "".join(found) == seen[: min(seen.index(stop) for stop in stops if stop in seen)]


def test_nothing_of_a_stop_string_is_released_before_it_is_decided() -> None:
    found, stopped = matched(["\nUser:"], ["Paris.", "\n", "Us", "er", ": next"])
    assert found == ["Paris.", "", "", "", "", ""]
    assert stopped


def test_a_beginning_that_comes_to_nothing_is_text() -> None:
    assert matched(["END"], ["E", "N", "x", "EN"])[0] == ["", "", "ENx", "", "EN"]
