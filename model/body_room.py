"""Room in memory for large bodies, over all connections: of those that were read and those that
are coming.

Who finds no room waits in line, with little of its body read, first come, first served; after a
while it is told to come back. Knows no HTTP. Event loop only.
"""

import asyncio
from collections import deque

from model.errors import TooBusy

ROOM_BYTES = 96 * 2**20
"""A good third of what the engine leaves free beside its cache (`SERVER_RESERVE`)."""
SMALL_BYTES = 64 * 1024
"""What takes no room: about as much as a connection holds of anything."""
PATIENCE_S = 10.0
RETRY_AFTER_S = 5.0


class BodyRoom:
    def __init__(self, most_bytes: int, patience_s: float) -> None:
        self._most = most_bytes
        self._patience_s = patience_s
        self._held = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        return self._held

    async def enter(self, size: int) -> int:
        """Take room, after a wait if need be; how much to give back. TooBusy when there is none for
        too long.
        """
        # What is larger than all of it gets all of it, alone, rather than never.
        size = min(size, self._most)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (size, place)
        self._line.append(waiting)
        self._let_in()
        try:
            async with asyncio.timeout(self._patience_s):
                await place
        except BaseException as error:
            if waiting in self._line:
                self._line.remove(waiting)
                self._let_in()
            else:
                # It got room in the moment in which it gave up.
                self.leave(size)
            if isinstance(error, TimeoutError):
                raise TooBusy(
                    f"the bodies of other requests leave no room for one of {size} bytes;"
                    f" {self._most} bytes are held at once",
                    retry_after_s=RETRY_AFTER_S,
                ) from None
            raise
        return size

    def leave(self, size: int) -> None:
        self._held -= size
        self._let_in()

    def _let_in(self) -> None:
        for waiting in list(self._line):
            size, place = waiting
            if place.done():
                continue  # it has given up and is about to leave the line
            if self._held + size > self._most:
                break
            self._line.remove(waiting)
            self._held += size
            place.set_result(None)
