"""The addresses of one model, as the client uses them: state, meters, and names that stand for
several addresses.

A pool outlives reloads of the models file: an address that stays keeps its state, one that leaves
gets no new requests while those that run there finish.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from api import logs
from api.metrics import Metrics
from api.upstream.balancer import Address, Balancer, Policy, State
from api.upstream.models_file import AddressSpec, ModelSpec
from api.upstream.names import Names, is_gone
from api.upstream.room import Room

logger = logging.getLogger("api.upstream")
RESOLVE_S = 2.0
EMPTY_LOOKUPS = 3
"""So often DNS says that nothing has a name before that is believed: a pod that leaves answers on
for a while, and the one that takes its place is not there at once."""


@dataclass(slots=True, eq=False)
class HostAddress(Address):
    """An address with what its requests need and leave."""

    # The name that the host is known by, where the URL holds one of its numeric addresses.
    host_header: str | None = None
    # Of those in flight the questions, which are what hosts are needed for, and what they take.
    questions: int = 0
    tokens: int = 0
    key: str = field(default="", repr=False)
    # What waits for an answer's first byte, to be told when the host does not move any more.
    waiting: set["Waiting"] = field(default_factory=set)
    # Whether one that is out answers again, and whether one that keeps requests waiting lives:
    # either may be asked while the other is.
    probe: asyncio.Task[None] | None = None
    watch: asyncio.Task[None] | None = None
    meters: "Meters | None" = None
    # Whether anybody did when last looked at, be it sick.
    listens: bool = True


@dataclass(frozen=True, slots=True)
class Load:
    """What a model is asked for at this moment, by one API server or by several."""

    requests: int = 0
    held: int = 0
    """Of those, how many wait for a host to be there."""
    tokens: int = 0
    """Of prompts and answers, as they were reserved."""

    def __add__(self, other: "Load") -> "Load":
        return Load(
            self.requests + other.requests, self.held + other.held, self.tokens + other.tokens
        )


class Meters:
    """An address's own of each metric: to look one up takes longer than to count."""

    def __init__(self, metrics: Metrics, model: str, url: str) -> None:
        self.requests = metrics.host_requests.labels(model, url)
        self.in_flight = metrics.host_in_flight.labels(model, url)
        self.out = metrics.host_out.labels(model, url)
        self.first_byte = metrics.host_first_byte.labels(model, url)


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that waits for its answer's first byte."""

    scope: asyncio.Timeout
    frozen: bool = False

    def give_up(self) -> None:
        self.frozen = True
        self.scope.reschedule(0)


class Pool:
    """What the registry knows of one model."""

    def __init__(
        self, spec: ModelSpec, metrics: Metrics, policy: Policy, names: Names, room: Room
    ) -> None:
        self.spec = spec
        self._metrics = metrics
        self._names = names
        self._draw = random.Random()
        self._balancer = Balancer(policy)
        self._resolved: dict[str, list[str]] = {}
        self._empty: Counter[str] = Counter()
        self.room = room
        # Looks for a host while somebody waits in the room.
        self.lookout: asyncio.Task[None] | None = None
        self.update(spec)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def served_name(self) -> str:
        return self.spec.served_name or self.spec.name

    @property
    def addresses(self) -> list[HostAddress]:
        return [one for one in self._balancer.addresses if isinstance(one, HostAddress)]

    @property
    def own_addresses(self) -> list[HostAddress]:
        """Without those that only stand by for others that are there."""
        return [one for one in self.addresses if not one.standby] or self.addresses

    def update(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._balancer.may_empty = spec.fallback is not None
        self.room.follow(spec.hold_s)
        self._rebuild()

    def close(self) -> None:
        self.room.end()
        self._keep([])

    # ---- choosing -------------------------------------------------------------------------------

    def choose(
        self, key: str | None, tried: Collection[HostAddress], *, healthy_only: bool = False
    ) -> HostAddress | None:
        chosen = self._balancer.choose(key, tried, self._draw)
        if chosen is None and not healthy_only and not self._balancer.may_empty:
            chosen = self._balancer.last_resort(tried)
        assert chosen is None or isinstance(chosen, HostAddress)
        return chosen

    def has_choice(self, left: HostAddress) -> bool:
        return self._balancer.has_choice(left)

    def load(self) -> Load:
        room, addresses = self.room, self.addresses
        questions = sum(address.questions for address in addresses)
        tokens = sum(address.tokens for address in addresses)
        return Load(questions + room.requests, room.requests, tokens + room.tokens)

    # ---- what became of a request ---------------------------------------------------------------

    def began(self, address: HostAddress, tokens: int | None) -> None:
        """`tokens` that a question takes; None where no answer has to be made."""
        address.in_flight += 1
        self._count(address, 1, tokens)
        if self._has(address):
            self._meters(address).requests.inc()
        self._show(address)

    def answer_began(self, address: HostAddress, seconds: float) -> None:
        if self._has(address):
            self._meters(address).first_byte.observe(seconds)
        self._balancer.answer_began(address, time.monotonic())

    def ended(self, address: HostAddress, tokens: int | None, *, whole: bool) -> None:
        address.in_flight -= 1
        self._count(address, -1, tokens)
        if whole:
            self._balancer.answer_ended(address)
        self._show(address)

    @staticmethod
    def _count(address: HostAddress, sign: int, tokens: int | None) -> None:
        if tokens is not None:
            address.questions += sign
            address.tokens += sign * tokens

    def failed(self, address: HostAddress, reason: str, *, surely: bool = False) -> None:
        if not self._has(address):
            return
        self._metrics.host_failures.labels(self.name, address.url, reason).inc()
        if self._balancer.failed(address, time.monotonic(), surely=surely):
            self._out(address, reason)

    # ---- coming back ----------------------------------------------------------------------------

    def due(self) -> list[HostAddress]:
        due = self._balancer.due(time.monotonic())
        return [address for address in due if isinstance(address, HostAddress)]

    def probed(self, address: HostAddress, passed: bool) -> None:
        self._balancer.probed(address, passed, time.monotonic())
        if passed:
            self._tell(logging.INFO, "address back on trial", address)
        self._show(address)

    def _out(self, address: HostAddress, reason: str) -> None:
        seconds = round(address.out_until - time.monotonic(), 1)
        self._metrics.host_ejections.labels(self.name, address.url).inc()
        self._tell(logging.WARNING, "address out", address, reason=reason, seconds=seconds)
        self._show(address)

    def _tell(self, level: int, message: str, address: HostAddress, **values: object) -> None:
        logs.event(logger, level, message, model=self.name, address=address.url, **values)

    # ---- the list of addresses ------------------------------------------------------------------

    async def resolve(self) -> None:
        """Look up the names that stand for several addresses; what is known stays when it fails."""
        await self._resolve([one.url for one in self.spec.addresses if one.resolve])

    async def expect(self, spec: ModelSpec) -> None:
        """Look up the names that are new in what the model is about to be."""
        urls = (one.url for one in spec.addresses if one.resolve)
        await self._resolve([url for url in urls if url not in self._resolved])

    async def _resolve(self, wanted: list[str]) -> None:
        if not wanted:
            return
        found = await asyncio.gather(*(self._look_up(url) for url in wanted))
        for url, urls in zip(wanted, found, strict=True):
            if not urls:
                self._metrics.resolve_failures.labels(self.name).inc()
            self._empty[url] = self._empty[url] + 1 if urls == [] else 0
            if urls or self._empty[url] >= EMPTY_LOOKUPS:
                self._resolved[url] = urls or []
        self._rebuild()

    async def _look_up(self, url: str) -> list[str] | None:
        """The URL once for each address that its name has; None when that cannot be found out."""
        try:
            return sorted(await self._names.urls(url, RESOLVE_S))
        except OSError as error:  # TimeoutError is one
            return [] if is_gone(error) else None

    def _rebuild(self) -> None:
        self._keep([address for spec in self.spec.addresses for address in self._expand(spec)])

    def _expand(self, spec: AddressSpec) -> Iterable[HostAddress]:
        if not spec.resolve:
            yield HostAddress(spec.url, spec.weight, key=spec.key)
            return
        urls = self._resolved.get(spec.url, [])
        for url in urls:
            yield HostAddress(
                url,
                spec.weight / len(urls),
                host_header=urlsplit(spec.url).netloc,
                key=spec.key,
            )
        if spec.standby:
            yield HostAddress(spec.standby, 0.0, key=spec.key, standby=True)

    def _keep(self, wanted: list[HostAddress]) -> None:
        known = {address.url: address for address in self.addresses}
        kept = []
        for new in wanted:
            address = known.pop(new.url, None) or new
            address.weight, address.host_header = new.weight, new.host_header
            address.key, address.standby = new.key, new.standby
            kept.append(address)
            self._show(address)
        self._balancer.addresses[:] = kept
        for url in known:
            self._metrics.forget_address(self.name, url)

    def _has(self, address: HostAddress) -> bool:
        """It has not left the list; the meters of one that did are gone."""
        return address in self._balancer.addresses

    def _show(self, address: HostAddress) -> None:
        if self._has(address):
            meters = self._meters(address)
            meters.in_flight.set(address.in_flight)
            meters.out.set(address.state is State.OUT)

    def _meters(self, address: HostAddress) -> Meters:
        if address.meters is None:
            address.meters = Meters(self._metrics, self.name, address.url)
        return address.meters
