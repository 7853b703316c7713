"""The requests that wait: each tenant's in order of arrival, tenants by what they have been given.

Of the tenants that wait, the one whose requests have been given the fewest tokens so far is next.
Whoever comes anew, or again, starts level with the one that is worst off: being away earns nothing.
(Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024.) A tenant is who the sender
of a request says, and nothing of its body: callers would name a new one each time. Preempted
requests go before all others. Knows no torch. Engine thread only.
"""

from collections import deque
from collections.abc import Iterator
from itertools import chain

from model.engine.request import Request

Tenant = str | None


class FairQueue:
    def __init__(self) -> None:
        self._preempted: deque[Request] = deque()
        self._waiting: dict[Tenant, deque[Request]] = {}
        """Of tenants that wait, in the order in which they began to."""
        self._given: dict[Tenant, int] = {}
        """Tokens, of tenants that wait or run."""
        self._level = 0
        """What the one that was last next had been given."""

    def __len__(self) -> int:
        return len(self._preempted) + sum(map(len, self._waiting.values()))

    def __bool__(self) -> bool:
        return bool(self._preempted or self._waiting)

    def __iter__(self) -> Iterator[Request]:
        return chain(self._preempted, *self._waiting.values())

    def append(self, request: Request) -> None:
        tenant = request.tenant
        if tenant not in self._waiting:
            worst = min((self._given[t] for t in self._waiting), default=self._level)
            self._given[tenant] = max(self._given.get(tenant, 0), worst)
            self._waiting[tenant] = deque()
        self._waiting[tenant].append(request)

    def put_back(self, request: Request) -> None:
        """One that was preempted."""
        self._preempted.appendleft(request)

    def next(self) -> Request:
        """The one that pop takes out. There must be one."""
        if self._preempted:
            return self._preempted[0]
        return self._waiting[self._next_tenant()][0]

    def pop(self) -> Request:
        if self._preempted:
            return self._preempted.popleft()
        tenant = self._next_tenant()
        self._level = self._given[tenant]
        request = self._waiting[tenant].popleft()
        self._drop_if_empty(tenant)
        return request

    def remove(self, request: Request) -> None:
        if request in self._preempted:
            self._preempted.remove(request)
        else:
            self._waiting[request.tenant].remove(request)
            self._drop_if_empty(request.tenant)

    def give(self, request: Request, tokens: int) -> None:
        """A running request is computed further."""
        self._given[request.tenant] += tokens

    def keep_only(self, running: Iterator[Request]) -> None:
        """Forget the tenants that neither wait nor run."""
        present = {request.tenant for request in running}.union(self._waiting)
        present.update(request.tenant for request in self._preempted)
        for tenant in [t for t in self._given if t not in present]:
            del self._given[tenant]

    def _next_tenant(self) -> Tenant:
        return min(self._waiting, key=self._given.__getitem__)

    def _drop_if_empty(self, tenant: Tenant) -> None:
        if not self._waiting[tenant]:
            del self._waiting[tenant]
