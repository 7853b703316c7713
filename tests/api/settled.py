"""One call's costs, as a store is asked to settle them."""

import uuid
from collections.abc import Sequence

from api.limits.book import Settlement, Settlements, Verdict


def settled(verdict: Verdict, costs: Sequence[int]) -> Settlements:
    return Settlements(uuid.uuid4().hex, 1, [Settlement(verdict, costs)])
