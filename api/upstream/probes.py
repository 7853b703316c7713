"""Looks after the addresses beside the requests: whether one that is out answers again, whether a
model without a host has one now, whether a host that keeps requests waiting moves at all, what a
name stands for now, and whether the models file has changed.

A request that waits is no sign of a sick host, for answers take as long as they take. So a host
that keeps one waiting is asked whether it lives; one that misses that twice is frozen, and what
waits there goes elsewhere. Where there is no elsewhere, nobody is asked.
"""

import asyncio
import contextvars
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from api.loops import repeat
from api.upstream.pool import HostAddress, Pool, Waiting
from api.upstream.registry import Registry
from api.upstream.transport import TRANSPORT_ERRORS, parsed, says_nobody_is_there

logger = logging.getLogger("api.upstream")
SUSPECT_AFTER_S = 2.0
PROBE_TIMEOUT_S = 1.5
MISSES = 2
LOOK_EVERY_S = 0.25
RELOAD_EVERY_S = 1.0
RESOLVE_EVERY_S = 5.0
_FAILED = "looking after the model hosts failed"


class Probes:
    def __init__(self, wire: httpx.AsyncBaseTransport, models: Registry) -> None:
        self._wire = wire
        self._models = models
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self._resolve()
        for work, every_s in (
            (self._look, LOOK_EVERY_S),
            (self._models.reload_when_changed, RELOAD_EVERY_S),
            (self._resolve, RESOLVE_EVERY_S),
        ):
            self._keep(asyncio.create_task(repeat(work, every_s, logger, _FAILED)))

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- hosts that are out, names, the file ----------------------------------------------------

    async def _look(self) -> None:
        for pool in self._models.pools:
            for address in pool.due():
                if address.probe is None or address.probe.done():
                    address.probe = asyncio.create_task(self._try_again(pool, address))
                    self._keep(address.probe)

    async def _try_again(self, pool: Pool, address: HostAddress) -> None:
        pool.probed(address, await self.answers(address, "/readyz"))

    async def _resolve(self) -> None:
        await asyncio.gather(*(pool.resolve() for pool in self._models.pools))

    # ---- models without a host ------------------------------------------------------------------

    def look_out(self, pool: Pool) -> None:
        """Look for a host of a model that has none, for as long as somebody wants it."""
        if pool.lookout is None or pool.lookout.done():
            pool.lookout = asyncio.create_task(
                self._until_somebody_is_there(pool), context=contextvars.Context()
            )
            self._keep(pool.lookout)

    async def _until_somebody_is_there(self, pool: Pool) -> None:
        while pool.room.is_wanted:
            await pool.resolve()
            looks = (self.answers(address, "/readyz") for address in pool.addresses)
            if any(await asyncio.gather(*looks)):
                pool.room.host_came()
                return
            await asyncio.sleep(LOOK_EVERY_S)
        pool.room.close()

    # ---- hosts that keep a request waiting ------------------------------------------------------

    @contextmanager
    def watched(self, pool: Pool, address: HostAddress, waiting: Waiting) -> Iterator[None]:
        """While this is open, the request waits for its answer's first byte."""
        if len(pool.addresses) == 1 and not pool.has_choice(address):
            yield
            return
        timer = asyncio.get_running_loop().call_later(
            SUSPECT_AFTER_S, self._suspect, pool, address, waiting
        )
        try:
            yield
        finally:
            timer.cancel()
            address.waiting.discard(waiting)

    def _suspect(self, pool: Pool, address: HostAddress, waiting: Waiting) -> None:
        address.waiting.add(waiting)
        if address.watch is None or address.watch.done():
            address.watch = asyncio.create_task(
                self._ask_whether_alive(pool, address), context=contextvars.Context()
            )
            self._keep(address.watch)

    async def _ask_whether_alive(self, pool: Pool, address: HostAddress) -> None:
        misses = 0
        while address.waiting:
            # An address to go to may come while they wait.
            if not pool.has_choice(address) or await self.answers(address, "/livez"):
                misses = 0
                await asyncio.sleep(SUSPECT_AFTER_S)
                continue
            misses += 1
            if misses == MISSES:
                for waiting in address.waiting:
                    waiting.give_up()
                return

    async def readiness(self) -> dict[Pool, list[bool]]:
        """Which addresses of each model answer `/readyz` now."""
        pools = self._models.pools
        looks = [
            asyncio.gather(*(self.answers(address, "/readyz") for address in pool.own_addresses))
            for pool in pools
        ]
        return dict(zip(pools, await asyncio.gather(*looks), strict=True))

    async def answers(self, address: HostAddress, path: str) -> bool:
        """Whether it answers by HTTP, and not that it cannot. A host of another make may have no
        such path; that it says so is an answer.
        """
        headers = {"X-Request-Id": uuid.uuid4().hex, "Connection": "close"}
        if address.host_header is not None:
            headers["Host"] = address.host_header
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                request = httpx.Request("GET", parsed(address.url + path), headers=headers)
                response = await self._wire.handle_async_request(request)
                await response.aclose()
        except (*TRANSPORT_ERRORS, TimeoutError) as error:
            address.listens = not says_nobody_is_there(error)
            return False
        address.listens = True
        return response.status_code < 500
