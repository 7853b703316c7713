"""Which of a model's addresses gets a request, and which get none for a while. Pure: no network,
no clock, no metrics; whoever calls tells the time.

    IN ──failures in a row──▶ OUT ──time is up, a probe passed──▶ TRIAL ──an answer began──▶ IN
                               ▲                                    │
                               └────────────── a failure ───────────┘

An address that is OUT gets no request; each further time it is out for twice as long. One that is
on TRIAL gets one request at a time. The last address that is IN never goes OUT, for a request had
better meet a sick host than none; unless an address is at hand that stands by, or another model
stands in (`may_empty`).

A request with a key goes to the key's favourite, by rendezvous hashing: the same key finds the
same address as long as it is there, and a new address takes over its share only. The favourite is
left when it has more than its bound in flight (`Policy.bound` times the mean, by weight). Weights
split the keys, so a canary of weight 5 beside 95 holds five chats in a hundred.
"""

import hashlib
import math
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

LOG_2_64 = 64 * math.log(2)


class State(StrEnum):
    IN = "in"
    TRIAL = "trial"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class Policy:
    failures: int = 3
    base_s: float = 1.0
    max_s: float = 30.0
    bound: float = 1.25


@dataclass(slots=True, eq=False)
class Address:
    url: str
    weight: float = 1.0
    in_flight: int = 0
    state: State = State.IN
    failures: int = 0
    ejections: int = 0
    out_until: float = 0.0
    back_since: float = 0.0
    standby: bool = False
    """Of no weight, and another way to what the others lead to: with it at hand, all may go out."""


class Balancer:
    def __init__(self, policy: Policy, addresses: Iterable[Address] = ()) -> None:
        self.policy = policy
        self.addresses = list(addresses)
        self.may_empty = False

    # ---- choosing -------------------------------------------------------------------------------

    def choose(
        self, key: str | None, tried: Collection[Address], draw: random.Random
    ) -> Address | None:
        """The address for a request; None when each that takes requests has been tried."""
        usable = [address for address in self.addresses if _takes(address) and address not in tried]
        if len(usable) < 2:
            return usable[0] if usable else None
        if key is None and len({address.weight for address in usable}) > 1:
            # Least in flight would never send a small weight anything while there is little to do.
            key = str(draw.random())
        if key is not None:
            favourite = max(usable, key=lambda address: _score(key, address))
            if favourite.in_flight < self._bound(favourite, usable):
                return favourite
        return min(usable, key=lambda address: (_load(address), draw.random()))

    def last_resort(self, tried: Collection[Address]) -> Address | None:
        """Any address that has not been tried, the one that would come back next first."""
        left = [address for address in self.addresses if address not in tried]
        return min(left, key=lambda address: address.out_until, default=None)

    def has_choice(self, left: Address) -> bool:
        """A request could still go somewhere, were the address it is at gone; it may be already."""
        others = (address for address in self.addresses if address is not left)
        return any(map(_takes, others)) or self.may_empty

    def _bound(self, address: Address, usable: list[Address]) -> int:
        flying = sum(one.in_flight for one in usable) + 1
        share = address.weight / sum(one.weight for one in usable)
        return math.ceil(self.policy.bound * flying * share)

    # ---- learning -------------------------------------------------------------------------------

    def answer_began(self, address: Address, now: float) -> None:
        """The end of a trial, but one more failure is one too many until an answer is whole."""
        if address.state is State.TRIAL:
            address.state = State.IN
            address.failures = self.policy.failures - 1
            address.back_since = now

    def answer_ended(self, address: Address) -> None:
        address.failures = 0

    def failed(self, address: Address, now: float, *, surely: bool = False) -> bool:
        """Count a failure; whether the address is out now. `surely`: one is enough, for the host
        said itself that it goes, or does not move at all.
        """
        address.failures += 1
        enough = surely or address.failures >= self.policy.failures
        if address.state is State.OUT or not (enough or address.state is State.TRIAL):
            return False
        others = any(
            one is not address and one.state is State.IN and (one.weight or one.standby)
            for one in self.addresses
        )
        if not others and not self.may_empty and address.state is State.IN:
            return False
        self._eject(address, now)
        return True

    def due(self, now: float) -> list[Address]:
        """The addresses that have been out for long enough to be probed."""
        return [one for one in self.addresses if one.state is State.OUT and one.out_until <= now]

    def probed(self, address: Address, passed: bool, now: float) -> None:
        if address.state is not State.OUT:
            return
        if passed:
            address.state = State.TRIAL
            address.back_since = now
        else:
            self._eject(address, now)

    def _eject(self, address: Address, now: float) -> None:
        policy = self.policy
        if address.state is State.IN and now - address.back_since > policy.max_s:
            address.ejections = 0
        address.state = State.OUT
        address.failures = 0
        address.out_until = now + min(policy.max_s, policy.base_s * 2.0**address.ejections)
        # 2.0**n must not overflow; the longest time is reached long before.
        address.ejections = min(address.ejections + 1, 32)


def _takes(address: Address) -> bool:
    if address.weight <= 0 or address.state is State.OUT:
        return False
    return address.state is State.IN or address.in_flight == 0


def _load(address: Address) -> float:
    return (address.in_flight + 1) / address.weight


def _score(key: str, address: Address) -> float:
    """Rendezvous hashing by weight: the greatest score is an address's with a probability of its
    share of the weights.
    """
    digest = hashlib.blake2b(f"{key}\0{address.url}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest)
    return address.weight / (LOG_2_64 - math.log(number + 1) + 1e-18)
