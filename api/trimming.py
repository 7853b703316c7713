"""How much of a chat goes to the model: policy only, no I/O.

Each complete turn is stored with `own_tokens`, its share of what the model host counted: the
prompt and the answer of that turn, less the shares of the turns that were sent along. The shares
of the turns that are sent therefore add up to what the host will count, but for the new question,
which is estimated low: a wrong guess costs one refusal by the host, which is answered by sending
fewer turns.
"""

from collections.abc import Sequence

from api.history import PastTurn

BYTES_PER_TOKEN = 4
DEFAULT_ANSWER = 512
# What a chat template puts around a message.
_PER_MESSAGE = 4


def estimated_tokens(*texts: str | None) -> int:
    """Of a chat of so many messages."""
    given = [text for text in texts if text]
    return sum(len(text.encode()) // BYTES_PER_TOKEN + _PER_MESSAGE for text in given)


def own_tokens(prompt_tokens: int, completion_tokens: int, past_tokens: int) -> int:
    """Of a turn, of which the host counts what was sent before it too."""
    return max(1, prompt_tokens + completion_tokens - past_tokens)


def turns_that_fit(
    past: Sequence[PastTurn], asked: int, max_tokens: int | None, context: int | None
) -> int:
    """How many of the newest turns fit beside the question, of so many tokens, and its answer."""
    if context is None:
        return len(past)
    answer = max_tokens if max_tokens is not None else min(DEFAULT_ANSWER, context // 4)
    left = context - answer - asked
    fitting = 0
    for turn in reversed(past):
        left -= turn.tokens
        if left < 0:
            break
        fitting += 1
    return fitting


def fewer(count: int) -> int:
    """What to try after the host refused `count` turns: the newest half."""
    return count // 2
