"""The policy of what goes into a prompt."""

from hypothesis import given
from hypothesis import strategies as st

from api.history import PastTurn
from api.trimming import DEFAULT_ANSWER, estimated_tokens, fewer, own_tokens, turns_that_fit


def turns(*tokens: int) -> list[PastTurn]:
    return [PastTurn("q", "a", count) for count in tokens]


def test_shares_add_up_to_what_the_host_counted() -> None:
    sent: list[PastTurn] = []
    for prompt, answer in ((20, 8), (40, 8), (61, 5)):
        sent += turns(own_tokens(prompt, answer, sum(turn.tokens for turn in sent)))
        assert sum(turn.tokens for turn in sent) == prompt + answer


def test_without_a_known_context_everything_goes() -> None:
    assert turns_that_fit(turns(10**9), "q", None, None) == 1


def test_room_is_kept_for_the_answer() -> None:
    past = turns(*[100] * 10)
    assert turns_that_fit(past, "q", 500, 1024) == 5
    assert turns_that_fit(past, "q", 24, 1025) == 10
    assert turns_that_fit(past, "q", None, 1024) == 7
    assert turns_that_fit(past, "q" * 8000, None, 1024) == 0


@given(
    st.lists(st.integers(1, 5000), max_size=50),
    st.text(max_size=300),
    st.one_of(st.none(), st.integers(1, 4096)),
    st.integers(1, 8192),
)
def test_what_is_sent_is_the_newest_and_fits(
    tokens: list[int], question: str, max_tokens: int | None, context: int
) -> None:
    past = turns(*tokens)
    count = turns_that_fit(past, question, max_tokens, context)
    room = context - (max_tokens or 0) - estimated_tokens(question)
    used = sum(turn.tokens for turn in past[len(past) - count :])
    assert 0 <= count <= len(past)
    assert used <= room or count == 0
    if count < len(past):
        answer = max_tokens if max_tokens is not None else min(DEFAULT_ANSWER, context // 4)
        one_more = used + past[len(past) - count - 1].tokens
        assert one_more > context - answer - estimated_tokens(question)


@given(st.integers(1, 10_000))
def test_halving_ends(count: int) -> None:
    tries = 0
    while count:
        count = fewer(count)
        tries += 1
    assert tries <= 14
