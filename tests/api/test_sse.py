"""Events: however the bytes are cut, the same events come out."""

import itertools
import random

import pytest

from api.sse import DONE, MAX_EVENT, EventSplitter, encode, parse

TEXT = "é👩‍🔬\u2028\n data: [DONE]"


def test_what_is_encoded_is_parsed() -> None:
    assert parse(encode({"delta": TEXT})) == ("message", {"delta": TEXT})
    assert parse(b"event: error\n" + encode({"error": 1})) == ("error", {"error": 1})
    assert parse(DONE) == ("message", "[DONE]")
    assert parse(b": keep-alive\n\n") == ("message", None)


def test_every_cut_in_two_gives_the_same_events() -> None:
    data = encode({"delta": TEXT}) + b": keep-alive\n\n" + encode({"delta": "b"}) + DONE
    whole = EventSplitter().feed(data)
    assert len(whole) == 4
    for cut in range(len(data)):
        splitter = EventSplitter()
        assert splitter.feed(data[:cut]) + splitter.feed(data[cut:]) == whole


def test_all_cuts_at_once_give_the_same_events() -> None:
    data = b"data: 1\r\n\r\ndata: 22\n\n"
    for bits in itertools.islice(itertools.product([0, 1], repeat=len(data)), 0, 2**17, 37):
        splitter, events, start = EventSplitter(), [], 0
        for index, cut in enumerate(bits, 1):
            if cut:
                events += splitter.feed(data[start:index])
                start = index
        events += splitter.feed(data[start:])
        assert [parse(event)[1] for event in events] == [1, 22]


def test_an_event_without_end_is_refused() -> None:
    splitter = EventSplitter()
    with pytest.raises(ValueError, match="longer"):
        for _ in range(MAX_EVENT // 65536 + 2):
            splitter.feed(random.randbytes(65536).replace(b"\n", b" "))
