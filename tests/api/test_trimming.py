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
    assert turns_that_fit(turns(10**9), 5, None, None) == 1


def test_room_is_kept_for_the_answer() -> None:
    past = turns(*[100] * 10)
    assert turns_that_fit(past, 5, 500, 1024) == 5
    assert turns_that_fit(past, 5, 24, 1029) == 10
    assert turns_that_fit(past, 6, 24, 1029) == 9
    assert turns_that_fit(past, 5, None, 1024) == 7
    assert turns_that_fit(past, 2000, None, 1024) == 0


def test_every_message_of_a_chat_counts_and_none_that_is_empty() -> None:
    assert estimated_tokens("q" * 400) == 104
    assert estimated_tokens(None, "", "é" * 200, "q") == 104 + 4


@given(
    st.lists(st.integers(1, 5000), max_size=50),
    st.integers(0, 300),
    st.one_of(st.none(), st.integers(1, 4096)),
    st.integers(1, 8192),
)
def test_what_is_sent_is_the_newest_and_fits(
    tokens: list[int], asked: int, max_tokens: int | None, context: int
) -> None:
    past = turns(*tokens)
    count = turns_that_fit(past, asked, max_tokens, context)
    room = context - (max_tokens or 0) - asked
    used = sum(turn.tokens for turn in past[len(past) - count :])
    assert 0 <= count <= len(past)
    assert used <= room or count == 0
    if count < len(past):
        answer = max_tokens if max_tokens is not None else min(DEFAULT_ANSWER, context // 4)
        one_more = used + past[len(past) - count - 1].tokens
        assert one_more > context - answer - asked


@given(st.integers(1, 10_000))
def test_halving_ends(count: int) -> None:
    tries = 0
    while count:
        count = fewer(count)
        tries += 1
    assert tries <= 14
